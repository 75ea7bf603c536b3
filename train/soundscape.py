"""A site that can be listened to for days: real backgrounds, the site's own colour, wind, rain, and events at known times.

Everything follows from a seed, block by block, so that ten days need no disk. Levels are relative: the background has unit mean square
(above 300 Hz) before weather is added; the finished sound is scaled once, for the whole deployment, like a recorder with a fixed gain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, firwin2, lfilter, sosfilt

Samples = NDArray[np.float32]

SEGMENT_S = 10.0  # the background changes recording about this often
FADE_S = 0.5
LOOP_S = 61.0  # of wind and of rain; a prime number of seconds does not beat with the segments
RMS = 0.02  # of the loudest background over all frequencies, -34 dBFS: rumble, wind and events must not overload the recorder


@dataclass(frozen=True, slots=True)
class Weather:
    """How much wind and rain there is, as levels over the background in dB; each wanders around its mean with `spread_db`."""

    wind_db: float = -15.0
    rain_db: float = -30.0
    spread_db: float = 6.0
    memory_s: float = 1800.0  # how long a level lasts


@dataclass(frozen=True, slots=True)
class Event:
    """A sound at a known time."""

    label: str
    begin_s: float
    end_s: float
    snr_db: float
    samples: Samples  # of `unit`


@dataclass(frozen=True, slots=True)
class Site:
    """What a deployment hears besides events: recordings of the place, its colour, its weather over time.

    colour_db: gains at frequencies evenly spaced on a log axis from 60 Hz to half the rate; empty = as recorded.
    weather: (from this second on, weather), ascending.
    """

    recordings: tuple[Samples, ...]
    rate_hz: int
    colour_db: tuple[float, ...] = ()
    weather: tuple[tuple[float, Weather], ...] = ((0.0, Weather()),)


def unit(samples: Samples, rate_hz: int) -> Samples:
    """Scale to unit mean square above 300 Hz: the rumble below decides no signal-to-noise ratio that an ear would agree with."""
    heard = sosfilt(butter(4, 300, "highpass", fs=rate_hz, output="sos"), samples)
    return samples / np.float32(max(float(np.sqrt(np.square(heard).mean())), 1e-6))


def loud(samples: Samples) -> Samples:
    """Scale to unit mean square over all frequencies."""
    return samples / np.float32(max(float(np.sqrt(np.square(samples, dtype=np.float64).mean())), 1e-6))


def trimmed(samples: Samples, rate_hz: int) -> Samples:
    """Cut the silence (40 dB under the loudest 10 ms) from both ends."""
    step = rate_hz // 100
    level = np.square(samples[: len(samples) // step * step]).reshape(-1, step).mean(axis=1)
    loud_steps = np.flatnonzero(level > level.max() * 1e-4)
    return samples[loud_steps[0] * step : (loud_steps[-1] + 1) * step]


def colour_filter(gains_db: Sequence[float], rate_hz: int, n_taps: int = 257) -> Samples:
    """Taps of a linear-phase filter with the given gains."""
    frequencies = np.geomspace(60, rate_hz / 2, len(gains_db))
    points = np.concatenate([[0.0], frequencies[:-1], [rate_hz / 2]])
    gains = 10 ** (np.concatenate([[gains_db[0]], gains_db[:-1], [gains_db[-1]]]) / 20)
    return firwin2(n_taps, points, gains, fs=rate_hz).astype(np.float32)


def wind_loop(rate_hz: int, random: np.random.Generator) -> Samples:
    """Turbulence at the microphone: noise that falls by 12 dB an octave above 100 Hz, in gusts; unit mean square."""
    n = int(LOOP_S * rate_hz)
    noise = random.standard_normal(n).astype(np.float32)
    pole = float(np.exp(-2 * np.pi * 100 / rate_hz))
    for _ in range(2):
        noise = lfilter([1 - pole], [1, -pole], noise).astype(np.float32)
    gusts = np.interp(np.arange(n), np.linspace(0, n, 31), random.gamma(1.5, size=31))
    return loud((noise * gusts).astype(np.float32))


def rain_loop(rate_hz: int, random: np.random.Generator) -> Samples:
    """Steady hiss with drops that ring between 1 and 8 kHz; unit mean square."""
    n = int(LOOP_S * rate_hz)
    rain = 0.5 * lfilter([1, -0.9], [1], random.standard_normal(n)).astype(np.float32)
    ring_s = 0.01
    t = np.arange(int(ring_s * rate_hz)) / rate_hz
    for start in random.integers(0, n - len(t), size=int(40 * LOOP_S)):
        drop = np.sin(2 * np.pi * random.uniform(1000, 8000) * t) * np.exp(-t / 0.002)
        rain[start : start + len(t)] += (random.gamma(0.7) * 6 * drop).astype(np.float32)
    return loud(rain)


@lru_cache(maxsize=2)
def weather_loops(rate_hz: int) -> tuple[Samples, Samples]:
    """Wind and rain, the same for every deployment; where they begin is drawn."""
    random = np.random.default_rng(0)
    return wind_loop(rate_hz, random), rain_loop(rate_hz, random)


def _level_db(previous: float | None, mean: float, weather: Weather, random: np.random.Generator) -> float:
    """Next level of an Ornstein-Uhlenbeck walk, one step a segment."""
    if previous is None:
        return mean + weather.spread_db * float(random.standard_normal())
    keep = float(np.exp(-SEGMENT_S / weather.memory_s))
    return (
        mean
        + keep * (previous - mean)
        + weather.spread_db * float(np.sqrt(1 - keep**2) * random.standard_normal())
    )


def rumble(site: Site) -> float:
    """Mean level over all frequencies of the loudest recording, scaled as `unit` does: what sets the recorder's gain."""
    taps = colour_filter(site.colour_db, site.rate_hz) if site.colour_db else np.ones(1, np.float32)
    levels = []
    for recording in site.recordings:
        start = recording[: 2 * site.rate_hz]  # two seconds tell the level
        heard = unit(fftconvolve(start, taps, mode="same").astype(np.float32), site.rate_hz)
        levels.append(float(np.sqrt(np.square(heard).mean())))
    return max(levels)


def listen(site: Site, seconds: float, events: Sequence[Event] = (), seed: int = 0) -> Iterator[Samples]:
    """Yield float32 blocks of SEGMENT_S seconds, in [-1, 1], of a deployment of `seconds`; events must not begin before 0.

    Every segment plays one recording of the place from a random sample on, faded into the next.
    """
    random = np.random.default_rng(seed)
    rate = site.rate_hz
    n, n_fade = int(SEGMENT_S * rate), int(FADE_S * rate)
    taps = colour_filter(site.colour_db, rate) if site.colour_db else None
    wind, rain = weather_loops(rate)
    ramp = np.sin(np.linspace(0, np.pi / 2, n_fade, dtype=np.float32))
    tail = np.zeros(n_fade, dtype=np.float32)
    gain = np.float32(RMS / rumble(site))
    wind_db = rain_db = None
    for number in range(int(np.ceil(seconds / SEGMENT_S))):
        start_s = number * SEGMENT_S
        weather = [w for since, w in site.weather if since <= start_s][-1]
        wind_db = _level_db(wind_db, weather.wind_db, weather, random)
        rain_db = _level_db(rain_db, weather.rain_db, weather, random)
        recording = site.recordings[int(random.integers(len(site.recordings)))]
        first = int(random.integers(len(recording)))
        heard = np.take(recording, np.arange(first, first + n + n_fade), mode="wrap")
        if taps is not None:
            heard = fftconvolve(heard, taps, mode="same").astype(np.float32)
        heard = unit(heard, rate)
        heard[:n_fade] *= ramp
        heard[:n_fade] += tail
        tail = heard[n:] * ramp[::-1]
        block = heard[:n].copy()
        for loop, level_db in ((wind, wind_db), (rain, rain_db)):
            at = int(random.integers(len(loop)))
            block += np.take(loop, np.arange(at, at + n), mode="wrap") * np.float32(10 ** (level_db / 20))
        for event in events:
            _lay(block, int(start_s * rate), event, rate)
        yield np.clip(block * gain, -1, 1)


def _lay(block: Samples, first_sample: int, event: Event, rate_hz: int) -> None:
    """Add the part of an event that falls into a block."""
    begin = int(event.begin_s * rate_hz) - first_sample
    if begin >= len(block) or begin + len(event.samples) <= 0:
        return
    low, high = max(begin, 0), min(begin + len(event.samples), len(block))
    block[low:high] += event.samples[low - begin : high - begin] * np.float32(10 ** (event.snr_db / 20))
