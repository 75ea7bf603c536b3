"""Windows never straddle a gap, cover what is there, and do not depend on blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.audio_events import AudioEvent, Block, End, Gap, Skipped
from edge.errors import UsageError
from edge.observation import Instant
from edge.windows import Window, hop_samples, windows

RATE_HZ = 1000
START = Instant("boot", 7_000_000_000, 1_777_863_721_000_000_000, "rtc")
WRONG = Instant("boot", 0, 0, "rtc")


def ramp(n: int) -> NDArray[np.float32]:
    return np.arange(n, dtype=np.float32)


def blocks(
    samples: NDArray[np.float32], block_samples: int, first: int = 0, source: str = "a"
) -> Iterator[AudioEvent]:
    for start in range(0, len(samples), block_samples):
        instant = START if start == 0 else WRONG  # only that of a segment's first block may matter
        yield Block(source, samples[start : start + block_samples].copy(), first + start, instant)


def cut(events: Sequence[AudioEvent], window_samples: int = 3000, hop_samples: int = 3000) -> list[Window]:
    found = windows(events, window_samples, hop_samples, RATE_HZ)
    return [window for window in found if isinstance(window, Window)]


def starts(found: Sequence[Window]) -> list[int]:
    return [window.first_sample for window in found]


@pytest.mark.parametrize("hop_samples", [700, 1500, 3000, 4100])
@pytest.mark.parametrize("n_samples", [3000, 10_437, 20_999])
def test_block_size_changes_no_window(n_samples: int, hop_samples: int) -> None:
    samples = ramp(n_samples)
    expected = cut([*blocks(samples, n_samples), End("a")], hop_samples=hop_samples)
    for block_samples in (1, 37, 1000, 2999, 3001, 7000):
        found = cut([*blocks(samples, block_samples), End("a")], hop_samples=hop_samples)
        assert starts(found) == starts(expected)
        assert [window.instant for window in found] == [window.instant for window in expected]
        for window in found:
            np.testing.assert_array_equal(
                window.samples, samples[window.first_sample : window.first_sample + 3000]
            )


def test_windows_start_at_multiples_of_the_hop_and_the_last_one_ends_with_the_sound() -> None:
    assert starts(cut([*blocks(ramp(10_000), 1000), End("a")])) == [0, 3000, 6000, 7000]
    assert starts(cut([*blocks(ramp(9249), 1000), End("a")])) == [0, 3000, 6000]  # 0.249 s are left
    assert starts(cut([*blocks(ramp(9250), 1000), End("a")])) == [0, 3000, 6000, 6250]
    assert starts(cut([*blocks(ramp(9000), 1000), End("a")], hop_samples=1000)) == [*range(0, 6001, 1000)]


def test_sound_between_distant_windows_is_left_out_on_purpose() -> None:
    events = [*blocks(ramp(10_500), 1000), End("a")]
    assert starts(cut(events, hop_samples=10_300)) == [0]
    assert starts(cut(events, hop_samples=10_250)) == [0, 7500]  # 0.25 s of the next window are there


def test_a_short_sound_is_repeated_to_fill_a_window() -> None:
    (window,) = cut([*blocks(ramp(700), 100), End("a")])
    assert (window.first_sample, window.n_samples) == (0, 700)
    np.testing.assert_array_equal(window.samples, np.tile(ramp(700), 5)[:3000])


def test_a_sound_of_less_than_a_quarter_of_a_second_is_left_out() -> None:
    assert cut([*blocks(ramp(249), 100), End("a")]) == []
    assert len(cut([*blocks(ramp(250), 100), End("a")])) == 1


def test_a_source_too_short_for_any_window_is_told() -> None:
    events = [*blocks(ramp(249), 100), End("a"), *blocks(ramp(250), 100, source="b"), End("b")]
    events += [*blocks(ramp(10), 10), End("a")]
    found = list(windows(events, 3000, 1500, RATE_HZ))
    kinds = [(type(item), item.source) for item in found]
    assert kinds == [(Skipped, "a"), (End, "a"), (Window, "b"), (End, "b"), (Skipped, "a"), (End, "a")]
    assert found[0] == Skipped("a", "shorter than 0.25 s")


@pytest.mark.parametrize("told", [Skipped("a", "truncated"), Gap("a", 100, 50, "not numbers")])
def test_a_short_source_of_which_something_was_told_is_told_once(told: Gap | Skipped) -> None:
    assert list(windows([*blocks(ramp(100), 100), told, End("a")], 3000, 1500, RATE_HZ)) == [told, End("a")]


def test_no_window_straddles_a_gap() -> None:
    events: list[AudioEvent] = [*blocks(ramp(4000), 1000), Gap("a", 4000, 500, "overflow")]
    events += [*blocks(ramp(4000), 1000, first=4500), End("a")]
    found = list(windows(events, 3000, 1000, RATE_HZ))
    kinds = [item.first_sample if isinstance(item, Window) else type(item).__name__ for item in found]
    assert kinds == [0, 1000, "Gap", 4500, 5500, "End"]
    first_after = found[3]
    assert isinstance(first_after, Window)
    np.testing.assert_array_equal(first_after.samples, ramp(3000))


def test_a_silent_jump_of_the_counter_or_another_source_ends_a_segment_too() -> None:
    events = [*blocks(ramp(3500), 500), *blocks(ramp(3500), 500, first=9000)]
    events += [*blocks(ramp(500), 500, source="b")]
    found = cut(events)
    assert [(window.source, window.first_sample) for window in found] == [
        ("a", 0),
        ("a", 500),
        ("a", 9000),
        ("a", 9500),
        ("b", 0),
    ]


def test_a_skipped_file_is_passed_on_in_its_place() -> None:
    found = list(
        windows([*blocks(ramp(3000), 3000), Skipped("a", "truncated"), End("a")], 3000, 3000, RATE_HZ)
    )
    assert [type(item) for item in found] == [Window, Skipped, End]


def test_time_comes_from_the_sample_counter() -> None:
    assert START.wall_ns is not None
    found = cut([*blocks(ramp(9000), 250), End("a")], hop_samples=1500)
    for window in found:
        passed_ns = window.first_sample * 1_000_000
        assert window.instant.boottime_ns == START.boottime_ns + passed_ns
        assert window.instant.wall_ns == START.wall_ns + passed_ns


def test_a_wall_clock_that_gets_set_on_the_way_is_taken() -> None:
    unset = Block("a", ramp(3000), 0, Instant("boot", 1_000_000_000, None, "unset"))
    synchronised = Block("a", ramp(3000), 3000, Instant("boot", 4_000_000_000, 500_000_000_000, "ntp"))
    found = cut([unset, synchronised, End("a")])
    assert [(w.instant.boottime_ns, w.instant.wall_ns, w.instant.clock_state) for w in found] == [
        (1_000_000_000, None, "unset"),
        (4_000_000_000, 500_000_000_000, "ntp"),
    ]


def test_windows_are_owned_by_whoever_gets_them() -> None:
    found = cut([*blocks(ramp(9000), 1000), End("a")], hop_samples=1000)
    found[0].samples[:] = -1
    np.testing.assert_array_equal(found[1].samples, ramp(9000)[1000:4000])


def test_a_hop_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="hop of 1 sample or more, found 3000, 0"):
        cut([], hop_samples=0)


def test_a_hop_is_half_a_window_unless_said_otherwise_and_never_longer_than_one() -> None:
    assert hop_samples(None, 3001, RATE_HZ) == 1500
    assert hop_samples(3.0, 3000, RATE_HZ) == 3000
    for hop_s in (3.001, 0.0, -1.0):
        with pytest.raises(UsageError, match=r"--hop: expected more than 0 and at most a window \(3 s\)"):
            hop_samples(hop_s, 3000, RATE_HZ)
