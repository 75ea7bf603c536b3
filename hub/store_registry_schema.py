"""The registry's SQLite file: its schema and migrations. PRAGMA user_version holds the schema version."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path

from edge.errors import HubError
from edge.store_schema import transaction

APPLICATION_ID = 0x66636872  # "fchr", seen by file(1) and every SQLite tool

_VERSION_1 = """
CREATE TABLE fact (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE device (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, title TEXT NOT NULL, status TEXT NOT NULL,
    public BLOB NOT NULL, latitude REAL, longitude REAL, added_ns INTEGER NOT NULL, seen_ns INTEGER,
    health_at_ns INTEGER, health TEXT);
CREATE TABLE enrolment_code (
    digest BLOB PRIMARY KEY, device TEXT, made_ns INTEGER NOT NULL, until_ns INTEGER NOT NULL, used_ns INTEGER) WITHOUT ROWID;
CREATE TABLE epoch (
    device INTEGER NOT NULL, epoch INTEGER NOT NULL, begun_ns INTEGER NOT NULL, observations INTEGER NOT NULL,
    detections INTEGER NOT NULL, events INTEGER NOT NULL, PRIMARY KEY (device, epoch)) WITHOUT ROWID;
-- which numbers of a stream are settled, as few ranges as possible; observations: kept or dropped
CREATE TABLE settled (
    device INTEGER NOT NULL, epoch INTEGER NOT NULL, stream INTEGER NOT NULL, first INTEGER NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (device, epoch, stream, first)) WITHOUT ROWID;
-- observations as they arrived; digests: 4 bytes of each, little-endian, to compare what comes twice
CREATE TABLE part (
    first_uid INTEGER PRIMARY KEY, device INTEGER NOT NULL, epoch INTEGER NOT NULL, first_seq INTEGER NOT NULL,
    n INTEGER NOT NULL, digests BLOB NOT NULL);
CREATE UNIQUE INDEX part_by_seq ON part (device, epoch, first_seq, n);
-- on the way to the archive
CREATE TABLE outbox (first_uid INTEGER PRIMARY KEY, device INTEGER NOT NULL, epoch INTEGER NOT NULL, run BLOB NOT NULL);
CREATE TABLE dropped (
    device INTEGER NOT NULL, epoch INTEGER NOT NULL, first_seq INTEGER NOT NULL, n INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (device, epoch, first_seq)) WITHOUT ROWID;
-- uid .. sample_rate_hz: of the observation, NULL until it has come
CREATE TABLE detection (
    id INTEGER PRIMARY KEY, device INTEGER NOT NULL, epoch INTEGER NOT NULL, number INTEGER NOT NULL, seq INTEGER NOT NULL,
    query TEXT NOT NULL, text TEXT NOT NULL, distance INTEGER NOT NULL, probability REAL NOT NULL,
    false_alarms_per_day REAL, clip TEXT, received_ns INTEGER NOT NULL, uid INTEGER, code_space TEXT, wall_ns INTEGER, source TEXT,
    first_sample INTEGER, n_samples INTEGER, sample_rate_hz INTEGER, UNIQUE (device, epoch, number));
CREATE INDEX detection_by_seq ON detection (device, epoch, seq);
CREATE INDEX detection_untold ON detection (uid) WHERE uid IS NOT NULL AND source IS NULL;
CREATE INDEX detection_by_time ON detection (wall_ns);
CREATE INDEX detection_by_query ON detection (query, wall_ns);
CREATE TABLE event (
    device INTEGER NOT NULL, epoch INTEGER NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL, before_seq INTEGER NOT NULL,
    source TEXT NOT NULL, first_sample INTEGER NOT NULL, n_samples INTEGER NOT NULL, sample_rate_hz INTEGER NOT NULL,
    reason TEXT NOT NULL, received_ns INTEGER NOT NULL, PRIMARY KEY (device, epoch, number)) WITHOUT ROWID;
-- what came twice and differed: n of a stream from first; n_times it was sent
CREATE TABLE conflict (
    device INTEGER NOT NULL, epoch INTEGER NOT NULL, stream INTEGER NOT NULL, first INTEGER NOT NULL, n INTEGER NOT NULL,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL, n_times INTEGER NOT NULL,
    PRIMARY KEY (device, epoch, stream, first)) WITHOUT ROWID;
CREATE TABLE usage (
    device INTEGER NOT NULL, day INTEGER NOT NULL, bytes INTEGER NOT NULL, observations INTEGER NOT NULL,
    PRIMARY KEY (device, day)) WITHOUT ROWID;
CREATE TABLE verdict (
    device TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, query TEXT NOT NULL, text TEXT NOT NULL,
    code_space TEXT NOT NULL, distance INTEGER NOT NULL, probability REAL NOT NULL, answer TEXT NOT NULL,
    given_ns INTEGER NOT NULL, note TEXT NOT NULL, PRIMARY KEY (device, epoch, seq, query)) WITHOUT ROWID;
-- file: name in the folder of clips, NULL while somebody waits for it
CREATE TABLE clip (
    device INTEGER NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, wanted_ns INTEGER NOT NULL, received_ns INTEGER,
    name TEXT, file TEXT, PRIMARY KEY (device, epoch, seq)) WITHOUT ROWID;
CREATE TABLE watchlist (name TEXT PRIMARY KEY, text TEXT NOT NULL, version INTEGER NOT NULL, changed_ns INTEGER NOT NULL) WITHOUT ROWID
"""


def create_tables(connection: sqlite3.Connection) -> None:
    """Version 1. Released: never edited, only followed by another migration."""
    for statement in _VERSION_1.split(";\n"):
        connection.execute(statement)
    facts = [("next_uid", 1), ("digest_key", secrets.token_bytes(256))]
    connection.executemany("INSERT INTO fact (key, value) VALUES (?, ?)", facts)


def add_calibrations(connection: sqlite3.Connection) -> None:
    """Version 2: what recorders have learnt of queries at their sites. quarters: edge.batch_calibration.pack_quarters."""
    connection.execute(
        "CREATE TABLE calibration (device INTEGER NOT NULL, query TEXT NOT NULL, at_ns INTEGER NOT NULL,"
        " received_ns INTEGER NOT NULL, digest BLOB NOT NULL, threshold_bits REAL, wanted_per_day REAL NOT NULL,"
        " expected_per_day REAL, hop_s REAL NOT NULL, first INTEGER NOT NULL, quarters BLOB NOT NULL,"
        " PRIMARY KEY (device, query)) WITHOUT ROWID"
    )


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (create_tables, add_calibrations)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to the newest schema, all missing steps and their record in one transaction. Raises HubError."""
    if version(connection, path) == len(MIGRATIONS):
        return
    with transaction(connection):
        for migration in MIGRATIONS[version(connection, path) :]:
            migration(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema version, 0 for an empty file. Raises HubError for another program's file or a newer one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or found or n_tables):
        raise HubError(
            f"{path}: expected a hub's registry, found another SQLite database; give another folder"
        )
    if found > len(MIGRATIONS):
        raise HubError(
            f"{path}: expected a registry of schema version {len(MIGRATIONS)} or older, found {found}; update fieldcube"
        )
    return int(found)
