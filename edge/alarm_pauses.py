"""When queries that could alarm are silent: after an alarm for their cooldown, and at their limit of alarms an hour."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_ALARMS_PER_HOUR = 120  # of one query; what is more is counted, told, and stays searchable
NOTICE_S = 3600.0  # a query that goes on at its limit is told of again after this time
_HOUR_S = 3600.0
_NOTHING_S = 1e-6  # what rounding leaves of a silence


class Pauses:
    """The silences of n queries. cooldown_s: [n]. Time is what pass_time was told, whether windows were heard in it or not."""

    def __init__(self, cooldown_s: Sequence[float]) -> None:
        n = len(cooldown_s)
        self._cooldown_s = np.asarray(cooldown_s, np.float64)
        self.quiet_s = np.zeros(n)  # that are left of each cooldown
        self.in_hour = np.zeros(n)  # alarms, fading by e in an hour
        self.n_limited = np.zeros(n, np.int64)  # alarms that the limit an hour held back
        self._notice_in_s = np.zeros(n)
        self._notices: list[int] = []

    def pass_time(self, passed_s: float, hop_s: float) -> None:
        """Take the time since the last window; below 0, an earlier recording is heard: no cooldown of a later one holds there."""
        if passed_s < 0:
            self.quiet_s[:] = 0.0
            passed_s = hop_s
        self.quiet_s = np.maximum(self.quiet_s - passed_s, 0.0)
        self._notice_in_s = np.maximum(self._notice_in_s - passed_s, 0.0)
        self.in_hour *= math.exp(-passed_s / _HOUR_S)

    @property
    def is_quiet(self) -> NDArray[np.bool_]:
        """Return which queries are in their cooldown, [n]."""
        return self.quiet_s > _NOTHING_S

    def is_limited(self, query: int) -> bool:
        """Return whether a query is at its limit."""
        return bool(self.in_hour[query] >= MAX_ALARMS_PER_HOUR)

    def alarmed(self, query: int) -> None:
        """Note an alarm."""
        self.in_hour[query] += 1
        self.quiet_s[query] = self._cooldown_s[query]

    def held_back(self, query: int) -> None:
        """Note an alarm that the limit held back."""
        self.n_limited[query] += 1
        if self._notice_in_s[query] <= _NOTHING_S:
            self._notice_in_s[query] = NOTICE_S
            self._notices.append(query)

    def take_notices(self) -> list[int]:
        """Return the queries that came to their limit since this was asked last, each at most once in NOTICE_S."""
        notices, self._notices = self._notices, []
        return notices

    def restore(self, quiet_s: NDArray[np.float64], in_hour: NDArray[np.float64]) -> None:
        """Go on with what a run before left, [n] each; of a cooldown that is shorter now no more than that."""
        self.quiet_s, self.in_hour = np.minimum(quiet_s, self._cooldown_s), in_hour.copy()
