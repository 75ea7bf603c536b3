"""What a query's alarm is decided on: one number of bits a window, from the distances of its sentences and of the windows before.

One sentence: its distance. `A & B`: the larger of the two conformal p-values, `A OR B`: the smaller, put on a scale of bits again (8 for
each halving of p, so 0 bits is one window in 2^32). confirm=n/m: the n-th smallest of the last m windows of the same recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.false_alarms import Tail

BITS_A_HALVING = 8
COMBINED_SCALE = (
    5  # of these bits weigh one bit of distance: in a tail 4 of distance are 2.5 halvings, a factor of 6
)

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


def p_table(tail: Tail | None, n_bins: int) -> NDArray[np.float64]:
    """Return the conformal p-value of every distance, [n_bins]; 1 where nothing is known of the background."""
    if tail is None:
        return np.ones(n_bins)
    return np.asarray([tail.probability(distance) for distance in range(n_bins)])


def combined(distances: Bits, statistics: Sequence[Statistic], tables: Sequence[NDArray[np.float64]]) -> Bits:
    """Return bits [n_windows, n_queries] of distances [n_windows, n_rows]; tables: p_table of every row."""
    columns = []
    for each in statistics:
        if each.combine is None:
            columns.append(distances[:, each.rows[0]])
            continue
        p_values = np.stack([tables[row][distances[:, row]] for row in each.rows])  # [n_sentences, n_windows]
        joined = p_values.max(axis=0) if each.combine == "and" else p_values.min(axis=0)
        top = len(tables[0]) - 1
        bits = top + np.ceil(BITS_A_HALVING * np.log2(np.maximum(joined, 1e-300)))
        columns.append(np.clip(bits, 0, top).astype(np.int64))
    return np.stack(columns, axis=1)


class Confirmation:
    """Remembers the last windows of a recording for the queries that want to hear a sound more than once."""

    def __init__(self, statistics: Sequence[Statistic], n_bins: int) -> None:
        self._confirms = [each.confirm for each in statistics]
        self._longest = max((m for _, m in self._confirms), default=1)
        self._far = n_bins - 1
        self._last: list[Bits] = []

    def begin(self) -> None:
        """Forget: another recording begins, or sound is missing."""
        self._last.clear()

    def confirmed(self, bits: Bits) -> Bits:
        """Return bits [n_queries] of a window after the windows before it count; too few windows are as far as can be."""
        if self._longest == 1:
            return bits
        self._last = [*self._last[-(self._longest - 1) :], bits]
        result = bits.copy()
        for query, (n, m) in enumerate(self._confirms):
            if m > 1:
                nearest = sorted(int(window[query]) for window in self._last[-m:])
                result[query] = nearest[n - 1] if len(nearest) >= n else self._far
        return result


def confirmed_runs(bits: Bits, runs: NDArray[np.int64], statistics: Sequence[Statistic], n_bins: int) -> Bits:
    """Return Confirmation's bits of many windows [n_windows, n_queries]; runs [n_windows]: a change of number begins another recording."""
    if all(each.confirm == (1, 1) for each in statistics):
        return bits
    memory, result = Confirmation(statistics, n_bins), np.empty_like(bits)
    for window, row in enumerate(bits):
        if window and runs[window] != runs[window - 1]:
            memory.begin()
        result[window] = memory.confirmed(row)
    return result


def histograms(bits: Bits, n_bins: int) -> NDArray[np.float64]:
    """Return how often each number of bits occurs, [n_queries, n_bins], of bits [n_windows, n_queries]."""
    if not len(bits):
        return np.zeros((bits.shape[1], n_bins))
    counts = [np.bincount(np.clip(column, 0, n_bins - 1), minlength=n_bins) for column in bits.T]
    return np.stack(counts).astype(np.float64)
