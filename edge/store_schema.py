"""The observation database's file: its schema, migrations, connections and the one transaction idiom.

SQLite in WAL mode. New observations are rows of `tail`; full runs of them become one row of `block`
(edge/store_blocks.py). PRAGMA user_version holds the schema version, application_id says whose file it is.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.errors import StoreError

DEFAULT_STORE = Path("fieldcube.sqlite")
STORE_NAME_IN_FOLDER = "observations.sqlite"
APPLICATION_ID = 0x66636F62  # "fcob", seen by file(1) and every SQLite tool

_PAGE_BYTES = 4096  # larger pages read 1.3 x faster but cost 2..16 x the writes of each group commit
_BUSY_TIMEOUT_S = 10.0

INSERT_BLOCK = (
    "INSERT INTO block (first_seq, n, code_space, n_wall, wall_min_ns, wall_max_ns, columns, codes)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a reader of the observations must know; number counts them from 0 in one database.

    kind: gap (n_samples from first_sample of source were lost), skipped (source could not be read to its end) or
    recovered (source = where a damaged database was put). before_seq: next_seq when it happened.
    """

    number: int
    kind: str
    before_seq: int
    source: str
    first_sample: int
    n_samples: int
    sample_rate_hz: int
    reason: str


Migration = Callable[[sqlite3.Connection], None]


_VERSION_1 = """
CREATE TABLE identity (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE code_space (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE source (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE boot (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE query (id INTEGER PRIMARY KEY, name TEXT NOT NULL, text TEXT NOT NULL, UNIQUE (name, text));
CREATE TABLE tail (
    seq INTEGER PRIMARY KEY, code_space INTEGER NOT NULL, source INTEGER NOT NULL, first_sample INTEGER NOT NULL,
    n_samples INTEGER NOT NULL, sample_rate_hz INTEGER NOT NULL, boot INTEGER NOT NULL, boottime_ns INTEGER NOT NULL,
    wall_ns INTEGER, clock_state INTEGER NOT NULL, code BLOB NOT NULL);
-- n_wall: how many have a wall clock; columns before codes: reading them then does not walk the overflow pages of the codes
CREATE TABLE block (
    first_seq INTEGER PRIMARY KEY, n INTEGER NOT NULL, code_space INTEGER NOT NULL, n_wall INTEGER NOT NULL,
    wall_min_ns INTEGER, wall_max_ns INTEGER, columns BLOB NOT NULL, codes BLOB NOT NULL);
CREATE TABLE detection (
    id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, query INTEGER NOT NULL, distance INTEGER NOT NULL,
    probability REAL NOT NULL, false_alarms_per_day REAL, clip TEXT);
CREATE TABLE event (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, before_seq INTEGER NOT NULL, source INTEGER NOT NULL,
    first_sample INTEGER NOT NULL, n_samples INTEGER NOT NULL, sample_rate_hz INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE TABLE dropped (first_seq INTEGER PRIMARY KEY, n INTEGER NOT NULL, reason TEXT NOT NULL)
"""


def create_tables(connection: sqlite3.Connection) -> None:
    """Version 1. Released: never edited, only followed by another migration."""
    for statement in _VERSION_1.split(";\n"):
        connection.execute(statement)


MIGRATIONS: tuple[Migration, ...] = (create_tables,)


def store_path(path: Path | str | None) -> Path:
    """Return the database file for a --store argument: a folder holds it as observations.sqlite.

    A text that ends in a slash names a folder also where there is none yet.
    """
    if path is None:
        return DEFAULT_STORE
    chosen = Path(path)
    is_folder = chosen.is_dir() or str(path).endswith(("/", os.sep))
    return chosen / STORE_NAME_IN_FOLDER if is_folder else chosen


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Run the block in one transaction: committed at its end, rolled back on any exception.

    kind: IMMEDIATE to write; DEFERRED for several reads of one state.
    """
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a failed COMMIT may have rolled back already
            connection.execute("ROLLBACK")
        raise


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open or create the database for writing: WAL and a full sync at every commit."""
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # counts only while the file is empty
        _version(
            connection, path, sys.maxsize
        )  # another program's database stays as it is: WAL would mark it
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # NORMAL loses acknowledged rows in a power cut
        connection.execute("PRAGMA secure_delete = OFF")  # Debian's default overwrites every folded tail row
        connection.execute("PRAGMA journal_size_limit = 8388608")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the database mode=ro; where SQLite may not create its -shm file, as an immutable file.

    Raises StoreError when there is no such file, or when its -wal cannot be read from a read-only folder.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise StoreError(f"{path}: expected a fieldcube store, found {found}; give --store FILE")
    uri = path.resolve().as_uri() + "?mode=ro"
    try:
        return _connect_reader(uri)
    except sqlite3.OperationalError as error:
        wal = path.with_name(path.name + "-wal")
        if wal.exists() and wal.stat().st_size > 0:
            raise StoreError(
                f"{path}: expected a readable store, found {error}; its newest rows are in {wal.name}: "
                "copy both files to a folder that can be written"
            ) from error
    # Only a folder that nobody can write to comes here, so that no writer can change the file meanwhile.
    return _connect_reader(uri + "&immutable=1")


def _connect_reader(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        # No mmap_size: it saves 0.03 s of 10 M observations, but a failing card would then be SIGBUS, not an error.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the first real access
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(
    connection: sqlite3.Connection,
    path: Path,
    migrations: Sequence[Migration] = MIGRATIONS,
    facts: Mapping[str, str | int] | None = None,
) -> None:
    """Bring the database to the newest schema, each step and its record in one transaction.

    facts: the identity that an empty database gets, in the transaction that gives it its tables.
    Raises StoreError for another program's database and for one written by a newer fieldcube.
    """
    version = _version(connection, path, len(migrations))
    for number, migration in enumerate(migrations[version:], start=version + 1):
        with transaction(connection):
            migration(connection)
            if number == 1:
                add_fact = "INSERT INTO identity (key, value) VALUES (?, ?)"
                connection.executemany(add_fact, (facts or {}).items())
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")


def require_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError unless the database has exactly this version's schema (a reader does not migrate)."""
    version = _version(connection, path, len(MIGRATIONS))
    if version != len(MIGRATIONS):
        found = f"version {version}" if version else "an empty database"
        raise StoreError(
            f"{path}: expected a fieldcube store of schema version {len(MIGRATIONS)}, found {found}; "
            "run edge-monitor on it once, which brings it up to date"
        )


def identity(connection: sqlite3.Connection) -> tuple[str, int] | None:
    """Return the device id and the epoch of a database, or None where it has lost them."""
    facts = dict(connection.execute("SELECT key, value FROM identity").fetchall())
    return (facts["device_id"], facts["epoch"]) if facts.keys() >= {"device_id", "epoch"} else None


def _version(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    """Return the schema version, 0 for an empty database. Raises StoreError as migrate does."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or version or n_tables):
        raise StoreError(
            f"{path}: expected a fieldcube store, found another program's SQLite database; give another --store"
        )
    if version > newest:
        raise StoreError(
            f"{path}: expected a store of schema version {newest} or older, found {version}; "
            "update fieldcube, or give another --store"
        )
    return int(version)
