"""What a query's alarm is decided on: one number of bits a window, from the distances of its sentences and of the windows before.

One sentence: its distance. `A & B`: the larger of the two conformal p-values, `A OR B`: the smaller, put on a scale of bits again (8 for
each halving of p, so 0 bits is one window in 2^32). confirm=n/m: the n-th smallest of the last m windows of the same recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.false_alarms import Tail

BITS_A_HALVING = 8
COMBINED_SCALE = (
    5  # of these bits weigh one bit of distance: in a tail 4 of distance are 2.5 halvings, a factor of 6
)
_WINDOWS_AT_ONCE = 1024  # whose sentences are put together, for memory's sake
_CONFIRM_ITEMS = 2_000_000  # windows times queries times looked back that are put together at once

Bits = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Statistic:
    """How one query is decided. rows: columns of the distances that are its sentences'."""

    rows: tuple[int, ...]
    combine: Literal["and", "or"] | None = None
    confirm: tuple[int, int] = (1, 1)

    @property
    def scale(self) -> int:
        """Return how many of its bits weigh as much as one bit of distance."""
        return 1 if self.combine is None else COMBINED_SCALE


class Combination:
    """Puts the distances of sentences together for all queries at once. `A & B` and `A OR B` need tables of their p-values."""

    def __init__(self, statistics: Sequence[Statistic], n_bins: int) -> None:
        plain = [n for n, each in enumerate(statistics) if each.combine is None]
        self._plain = np.asarray(plain, np.intp), np.asarray([statistics[n].rows[0] for n in plain], np.intp)
        self._joined = []
        for combine, join in (("and", np.maximum), ("or", np.minimum)):
            queries = [n for n, each in enumerate(statistics) if each.combine == combine]
            rows = [row for n in queries for row in statistics[n].rows]
            starts = np.cumsum([0, *(len(statistics[n].rows) for n in queries)])[:-1]
            if queries:
                self._joined.append((join, np.asarray(queries), np.asarray(rows), starts))
        self._n_queries, self._n_bins = len(statistics), n_bins
        levels = 2.0 ** (
            -np.arange(n_bins - 1, 0, -1) / BITS_A_HALVING
        )  # p of 1 bit, 2 bits ... less than all
        self._deviates = np.asarray([NormalDist().inv_cdf(level) for level in levels])

    @property
    def combines(self) -> bool:
        """Return whether any query has several sentences."""
        return bool(self._joined)

    def tables(self, tails: Sequence[Tail | None]) -> Bits:
        """Return the bits of the conformal p-value of every distance, [n_rows, n_bins]; all where nothing is known of the background."""
        top = self._n_bins - 1
        tables = np.full((len(tails), self._n_bins), top, np.int64)
        known = [row for row, tail in enumerate(tails) if tail is not None]
        found = [tail for tail in tails if tail is not None]
        if not found:
            return tables
        counted = np.stack([tail.cumulative for tail in found])  # [n_known, n_bins]
        lowest, x0, z0, slope = (
            np.asarray([getattr(tail, name) for tail in found])[:, None]
            for name in ("lowest", "x0", "z0", "slope")
        )
        deviates = z0 + slope * (np.arange(self._n_bins) - x0)
        modelled = np.searchsorted(
            self._deviates, deviates
        )  # its logarithm, without a normal law for each distance
        modelled = np.minimum(modelled, bits_of(lowest, self._n_bins))
        tables[known] = np.where(counted >= lowest, bits_of(counted, self._n_bins), modelled)
        return tables

    def bits(self, distances: Bits, tables: Bits) -> Bits:
        """Return bits [n_windows, n_queries] of distances [n_windows, n_rows]."""
        found = np.empty((len(distances), self._n_queries), np.int64)
        queries, rows = self._plain
        found[:, queries] = distances[:, rows]
        for first in range(0, len(distances), _WINDOWS_AT_ONCE):
            some, their = distances[first : first + _WINDOWS_AT_ONCE], found[first : first + _WINDOWS_AT_ONCE]
            for join, queries, rows, starts in self._joined:  # the larger p-value has the larger bits
                their[:, queries] = join.reduceat(tables[rows, some[:, rows]], starts, axis=1)
        return found


def bits_of(p_values: NDArray[np.float64], n_bins: int) -> Bits:
    """Return p-values 0..1 on the scale of bits, 0..n_bins - 1, rounded up."""
    bits = n_bins - 1 + np.ceil(BITS_A_HALVING * np.log2(np.maximum(p_values, 1e-300)))
    clipped: Bits = np.clip(bits, 0, n_bins - 1).astype(np.int64)
    return clipped


class Confirmation:
    """Remembers the last windows of a recording for the queries that want to hear a sound more than once."""

    def __init__(self, statistics: Sequence[Statistic], n_bins: int) -> None:
        self._groups = _groups(statistics)
        self._longest = longest(statistics)
        self._far = n_bins - 1
        self._last = np.full((self._longest, len(statistics)), self._far, np.int64)  # the latest at the end

    def begin(self) -> None:
        """Forget: another recording begins, or sound is missing."""
        self._last[:] = self._far

    def confirmed(self, bits: Bits) -> Bits:
        """Return bits [n_queries] of a window after the windows before it count; too few windows are as far as can be."""
        if self._longest == 1:
            return bits
        self._last[:-1] = self._last[1:]
        self._last[-1] = bits
        result = bits.copy()
        for (n, m), queries in self._groups.items():
            result[queries] = np.partition(self._last[-m:, queries], n - 1, axis=0)[n - 1]
        return result


def confirmed_runs(bits: Bits, runs: NDArray[np.int64], statistics: Sequence[Statistic], n_bins: int) -> Bits:
    """Return Confirmation's bits of many windows [n_windows, n_queries]; runs [n_windows]: a change of number begins another recording."""
    groups, n_windows = _groups(statistics), len(bits)
    if not groups or not n_windows:
        return bits
    begins = np.flatnonzero(np.diff(runs, prepend=runs[0] - 1))
    place = np.arange(n_windows) - np.repeat(begins, np.diff([*begins, n_windows]))  # in its recording
    result = bits.copy()
    for (n, m), own in groups.items():
        n_at_once = max(1, _CONFIRM_ITEMS // (m * n_windows))
        for queries in (own[first : first + n_at_once] for first in range(0, len(own), n_at_once)):
            last = np.full((m, n_windows, len(queries)), n_bins - 1, np.uint16)
            for back in range(min(m, n_windows)):
                is_there = place[back:] >= back
                last[back, back:][is_there] = bits[: n_windows - back, queries][is_there]
            result[:, queries] = np.partition(last, n - 1, axis=0)[n - 1]
    return result


def longest(statistics: Sequence[Statistic]) -> int:
    """Return how many windows the bits of one may depend on, its own among them."""
    return max((each.confirm[1] for each in statistics), default=1)


def _groups(statistics: Sequence[Statistic]) -> dict[tuple[int, int], NDArray[np.intp]]:
    """Return the numbers of the queries that look back, by their n of m."""
    groups: dict[tuple[int, int], list[int]] = {}
    for query, each in enumerate(statistics):
        if each.confirm[1] > 1:
            groups.setdefault(each.confirm, []).append(query)
    return {confirm: np.asarray(queries, np.intp) for confirm, queries in groups.items()}


def histograms(bits: Bits, n_bins: int) -> NDArray[np.float64]:
    """Return how often each number of bits occurs, [n_queries, n_bins], of bits [n_windows, n_queries]."""
    if not len(bits):
        return np.zeros((bits.shape[1], n_bins))
    counts = [np.bincount(np.clip(column, 0, n_bins - 1), minlength=n_bins) for column in bits.T]
    return np.stack(counts).astype(np.float64)
