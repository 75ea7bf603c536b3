"""The writer's side of the tables: open and check a database, say what is in it, store one batch, fold the tail."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge.durable import sync_folder
from edge.errors import StoreError
from edge.observation import CLOCK_STATES, Detection, Observation
from edge.store_blocks import Columns, pack_codes, pack_columns
from edge.store_schema import INSERT_BLOCK, Event, connect_writer, identity, migrate, transaction

_CHECKED_TABLES = ("identity", "code_space", "boot", "query", "tail")  # small: start-up reads no block
_MAX_CACHED_IDS = 10_000


class StoreTables:
    """An open, checked database; every public method but close() is one transaction.

    device_id: the id that a new database gets; an older one must have the same, or any where None is given.
    Raises StoreError for another program's file, a newer schema, another device, and sqlite3.DatabaseError itself
    (no subclass of it) for a damaged file.
    """

    def __init__(self, path: Path, device_id: str | None, new_epoch: int) -> None:
        self._path = path
        self._ids: dict[tuple[str, ...], int] = {}
        self._connection = connect_writer(path)
        try:
            self._open(device_id, new_epoch)
        except BaseException:
            self.close()
            raise

    def _open(self, device_id: str | None, new_epoch: int) -> None:
        facts: dict[str, str | int] = {"device_id": device_id or "recorder", "epoch": new_epoch}
        migrate(self._connection, self._path, facts=facts)
        for table in _CHECKED_TABLES:
            (answer,) = self._connection.execute(f"PRAGMA quick_check({table})").fetchone()
            if answer != "ok":
                raise sqlite3.DatabaseError(f"table {table}: {answer}")
        known = identity(self._connection)
        if known is None:
            raise sqlite3.DatabaseError("table identity: rows are missing")
        sync_folder(self._path.parent)
        self._inode = self._path.stat().st_ino
        self.device_id, self.epoch = known
        if device_id not in (None, self.device_id):
            raise StoreError(
                f"{self._path}: expected observations of device {device_id!r}, found those of {self.device_id!r}; "
                "give another --store, or that device id"
            )
        (self.n_tail,) = self._connection.execute("SELECT count(*) FROM tail").fetchone()

    def close(self) -> None:
        """Close the database; the last connection to it empties the WAL."""
        self._connection.close()

    def is_current(self) -> bool:
        """Return whether the path still names the file that is open."""
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def next_numbers(self) -> tuple[int, int]:
        """Return (seq, event number) that follow everything stored."""
        (seq,) = self._connection.execute(
            "SELECT max(coalesce((SELECT max(seq) + 1 FROM tail), 0),"
            " coalesce((SELECT first_seq + n FROM block ORDER BY first_seq DESC LIMIT 1), 0),"
            " coalesce((SELECT first_seq + n FROM dropped ORDER BY first_seq DESC LIMIT 1), 0))"
        ).fetchone()
        (number,) = self._connection.execute("SELECT coalesce(max(number) + 1, 0) FROM event").fetchone()
        return seq, number

    def write(
        self,
        observations: Sequence[tuple[Observation, Sequence[Detection]]],
        events: Iterable[Event],
        dropped: Iterable[tuple[int, int]],
        why_dropped: str,
    ) -> None:
        """Store a batch; dropped: (first_seq, n) of observations that will never come."""
        with transaction(self._connection):
            for observation, detections in observations:
                self._insert_observation(observation)
                for detection in detections:
                    self._insert_detection(detection)
            for event in events:
                self._insert_event(event)
            self._connection.executemany(
                "INSERT INTO dropped (first_seq, n, reason) VALUES (?, ?, ?)",
                [(first, n, why_dropped) for first, n in dropped],
            )
        self.n_tail += len(observations)

    def fold(self, block_n: int) -> None:
        """Move the oldest run of the tail into a block: contiguous seq, one code space and width, at most block_n."""
        with transaction(self._connection):
            n = self._fold(block_n)
        self.n_tail -= n

    def _insert_observation(self, observation: Observation) -> None:
        instant = observation.instant
        self._connection.execute(
            "INSERT INTO tail VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                observation.seq,
                self._id("code_space", observation.code_space),
                self._id("source", observation.source),
                observation.first_sample,
                observation.n_samples,
                observation.sample_rate_hz,
                self._id("boot", instant.boot_id),
                instant.boottime_ns,
                instant.wall_ns,
                CLOCK_STATES.index(instant.clock_state),
                observation.code,
            ),
        )

    def _insert_detection(self, detection: Detection) -> None:
        self._connection.execute(
            "INSERT INTO detection (seq, query, distance, probability, false_alarms_per_day, clip)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                detection.seq,
                self._id("query", detection.query, detection.text),
                detection.distance,
                detection.probability,
                detection.false_alarms_per_day,
                detection.clip,
            ),
        )

    def _insert_event(self, event: Event) -> None:
        self._connection.execute(
            "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.number,
                event.kind,
                event.before_seq,
                self._id("source", event.source),
                event.first_sample,
                event.n_samples,
                event.sample_rate_hz,
                event.reason,
            ),
        )

    def _id(self, table: str, *names: str) -> int:
        """Return the id of a name (for a query: name and text) in one of the small tables, adding it where new."""
        key = (table, *names)
        if key not in self._ids:
            if len(self._ids) >= _MAX_CACHED_IDS:
                self._ids.clear()
            columns, marks = ("name, text", "?, ?") if table == "query" else ("name", "?")
            self._connection.execute(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", names)
            found = self._connection.execute(f"SELECT id FROM {table} WHERE ({columns}) = ({marks})", names)
            (self._ids[key],) = found.fetchone()
        return self._ids[key]

    def _fold(self, block_n: int) -> int:
        rows = self._connection.execute(
            "SELECT seq, code_space, length(code), code, source, first_sample, n_samples, sample_rate_hz, boot,"
            " boottime_ns, wall_ns, clock_state FROM tail ORDER BY seq LIMIT ?",
            (block_n,),
        ).fetchall()
        first_seq, *kind = rows[0][:3]
        breaks = (i for i, row in enumerate(rows) if row[0] != first_seq + i or list(row[1:3]) != kind)
        run = rows[: next(breaks, len(rows))]
        columns = Columns.of_rows([row[4:] for row in run])
        codes = pack_codes([row[3] for row in run])
        block = (first_seq, len(run), kind[0], *columns.wall_range(), pack_columns(columns), codes)
        self._connection.execute(INSERT_BLOCK, block)
        self._connection.execute("DELETE FROM tail WHERE seq < ?", (first_seq + len(run),))
        return len(run)
