"""The verdicts' own SQLite file beside an observation store, which only edge-monitor writes: `<stem>-verdicts.sqlite`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple
from pathlib import Path
from types import TracebackType

from edge.errors import ObservationError, StoreError
from edge.store_schema import connect_reader, store_path, transaction
from edge.verdict import Identity, Verdict

APPLICATION_ID = 0x66637664  # "fcvd"
_BUSY_TIMEOUT_S = 10.0  # two people may verify one store
_COLUMNS = "device, epoch, seq, query, text, code_space, distance, probability, answer, given_ns, note"
_REPLACE = f"INSERT OR REPLACE INTO verdict ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SELECT = f"SELECT {_COLUMNS} FROM verdict ORDER BY device, epoch, seq, query"


def create_table(connection: sqlite3.Connection) -> None:
    """Version 1. Released: never edited, only followed by another migration."""
    connection.execute(
        "CREATE TABLE verdict (device TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, query TEXT NOT NULL,"
        " text TEXT NOT NULL, code_space TEXT NOT NULL, distance INTEGER NOT NULL, probability REAL NOT NULL,"
        " answer TEXT NOT NULL, given_ns INTEGER NOT NULL, note TEXT NOT NULL,"
        " PRIMARY KEY (device, epoch, seq, query)) WITHOUT ROWID"
    )


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (create_table,)


def verdicts_path(store: Path | str | None) -> Path:
    """Return where the verdicts about a store are kept."""
    chosen = store_path(store)
    return chosen.with_name(f"{chosen.stem}-verdicts.sqlite")


def read_verdicts(store: Path | str | None) -> dict[Identity, Verdict]:
    """Return the verdicts about a store by identity, none where nobody gave one. Raises StoreError."""
    path = verdicts_path(store)
    if not path.exists():
        return {}
    with _mapped(path), closing(connect_reader(path)) as connection:
        if _version(connection, path) < len(MIGRATIONS):
            return {}  # cut off before its table was made
        verdicts = [Verdict(*row) for row in connection.execute(_SELECT)]
    return {verdict.identity: verdict for verdict in verdicts}


class VerdictStore:
    """Keeps verdicts; each keep() is on the disk when it returns. Use it as a context manager or call close()."""

    @classmethod
    def open(cls, store: Path | str | None) -> VerdictStore:
        """Open or create the file beside a store.

        Raises StoreError: a place that cannot be written, another program's file, a newer schema.
        """
        return cls(verdicts_path(store))

    def __init__(self, path: Path) -> None:
        self.path = path
        with _mapped(path):
            self._connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            with _mapped(path):
                _version(self._connection, path)  # before WAL marks another program's database
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                _migrate(self._connection, path)
        except BaseException:
            self.close()
            raise

    def keep(self, verdicts: Iterable[Verdict]) -> None:
        """Keep all verdicts or, where one fails, none; each replaces the one there was about its detection."""
        with _mapped(self.path), transaction(self._connection):
            self._connection.executemany(_REPLACE, (astuple(verdict) for verdict in verdicts))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> VerdictStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to the newest schema, all missing steps and their record in one transaction."""
    if _version(connection, path) == len(MIGRATIONS):
        return
    with transaction(connection):
        # read again: another one may have migrated while this one waited
        for migration in MIGRATIONS[_version(connection, path) :]:
            migration(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema version, 0 for an empty file. Raises StoreError for another program's file or a newer one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or version or n_tables):
        raise StoreError(
            f"{path}: expected verdicts of fieldcube, found another SQLite database; move it away"
        )
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: expected verdicts of schema version {len(MIGRATIONS)} or older, found {version}; update fieldcube"
        )
    return int(version)


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    """Turn SQLite's errors and impossible rows into StoreError."""
    try:
        yield
    except (sqlite3.Error, ObservationError) as error:
        raise StoreError(
            f"{path}: expected verdicts that can be read and written, found {error}; "
            "make room or give rights, or move a damaged file away"
        ) from error
