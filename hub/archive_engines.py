"""Opens an archive by where it is: the only place that knows which engines there are."""

from __future__ import annotations

from hub.archive import Archive
from hub.archive_sqlite import DEFAULT_CACHE_BYTES, SqliteArchive


def open_archive(place: str, cache_bytes: int = DEFAULT_CACHE_BYTES) -> Archive:
    """Open or create the archive at `sqlite:PATH`, where sqlite: may be left out.

    cache_bytes: memory for codes. Raises ArchiveError.
    """
    return SqliteArchive.open(place.removeprefix("sqlite:"), cache_bytes)
