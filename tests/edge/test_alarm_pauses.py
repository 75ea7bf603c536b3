"""Silences of queries: after an alarm, and at the limit an hour, in time and not in windows."""

from __future__ import annotations

import numpy as np
import pytest

from edge.alarm_pauses import MAX_ALARMS_PER_HOUR, Pauses

HOP_S = 0.1  # which no float holds


def test_a_cooldown_lasts_its_time() -> None:
    pauses = Pauses([1.0, 0.0])
    pauses.alarmed(0)
    pauses.alarmed(1)
    quiet = []
    for _ in range(10):
        pauses.pass_time(HOP_S, HOP_S)
        quiet.append(pauses.is_quiet.tolist())
    assert quiet == [[True, False]] * 9 + [[False, False]]


def test_a_cooldown_ends_in_a_gap() -> None:
    pauses = Pauses([3600.0])
    pauses.alarmed(0)
    pauses.pass_time(3599.0, HOP_S)
    assert pauses.is_quiet.tolist() == [True]
    pauses.pass_time(1.0, HOP_S)
    assert pauses.is_quiet.tolist() == [False]


def test_a_cooldown_says_nothing_of_an_earlier_recording() -> None:
    pauses = Pauses([3600.0])
    pauses.alarmed(0)
    pauses.pass_time(-7200.0, HOP_S)
    assert pauses.is_quiet.tolist() == [False]
    assert pauses.in_hour[0] == pytest.approx(1.0, abs=1e-4)


def test_an_hour_forgets_its_alarms_in_time() -> None:
    pauses = Pauses([0.0])
    for _ in range(MAX_ALARMS_PER_HOUR):
        assert not pauses.is_limited(0)
        pauses.alarmed(0)
    assert pauses.is_limited(0)
    pauses.pass_time(3600.0, HOP_S)
    assert pauses.in_hour[0] == pytest.approx(MAX_ALARMS_PER_HOUR / np.e)


def test_a_cooldown_that_was_made_shorter_ends_sooner() -> None:
    pauses = Pauses([60.0, 60.0])
    pauses.restore(np.array([3600.0, 5.0]), np.array([7.0, 0.0]))
    assert pauses.quiet_s.tolist() == [60.0, 5.0]
    assert pauses.in_hour.tolist() == [7.0, 0.0]
