"""Tails of backgrounds, thresholds for a wanted rate, and intervals of a rate that was seen."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from edge.false_alarms import Counts, quantile, rate_interval, tail_of

MEAN, SD = 110.0, 7.0
TRUTH = NormalDist(MEAN, SD)


def background(n: int, seed: int = 0) -> np.ndarray:
    """Return whole distances of n windows, normal around MEAN."""
    return np.rint(np.random.default_rng(seed).normal(MEAN, SD, n)).astype(np.int64)


def counts(distances: np.ndarray) -> Counts:
    return np.bincount(distances, minlength=257).astype(np.float64)


@pytest.mark.parametrize("probability", [0.3, 0.02, 0.002])
def test_fresh_background_passes_a_threshold_as_often_as_wanted(probability: float) -> None:
    threshold = tail_of(counts(background(20_000))).threshold(probability)
    fresh = background(200_000, seed=1)
    one_more = threshold.share * np.mean(fresh == threshold.distance + 1)
    assert np.mean(fresh <= threshold.distance) + one_more == pytest.approx(probability, rel=0.15)


def test_the_share_of_one_bit_more_makes_a_rate_between_whole_distances_exact() -> None:
    histogram = np.zeros(257)
    histogram[[90, 100, 110]] = 100, 300, 600
    threshold = tail_of(histogram).threshold(0.25)
    assert (threshold.distance, threshold.share) == (99, pytest.approx(0.5))


def test_a_distance_that_was_never_heard_is_rare_but_not_impossible() -> None:
    heard = background(20_000)
    tail, nearest = tail_of(counts(heard)), int(heard.min())
    found = [tail.probability(distance) for distance in range(nearest - 6, nearest)]
    assert found == sorted(found)
    assert all(0 < each < 1 / 20_000 for each in found)


@pytest.mark.parametrize("probability", [1e-4, 1e-5, 1e-6])
def test_a_rate_below_one_in_the_windows_heard_has_a_threshold(probability: float) -> None:
    found = []
    for seed in range(20):
        heard = background(2_000, seed)
        threshold = tail_of(counts(heard)).threshold(probability)
        assert threshold.distance < heard.min() + 2
        found.append(threshold.distance + threshold.share)
    true_bits = TRUTH.inv_cdf(probability) - 0.5  # distances were rounded
    assert np.mean(found) == pytest.approx(true_bits, abs=1)
    assert np.abs(np.asarray(found) - true_bits).max() < 6


@pytest.mark.parametrize("probability", [0.2, 0.004, 0.003, 1e-3, 1e-5, 1e-9])
def test_threshold_and_probability_undo_each_other(probability: float) -> None:
    tail = tail_of(counts(background(2_000)))
    threshold = tail.threshold(probability)
    low, high = tail.probability(threshold.distance), tail.probability(threshold.distance + 1)
    assert low <= probability <= high
    assert low + threshold.share * (high - low) == pytest.approx(probability)


def test_what_was_counted_often_enough_is_not_modelled() -> None:
    histogram = np.zeros(257)
    histogram[[60, 120]] = 50, 9_950  # no normal law goes through both
    tail = tail_of(histogram)
    assert tail.probability(60) == 0.005
    assert tail.probability(119) == 0.005
    assert tail.probability(300) == 1.0


def test_the_model_ends_where_counting_begins() -> None:
    histogram = np.zeros(257)
    histogram[[60, 120]] = 4, 9_996  # four windows are too few to be taken as counted
    tail = tail_of(histogram)
    assert max(tail.probability(distance) for distance in range(120)) == pytest.approx(8 / 10_000, rel=0.01)


def test_a_background_of_one_distance_has_a_tail_that_falls() -> None:
    histogram = np.zeros(257)
    histogram[100] = 5_000
    tail = tail_of(histogram)
    assert 0 < tail.probability(98) < tail.probability(99) <= 8 / 5_000
    assert tail.threshold(1e-6).distance < 100


def test_an_empty_background_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one window"):
        tail_of(np.zeros(257))


def test_a_quantile_lies_between_whole_distances() -> None:
    assert quantile(np.array([0.0, 0.2, 0.6, 1.0]), 0.4) == pytest.approx(1.5)
    assert quantile(np.array([0.5, 1.0]), 0.25) == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("n_events", "days", "low", "high"),
    [(0, 1, 0.0, 3.689), (1, 1, 0.0253, 5.572), (10, 1, 4.795, 18.390), (10, 5, 0.959, 3.678)],
)
def test_the_interval_of_a_rate_is_that_of_the_tables(
    n_events: int, days: float, low: float, high: float
) -> None:
    assert rate_interval(n_events, days) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


@pytest.mark.parametrize("rate", [1.0, 7.0])
def test_the_interval_holds_the_true_rate_as_often_as_it_says(rate: float) -> None:
    seen = np.random.default_rng(0).poisson(rate * 2, 400)
    intervals = {int(n): rate_interval(int(n), 2.0, level=0.9) for n in set(seen)}
    held = [intervals[int(n)][0] <= rate <= intervals[int(n)][1] for n in seen]
    assert 0.88 <= np.mean(held) <= 0.99


def test_a_rate_of_no_days_is_refused() -> None:
    with pytest.raises(ValueError, match="days above 0"):
        rate_interval(3, 0.0)


def test_the_tail_goes_through_its_rarest_level_and_one_twenty_times_as_frequent() -> None:
    mixed = np.concatenate([background(19_400), background(600) - 25])
    histogram = counts(mixed)
    cumulative, low, high = np.cumsum(histogram) / 20_000, 8 / 20_000, 160 / 20_000
    deviate = NormalDist().inv_cdf
    between = quantile(cumulative, high) - quantile(cumulative, low)
    assert tail_of(histogram).slope == pytest.approx((deviate(high) - deviate(low)) / between)
