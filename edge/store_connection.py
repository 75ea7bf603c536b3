"""A connection that reads one observation store, also while a writer records: what its readers share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from edge.errors import StoreError
from edge.store_schema import connect_reader, identity, require_schema, store_path, transaction

CHUNK = (
    1000  # rows of one read transaction while walking through a table: a long one would keep the WAL growing
)
SELECT_DETECTION = (
    "SELECT d.id, d.seq, q.name, q.text, d.distance, d.probability, d.false_alarms_per_day, d.clip"
    " FROM detection d JOIN query q ON q.id = d.query"
)
_Self = TypeVar("_Self", bound="StoreConnection")


class StoreConnection:
    """One store, mode=ro. Use it as a context manager or call close().

    Every method raises StoreError when the file turns out to be damaged.
    """

    @classmethod
    def open(cls: type[_Self], path: Path | str | None) -> _Self:
        """Open a file, a folder with observations.sqlite in it, or ./fieldcube.sqlite for None.

        Raises StoreError: no such file, another program's file, another schema version.
        """
        return cls(store_path(path))

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._mapped():
            self._connection = connect_reader(path)
        try:
            with self._mapped():
                require_schema(self._connection, path)
                known = identity(self._connection)
                if known is None:
                    raise sqlite3.DatabaseError("table identity: rows are missing")
        except BaseException:
            self.close()
            raise
        self.device_id, self.epoch = known

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Run the block on one state of the database."""
        with self._mapped(), transaction(self._connection, "DEFERRED"):
            yield

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn SQLite's errors into StoreError."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path}: expected a readable store, found {error}; "
                "edge-monitor puts a damaged store aside and begins a new one"
            ) from error
