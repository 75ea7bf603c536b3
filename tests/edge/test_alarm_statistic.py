"""The number of bits that an alarm is decided on: of one sentence, of several, of several windows."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from edge.alarm_statistic import (
    BITS_A_HALVING,
    Confirmation,
    Statistic,
    combined,
    confirmed_runs,
    histograms,
    p_table,
)
from edge.false_alarms import tail_of

N_BINS = 257
# Two sentences: distance d has p = 2^-(256 - d) for the first; the second's background is twice as rare at the same distance.
TABLES = [2.0 ** (np.arange(N_BINS) - 256.0), 2.0 ** (np.arange(N_BINS) - 257.0)]


def bits(combine: str | None, first: int, second: int) -> int:
    statistic = Statistic((0, 1), combine)  # type: ignore[arg-type]
    return int(combined(np.array([[first, second]]), [statistic], TABLES)[0, 0])


def of_p(p: float) -> int:
    return 256 + math.ceil(BITS_A_HALVING * math.log2(p))


def test_one_sentence_is_its_distance() -> None:
    found = combined(np.array([[70, 90], [80, 60]]), [Statistic((1,)), Statistic((0,))], TABLES)
    assert found.tolist() == [[90, 70], [60, 80]]


def test_and_is_the_larger_of_the_p_values() -> None:
    assert bits("and", 250, 252) == of_p(2.0**-5)  # of the second, though its distance is larger
    assert bits("and", 252, 251) == of_p(2.0**-4)
    assert bits("and", 250, 256) == of_p(2.0**-1)  # one that is not there at all


def test_or_is_the_smaller_of_the_p_values() -> None:
    assert bits("or", 250, 252) == of_p(2.0**-6)
    assert bits("or", 252, 252) == of_p(2.0**-5)  # of the second, at equal distances
    assert bits("or", 250, 256) == of_p(2.0**-6)


def test_half_as_likely_is_eight_bits_nearer() -> None:
    assert bits("or", 252, 256) - bits("or", 251, 256) == BITS_A_HALVING


def test_bits_stay_between_none_and_all() -> None:
    assert bits("or", 0, 0) == 0  # 2^-257 is beyond the scale
    assert bits("or", 225, 256) == 256 - 8 * 31  # one window in 2^31 is not
    impossible = [np.zeros(N_BINS), np.zeros(N_BINS)]
    assert combined(np.array([[5, 5]]), [Statistic((0, 1), "and")], impossible).tolist() == [[0]]


def test_four_bits_of_distance_weigh_as_much_in_combined_bits() -> None:
    """In the tail of a typical background (7 bits of spread, 3 below the mean) 4 bits make a window 4 to 8 times rarer."""
    law = NormalDist(110, 7)
    ratio = law.cdf(89) / law.cdf(89 - 4)
    halvings = 4 * Statistic((0, 1), "and").scale / BITS_A_HALVING
    assert 2**halvings == pytest.approx(ratio, rel=0.5)
    assert Statistic((0,)).scale == 1


def test_a_sentence_of_which_nothing_is_known_is_as_far_as_can_be() -> None:
    tables = [TABLES[0], p_table(None, N_BINS)]
    assert combined(np.array([[200, 0]]), [Statistic((0, 1), "and")], tables).tolist() == [[256]]


def test_p_values_are_those_of_the_background() -> None:
    counts = np.zeros(N_BINS)
    counts[[100, 120]] = 250, 750
    table = p_table(tail_of(counts), N_BINS)
    assert table[[100, 119, 120, 256]].tolist() == [0.25, 0.25, 1.0, 1.0]


@pytest.mark.parametrize(
    ("confirm", "expected"),
    [
        ((1, 1), [50, 90, 40, 45, 95]),
        ((1, 3), [50, 50, 40, 40, 40]),
        ((2, 3), [256, 90, 50, 45, 45]),
        ((3, 3), [256, 256, 90, 90, 95]),
    ],
)
def test_a_confirmation_is_the_nth_nearest_of_the_last_windows(
    confirm: tuple[int, int], expected: list[int]
) -> None:
    memory = Confirmation([Statistic((0,), confirm=confirm)], N_BINS)
    found = [int(memory.confirmed(np.array([each]))[0]) for each in (50, 90, 40, 45, 95)]
    assert found == expected


def test_every_query_has_its_own_confirmation() -> None:
    memory = Confirmation([Statistic((0,)), Statistic((1,), confirm=(2, 2))], N_BINS)
    found = [memory.confirmed(np.array(each)).tolist() for each in ([50, 60], [55, 70], [40, 80])]
    assert found == [[50, 256], [55, 70], [40, 80]]


def test_another_recording_confirms_nothing() -> None:
    memory = Confirmation([Statistic((0,), confirm=(2, 3))], N_BINS)
    memory.confirmed(np.array([50]))
    memory.begin()
    assert memory.confirmed(np.array([50])).tolist() == [256]


def test_many_windows_at_once_are_as_one_by_one() -> None:
    random = np.random.default_rng(0)
    own, runs = random.integers(0, 257, (40, 3)), np.repeat([7, 3, 7], [10, 1, 29])
    statistics = [Statistic((0,)), Statistic((1,), confirm=(2, 3)), Statistic((2,), confirm=(4, 5))]
    memory, expected = Confirmation(statistics, N_BINS), []
    for window, row in enumerate(own):
        if window in (10, 11):
            memory.begin()
        expected.append(memory.confirmed(row))
    assert np.array_equal(confirmed_runs(own, runs, statistics, N_BINS), np.stack(expected))


def test_histograms_count_every_window_of_every_query() -> None:
    found = histograms(np.array([[3, 0], [3, 256], [5, 256]]), N_BINS)
    assert found.shape == (2, N_BINS)
    assert (found[0, 3], found[0, 5], found[1, 0], found[1, 256]) == (2, 1, 1, 2)
    assert found.sum() == 6
    assert histograms(np.zeros((0, 2), np.int64), N_BINS).sum() == 0
