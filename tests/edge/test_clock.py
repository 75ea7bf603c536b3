"""A clock that nobody has set is never taken for UTC."""

from __future__ import annotations

import time

import pytest

from edge.clock import SystemClock, clock_state, later
from edge.observation import Instant

IN_2026_NS = 1_777_863_721_000_000_000


@pytest.mark.parametrize(
    ("wall_ns", "synchronised", "has_rtc", "state"),
    [
        (IN_2026_NS, True, False, "ntp"),
        (IN_2026_NS, False, True, "rtc"),
        (IN_2026_NS, False, False, "unset"),
        (5_000_000_000, True, True, "unset"),
    ],
)
def test_the_state_of_a_wall_clock(wall_ns: int, synchronised: bool, has_rtc: bool, state: str) -> None:
    assert clock_state(wall_ns, synchronised=synchronised, has_rtc=has_rtc) == state


def test_the_system_clock_goes_forward_and_gives_utc_only_when_it_is_set() -> None:
    clock = SystemClock()
    first, second = clock.now(), clock.now()
    assert 0 < first.boottime_ns < second.boottime_ns
    assert (first.wall_ns is None) == (first.clock_state == "unset")
    if first.wall_ns is not None:
        assert abs(first.wall_ns - time.time_ns()) < 10**9


def test_later_moves_both_clocks() -> None:
    instant = Instant("boot", 1_000, 2_000, "ntp")
    assert later(instant, 16_000, 32_000) == Instant("boot", 500_001_000, 500_002_000, "ntp")
    assert later(Instant("boot", 1_000, None, "unset"), 1, 1000).wall_ns is None
