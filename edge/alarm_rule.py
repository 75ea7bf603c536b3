"""The alarm rule of a watchlist: which queries a window sets off, at a wanted number of false alarms a day each.

A query alarms where its statistic is within its threshold (edge.background), no `decoy:` line of the list is nearer, it is its time of day,
its probability is accepted where its line asks for one, and it has not just alarmed (cooldown). Of several queries the one whose distance
is rarest in the background counts: one sound, one alarm. A query at its limit an hour leaves the alarm to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.alarm_pauses import Pauses
from edge.alarm_statistic import (
    Bits,
    Combination,
    Confirmation,
    Statistic,
    confirmed_runs,
    histograms,
    longest,
)
from edge.background import Background

LEARN_WINDOWS = 4096  # of stored windows at a time: two days of them would not fit beside an encoder


class Windows(Protocol):
    """Distances of many windows, [n_windows, n_rows]."""

    def __getitem__(self, windows: slice, /) -> Bits:
        """Return those of some windows."""
        ...


@dataclass(frozen=True, slots=True)
class Alarm:
    """A query that was set off. row: its number; bits: its statistic; per_day: how often the background is as near, None if not known."""

    row: int
    bits: int
    per_day: float | None


@dataclass(frozen=True, slots=True)
class AlarmQuery:
    """What the rule needs to know of a query."""

    statistic: Statistic
    alarms_per_day: float
    cooldown_s: float = 0.0


class AlarmRule:
    """Decides window by window, and learns the background while it does. Not thread-safe."""

    def __init__(
        self,
        queries: Sequence[AlarmQuery],
        reference: Bits,
        reference_runs: NDArray[np.int64],
        hop_s: float,
        n_bins: int,
    ) -> None:
        """Begin with the background that a bundle brings: distances [n_windows, n_rows] and runs [n_windows] of its windows, in order."""
        self.queries = tuple(queries)
        self._statistics = [query.statistic for query in queries]
        self._n_bins = n_bins
        n_rows = reference.shape[1]
        # the sentences of combined queries have a background of their own, for their p-values; no rate is wanted of it
        self.parts = Background.begin([1.0] * n_rows, histograms(reference, n_bins), hop_s)
        self._combination = Combination(self._statistics, n_bins)
        self._tables = self._part_tables()
        bits = self.bits(reference, reference_runs)
        wanted = [query.alarms_per_day for query in queries]
        scale = [each.scale for each in self._statistics]
        self.background = Background.begin(wanted, histograms(bits, n_bins), hop_s, scale)
        self._memory = Confirmation(self._statistics, n_bins)
        self._hop_s = hop_s
        self.pauses = Pauses([query.cooldown_s for query in queries])
        self._step_bits: list[Bits] = []
        self._step_rows: list[Bits] = []
        self._set_thresholds()

    def bits(self, distances: Bits, runs: NDArray[np.int64]) -> Bits:
        """Return what is compared with the thresholds, [n_windows, n_queries], of distances [n_windows, n_rows] in order; runs: [n_windows]."""
        own = self._combination.bits(distances, self._tables)
        return confirmed_runs(own, runs, self._statistics, self._n_bins)

    def learn(self, distances: Windows, runs: NDArray[np.int64], queries: NDArray[np.bool_]) -> None:
        """Take windows of this site that were heard before for some queries [n_queries], in order.

        distances: [n_windows, n_rows], taken in slices, so that they need not all be there at once; runs: [n_windows].
        """
        rows = np.zeros(len(self.parts.wanted_per_day), bool)
        for number in np.flatnonzero(queries):
            if self._statistics[number].combine is not None:
                rows[list(self._statistics[number].rows)] = True
        starts = range(0, len(runs), LEARN_WINDOWS)
        if rows.any():
            for start in starts:
                self.parts.learn(distances[start : start + LEARN_WINDOWS], rows)
            self._tables = self._part_tables()
        before = longest(self._statistics) - 1
        for start in starts:
            first, end = max(0, start - before), start + LEARN_WINDOWS
            bits = self.bits(distances[first:end], runs[first:end])
            self.background.learn(bits[start - first :], queries)
        self._set_thresholds()

    def settle(self) -> None:
        """Learn the windows since the last step, before the state is kept: a run may be shorter than a step."""
        if self._step_bits:
            self._learn_step()

    def refresh(self) -> None:
        """Set p-values and thresholds anew after the backgrounds were put back from a state."""
        self._tables = self._part_tables()
        self._set_thresholds()

    def begin_recording(self) -> None:
        """Another recording begins, or sound is missing: windows before do not confirm those after."""
        self._memory.begin()

    def decide(
        self,
        distances: Bits,
        decoy: int,
        is_active: NDArray[np.bool_],
        accepts: Callable[[int], bool] | None = None,
        passed_s: float | None = None,
        *,
        is_repeat: bool = False,
    ) -> Alarm | None:
        """Return the alarm of a window, or None, and learn from it.

        distances: [n_rows]; decoy: of the nearest decoy line, n_bins or more without one; is_active: [n_queries]; accepts: what
        else is asked of a query that would alarm, by its number; passed_s: since the window before, None = a hop; is_repeat: nothing
        is to be learnt from it. A query that any of them rejects has not alarmed.
        """
        self.pauses.pass_time(self._hop_s if passed_s is None else passed_s, self._hop_s)
        own = self._combination.bits(distances[None], self._tables)[0]
        bits = self._memory.confirmed(own)
        alarm = self._alarm(bits, distances, decoy, is_active, accepts)
        if is_repeat:
            return alarm
        self._step_bits.append(bits)
        self._step_rows.append(distances)
        if len(self._step_bits) >= self.background.step_windows:
            self._learn_step()
        return alarm

    @property
    def limits(self) -> NDArray[np.int64]:
        """Return the largest number of bits that alarms now, [n_queries]; below 0: the query cannot alarm yet."""
        return self._limits

    def _alarm(
        self,
        bits: Bits,
        distances: Bits,
        decoy: int,
        is_active: NDArray[np.bool_],
        accepts: Callable[[int], bool] | None,
    ) -> Alarm | None:
        found: Alarm | None = None
        limited: Alarm | None = None
        for row in np.flatnonzero((bits <= self._limits) & is_active & ~self.pauses.is_quiet):
            query = self.queries[row]
            if min(int(distances[r]) for r in query.statistic.rows) >= decoy:
                continue
            if accepts is not None and not accepts(int(row)):
                continue
            alarm = Alarm(int(row), int(bits[row]), self.background.per_day(int(row), int(bits[row])))
            if self.pauses.is_limited(int(row)):
                limited = _rarest(limited, alarm)
            else:
                found = _rarest(found, alarm)
        if found is not None:
            self.pauses.alarmed(found.row)
        elif limited is not None:
            self.pauses.held_back(limited.row)
        return found

    def _learn_step(self) -> None:
        self.background.observe(np.stack(self._step_bits), self._limits)
        if self._combination.combines:
            rows = np.stack(self._step_rows)
            self.parts.observe(rows, np.full(rows.shape[1], -1))
            self._tables = self._part_tables()
        self._step_bits, self._step_rows = [], []
        self._set_thresholds()

    def _part_tables(self) -> Bits:
        if not self._combination.combines:
            return np.zeros((0, self._n_bins), np.int64)
        return self._combination.tables([self.parts.tail(row) for row in range(len(self.parts.prior))])

    def _set_thresholds(self) -> None:
        self.thresholds = self.background.thresholds()
        self._limits = self.background.limits(self.thresholds)


def _rarest(first: Alarm | None, second: Alarm) -> Alarm:
    """Return the alarm that is rarer in the background, the first of equals."""
    return second if first is None or (second.per_day or 0.0) < (first.per_day or 0.0) else first
