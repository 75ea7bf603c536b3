"""Opens an archive by where it is: the only place that knows which engines there are."""

from __future__ import annotations

from urllib.parse import parse_qs

from hub.archive import Archive
from hub.archive_sqlite import DEFAULT_CACHE_BYTES, SqliteArchive


def open_archive(place: str, cache_bytes: int = DEFAULT_CACHE_BYTES) -> Archive:
    """Open or create the archive at a place: PATH or sqlite:PATH, chdb:PATH, clickhouse://host:8123, clickhouses://host:8443.

    Of ClickHouse `?database=NAME` may follow. cache_bytes: memory for codes, of SQLite alone.
    Raises ArchiveError, MissingDependencyError.
    """
    if place.startswith(("chdb:", "clickhouse://", "clickhouses://")):
        from hub.archive_clickhouse import DEFAULT_DATABASE, ClickHouseArchive  # brings clickhouse-connect

        url, _, options = place.partition("?")
        (database,) = parse_qs(options).get("database", [DEFAULT_DATABASE])
        return ClickHouseArchive.open(url, database)
    return SqliteArchive.open(place.removeprefix("sqlite:"), cache_bytes)
