"""Precision: how often a query's detections are right, by people's verdicts, and the probability fitted to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.bundle import Calibration
from edge.verdict import ANSWERS, Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_OF_EACH = 10  # right ones and wrong ones, before a query gets a fit of its own

_Z = 1.959963984540054  # of the normal distribution, for 95 %
# The prior's standard deviations, where the bundle's slope is -1 and its logit 0: as much as its slope itself, and odds of 20:1
_SLOPE_SD, _LOGIT_SD = 1.0, 3.0
_FLATTEST = -0.05  # of the bundle's slope: farther is never likelier
_MAX_STEPS, _TOLERANCE = 100, 1e-10


@dataclass(frozen=True, slots=True)
class Precision:
    """The verdicts about one question: a query's name with one sentence, in one code space.

    What is unsure counts neither as right nor as wrong.
    """

    query: str
    text: str
    code_space: str
    n_right: int
    n_wrong: int
    n_unsure: int
    distances: tuple[int, ...]  # bits, of the right and wrong ones
    is_right: tuple[bool, ...]  # for each distance

    @property
    def value(self) -> float | None:
        """Return the share of right ones, None where there is none to judge by."""
        n = self.n_right + self.n_wrong
        return self.n_right / n if n else None

    @property
    def interval(self) -> tuple[float, float]:
        """Return its 95 % interval."""
        return wilson(self.n_right, self.n_right + self.n_wrong)

    def fit(self, prior: Calibration) -> Calibration | None:
        """Return the probability that a detection is right by its distance, None below MIN_OF_EACH of both kinds.

        prior: the bundle's, of this code space.
        """
        if min(self.n_right, self.n_wrong) < MIN_OF_EACH:
            return None
        coefficient, intercept = fit_logistic(self.distances, self.is_right, prior)
        source = f"verdicts on detections of this query: {self.n_right} right, {self.n_wrong} wrong"
        return Calibration("logistic", coefficient, intercept, self.n_right + self.n_wrong, source)


def precisions(verdicts: Iterable[Verdict]) -> list[Precision]:
    """Return the precision of every question, in the order of names."""
    questions: dict[tuple[str, str, str], list[Verdict]] = {}
    for verdict in verdicts:
        questions.setdefault((verdict.query, verdict.text, verdict.code_space), []).append(verdict)
    found = []
    for question, given in sorted(questions.items()):
        right, wrong, unsure = (sum(verdict.answer == answer for verdict in given) for answer in ANSWERS)
        judged = [verdict for verdict in given if verdict.answer != "unsure"]
        distances = tuple(verdict.distance for verdict in judged)
        is_right = tuple(verdict.answer == "right" for verdict in judged)
        found.append(Precision(*question, right, wrong, unsure, distances, is_right))
    return found


def wilson(n_right: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927), 0 to 1 for n = 0."""
    if not n:
        return 0.0, 1.0
    middle = (n_right + _Z**2 / 2) / (n + _Z**2)
    half = _Z / (n + _Z**2) * math.sqrt(n_right * (n - n_right) / n + _Z**2 / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def fit_logistic(
    distances: Sequence[float], is_right: Sequence[bool], prior: Calibration
) -> tuple[float, float]:
    """Return coefficient and intercept of the likeliest logistic under a weak normal prior around the bundle's own.

    Iteratively reweighted least squares in the bundle's units: x counts its logits from its distance of one half,
    so that its own curve is -x. A slope that is flatter than _FLATTEST is held there, and the rest fitted again.
    """
    bits_per_logit = -1.0 / prior.coefficient
    half_bits = -prior.intercept / prior.coefficient
    x = (np.asarray(distances, np.float64) - half_bits) / bits_per_logit  # [n]
    y = np.asarray(is_right, np.float64)  # [n]
    mean, precision = np.array([-1.0, 0.0]), np.array([_SLOPE_SD**-2, _LOGIT_SD**-2])
    slope, logit = _newton(np.stack([x, np.ones_like(x)], axis=1), np.zeros_like(x), y, mean, precision)
    if slope > _FLATTEST:
        slope = _FLATTEST
        (logit,) = _newton(np.ones((x.size, 1)), slope * x, y, mean[1:], precision[1:])
    coefficient = slope / bits_per_logit
    return float(coefficient), float(logit - coefficient * half_bits)


def _newton(
    columns: NDArray[np.float64],
    offset: NDArray[np.float64],
    y: NDArray[np.float64],
    mean: NDArray[np.float64],
    precision: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the weights [k] of columns [n, k] that are likeliest; steps that overshoot are halved."""

    def loss(weights: NDArray[np.float64]) -> float:
        logits = columns @ weights + offset
        return float(
            np.sum(np.logaddexp(0, logits) - y * logits) + np.sum(precision * (weights - mean) ** 2) / 2
        )

    weights = mean
    for _ in range(_MAX_STEPS):
        chance = 0.5 * (1 + np.tanh((columns @ weights + offset) / 2))  # a sigmoid that cannot overflow
        gradient = columns.T @ (chance - y) + precision * (weights - mean)
        curvature = columns.T @ (columns * (chance * (1 - chance))[:, None]) + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        while loss(weights - step) > loss(weights) + _TOLERANCE and np.abs(step).max() > _TOLERANCE:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < _TOLERANCE:
            break
    return weights
