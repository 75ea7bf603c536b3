"""Period: which observations a question is about, by the UTC time at which they start."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from edge.errors import UsageError
from edge.store_blocks import UNKNOWN_WALL_NS

_EARLIEST_NS, _LATEST_NS = UNKNOWN_WALL_NS + 1, 2**63 - 1


@dataclass(frozen=True, slots=True)
class Period:
    """The UTC times from since_ns up to, not including, until_ns; None leaves that end open."""

    since_ns: int | None = None
    until_ns: int | None = None

    @classmethod
    def parse(cls, since: str | None, until: str | None) -> Period:
        """Read two ISO 8601 times; a date is its midnight, no zone means UTC. Raises UsageError."""
        period = cls(_parse_time("--since", since), _parse_time("--until", until))
        if period.since_ns is not None and period.until_ns is not None and period.since_ns >= period.until_ns:
            raise UsageError(f"--until: expected a time after --since {since}, found {until}")
        return period

    @property
    def is_always(self) -> bool:
        """Return whether every observation is in it, also one of unknown time."""
        return self.since_ns is None and self.until_ns is None

    @property
    def since_or_min(self) -> int:
        """Return its start, the smallest time that can be known where open."""
        return _EARLIEST_NS if self.since_ns is None else _clamped(self.since_ns)

    @property
    def until_or_max(self) -> int:
        """Return its end, past every time where open."""
        return _LATEST_NS if self.until_ns is None else _clamped(self.until_ns)

    def contains(self, wall_ns: int | None) -> bool:
        """Return whether a time is in it; an unknown one only when both ends are open."""
        return self.is_always or (wall_ns is not None and self.since_or_min <= wall_ns < self.until_or_max)


def _clamped(time_ns: int) -> int:
    """Return the nearest time that a database can hold: years 1677 to 2262."""
    return min(max(time_ns, _EARLIEST_NS), _LATEST_NS)


def _parse_time(option: str, text: str | None) -> int | None:
    """Return UTC ns since 1970 of an ISO 8601 time."""
    if text is None:
        return None
    plain = re.sub(r"[zZ]$", "+00:00", text.strip())
    plain = re.sub(
        r"(\.\d{1,6})\d*", lambda found: found[1].ljust(7, "0"), plain
    )  # Python 3.10 wants 3 or 6 digits
    try:
        time = datetime.fromisoformat(plain)
    except ValueError as error:
        raise UsageError(
            f"{option}: expected a time like 2026-05-04T03:00:00Z or 2026-05-04, found {text!r}"
        ) from error
    aware = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    return (aware - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1) * 1000
