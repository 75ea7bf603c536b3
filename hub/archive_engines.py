"""Opens an archive by where it is: the only place that knows which engines there are."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

from edge.errors import UsageError
from hub.archive import Archive
from hub.archive_sqlite import DEFAULT_CACHE_BYTES, SqliteArchive

_CLICKHOUSE = ("chdb:", "clickhouse://", "clickhouses://")


def file_of(place: str) -> Path | None:
    """Return the file of an archive of the engine sqlite, None for a place of another engine."""
    url = place.partition("?")[0]
    return None if url.startswith(_CLICKHOUSE) else Path(url.removeprefix("sqlite:"))


def open_archive(place: str) -> Archive:
    """Open or create the archive at a place.

    PATH or sqlite:PATH, which `?cache_mb=N` may follow (memory for codes, default 4295); chdb:PATH,
    clickhouse://USER:PASSWORD@HOST:8123 or clickhouses:// (TLS), which `?database=NAME` may follow.
    Raises ArchiveError, MissingDependencyError, UsageError for an option that is not known.
    """
    url, _, tail = place.partition("?")
    options = dict(parse_qsl(tail, keep_blank_values=True))
    if url.startswith(_CLICKHOUSE):
        from hub.archive_clickhouse import DEFAULT_DATABASE, ClickHouseArchive  # brings clickhouse-connect

        database = options.pop("database", DEFAULT_DATABASE)
        _require_none(url, options, "database")
        return ClickHouseArchive.open(url, database)
    cache_mb = options.pop("cache_mb", f"{DEFAULT_CACHE_BYTES / 1e6:.0f}")
    _require_none(url, options, "cache_mb")
    if not cache_mb.isdecimal():
        raise UsageError(f"{url}: expected cache_mb to be a whole number, found {cache_mb!r}")
    return SqliteArchive.open(url.removeprefix("sqlite:"), int(cache_mb) * 10**6)


def _require_none(url: str, options: dict[str, str], known: str) -> None:
    if options:
        raise UsageError(f"{url.rpartition('@')[2]}: expected the option {known}, found {', '.join(options)}")
