"""How long is waited, how much is sent at once, and how much in a day."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edge.observation import ClockState, Instant
from edge.store_cursor import SyncCursor
from edge.store_running import Moment
from edge.sync_backoff import BASE_S, CAP_S, delay_s
from edge.sync_budget import Budget, line_bytes

HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS


def test_waiting_grows_to_its_cap_and_is_spread_over_all_of_it() -> None:
    jitter = random.Random(1)
    for n, longest in ((1, 2 * BASE_S), (5, 32 * BASE_S), (50, CAP_S), (10**9, CAP_S)):
        waits = [delay_s(n, None, jitter) for _ in range(1000)]
        assert max(waits) <= longest
        assert max(waits) > 0.95 * longest
        assert min(waits) < 0.05 * longest
        assert 0.4 * longest < sum(waits) / 1000 < 0.6 * longest


def test_nobody_comes_before_the_hub_asked_and_not_all_at_once() -> None:
    jitter = random.Random(2)
    waits = [delay_s(3, 100.0, jitter) for _ in range(200)]
    assert min(waits) >= 100.0
    assert max(waits) - min(waits) > 20.0
    assert delay_s(1, -5.0, jitter) >= 0.0
    assert delay_s(1, 1e12, jitter) < 90_000.0


def test_pace_follows_the_line() -> None:
    pytest.importorskip("cbor2")
    from edge.batch import MAX_RECORDS
    from edge.sync_pace import LEAST_BYTES, Pace

    pace = Pace(100_000)
    for _ in range(9):
        pace.answered(0.5)
    assert pace.n_bytes == 100_000
    pace.answered(20.0)
    assert pace.n_bytes == 100_000
    pace.answered(60.0)
    assert pace.n_bytes == 50_000
    for _ in range(20):
        pace.failed()
    assert pace.n_bytes == LEAST_BYTES
    pace.refused(10)
    assert (pace.n_records, pace.is_whole()) == (5, False)
    pace.refused(1)
    assert pace.n_records == 1
    for _ in range(20):
        pace.answered(1.0)
    assert pace.n_records == MAX_RECORDS


def at(day: float, boot: str = "a", hours: float = 0.0, clock: ClockState = "ntp") -> Instant:
    """Return a moment: day from 1970, hours since boot."""
    return Instant(boot, int(hours * HOUR_NS), None if clock == "unset" else int(day * DAY_NS), clock)


def test_the_bytes_of_a_day_are_counted_by_link_and_start_anew_tomorrow(tmp_path: Path) -> None:
    with SyncCursor.open(tmp_path / "s.sqlite") as cursor:
        budget, other = Budget(cursor, "lte", 1_000), Budget(cursor, "satellite", None)
        now = at(20_000.1)
        budget.spend(300, now)
        budget.spend(200, at(20_000.2))
        assert (budget.left(now), budget.left_for_codes(now)) == (500, 300)
        budget.spend(900, now)
        assert (budget.left(now), budget.left_for_codes(now)) == (0, 0)
        assert budget.left(at(20_001)) == 1_000
        assert (other.left(now), other.left_for_codes(now)) == (None, None)
        assert cursor.used_bytes(20_000, "satellite") == 0
    with SyncCursor.open(tmp_path / "s.sqlite") as cursor:
        assert cursor.used_bytes(20_000, "lte") == 1_400
        cursor.use_bytes(40_000, "lte", 1)  # the clock jumped, and comes back
        assert cursor.used_bytes(20_000, "lte") == 1_400
        for day in range(20_001, 20_450):
            cursor.use_bytes(day, "lte", 1)
        assert cursor.used_bytes(20_000, "lte") == 0  # long ago


@pytest.mark.parametrize("clock", ["unset", "rtc"])
def test_a_recorder_with_the_same_date_at_each_boot_gets_a_budget_for_each_day_that_it_ran(
    tmp_path: Path, clock: ClockState
) -> None:
    with SyncCursor.open(tmp_path / "s.sqlite") as cursor:
        budget = Budget(cursor, "lte", 300)
        spent = []
        for boot in range(12):
            now = at(20_000.5, f"boot {boot}", 6, clock)  # 6 h a boot, the date is always the same
            left = budget.left(now) or 0
            budget.spend(left, now)
            spent.append(left)
        assert spent == [300, 0, 0, 0] * 3


def test_a_set_clock_is_believed_however_little_was_run(tmp_path: Path) -> None:
    with SyncCursor.open(tmp_path / "s.sqlite") as cursor:
        for clock in ("ntp", "rtc"):
            budget = Budget(cursor, clock, 300)
            for day in range(5):
                now = at(20_000 + day, f"boot {day}", 0.1, clock)  # type: ignore[arg-type]
                assert budget.left(now) == 300
                budget.spend(300, now)
                assert budget.left(now) == 0
        now = at(20_004.9, "boot 4", 30)
        assert (
            Budget(cursor, "ntp", 300).left(now) == 0
        )  # ran a day by its own count, and the date says otherwise


def test_what_was_sent_before_the_clock_was_set_is_of_today(tmp_path: Path) -> None:
    with SyncCursor.open(tmp_path / "s.sqlite") as cursor:
        budget = Budget(cursor, "lte", 300)
        budget.spend(200, at(0, "a", 1, "unset"))
        assert budget.left(at(20_000.5, "a", 2)) == 100
        budget.spend(50, at(20_000.5, "a", 2))
        assert cursor.used_bytes(20_000, "lte") == 250
        assert budget.left(at(20_000.6, "a", 3)) == 50
        assert budget.left(at(0, "a", 3, "unset")) == 50
        assert budget.left(at(20_001, "b", 1)) == 300


def test_running_time_is_counted_over_boots_and_never_backwards(tmp_path: Path) -> None:
    with SyncCursor.open(tmp_path / "s.sqlite") as cursor:
        hours = [
            cursor.running.moment(at(0, boot, h, "unset")).running_ns / HOUR_NS
            for boot, h in (("a", 2), ("a", 3), ("b", 1), ("b", 1), ("", 4), ("", 5), ("", 1))
        ]
        assert hours == [2, 3, 4, 4, 8, 9, 10]
    with SyncCursor.open(tmp_path / "s.sqlite") as cursor:
        assert cursor.running.moment(at(0, "", 2, "unset")).running_ns == 11 * HOUR_NS


def test_a_wall_clock_that_was_set_in_between_makes_no_time_pass() -> None:
    earlier = Moment(0, 1_000, "rtc")
    assert earlier.passed_ns(Moment(10, 500_000, "rtc")) == 499_000
    assert earlier.passed_ns(Moment(10, 500_000, "ntp")) == 10
    assert earlier.passed_ns(Moment(10, 5, "rtc")) == 10
    assert earlier.passed_ns(Moment(10, None, "unset")) == 10


def test_bytes_on_the_line_are_those_of_packets() -> None:
    assert line_bytes(0) == 0 + 52 // 2 * 0 + 0
    assert line_bytes(100) == 100 + 52 + 52
    assert line_bytes(14_480) == 14_480 + 10 * 52 + 5 * 52
