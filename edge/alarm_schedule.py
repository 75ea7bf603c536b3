"""When a line of a watchlist is asked for: hours of the day in UTC, or the sun at the deployment's place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from edge.errors import ConfigError, MissingDependencyError
from edge.query import SUN_WORDS, Query, hours_of

HORIZON_DEG = -0.833  # of the sun's centre at sunrise: refraction and half the disc
TWILIGHT_DEG = (-12.0, 6.0)  # dawn and dusk: from nautical twilight to 6 degrees above the horizon

Elevation = Callable[[datetime], float]


def sun_elevation(latitude: float, longitude: float) -> Elevation:
    """Return a function from aware UTC to the sun's elevation in degrees. Raises MissingDependencyError without astral."""
    try:
        from astral import Observer
        from astral.sun import elevation
    except ImportError as error:
        raise MissingDependencyError(
            "active=night, day, dawn or dusk: expected the package astral, found none; run: pip install 'fieldcube[field]'"
        ) from error
    observer = Observer(latitude, longitude)
    return lambda time: float(elevation(observer, time, with_refraction=False))


def activity(
    queries: tuple[Query, ...], latitude: float | None, longitude: float | None
) -> Callable[[Query, datetime | None], bool]:
    """Return is_active for a watchlist at a place. Raises ConfigError where a line asks for the sun and the place is not known."""
    elevation: Elevation | None = None
    solar = [query for query in queries if query.active in SUN_WORDS]
    if solar:
        if latitude is None or longitude is None:
            raise ConfigError(
                f"query {solar[0].name!r}: active={solar[0].active} needs the place: expected latitude and longitude in [deployment], found none"
            )
        elevation = sun_elevation(latitude, longitude)

    def is_active(query: Query, time: datetime | None) -> bool:
        """Return whether it is the time of a query; a recorder that does not know the time listens always."""
        if query.active is None or time is None:
            return True
        hours = hours_of(query.active)
        if hours is not None:
            first, last = hours
            minute = time.hour * 60 + time.minute
            return first <= minute < last if first <= last else minute >= first or minute < last
        assert elevation is not None  # set for every list with a sun word
        return is_sun(query.active, time, elevation)

    return is_active


def is_sun(word: str, time: datetime, elevation: Elevation) -> bool:
    """Return whether it is night, day, dawn or dusk; by elevation, so that polar days and nights have an answer."""
    now = elevation(time)
    if word in ("night", "day"):
        return (now >= HORIZON_DEG) == (word == "day")
    rises = elevation(time + timedelta(minutes=1)) >= now
    return TWILIGHT_DEG[0] <= now < TWILIGHT_DEG[1] and rises == (word == "dawn")
