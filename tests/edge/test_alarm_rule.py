"""The alarm rule: a wanted rate, decoys, times of day, cooldown, the limit an hour, and one alarm for one sound."""

from __future__ import annotations

import numpy as np
import pytest

from edge import alarm_rule
from edge.alarm_pauses import MAX_ALARMS_PER_HOUR, NOTICE_S
from edge.alarm_rule import Alarm, AlarmQuery, AlarmRule
from edge.alarm_statistic import Statistic

HOP_S = 60.0
N_BINS = 257
FAR = 300  # of a decoy: there is none
ALWAYS = np.ones(1, bool)


def quiet(n: int, n_rows: int = 1, mean: float = 110.0, seed: int = 0) -> np.ndarray:
    """Return distances [n, n_rows] of windows without the sounds."""
    return np.rint(np.random.default_rng(seed).normal(mean, 7.0, (n, n_rows))).astype(np.int64)


def rule(*queries: AlarmQuery, n_rows: int = 1, hop_s: float = HOP_S) -> AlarmRule:
    """Return a rule that knows its site: queries of one row each where none are given."""
    asked = queries or (AlarmQuery(Statistic((0,)), 10.0),)
    reference, runs = quiet(20_000, n_rows), np.zeros(20_000, np.int64)
    made = AlarmRule(asked, reference, runs, hop_s, N_BINS)
    made.learn(quiet(20_000, n_rows, seed=1), runs, np.ones(len(asked), bool))
    return made


def decide(made: AlarmRule, *distances: int, decoy: int = FAR, is_active: np.ndarray | None = None) -> Alarm | None:  # fmt: skip
    active = np.ones(len(made.queries), bool) if is_active is None else is_active
    return made.decide(np.asarray(distances, np.int64), decoy, active)


@pytest.mark.parametrize("wanted", [10.0, 50.0])
def test_a_query_alarms_on_background_as_often_as_wanted(wanted: float) -> None:
    made = rule(AlarmQuery(Statistic((0,)), wanted))
    n_alarms = sum(decide(made, *row) is not None for row in quiet(20 * 1440, seed=2))
    assert wanted / 2 <= n_alarms / 20 <= wanted * 2


def test_an_alarm_tells_its_query_its_bits_and_how_rare_it_is() -> None:
    alarm = decide(rule(), 85)
    assert alarm is not None
    assert (alarm.row, alarm.bits) == (0, 85)
    assert alarm.per_day == pytest.approx(np.mean(quiet(20_000, seed=1) <= 85) * 1440, rel=0.5)
    assert decide(rule(), 110) is None


@pytest.mark.parametrize(("decoy", "alarms"), [(60, True), (59, True), (50, False), (49, False)])
def test_a_decoy_that_is_as_near_silences(decoy: int, alarms: bool) -> None:
    assert (decide(rule(), 50 if decoy < 55 else 58, decoy=decoy) is not None) == alarms


def test_a_decoy_competes_with_the_nearest_sentence() -> None:
    made = rule(AlarmQuery(Statistic((0, 1), "or"), 10.0), n_rows=2)
    assert decide(made, 110, 50, decoy=51) is not None
    assert decide(made, 110, 50, decoy=50) is None


def test_a_query_is_silent_outside_its_time() -> None:
    made = rule()
    assert decide(made, 50, is_active=np.zeros(1, bool)) is None
    assert decide(made, 50) is not None


def test_one_sound_is_one_alarm_of_the_query_to_which_it_is_rarest() -> None:
    queries = AlarmQuery(Statistic((0,)), 10.0), AlarmQuery(Statistic((1,)), 10.0)
    made = AlarmRule(queries, np.zeros((0, 2), np.int64), np.zeros(0, np.int64), HOP_S, N_BINS)
    near_site, far_site = quiet(20_000, mean=90.0), quiet(20_000, mean=130.0)
    made.learn(np.hstack([near_site, far_site]), np.zeros(20_000, np.int64), np.ones(2, bool))
    alarm = decide(made, 60, 70)
    assert alarm is not None
    assert alarm.row == 1  # though 60 bits are nearer than 70


def test_a_cooldown_silences_its_own_query_and_ends() -> None:
    queries = AlarmQuery(Statistic((0,)), 10.0, cooldown_s=5 * HOP_S), AlarmQuery(Statistic((1,)), 10.0)
    made = rule(*queries, n_rows=2)
    found = [decide(made, 50, 110) is not None for _ in range(7)]
    assert found == [True, False, False, False, False, True, False]
    other = decide(made, 50, 60)
    assert other is not None
    assert other.row == 1


def test_without_a_cooldown_every_window_alarms() -> None:
    made = rule()
    assert all(decide(made, 50) is not None for _ in range(9))


def test_an_alarm_that_is_rejected_starts_no_cooldown_and_hides_no_other() -> None:
    queries = AlarmQuery(Statistic((0,)), 10.0, cooldown_s=3600.0), AlarmQuery(Statistic((1,)), 10.0)
    made, asked = rule(*queries, n_rows=2), []

    def accepts(row: int) -> bool:
        asked.append(row)
        return row == 1

    alarm = made.decide(np.array([50, 60]), FAR, np.ones(2, bool), accepts)
    assert alarm is not None
    assert alarm.row == 1
    assert made.decide(np.array([50, 110]), FAR, np.ones(2, bool), accepts) is None
    assert asked == [0, 1, 0]  # what would not alarm is not asked
    assert decide(made, 50, 110) is not None


def test_no_query_alarms_more_often_than_the_limit_and_a_notice_says_so_once_an_hour() -> None:
    hop_s = 2.0
    made = rule(
        AlarmQuery(Statistic((0,)), 1000.0), hop_s=hop_s
    )  # so many that all of these are taken for the sound
    n_told, notices = 0, []
    for window in range(round(3 * 3600 / hop_s)):
        n_told += decide(made, 50) is not None
        notices += [(window * hop_s, row) for row in made.pauses.take_notices()]
    assert MAX_ALARMS_PER_HOUR <= n_told <= 4.1 * MAX_ALARMS_PER_HOUR
    assert made.pauses.n_limited.tolist() == [3 * 1800 - n_told]
    assert [row for _, row in notices] == [0, 0, 0]
    assert notices[0][0] == pytest.approx(MAX_ALARMS_PER_HOUR * hop_s, abs=20)
    assert np.diff([time for time, _ in notices]) == pytest.approx(NOTICE_S, abs=60)


def test_the_limit_is_of_each_query() -> None:
    made = rule(AlarmQuery(Statistic((0,)), 10.0), AlarmQuery(Statistic((1,)), 10.0), n_rows=2, hop_s=2.0)
    for _ in range(MAX_ALARMS_PER_HOUR + 60):
        decide(made, 50, 110)
    assert made.pauses.take_notices() == [0]
    other = decide(made, 110, 50)
    assert other is not None
    assert other.row == 1
    assert made.pauses.n_limited[1] == 0


def test_a_query_at_its_limit_leaves_the_alarm_to_another_that_heard_the_window() -> None:
    made = rule(AlarmQuery(Statistic((0,)), 2.0), AlarmQuery(Statistic((1,)), 2.0), n_rows=2, hop_s=2.0)
    rows = []
    for _ in range(300):
        alarm = decide(made, 50, 60)
        rows.append(None if alarm is None else alarm.row)
    assert [rows.count(row) >= MAX_ALARMS_PER_HOUR for row in (0, 1)] == [True, True]
    assert 1 not in rows[:MAX_ALARMS_PER_HOUR]  # the rarer of the two, while it may
    assert made.pauses.n_limited.sum() == rows.count(None)  # held back is what nobody told


def test_a_query_below_its_limit_gives_no_notice() -> None:
    made = rule(hop_s=2.0)
    assert all(decide(made, 50) is not None for _ in range(MAX_ALARMS_PER_HOUR))
    assert made.pauses.take_notices() == []


def test_both_sounds_alarm_together_where_either_alone_does_not() -> None:
    made = rule(AlarmQuery(Statistic((0, 1), "and"), 10.0), n_rows=2)
    assert decide(made, 85, 110) is None
    assert decide(made, 110, 85) is None
    assert decide(made, 85, 85) is not None


def test_either_sound_alarms_where_one_of_two_is_asked_for() -> None:
    made = rule(AlarmQuery(Statistic((0, 1), "or"), 10.0), n_rows=2)
    assert decide(made, 75, 115) is not None
    assert decide(made, 115, 75) is not None
    assert decide(made, 105, 105) is None


@pytest.mark.parametrize("combine", ["and", "or"])
def test_combined_queries_alarm_on_background_as_often_as_wanted(combine: str) -> None:
    made = rule(AlarmQuery(Statistic((0, 1), combine), 20.0), n_rows=2)  # type: ignore[arg-type]
    n_alarms = sum(decide(made, *row) is not None for row in quiet(10 * 1440, 2, seed=2))
    assert 10 <= n_alarms / 10 <= 40


def test_p_values_follow_the_site() -> None:
    made = rule(AlarmQuery(Statistic((0, 1), "and"), 20.0), n_rows=2)
    near = np.hstack([quiet(4 * 1440, seed=2), quiet(4 * 1440, mean=80.0, seed=3)])
    for row in near:  # the second sound is here all day now
        decide(made, *row)
    own = made.bits(np.array([[80, 80]]), np.zeros(1, np.int64))
    first_alone = made.bits(np.array([[80, 40]]), np.zeros(1, np.int64))
    assert own[0, 0] > first_alone[0, 0] + 16  # 80 bits of the second say nothing


def test_a_confirmation_wants_the_sound_again_in_the_same_recording() -> None:
    made = rule(AlarmQuery(Statistic((0,), confirm=(2, 3)), 10.0))
    assert [decide(made, each) is not None for each in (50, 110, 50)] == [False, False, True]
    made.begin_recording()
    assert [decide(made, each) is not None for each in (50, 110, 110, 50)] == [False] * 4


def test_a_confirmed_query_alarms_on_background_as_often_as_wanted() -> None:
    made = rule(AlarmQuery(Statistic((0,), confirm=(2, 3)), 20.0))
    n_alarms = sum(decide(made, *row) is not None for row in quiet(10 * 1440, seed=2))
    assert 10 <= n_alarms / 10 <= 40
    known = rule(AlarmQuery(Statistic((0,), confirm=(2, 3)), 20.0))
    assert (
        known.limits[0] > rule(AlarmQuery(Statistic((0,)), 20.0)).limits[0]
    )  # what two windows show may be farther


def test_stored_windows_teach_only_the_queries_that_are_asked() -> None:
    queries = AlarmQuery(Statistic((0,)), 10.0), AlarmQuery(Statistic((1,)), 10.0)
    reference, runs = quiet(2_000, 2), np.zeros(2_000, np.int64)
    made = AlarmRule(queries, reference, runs, HOP_S, N_BINS)
    before = made.limits.copy()
    made.learn(quiet(2_000, 2, mean=140.0), runs, np.array([False, True]))
    assert made.limits[0] == before[0]
    assert made.limits[1] > before[1] + 20
    assert made.background.counts.sum(axis=1).tolist() == [0, 2_000]


def test_stored_windows_teach_the_sentences_of_combined_queries_that_are_asked() -> None:
    queries = AlarmQuery(Statistic((0, 1), "or"), 10.0), AlarmQuery(Statistic((2, 3), "or"), 10.0)
    made = AlarmRule(queries, quiet(2_000, 4), np.zeros(2_000, np.int64), HOP_S, N_BINS)
    made.learn(quiet(2_000, 4), np.zeros(2_000, np.int64), np.array([False, True]))
    assert made.parts.counts.sum(axis=1).tolist() == [0, 0, 2_000, 2_000]


def test_stored_windows_teach_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = [
        AlarmQuery(Statistic((0, 1), "and", (2, 3)), 10.0),
        AlarmQuery(Statistic((1,), confirm=(3, 4)), 10.0),
        AlarmQuery(Statistic((0,)), 10.0),
    ]
    stored, runs, learnt = quiet(400, 2, seed=3), np.repeat([0, 1, 2], [7, 200, 193]), []
    for size in (7, 400):
        monkeypatch.setattr(alarm_rule, "LEARN_WINDOWS", size)
        made = AlarmRule(queries, quiet(2_000, 2), np.zeros(2_000, np.int64), HOP_S, N_BINS)
        made.learn(stored, runs, np.ones(3, bool))
        learnt.append((made.background.counts, made.parts.counts))
    for first, second in zip(*learnt, strict=True):
        assert np.array_equal(first, second)


def test_listening_teaches() -> None:
    made = rule()
    before = made.limits.copy()
    for row in quiet(3 * 1440, mean=140.0, seed=2):
        decide(made, *row)
    assert made.limits[0] > before[0] + 15


def test_windows_of_an_unfinished_step_are_learnt_before_the_state_is_kept() -> None:
    made = rule()
    for row in quiet(7, seed=2):
        decide(made, *row)
    assert made.background.n_windows == 0
    made.settle()
    assert made.background.n_windows == 7
    made.settle()
    assert made.background.n_windows == 7


def test_a_rule_that_knows_nothing_is_silent() -> None:
    asked = [AlarmQuery(Statistic((0,)), 1000.0)]
    made = AlarmRule(asked, np.zeros((0, 1), np.int64), np.zeros(0, np.int64), HOP_S, N_BINS)
    assert made.limits.tolist() == [-1]
    assert decide(made, 0) is None
