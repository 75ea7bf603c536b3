"""Precision and the fit: the right interval, and a curve that verdicts move as far as they know better."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.bundle import Calibration
from edge.calibration import probability
from edge.precision import fit_logistic, precisions, wilson
from edge.verdict import Answer, Verdict

SPACE = "test-0123456789ab"
PRIOR = Calibration("logistic", -0.1, 7.0, 0, "test")  # one half at 70 bits


def verdict(seq: int, answer: Answer, distance: int = 60, **change: str) -> Verdict:
    fields = {"query": "owl", "text": "an owl", "code_space": SPACE, **change}
    return Verdict("dev", 1, seq, distance=distance, probability=0.5, answer=answer, given_ns=0, **fields)


def sample(n: int, coefficient: float, intercept: float) -> tuple[list[float], list[bool]]:
    """Draw detections of 40 to 90 bits, right as often as the curve says."""
    random = np.random.default_rng(5)
    distances = random.integers(40, 91, n)
    chance = 1 / (1 + np.exp(-(coefficient * distances + intercept)))
    return distances.tolist(), (random.random(n) < chance).tolist()


@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(n_right: int, n: int, low: float, high: float) -> None:
    assert wilson(n_right, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - n_right, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_nothing_judged_says_nothing() -> None:
    (only,) = precisions([verdict(0, "unsure")])
    assert (only.value, only.interval, only.n_unsure) == (None, (0.0, 1.0), 1)


def test_unsure_counts_on_neither_side() -> None:
    (only,) = precisions(
        [verdict(0, "right"), verdict(1, "wrong"), verdict(2, "unsure"), verdict(3, "right")]
    )
    assert (only.n_right, only.n_wrong, only.n_unsure) == (2, 1, 1)
    assert only.value == pytest.approx(2 / 3)
    assert only.interval == wilson(2, 3)
    assert only.is_right == (True, False, True)


@pytest.mark.parametrize(
    "change", [{"query": "frog"}, {"text": "a frog"}, {"code_space": "test-ffffffffffff"}]
)
def test_another_sentence_or_code_space_is_another_question(change: dict[str, str]) -> None:
    found = precisions([verdict(0, "right"), verdict(1, "wrong", **change)])
    assert sorted(each.value or 0.0 for each in found) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("n_right", "n_wrong", "is_fitted"), [(10, 10, True), (9, 30, False), (30, 9, False)]
)
def test_a_query_needs_ten_of_both_kinds_for_its_own_fit(n_right: int, n_wrong: int, is_fitted: bool) -> None:
    answers: list[Answer] = ["right"] * n_right + ["wrong"] * n_wrong + ["unsure"] * 20
    (only,) = precisions(verdict(seq, answer) for seq, answer in enumerate(answers))
    fit = only.fit(PRIOR)
    assert (fit is not None) == is_fitted
    if fit is not None:
        assert fit.n_pairs == 20
        assert fit.source.endswith("10 right, 10 wrong")


@pytest.mark.parametrize(("coefficient", "intercept"), [(-0.1, 7.0), (-0.2, 12.0), (-0.05, 1.0)])
def test_many_verdicts_overrule_the_prior(coefficient: float, intercept: float) -> None:
    found = Calibration(
        "logistic", *fit_logistic(*sample(20_000, coefficient, intercept), PRIOR), 0, "verdicts"
    )
    for distance in (45, 60, 85):
        truth = 1 / (1 + math.exp(-(coefficient * distance + intercept)))
        assert probability(found, distance) == pytest.approx(truth, abs=0.02)


def test_no_verdict_leaves_the_prior() -> None:
    assert fit_logistic([], [], PRIOR) == pytest.approx((-0.1, 7.0))


def test_few_verdicts_move_it_less_than_many() -> None:
    few, many = (
        probability(Calibration("logistic", *fit_logistic([60] * n, [False] * n, PRIOR), 0, "x"), 60)
        for n in (3, 300)
    )
    assert many < few < probability(PRIOR, 60)


def test_the_fit_is_where_the_posterior_is_flat() -> None:
    distances, is_right = sample(40, -0.1, 6.0)
    coefficient, intercept = fit_logistic(distances, is_right, PRIOR)

    def loss(a: float, b: float) -> float:
        """Return what is smallest at the fit, up to a constant, in the units of its docstring."""
        d = np.asarray(distances)
        logits = a * d + b
        slope, logit = a * 10, a * 70 + b
        likelihood = np.sum(np.logaddexp(0, logits) - np.asarray(is_right) * logits)
        return float(likelihood + (slope + 1) ** 2 / 2 + logit**2 / 18)

    best = loss(coefficient, intercept)
    for a, b in ((1e-3, 0), (-1e-3, 0), (0, 0.05), (0, -0.05), (1e-3, -0.07), (-1e-3, 0.07)):
        assert loss(coefficient + a, intercept + b) > best


def test_verdicts_that_a_distance_separates_have_a_finite_fit() -> None:
    coefficient, intercept = fit_logistic([50] * 10 + [51] * 10, [True] * 10 + [False] * 10, PRIOR)
    assert -2.0 < coefficient < -0.1
    assert math.isfinite(intercept)


def test_farther_is_never_likelier() -> None:
    distances, is_right = [50] * 20 + [80] * 20, [False] * 15 + [True] * 5 + [True] * 15 + [False] * 5
    found = Calibration("logistic", *fit_logistic(distances, is_right, PRIOR), 0, "verdicts")
    assert found.coefficient == pytest.approx(-0.05 * 0.1)
    # almost flat, at the share of right ones
    assert probability(found, 65) == pytest.approx(0.5, abs=0.02)


def test_a_steep_or_flat_prior_does_not_overflow() -> None:
    for coefficient in (-1e6, -1e-9):
        prior = Calibration("logistic", coefficient, 0.0, 0, "test")
        assert all(map(math.isfinite, fit_logistic([0, 200, 256], [True, False, True], prior)))
