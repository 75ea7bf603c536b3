"""Values as JSON holds them, and as a browser reads them back unchanged."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def iso_ns(wall_ns: int | None) -> str | None:
    """Return UTC ns since 1970 as ISO 8601 with ms and Z, None where it is None or beyond the calendar."""
    if wall_ns is None:
        return None
    try:
        time = _EPOCH + timedelta(milliseconds=wall_ns // 1_000_000)
    except OverflowError:
        return None
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z"


def iso_s(time_s: int) -> str:
    """Return UTC s since 1970 as `2026-05-04T03:02:01Z`."""
    return datetime.fromtimestamp(time_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def finite(number: float | None) -> float | None:
    """Return a number that JSON can hold; None for one that is none."""
    return number if number is not None and math.isfinite(number) else None
