"""What a request asks for: periods, hours of the day, recorders by name, a box on the map; texts of a URL made into values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Annotated

from fastapi import Query, Request

from edge.errors import UsageError
from hub.parts import hub_of
from hub.store_registry import Registry
from hub.store_registry_views import SAID, Asked, Said

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_FARTHEST_ZONE_S = 15 * 3600


def time_ns(name: str, text: str) -> int:
    """Return ISO 8601 as UTC in ns since 1970, UTC where no zone is given. Raises UsageError."""
    try:
        found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError as error:
        raise UsageError(f"{name}: expected ISO 8601, as 2026-05-04T03:00:00Z, found {text!r}") from error
    aware = found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)
    return (aware - _EPOCH) // timedelta(microseconds=1) * 1000


def hours_of(text: str) -> frozenset[int]:
    """Return the hours in "20,21,22,23,0". Raises UsageError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) < 24 for part in parts):
        raise UsageError(f"hours: expected hours from 0 to 23, as 20,21,22, found {text!r}")
    return frozenset(int(part) for part in parts)


def box_of(text: str) -> tuple[float, float, float, float]:
    """Return (south, west, north, east), degrees, of "47.1,8.2,47.6,8.9". Raises UsageError."""
    try:
        south, west, north, east = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"box: expected south,west,north,east in degrees, found {text!r}") from error
    if not (-90 <= south <= north <= 90 and abs(west) <= 180 and abs(east) <= 180):
        raise UsageError(f"box: expected south,west,north,east in degrees, found {text!r}")
    return south, west, north, east


def devices_of(registry: Registry, names: Sequence[str], box: str) -> frozenset[int] | None:
    """Return the numbers of recorders by name that stand in a box, None = all. Raises UnknownError, UsageError."""
    chosen = None if not names else frozenset(registry.devices.named(name).number for name in names)
    if not box:
        return chosen
    inside = registry.devices.in_box(*box_of(box))
    return inside if chosen is None else inside & chosen


def asked_for(
    request: Request,
    query: Annotated[str, Query(description="name or sentence of a query; empty = all")] = "",
    since: Annotated[str, Query(description="ISO 8601, UTC where no zone is given")] = "",
    until: Annotated[str, Query(description="exclusive")] = "",
    hours: Annotated[str, Query(description="hours of the day, as 20,21,22")] = "",
    offset_s: Annotated[int, Query(description="of the clock that tells hours and days, ahead of UTC")] = 0,
    device: Annotated[
        list[str] | None, Query(description="name of a recorder; may come more than once")
    ] = None,
    box: Annotated[str, Query(description="south,west,north,east in degrees")] = "",
    verdict: Annotated[str, Query(description="right, wrong, unsure, or none: nobody said anything")] = "",
) -> Asked:
    """Return which detections a request asks for. Raises UsageError, UnknownError."""
    if abs(offset_s) > _FARTHEST_ZONE_S:
        raise UsageError(f"offset_s: expected up to {_FARTHEST_ZONE_S} s, found {offset_s}")
    said: Said | None = None
    if verdict:
        said = next((each for each in SAID if each == verdict), None)
        if said is None:
            raise UsageError(f"verdict: expected one of {', '.join(SAID)}, found {verdict!r}")
    return Asked(
        devices_of(hub_of(request).registry, device or (), box),
        query or None,
        time_ns("since", since) if since else None,
        time_ns("until", until) if until else None,
        hours_of(hours) if hours else None,
        offset_s,
        said,
    )
