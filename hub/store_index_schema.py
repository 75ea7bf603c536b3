"""The file of how far indexing is: its lock, its schema and migrations. PRAGMA user_version holds the schema version."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from edge.errors import HubError
from edge.store_schema import transaction

APPLICATION_ID = 0x66636978  # "fcix", seen by file(1) and every SQLite tool

_VERSION_1 = """
-- an archive with the settings that decide its observations; next_seq, next_event: of what is delivered
CREATE TABLE job (
    id INTEGER PRIMARY KEY, device TEXT NOT NULL, epoch INTEGER NOT NULL, place TEXT NOT NULL, next_seq INTEGER NOT NULL,
    next_event INTEGER NOT NULL, UNIQUE (device, epoch));
-- a file in one state of its content, numbered in the order in which its observations are; state: 0 pending, 1 encoded,
-- 2 delivered; problem: why not all of it was encoded
CREATE TABLE item (
    job INTEGER NOT NULL, ordinal INTEGER NOT NULL, path BLOB NOT NULL, size_bytes INTEGER NOT NULL, version TEXT NOT NULL,
    state INTEGER NOT NULL, digest TEXT NOT NULL, n INTEGER NOT NULL, seconds REAL NOT NULL, problem TEXT NOT NULL,
    PRIMARY KEY (job, ordinal)) WITHOUT ROWID;
CREATE INDEX item_by_path ON item (job, path, ordinal);
CREATE INDEX item_by_state ON item (job, state, ordinal);
-- encoded and not yet delivered: edge.batch batches that count from 0
CREATE TABLE piece (
    job INTEGER NOT NULL, ordinal INTEGER NOT NULL, position INTEGER NOT NULL, batch BLOB NOT NULL,
    PRIMARY KEY (job, ordinal, position)) WITHOUT ROWID
"""


def create_tables(connection: sqlite3.Connection) -> None:
    """Version 1. Released: never edited, only followed by another migration."""
    for statement in _VERSION_1.split(";\n"):
        connection.execute(statement)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (create_tables,)


def lock(path: Path) -> int:
    """Return the descriptor of a lock that the kernel frees however the process ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(
            path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
    except OSError as error:
        raise HubError(f"{path}: expected a place that can be written, found {error.strerror}") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise HubError(
            f"{path}: expected no other edge-hub index on this hub, found one that runs; wait for it"
        ) from error
    return descriptor


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to the newest schema. Raises HubError for another program's file or a newer one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or version or n_tables):
        raise HubError(f"{path}: expected the progress of edge-hub index, found another SQLite database")
    if version > len(MIGRATIONS):
        raise HubError(
            f"{path}: expected schema version {len(MIGRATIONS)} or older, found {version}; update fieldcube"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # the order of files must outlive what the hub has got
    with transaction(connection):
        for migration in MIGRATIONS[version:]:
            migration(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
