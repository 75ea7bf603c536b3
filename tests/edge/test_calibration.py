"""Probability from distance: the logistic of the manifest, safe for any distance."""

from __future__ import annotations

import math

import pytest

from edge.bundle import Calibration
from edge.calibration import is_accepted, probability

CALIBRATION = Calibration("logistic", -0.1, 7.0, 0, "test")


@pytest.mark.parametrize("distance", [0, 1, 69.5, 70, 128, 256])
def test_probability_is_the_logistic_of_the_distance(distance: float) -> None:
    assert probability(CALIBRATION, distance) == pytest.approx(1 / (1 + math.exp(0.1 * distance - 7.0)))


def test_probability_falls_with_distance_and_stays_between_0_and_1() -> None:
    found = [probability(CALIBRATION, distance) for distance in range(257)]
    assert found == sorted(found, reverse=True)
    assert all(0 < each < 1 for each in found)


@pytest.mark.parametrize("distance", [-1e6, 1e6, 1e300])
def test_extreme_distances_do_not_overflow(distance: float) -> None:
    assert probability(CALIBRATION, distance) == (1.0 if distance < 0 else 0.0)


@pytest.mark.parametrize(
    ("found", "limit", "accepted"),
    [(0.5, None, True), (0.49, None, False), (0.49, 0.4, True), (0.8, 0.9, False), (0.0, 0.0, True)],
)
def test_one_half_is_enough_unless_the_query_says_otherwise(
    found: float, limit: float | None, accepted: bool
) -> None:
    assert is_accepted(found, limit) is accepted
