"""Bytes that may go over a link in a day, and how many of them codes may take."""

from __future__ import annotations

from edge.store_cursor import SyncCursor

_DAY_NS = 86_400 * 10**9
_RESERVED = 5  # one part in so many is kept for detections: codes of the morning must not silence the evening
_HEADERS_BYTES = 52  # of a TCP segment over IPv4, with time stamps
_SEGMENT_BYTES = 1448


def line_bytes(n_bytes: int) -> int:
    """Return an estimate of what n bytes of a TCP stream take on the line, acknowledgements included."""
    n_segments = -(-n_bytes // _SEGMENT_BYTES)
    return n_bytes + n_segments * _HEADERS_BYTES + (n_segments + 1) // 2 * _HEADERS_BYTES


class Budget:
    """Counts bytes by day, UTC, and link. daily_bytes: None = no limit."""

    def __init__(self, cursor: SyncCursor, link: str, daily_bytes: int | None) -> None:
        self._cursor, self._link, self._daily_bytes = cursor, link, daily_bytes

    def spend(self, n_bytes: int, now_ns: int) -> None:
        """Count bytes of today."""
        self._cursor.use_bytes(now_ns // _DAY_NS, self._link, n_bytes)

    def left(self, now_ns: int) -> int | None:
        """Return how many bytes are left today, None = no limit."""
        if self._daily_bytes is None:
            return None
        return max(0, self._daily_bytes - self._cursor.used_bytes(now_ns // _DAY_NS, self._link))

    def left_for_codes(self, now_ns: int) -> int | None:
        """Return how many bytes codes may still take today, None = no limit."""
        left = self.left(now_ns)
        if left is None or self._daily_bytes is None:
            return None
        return max(0, left - self._daily_bytes // _RESERVED)
