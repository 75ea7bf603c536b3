"""When a recording began, or a picture was taken, as its metadata or its file name tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

_YEARS = range(
    1990, 2101
)  # recorders whose clock was never set stamp 1970 or 1980; digits of a name may be no date
_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?\s*(?:Z|([+-])(\d\d):?(\d\d))?\s*"
)
_AUDIOMOTH = re.compile(
    r"Recorded at (\d\d):(\d\d):(\d\d)(?:\.(\d{1,3}))? (\d\d)/(\d\d)/(\d{4}) "
    r"\(UTC(?:([+-])(\d{1,2})(?::?(\d\d))?)?\)"
)
_FILE_NAME = re.compile(r"(?<!\d)(\d{4})(\d\d)(\d\d)[_T](\d\d)(\d\d)(\d\d)(?!\d)")
_EXIF = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)")
_EXIF_ZONE = re.compile(r"([+-])(\d\d):(\d\d)")
# 20260504_030201, and what camera-trap programs write: creek__2026-05-04__03-02-01(1).jpg
_PICTURE_NAME = re.compile(r"(?<!\d)(\d{4})(-?)(\d\d)\2(\d\d)(?:[_T -]|__)(\d\d)([-.]?)(\d\d)\6(\d\d)(?!\d)")


def recording_start_ns(file_name: str, guano: Mapping[str, str], comment: str) -> int | None:
    """Return UTC ns since 1970 of the first sample of a recording, or None where nothing tells.

    Asked in this order: the GUANO Timestamp, the comment of an AudioMoth, `YYYYMMDD_HHMMSS` in the file name.
    A time without a zone (every file name) is taken as UTC: set recorders to UTC. Impossible dates, and years
    outside 1990..2100 (a clock that was never set, digits that are no date), count as nothing.
    """
    if match := _TIMESTAMP.fullmatch(guano.get("Timestamp", "")):
        year, month, day, hour, minute, second, fraction, *zone = match.groups()
        return _utc_ns((year, month, day, hour, minute, second), fraction, zone)
    if match := _AUDIOMOTH.search(comment):
        hour, minute, second, fraction, day, month, year, *zone = match.groups()
        return _utc_ns((year, month, day, hour, minute, second), fraction, zone)
    if match := _FILE_NAME.search(file_name):
        return _utc_ns(match.groups(), None, (None, None, None))
    return None


def picture_taken_ns(file_name: str, taken: str = "", fraction: str = "", zone: str = "") -> int | None:
    """Return UTC ns since 1970 at which a picture was taken, or None where nothing tells.

    taken, fraction, zone: EXIF's DateTimeOriginal, SubsecTimeOriginal and OffsetTimeOriginal. Where they hold no
    possible date, a date and time in the file name. A time without a zone is taken as UTC, as that of a recording is:
    set cameras to UTC, or to a zone that they write down.
    """
    if match := _EXIF.fullmatch(taken):
        offset = _EXIF_ZONE.fullmatch(zone)
        decimals = fraction if fraction.isascii() and fraction.isdigit() else ""
        found = _utc_ns(match.groups(), decimals[:9], offset.groups() if offset else (None, None, None))
        if found is not None:
            return found
    if match := _PICTURE_NAME.search(file_name):
        year, _, month, day, hour, _, minute, second = match.groups()
        return _utc_ns((year, month, day, hour, minute, second), None, (None, None, None))
    return None


def _utc_ns(
    parts: tuple[str, ...], fraction: str | None, zone: list[str] | tuple[str | None, ...]
) -> int | None:
    """Return UTC ns of date parts, decimals of a second and a zone (sign, hours, minutes or None)."""
    year, month, day, hour, minute, second = map(int, parts)
    sign, zone_hours, zone_minutes = zone
    offset = timedelta(hours=int(zone_hours or 0), minutes=int(zone_minutes or 0))
    if year not in _YEARS:
        return None
    try:
        local = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
        utc = local + offset if sign == "-" else local - offset
    except (ValueError, OverflowError):
        return None
    since_1970 = utc - datetime(1970, 1, 1, tzinfo=timezone.utc)
    whole_s = since_1970.days * 86_400 + since_1970.seconds
    return whole_s * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))
