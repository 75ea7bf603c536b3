"""The site's own background, learnt while listening: for each query a histogram of distances, and from it the threshold it alarms at.

The counts fade with a half-day memory, so that a change of weather is followed; what was let through is compared with what was wanted and
the difference corrected, within bounds (adaptive conformal inference, Gibbs and Candes 2021). Windows that are taken for the sound itself
are neither counted nor corrected for: those far nearer than the threshold, up to a bounded number a day, and, however many, those far nearer
than the bundle's whole background ever comes. Their neighbours, which hold parts of it, are not counted. No site's threshold goes below
those: a sound that is common at a site does not hide itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.false_alarms import Counts, Tail, Threshold, rate_interval, tail_of, trimmed

MEMORY_S = 12 * 3600.0  # counts fade by e in this time
STEP_S = 600.0  # thresholds are set anew this often
MIN_WINDOWS = 300.0  # fewer windows of a site say too little: until then the prior counts, and cautiously
PRIOR_CAUTION = 2.0  # as many times rarer than wanted ...
PRIOR_MARGIN_BITS = 4  # ... and so many bits of distance nearer, while the site is unknown
GAIN = 0.1  # of the correction, for each window let through too many
MAX_CORRECTION = 1.5  # of the logarithm of the rate: a factor of 4.5
EVENT_BITS = 4  # of distance: this far below the threshold a window is taken for the sound itself ...
EVENT_EXCESS = 50.0  # ... up to so many a day (or times the wanted alarms); more of them are background
DRIFT_BITS = (
    20  # of distance: a site's threshold is at most so much nearer than the bundle's background asks for ...
)
DRIFT_PER_DAY = 2.0  # ... at the wanted rate or this one: two sites of ten days came within 14, a rainy one for "sea waves" within 31
NEIGHBOURS = 1  # windows on each side of the sound itself that are not background either
LEAST_PER_DAY = 0.001  # less than one in three years: no tail model is to be trusted further
_GOLDEN = 0.6180339887498949  # fractions of time are spread evenly by this step (Weyl)


@dataclass(slots=True)
class Background:
    """Histograms and thresholds of n queries.

    wanted_per_day: [n]; prior: histograms of the bundle's background [n, n_bins], rows of zeros where there is none; scale: [n], how many
    of a query's bits weigh as much as one bit of distance (edge.alarm_statistic); sure: [n], the distance up to which a window is the sound
    itself however often it comes, below 0 where there is none; passed: [n], windows that were within the limit and not taken for the
    sound, of `heard`, [n], that were compared with it.
    A query without prior and without MIN_WINDOWS windows of the site does not alarm yet.
    """

    wanted_per_day: NDArray[np.float64]
    prior: Counts
    hop_s: float
    scale: NDArray[np.int64]
    sure: NDArray[np.int64]
    counts: Counts
    correction: NDArray[np.float64]
    events_today: NDArray[np.float64]
    passed: NDArray[np.int64]
    heard: NDArray[np.int64]
    n_windows: int = 0

    @classmethod
    def begin(
        cls, wanted_per_day: Sequence[float], prior: Counts, hop_s: float, scale: Sequence[int] | None = None
    ) -> Background:
        """Return a background that knows nothing of the site yet; scale: None = bits of distance."""
        n = len(wanted_per_day)
        wanted = np.asarray(wanted_per_day, np.float64)
        scales = np.ones(n, np.int64) if scale is None else np.asarray(scale, np.int64)
        sure = np.asarray([_sure(*each, hop_s) for each in zip(wanted, prior, scales, strict=True)], np.int64)
        counted = np.zeros((2, n), np.int64)
        return cls(
            wanted, prior, hop_s, scales, sure, np.zeros_like(prior), np.zeros(n), np.zeros(n), *counted
        )

    @property
    def windows_per_day(self) -> float:
        """Return how many windows a day of uninterrupted listening has."""
        return 86_400 / self.hop_s

    @property
    def step_windows(self) -> int:
        """Return the number of windows between two settings of the thresholds."""
        return max(1, round(STEP_S / self.hop_s))

    def learn(self, distances: NDArray[np.int64], queries: NDArray[np.bool_]) -> None:
        """Take windows that were heard before, in order, [n_windows, n], for some queries [n]; for example of the codes in the store."""
        self._count(distances, ~with_neighbours(distances <= self.sure) & queries)

    def thresholds(self) -> list[Threshold]:
        """Return the thresholds of the coming step."""
        return [self._threshold(row) for row in range(len(self.wanted_per_day))]

    def limits(self, thresholds: Sequence[Threshold]) -> NDArray[np.int64]:
        """Return the largest distance that alarms in the coming step, [n]; -1 = none."""
        number = self.n_windows // self.step_windows
        rows = []
        for row, each in enumerate(thresholds):
            phase = (number * _GOLDEN + row * _GOLDEN**2) % 1.0
            rows.append(each.distance + (phase < each.share))
        return np.asarray(rows, np.int64)

    def observe(self, distances: NDArray[np.int64], limits: NDArray[np.int64]) -> None:
        """Count the windows of a step, [n_windows, n], that were compared with `limits`, and correct for what was let through."""
        share_of_day = len(distances) / self.windows_per_day
        allowed = np.maximum(EVENT_EXCESS * self.wanted_per_day, EVENT_EXCESS)
        is_far = (distances <= limits - EVENT_BITS * self.scale) & (self.events_today < allowed)
        is_event = is_far | (distances <= self.sure)
        self.counts *= math.exp(-len(distances) * self.hop_s / MEMORY_S)
        self.events_today *= math.exp(-share_of_day)
        self.events_today += is_far.sum(axis=0)
        self._count(distances, ~with_neighbours(is_event))
        let_through = ((distances <= limits) & ~is_event).sum(axis=0)
        self.passed += let_through
        self.heard += len(distances)
        wanted = self.wanted_per_day * share_of_day
        self.correction = np.clip(
            self.correction + GAIN * (wanted - let_through), -MAX_CORRECTION, MAX_CORRECTION
        )
        self.n_windows += len(distances)

    def per_day(self, row: int, distance: float) -> float | None:
        """Return how many windows a day without the sound are as near or nearer, None while nothing is known."""
        tail = self.tail(row)
        if tail is None:
            return None
        return max(tail.probability(distance) * self.windows_per_day, LEAST_PER_DAY)

    def achieved_per_day(self, row: int) -> tuple[float, float, float] | None:
        """Return how many false alarms a day there were at most, with the 95 % interval (low, high); None before MIN_WINDOWS windows.

        Each window that was let through and not taken for the sound counts, also one that held a faint sound.
        """
        if self.heard[row] < MIN_WINDOWS:
            return None
        days = float(self.heard[row]) / self.windows_per_day
        return int(self.passed[row]) / days, *rate_interval(int(self.passed[row]), days)

    def tail(self, row: int) -> Tail | None:
        """Return the tail that counts now: the site's, or the prior's while the site is unknown."""
        if self.counts[row].sum() >= MIN_WINDOWS:
            return tail_of(trimmed(self.counts[row]))
        return tail_of(self.prior[row]) if self.prior[row].sum() > 0 else None

    def _threshold(self, row: int) -> Threshold:
        wanted = self.wanted_per_day[row] / self.windows_per_day
        tail = self.tail(row)
        if tail is None:
            return Threshold(-1, 0.0)
        if self.counts[row].sum() < MIN_WINDOWS:
            cautious = tail.threshold(min(wanted / PRIOR_CAUTION, 0.5))
            return Threshold(cautious.distance - PRIOR_MARGIN_BITS * int(self.scale[row]), 0.0)
        found = tail.threshold(min(wanted * math.exp(self.correction[row]), 0.5))
        return found if found.distance >= self.sure[row] else Threshold(int(self.sure[row]), 0.0)

    def _count(self, distances: NDArray[np.int64], is_counted: NDArray[np.bool_]) -> None:
        n_bins = self.counts.shape[1]
        for row in range(len(self.counts)):
            counted = distances[is_counted[:, row], row]
            self.counts[row] += np.bincount(np.clip(counted, 0, n_bins - 1), minlength=n_bins)


def with_neighbours(is_event: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which windows [n_windows, n] are events or beside one."""
    found = is_event.copy()
    for n in range(1, NEIGHBOURS + 1):
        found[n:] |= is_event[:-n]
        found[:-n] |= is_event[n:]
    return found


def _sure(wanted_per_day: float, prior: Counts, scale: int, hop_s: float) -> int:
    """Return the distance up to which a window is taken for the sound itself, -1 where there is no prior."""
    if not prior.sum() > 0:
        return -1
    rate = min(wanted_per_day, DRIFT_PER_DAY) * hop_s / 86_400
    return max(tail_of(prior).threshold(min(rate, 0.5)).distance - DRIFT_BITS * int(scale), -1)
