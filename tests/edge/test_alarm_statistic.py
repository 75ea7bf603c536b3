"""The number of bits that an alarm is decided on: of one sentence, of several, of several windows."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from edge.alarm_statistic import (
    BITS_A_HALVING,
    Combination,
    Confirmation,
    Statistic,
    bits_of,
    confirmed_runs,
    histograms,
)
from edge.false_alarms import tail_of

N_BINS = 257
# Two sentences: distance d has p = 2^-(256 - d) for the first; the second's background is twice as rare at the same distance.
TABLES = bits_of(2.0 ** (np.arange(N_BINS) - np.array([[256.0], [257.0]])), N_BINS)


def bits(combine: str | None, first: int, second: int) -> int:
    statistic = Statistic((0, 1), combine)  # type: ignore[arg-type]
    return int(combined([[first, second]], [statistic])[0, 0])


def combined(distances: list[list[int]], statistics: list[Statistic], tables: np.ndarray = TABLES) -> np.ndarray:  # fmt: skip
    return Combination(statistics, N_BINS).bits(np.array(distances), tables)


def of_p(p: float) -> int:
    return 256 + math.ceil(BITS_A_HALVING * math.log2(p))


def test_one_sentence_is_its_distance() -> None:
    found = combined([[70, 90], [80, 60]], [Statistic((1,)), Statistic((0,))])
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
    impossible = bits_of(np.zeros((2, N_BINS)), N_BINS)
    assert combined([[5, 5]], [Statistic((0, 1), "and")], impossible).tolist() == [[0]]


def test_four_bits_of_distance_weigh_as_much_in_combined_bits() -> None:
    """In the tail of a typical background (7 bits of spread, 3 below the mean) 4 bits make a window 4 to 8 times rarer."""
    law = NormalDist(110, 7)
    ratio = law.cdf(89) / law.cdf(89 - 4)
    halvings = 4 * Statistic((0, 1), "and").scale / BITS_A_HALVING
    assert 2**halvings == pytest.approx(ratio, rel=0.5)
    assert Statistic((0,)).scale == 1


def test_queries_of_all_kinds_are_put_together_at_once() -> None:
    kinds = [Statistic((1, 0), "or"), Statistic((2,)), Statistic((2, 0, 1), "and"), Statistic((0, 2), "or")]
    random = np.random.default_rng(0)
    distances, tables = random.integers(0, N_BINS, (50, 3)), np.sort(random.integers(0, N_BINS, (3, N_BINS)))
    found = Combination(kinds, N_BINS).bits(distances, tables)
    for window, (a, b, c) in enumerate(distances):
        of = tables[0, a], tables[1, b], tables[2, c]
        assert found[window].tolist() == [min(of[:2]), c, max(of), min(of[0], of[2])]


def test_a_sentence_of_which_nothing_is_known_is_as_far_as_can_be() -> None:
    statistics = [Statistic((0, 1), "and")]
    unknown = Combination(statistics, N_BINS).tables([None])[0]
    tables = np.stack([TABLES[0], unknown])
    assert combined([[200, 0]], statistics, tables).tolist() == [[256]]


def test_p_values_are_those_of_the_background() -> None:
    counts = np.zeros(N_BINS)
    counts[[100, 120]] = 250, 750
    (table,) = Combination([], N_BINS).tables([tail_of(counts)])
    assert table[[100, 119, 120, 256]].tolist() == [of_p(0.25), of_p(0.25), 256, 256]


def test_every_distance_has_the_bits_of_its_tails_probability() -> None:
    random = np.random.default_rng(0)
    tails = [
        tail_of(
            np.bincount(np.rint(random.normal(mean, spread, n)).astype(int), minlength=N_BINS).astype(float)
        )
        for mean, spread, n in ((110, 7, 20_000), (90, 12, 400), (128, 3, 300_000), (60, 1, 50))
    ]
    tables = Combination([], N_BINS).tables([tails[0], None, *tails[1:]])
    assert tables[1].tolist() == [256] * N_BINS
    for table, tail in zip(np.delete(tables, 1, axis=0), tails, strict=True):
        expected = bits_of(np.array([tail.probability(distance) for distance in range(N_BINS)]), N_BINS)
        assert table.tolist() == expected.tolist()


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
    own, runs = random.integers(0, 257, (40, 4)), np.repeat([7, 3, 7], [10, 1, 29])
    confirms = (1, 1), (2, 3), (4, 5), (2, 3)
    statistics = [Statistic((row,), confirm=confirm) for row, confirm in enumerate(confirms)]
    memory, expected = Confirmation(statistics, N_BINS), []
    for window, row in enumerate(own):
        if window in (10, 11):
            memory.begin()
        expected.append(memory.confirmed(row))
    assert np.array_equal(confirmed_runs(own, runs, statistics, N_BINS), np.stack(expected))
    assert confirmed_runs(own[:0], runs[:0], statistics, N_BINS).shape == (0, 4)
    assert confirmed_runs(own[:2], runs[:2], statistics, N_BINS).tolist() == np.stack(expected[:2]).tolist()


def test_histograms_count_every_window_of_every_query() -> None:
    found = histograms(np.array([[3, 0], [3, 256], [5, 256]]), N_BINS)
    assert found.shape == (2, N_BINS)
    assert (found[0, 3], found[0, 5], found[1, 0], found[1, 256]) == (2, 1, 1, 2)
    assert found.sum() == 6
    assert histograms(np.zeros((0, 2), np.int64), N_BINS).sum() == 0
