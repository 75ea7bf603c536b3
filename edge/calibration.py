"""Calibration: from a distance in bits to a probability, and the alarm rule on it."""

from __future__ import annotations

import math

from edge.bundle import Calibration

MIN_PROBABILITY = (
    0.5  # a query alarms where the sound is more likely its own than not, unless its line says another
)


def probability(calibration: Calibration, distance: float) -> float:
    """Return the probability 0..1 that a sound fits a query at this distance (Hamming or asymmetric, in bits).

    sigmoid(coefficient * distance + intercept), without overflow for any distance.
    """
    logit = calibration.coefficient * distance + calibration.intercept
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    return math.exp(logit) / (1.0 + math.exp(logit))


def is_accepted(found: float, min_probability: float | None = None) -> bool:
    """Return whether a probability is enough for an alarm; min_probability: the query's own limit, or None."""
    return found >= (MIN_PROBABILITY if min_probability is None else min_probability)
