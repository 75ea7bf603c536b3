"""Effort: when a recorder listened, by the codes that it sent. What was not heard for lack of listening is not absence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hub.archive import Filter

if TYPE_CHECKING:
    from hub.archive import Archive

_ALL_BITS = 256  # every code is within so many bits of any other
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_NS = 10**9


@dataclass(frozen=True, slots=True)
class HourOfEffort:
    """An hour of a recorder with at least one window. start_s: UTC since 1970; minutes: with at least one window, 1..60."""

    start_s: int
    n_windows: int
    minutes: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the time from since_s to until_s (UTC since 1970) a recorder listened.

    share: of the minutes between its first window in that time and until_s, None where there is no window;
    last_s: minute of its last window; hours: share of every hour since since_s, None before its first window.
    """

    share: float | None
    last_s: int | None
    hours: tuple[float | None, ...]


def minutes_of(archive: Archive, device: int, since_ns: int | None, until_ns: int | None) -> dict[int, int]:
    """Return how many windows there are of a device in each minute since 1970 that has one. Raises ArchiveError."""
    where = Filter(frozenset({device}), since_ns, until_ns)
    found: Counter[int] = Counter()
    for number, code_space in archive.counts():
        if number == device:
            found.update(_minutes(archive, code_space, where))
    return dict(found)


def _minutes(archive: Archive, code_space: str, where: Filter) -> Counter[int]:
    shortest = np.zeros(8, np.uint8)  # a prefix that every width has
    return Counter(archive.histogram(shortest, code_space, where, _ALL_BITS, _MINUTE_S))


def hours_of(minutes: dict[int, int]) -> Iterator[HourOfEffort]:
    """Give the hours of minutes_of in order."""
    hours: dict[int, list[int]] = {}
    for minute, n in minutes.items():
        each = hours.setdefault(minute // 60, [0, 0])
        each[0] += n
        each[1] += 1
    for hour in sorted(hours):
        yield HourOfEffort(hour * _HOUR_S, *hours[hour])


def coverage(archive: Archive, device: int, now_ns: int, n_days: int = 7) -> Coverage:
    """Return how much of the last n_days, whole days of UTC and today so far, a device listened. Raises ArchiveError."""
    now_s = now_ns // _NS
    since_s = (now_s // _DAY_S - n_days + 1) * _DAY_S
    minutes = minutes_of(archive, device, since_s * _NS, now_ns + _NS)
    if not minutes:
        return Coverage(None, None, (None,) * (n_days * 24))
    first, end = min(minutes), max(now_s // _MINUTE_S, max(minutes) + 1)
    listened = Counter(minute // 60 for minute in minutes)
    hours = []
    for hour in range(since_s // _HOUR_S, since_s // _HOUR_S + n_days * 24):
        n_known = min(end, (hour + 1) * 60) - max(first, hour * 60)
        hours.append(listened[hour] / n_known if n_known > 0 else None)
    return Coverage(len(minutes) / (end - first), max(minutes) * _MINUTE_S, tuple(hours))


def span_s(minutes: Iterable[int]) -> tuple[int, int] | None:
    """Return from when to when there are windows, in s since 1970, by their minutes; None where there is none."""
    known = list(minutes)
    return (min(known) * _MINUTE_S, (max(known) + 1) * _MINUTE_S) if known else None
