"""How long is waited, how much is sent at once, and how much in a day."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edge.store_cursor import SyncCursor
from edge.sync_backoff import BASE_S, CAP_S, delay_s
from edge.sync_budget import Budget, line_bytes

DAY_NS = 86_400 * 10**9


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


def test_the_bytes_of_a_day_are_counted_by_link_and_start_anew_tomorrow(tmp_path: Path) -> None:
    with SyncCursor.open(tmp_path / "s.sqlite") as cursor:
        budget, other = Budget(cursor, "lte", 1_000), Budget(cursor, "satellite", None)
        now_ns = 20_000 * DAY_NS + 5
        budget.spend(300, now_ns)
        budget.spend(200, now_ns + 1)
        assert (budget.left(now_ns), budget.left_for_codes(now_ns)) == (500, 300)
        budget.spend(900, now_ns)
        assert (budget.left(now_ns), budget.left_for_codes(now_ns)) == (0, 0)
        assert budget.left(now_ns + DAY_NS) == 1_000
        assert (other.left(now_ns), other.left_for_codes(now_ns)) == (None, None)
        assert cursor.used_bytes(20_000, "satellite") == 0
    with SyncCursor.open(tmp_path / "s.sqlite") as cursor:
        assert cursor.used_bytes(20_000, "lte") == 1_400
        cursor.use_bytes(40_000, "lte", 1)  # the clock jumped, and comes back
        assert cursor.used_bytes(20_000, "lte") == 1_400
        for day in range(20_001, 20_450):
            cursor.use_bytes(day, "lte", 1)
        assert cursor.used_bytes(20_000, "lte") == 0  # long ago


def test_bytes_on_the_line_are_those_of_packets() -> None:
    assert line_bytes(0) == 0 + 52 // 2 * 0 + 0
    assert line_bytes(100) == 100 + 52 + 52
    assert line_bytes(14_480) == 14_480 + 10 * 52 + 5 * 52
