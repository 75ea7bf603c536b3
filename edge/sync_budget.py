"""Bytes that may go over a link in a day, and how many of them codes may take."""

from __future__ import annotations

from dataclasses import replace

from edge.observation import Instant
from edge.store_cursor import SyncCursor
from edge.store_running import RunningUsage

_DAY_NS = 86_400 * 10**9
_RESERVED = 5  # one part in so many is kept for detections: codes of the morning must not silence the evening
_HEADERS_BYTES = 52  # of a TCP segment over IPv4, with time stamps
_SEGMENT_BYTES = 1448


def line_bytes(n_bytes: int) -> int:
    """Return an estimate of what n bytes of a TCP stream take on the line, acknowledgements included."""
    n_segments = -(-n_bytes // _SEGMENT_BYTES)
    return n_bytes + n_segments * _HEADERS_BYTES + (n_segments + 1) // 2 * _HEADERS_BYTES


class Budget:
    """Counts bytes by day and link. daily_bytes: None = no limit.

    A day is one of UTC while the clock is set, and 24 h of counted running time while it is unset: a recorder without a
    battery clock has the same date at each boot. With a battery clock it is whichever ends first, as that may stand still.
    """

    def __init__(self, cursor: SyncCursor, link: str, daily_bytes: int | None) -> None:
        self._cursor, self._link, self._daily_bytes = cursor, link, daily_bytes

    def spend(self, n_bytes: int, now: Instant) -> None:
        """Count bytes of today; what this boot sent before its clock was set is counted then."""
        usage = self._running(now)
        n_unset_bytes = usage.n_unset_bytes
        if now.wall_ns is None:
            n_unset_bytes += n_bytes
        else:
            self._cursor.use_bytes(now.wall_ns // _DAY_NS, self._link, n_bytes + n_unset_bytes)
            n_unset_bytes = 0
        self._cursor.running.keep_usage(
            self._link, replace(usage, n_bytes=usage.n_bytes + n_bytes, n_unset_bytes=n_unset_bytes)
        )

    def used(self, now: Instant) -> int:
        """Return how many bytes were used today."""
        usage = self._running(now)
        if now.wall_ns is None:
            return usage.n_bytes
        by_date = self._cursor.used_bytes(now.wall_ns // _DAY_NS, self._link) + usage.n_unset_bytes
        return min(by_date, usage.n_bytes) if now.clock_state == "rtc" else by_date

    def left(self, now: Instant) -> int | None:
        """Return how many bytes are left today, None = no limit."""
        if self._daily_bytes is None:
            return None
        return max(0, self._daily_bytes - self.used(now))

    def left_for_codes(self, now: Instant) -> int | None:
        """Return how many bytes codes may still take today, None = no limit."""
        left = self.left(now)
        if left is None or self._daily_bytes is None:
            return None
        return max(0, left - self._daily_bytes // _RESERVED)

    def day(self, now: Instant) -> int:
        """Return which day it is: from 1970, UTC, or of the running time where the clock is unset."""
        ns = self._cursor.running.moment(now).running_ns if now.wall_ns is None else now.wall_ns
        return ns // _DAY_NS

    def _running(self, now: Instant) -> RunningUsage:
        """Return what was used of the present 24 h of running time."""
        running_ns = self._cursor.running.moment(now).running_ns
        usage = self._cursor.running.usage(self._link)
        if usage is None or running_ns - usage.since_ns >= _DAY_NS:
            return RunningUsage(running_ns, 0, now.boot_id, 0)
        if usage.boot_id != now.boot_id:
            return replace(usage, boot_id=now.boot_id, n_unset_bytes=0)
        return usage
