"""A simulated site: seeded, without seams, with weather, colour and events at the levels that were asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from train.soundscape import (
    FADE_S,
    RMS,
    SEGMENT_S,
    Event,
    Site,
    Weather,
    colour_filter,
    listen,
    rain_loop,
    rumble,
    trimmed,
    unit,
    weather_loops,
    wind_loop,
)

RATE_HZ = 8_000
CALM = Weather(wind_db=-200.0, rain_db=-200.0, spread_db=0.0)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE_HZ)).astype(np.float32)


def tone(hz: float, seconds: float) -> np.ndarray:
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return np.sin(2 * np.pi * hz * t).astype(np.float32)


def site(*weather: tuple[float, Weather], **options: object) -> Site:
    recordings = (noise(13, 1), noise(4, 2))
    return Site(recordings, RATE_HZ, weather=weather or ((0.0, CALM),), **options)  # type: ignore[arg-type]


def heard(where: Site, seconds: float, *events: Event, seed: int = 0) -> np.ndarray:
    return np.concatenate(list(listen(where, seconds, events, seed)))


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.square(samples, dtype=np.float64).mean()))


def level(samples: np.ndarray) -> float:
    """Root mean square above 300 Hz."""
    return rms(samples) / rms(unit(samples, RATE_HZ))


def db(ratio: float) -> float:
    return 20 * float(np.log10(ratio))


def test_a_deployment_follows_from_its_seed() -> None:
    windy = site((0.0, Weather()))
    first, again, other = heard(windy, 20), heard(windy, 20), heard(windy, 20, seed=1)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_sound_comes_in_whole_segments_within_full_scale() -> None:
    blocks = list(listen(site((0.0, Weather(wind_db=40.0))), 21))
    assert [len(block) for block in blocks] == [round(SEGMENT_S * RATE_HZ)] * 3
    assert all(block.dtype == np.float32 for block in blocks)
    assert 0.9 < max(np.abs(block).max() for block in blocks) <= 1.0


def test_the_background_has_the_level_of_the_recorder() -> None:
    assert rms(heard(site(), 20)) == pytest.approx(RMS, rel=0.05)


def test_a_recording_with_rumble_lowers_the_recorders_gain() -> None:
    rumbling = noise(13, 1) + 3 * tone(40, 13)
    loud = Site((noise(4, 2), rumbling), RATE_HZ, weather=((0.0, CALM),))
    assert rumble(site()) == pytest.approx(1.0, abs=0.1)
    assert rumble(loud) > 10
    assert rms(heard(loud, 60)) < 1.2 * RMS  # the loudest over all frequencies


def test_segments_go_over_into_each_other_without_a_seam() -> None:
    for first in (tone(500, 30), noise(30, 5)):
        found = heard(Site((first,), RATE_HZ, weather=((0.0, CALM),)), 60)
        steps = np.abs(np.diff(found))
        n, n_fade = round(SEGMENT_S * RATE_HZ), round(FADE_S * RATE_HZ)
        seams = np.concatenate([steps[k * n - 2 : k * n + 2] for k in range(1, 6)])
        assert seams.max() <= 1.5 * np.delete(steps, [k * n - 1 for k in range(1, 6)]).max()
        for k in range(1, 6):  # no hole either: two sounds, each faded, keep their power
            level = rms(found[k * n : k * n + n_fade])
            assert 0.4 < level / rms(found) < 1.5


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0, 20.0])
def test_an_event_has_its_level_over_the_background(snr_db: float) -> None:
    sound = unit(tone(1000, 2.0), RATE_HZ)
    event = Event("tone", 3.0, 5.0, snr_db, sound)
    quiet, with_event = heard(site(), 10), heard(site(), 10, event)
    inside = slice(3 * RATE_HZ, 5 * RATE_HZ)
    added = (with_event - quiet)[inside]
    assert db(level(added) / level(quiet[inside])) == pytest.approx(snr_db, abs=0.2)


def test_an_event_is_where_it_was_put_and_nowhere_else() -> None:
    event = Event("tone", 3.25, 5.25, 10.0, unit(tone(1000, 2.0), RATE_HZ))
    added = heard(site(), 10, event) - heard(site(), 10)
    where = np.flatnonzero(np.abs(added) > 1e-6)
    assert where[0] / RATE_HZ == pytest.approx(3.25, abs=0.001)
    assert where[-1] / RATE_HZ == pytest.approx(5.25, abs=0.001)


def test_an_event_goes_on_over_the_seam_of_blocks() -> None:
    samples = unit(noise(25, 7), RATE_HZ)
    added = heard(site(), 40, Event("long", 5.0, 30.0, 0.0, samples)) - heard(site(), 40)
    gain = added[5 * RATE_HZ : 30 * RATE_HZ] @ samples / (samples @ samples)
    assert np.allclose(added[5 * RATE_HZ : 30 * RATE_HZ], gain * samples, atol=1e-5)
    assert np.allclose(added[30 * RATE_HZ :], 0)


def test_events_overlap() -> None:
    one = Event("one", 2.0, 6.0, 10.0, unit(tone(1000, 4.0), RATE_HZ))
    two = Event("two", 4.0, 7.0, 5.0, unit(tone(2000, 3.0), RATE_HZ))
    plain = heard(site(), 10)
    together = heard(site(), 10, one, two) - plain
    apart = heard(site(), 10, one) + heard(site(), 10, two) - 2 * plain
    assert np.allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize(("kind", "level_db"), [("wind", 20.0), ("wind", -6.0), ("rain", 0.0), ("rain", 6.0)])
def test_weather_has_its_level_over_the_background(kind: str, level_db: float) -> None:
    changed = replace(CALM, **{f"{kind}_db": level_db})
    calm = heard(site(), 300)
    added = heard(site((0.0, changed)), 300) - calm
    clipped = 10 ** (level_db / 20) * RMS > 0.1  # gusts overload the recorder
    assert db(rms(added) / rms(calm)) == pytest.approx(level_db, abs=3.0 if clipped else 1.0)


def test_a_change_of_weather_comes_when_it_is_due_and_as_fast_as_weather_does() -> None:
    dry, wet = (Weather(-200.0, rain_db, 0.0, memory_s=20.0) for rain_db in (-20.0, 10.0))
    levels = [db(rms(block) / RMS) for block in listen(site((0.0, dry), (50.0, wet)), 200)]
    assert np.allclose(levels[:5], 0, atol=0.5)
    assert levels[5] < 5  # rain begins to fall
    assert np.allclose(levels[-5:], 10, atol=1)


def test_the_level_of_weather_wanders_around_its_mean_and_remembers() -> None:
    wandering = Weather(wind_db=-200.0, rain_db=10.0, spread_db=6.0, memory_s=100.0)
    levels = [db(rms(block) / RMS) for block in listen(site((0.0, wandering)), 6_000)]
    assert 3 < np.std(levels) < 8
    assert 6 < np.median(levels) < 14
    steps = np.diff(levels)
    assert np.std(steps) < 0.7 * np.std(levels) * np.sqrt(2)  # neighbours are alike
    still = [db(rms(block) / RMS) for block in listen(site((0.0, replace(wandering, spread_db=0.0))), 300)]
    assert np.std(still) < 1


def test_colour_is_the_gain_at_its_frequencies() -> None:
    taps = colour_filter((0.0, 0.0, 0.0, -20.0, -20.0, -20.0), RATE_HZ)
    response = np.abs(np.fft.rfft(taps, 8_000))
    frequencies = np.fft.rfftfreq(8_000, 1 / RATE_HZ)
    assert db(response[np.argmin(np.abs(frequencies - 200))]) == pytest.approx(0, abs=1.5)
    assert db(response[np.argmin(np.abs(frequencies - 2_500))]) == pytest.approx(-20, abs=1.5)


def test_a_site_has_its_colour() -> None:
    plain, dull = heard(site(), 30), heard(site(colour_db=(0.0, 0.0, 0.0, -20.0, -20.0, -20.0)), 30)

    def share_above(samples: np.ndarray, hz: float) -> float:
        power = np.square(np.abs(np.fft.rfft(samples)))
        return float(power[np.fft.rfftfreq(len(samples), 1 / RATE_HZ) > hz].sum() / power.sum())

    assert share_above(plain, 2_000) > 0.4
    assert share_above(dull, 2_000) < 0.1


def test_rumble_decides_no_level() -> None:
    quiet = noise(4)
    scaled = unit(quiet + tone(50, 4.0), RATE_HZ)
    assert db(rms(scaled) / rms(unit(quiet, RATE_HZ))) > 10
    spectrum = np.abs(np.fft.rfft(scaled))[4 * 1_000 :]
    plain = np.abs(np.fft.rfft(unit(quiet, RATE_HZ)))[4 * 1_000 :]
    assert rms(spectrum) == pytest.approx(rms(plain), rel=0.02)
    assert np.isfinite(unit(np.zeros(RATE_HZ, np.float32), RATE_HZ)).all()


def test_silence_is_cut_from_both_ends() -> None:
    quiet = np.zeros(RATE_HZ, np.float32)
    found = trimmed(np.concatenate([quiet, tone(1000, 0.5), quiet[:400], tone(1000, 0.5), quiet]), RATE_HZ)
    assert len(found) / RATE_HZ == pytest.approx(1.05, abs=0.011)
    assert np.abs(found[:80]).max() > 0.5
    assert np.abs(found[-80:]).max() > 0.5


def test_wind_is_low_and_gusty_and_rain_is_high() -> None:
    wind, rain = (make(RATE_HZ, np.random.default_rng(0)) for make in (wind_loop, rain_loop))
    assert (rms(wind), rms(rain)) == (pytest.approx(1, rel=1e-3), pytest.approx(1, rel=1e-3))

    def share_above_1k(samples: np.ndarray) -> float:
        power = np.square(np.abs(np.fft.rfft(samples)))
        return float(power[np.fft.rfftfreq(len(samples), 1 / RATE_HZ) > 1_000].sum() / power.sum())

    assert share_above_1k(wind) < 0.02
    assert share_above_1k(rain) > 0.7
    seconds = [rms(each) for each in np.array_split(wind, 61)]
    assert max(seconds) > 2 * np.median(seconds)
    assert all(
        np.array_equal(a, b) for a, b in zip(weather_loops(RATE_HZ), weather_loops(RATE_HZ), strict=True)
    )
