"""What the hub remembers of radio frames, in an own SQLite file: contexts, anchors, and frames that came before what they rely on."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.errors import HubError
from edge.store_schema import transaction
from hub.refusal import NoRoomError

APPLICATION_ID = 0x6663_6672  # "fcfr"
SCHEMA_VERSION = 1
MAX_WAITING = 512  # frames of one device; the oldest go first
MAX_CONTEXTS = 8
MAX_ANCHORS = 1024
_DAY_S = 86_400

_TABLES = """
CREATE TABLE part (
    device INTEGER NOT NULL, id INTEGER NOT NULL, n INTEGER NOT NULL, place INTEGER NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (device, id, n, place)) WITHOUT ROWID;
CREATE TABLE context (
    number INTEGER PRIMARY KEY, device INTEGER NOT NULL, content BLOB NOT NULL, last_number INTEGER NOT NULL DEFAULT 0,
    last_seq INTEGER NOT NULL DEFAULT 0, UNIQUE (device, content));
CREATE TABLE anchor (
    context INTEGER NOT NULL, seq INTEGER NOT NULL, content BLOB NOT NULL, PRIMARY KEY (context, seq, content)) WITHOUT ROWID;
CREATE TABLE waiting (number INTEGER PRIMARY KEY, device INTEGER NOT NULL, digest BLOB NOT NULL UNIQUE, frame BLOB NOT NULL);
CREATE TABLE made (device INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, at_s INTEGER NOT NULL, observations INTEGER NOT NULL,
    detections INTEGER NOT NULL)
"""


class FrameStore:
    """Safe to use from several threads of one process. Every method raises HubError, NoRoomError where the disk is full."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        with self._mapped():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add_part(self, device: int, identity: int, n: int, place: int, content: bytes) -> bytes | None:
        """Keep a part of a context; return the whole one where all its parts are there."""
        key = (device, identity, n)
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?, ?)", (*key, place, content))
            rows = connection.execute(
                "SELECT content FROM part WHERE device = ? AND id = ? AND n = ? ORDER BY place", key
            ).fetchall()
        return b"".join(row[0] for row in rows) if len(rows) == n else None

    def add_context(self, device: int, content: bytes) -> None:
        """Keep a context as the newest of a device and forget its parts."""
        with self._writing() as connection:
            connection.execute("DELETE FROM part WHERE device = ?", (device,))
            row = connection.execute(
                "SELECT number FROM context WHERE device = ? AND content = ?", (device, content)
            ).fetchone()
            if row is not None:
                return
            last = connection.execute(
                "SELECT coalesce(max(last_number), 0), coalesce(max(last_seq), 0) FROM context WHERE device = ?",
                (device,),
            ).fetchone()
            connection.execute(
                "INSERT INTO context (device, content, last_number, last_seq) VALUES (?, ?, ?, ?)",
                (device, content, *last),
            )
            old = connection.execute(
                "SELECT number FROM context WHERE device = ? ORDER BY number DESC LIMIT -1 OFFSET ?",
                (device, MAX_CONTEXTS),
            ).fetchall()
            connection.executemany("DELETE FROM context WHERE number = ?", old)
            connection.executemany("DELETE FROM anchor WHERE context = ?", old)

    def contexts(self, device: int) -> list[tuple[int, bytes, int, int]]:
        """Return (number, content, last number, last seq) of a device's contexts, newest first."""
        with self._lock, self._mapped():
            return self._connection.execute(
                "SELECT number, content, last_number, last_seq FROM context WHERE device = ? ORDER BY number DESC",
                (device,),
            ).fetchall()

    def reached(self, context: int, number: int, seq: int) -> None:
        """Remember how far the numbers of a context's frames have come."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE context SET last_number = max(last_number, ?), last_seq = max(last_seq, ?) WHERE number = ?",
                (number, seq, context),
            )

    def add_anchor(self, context: int, seq: int, content: bytes) -> None:
        """Keep an anchor of a context."""
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO anchor VALUES (?, ?, ?)", (context, seq, content))
            connection.execute(
                "DELETE FROM anchor WHERE context = ? AND seq < (SELECT seq FROM anchor WHERE context = ?"
                " ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (context, context, MAX_ANCHORS),
            )

    def anchors(self, context: int, seq: int, n: int) -> list[bytes]:
        """Return the n anchors of a context that are nearest before a seq, or at it."""
        with self._lock, self._mapped():
            rows = self._connection.execute(
                "SELECT content FROM anchor WHERE context = ? AND seq <= ? ORDER BY seq DESC LIMIT ?",
                (context, seq, n),
            ).fetchall()
        return [row[0] for row in rows]

    def wait(self, device: int, frame: bytes) -> None:
        """Keep a frame until what it relies on has come."""
        digest = hashlib.blake2s(frame, digest_size=16).digest()
        with self._writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO waiting (device, digest, frame) VALUES (?, ?, ?)",
                (device, digest, frame),
            )
            connection.execute(
                "DELETE FROM waiting WHERE device = ? AND number <= (SELECT number FROM waiting WHERE device = ?"
                " ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (device, device, MAX_WAITING),
            )

    def waiting(self, device: int) -> list[tuple[int, bytes]]:
        """Return the frames of a device that wait, each with a number."""
        with self._lock, self._mapped():
            return self._connection.execute(
                "SELECT number, frame FROM waiting WHERE device = ? ORDER BY number", (device,)
            ).fetchall()

    def settle(self, number: int) -> None:
        """Forget a frame that waited."""
        with self._writing() as connection:
            connection.execute("DELETE FROM waiting WHERE number = ?", (number,))

    def note_made(
        self, device: int, epoch: int, at_s: int, n_observations: int, n_detections: int, now_s: int
    ) -> None:
        """Remember how many there are at the device, the most that its heartbeats have said of its newest epoch.

        at_s: by its clock; what was told from a time that has not come yet gives way to another epoch.
        """
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO made VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET epoch = excluded.epoch,"
                " at_s = CASE WHEN epoch = excluded.epoch AND at_s <= ? THEN max(at_s, excluded.at_s) ELSE excluded.at_s END,"
                " observations = max(excluded.observations, iif(epoch = excluded.epoch, observations, 0)),"
                " detections = max(excluded.detections, iif(epoch = excluded.epoch, detections, 0))"
                " WHERE epoch = excluded.epoch OR excluded.at_s >= at_s OR at_s > ?",
                (device, epoch, at_s, n_observations, n_detections, now_s + _DAY_S, now_s + _DAY_S),
            )

    def made(self, device: int) -> tuple[int, int, int] | None:
        """Return (epoch, observations, detections) of the newest heartbeat."""
        with self._lock, self._mapped():
            row = self._connection.execute(
                "SELECT epoch, observations, detections FROM made WHERE device = ?", (device,)
            ).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def _prepare(self) -> None:
        connection = self._connection
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (application, version) != (APPLICATION_ID, SCHEMA_VERSION) and (
            application or version or n_tables
        ):
            raise HubError(f"{self.path}: expected the hub's file of frames, found another; move it away")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if not n_tables:
            with transaction(connection):
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._mapped(), transaction(self._connection):
            yield self._connection

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if "disk is full" in str(error):
                raise NoRoomError(f"{self.path}: expected room for more, found {error}; make room") from error
            raise HubError(f"{self.path}: expected what the hub knows of frames, found {error}") from error
