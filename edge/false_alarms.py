"""How often a distance occurs without the sound: tails of histograms, thresholds for a wanted rate, intervals of a rate.

A histogram counts windows by their distance in bits, 0..code_bits. Below the distances that were counted often enough its tail is
continued by a normal law through two of its quantiles (a tail model in the sense of Scheirer et al. 2010; distances are sums of
many weakly dependent bits).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

MIN_COUNT = 8.0  # windows that a part of the tail must hold to be taken as counted
TAIL_SPAN = (
    20.0  # the tail model is put through the rarest counted level and the one this many times as frequent
)
BULK = (0.02, 0.2)  # levels of the quantiles that a histogram's bulk is judged by ...
FARTHEST = 6.0  # ... and how many deviates below its mean a background may come
_MAX_LEVEL = 0.1
_NORMAL = NormalDist()

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Threshold:
    """Windows up to `distance` bits alarm, and those of one bit more in `share` of the time: distances are whole, rates are not."""

    distance: int
    share: float


@dataclass(frozen=True, slots=True)
class Tail:
    """Probability that a window without the sound is as near as a distance or nearer."""

    cumulative: Counts  # [n], the counted part; 0..1
    lowest: float  # level below which the model is used
    x0: float  # distance at that level
    z0: float  # its normal deviate
    slope: float  # deviates a bit, > 0

    def probability(self, distance: float) -> float:
        """Return P(D <= distance); distance may be a fraction or outside 0..n."""
        index = math.floor(distance)
        counted = self.cumulative[min(index, len(self.cumulative) - 1)] if index >= 0 else 0.0
        if counted >= self.lowest:
            return float(counted)
        return min(_NORMAL.cdf(self.z0 + self.slope * (distance - self.x0)), self.lowest)

    def threshold(self, probability: float) -> Threshold:
        """Return the threshold that windows without the sound pass with a probability in 0..1, both exclusive."""
        if probability >= self.lowest:
            index = int(np.searchsorted(self.cumulative, probability, side="right")) - 1
        else:
            index = math.floor(self.x0 - (self.z0 - _NORMAL.inv_cdf(probability)) / self.slope)
        low, high = self.probability(index), self.probability(index + 1)
        share = (probability - low) / (high - low) if high > low else 0.0
        return Threshold(index, min(max(share, 0.0), 1.0))


def passing(tail: Tail, threshold: Threshold) -> float:
    """Return the probability that a window without the sound passes a threshold, over time."""
    low, high = tail.probability(threshold.distance), tail.probability(threshold.distance + 1)
    return (1 - threshold.share) * low + threshold.share * high


def tail_of(counts: Counts) -> Tail:
    """Return the tail of a histogram [n] of at least one window; a weighted count need not be whole."""
    total = float(counts.sum())
    if not total > 0:
        raise ValueError("expected a histogram with at least one window, found an empty one")
    cumulative = np.cumsum(counts) / total
    lowest = min(max(MIN_COUNT / total, 1e-12), _MAX_LEVEL / 2)
    highest = min(_MAX_LEVEL, lowest * TAIL_SPAN)
    x0, x1 = quantile(cumulative, lowest), quantile(cumulative, highest)
    z0, z1 = _NORMAL.inv_cdf(lowest), _NORMAL.inv_cdf(highest)
    # at least half a bit between the two levels: a histogram of a few values has no slope of its own
    return Tail(cumulative, lowest, x0, z0, (z1 - z0) / max(x1 - x0, 0.5))


def trimmed(counts: Counts) -> Counts:
    """Return a histogram [n] without what lies farther below its bulk than a normal law lets any background come.

    The law goes through two quantiles of the bulk; what a sound that really occurs adds to the tail is cut off, a background alone keeps all.
    """
    cumulative = np.cumsum(counts) / float(counts.sum())
    low, high = (quantile(cumulative, level) for level in BULK)
    z_low, z_high = (_NORMAL.inv_cdf(level) for level in BULK)
    deviation = max((high - low) / (z_high - z_low), 1.0)
    first = math.floor(low - (FARTHEST + z_low) * deviation)
    return np.where(np.arange(len(counts)) < first, 0.0, counts)


def quantile(cumulative: Counts, probability: float) -> float:
    """Return the distance at a level of a cumulative histogram [n], between whole distances by linear interpolation."""
    index = int(np.searchsorted(cumulative, probability))
    below = float(cumulative[index - 1]) if index else 0.0
    step = float(cumulative[min(index, len(cumulative) - 1)]) - below
    return index - 1 + (probability - below) / step if step > 0 else float(index)


def rate_interval(n_events: int, days: float, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval (Garwood 1936) of a Poisson rate a day after n_events in `days`."""
    if days <= 0:
        raise ValueError(f"expected days above 0, found {days}")
    tail = (1 - level) / 2
    low = _gamma_quantile(n_events, tail) if n_events else 0.0
    return low / days, _gamma_quantile(n_events + 1, 1 - tail) / days


def _gamma_quantile(shape: int, probability: float) -> float:
    """Return x with P(at least `shape` events | mean x) = probability, by bisection of the Poisson sum."""
    low, high = 0.0, shape + 10 * math.sqrt(shape) + 10
    for _ in range(100):
        middle = (low + high) / 2
        if 1 - _poisson_below(shape, middle) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _poisson_below(n: int, mean: float) -> float:
    """Return the probability of fewer than n events at a mean."""
    if mean <= 0:
        return 1.0
    return math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(n))
