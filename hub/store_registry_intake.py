"""Intake of the registry: a batch becomes rows, each number of a device's streams once, whatever comes twice."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.batch import STREAMS, Batch, Progress, Receipt, Stream
from edge.errors import WireError
from edge.store_blocks import Columns
from hub.archive import ArchiveBlock
from hub.refusal import OverQuotaError
from hub.store_registry_calibrations import keep_calibrations
from hub.store_registry_database import Database
from hub.store_registry_ranges import next_number, progress, settle
from hub.store_registry_records import keep_detections, keep_events, note_conflicts
from hub.store_registry_runs import keep_run, tell_detections, unpack_run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_JUMP = 1_000_000  # numbers that may be missing between what is settled and what comes
MAX_EPOCHS = 1000  # of a device; a new one begins where a recorder's database is made anew
MAX_HEALTH_CHARACTERS = 65_536  # of one heartbeat, as JSON
MAX_CLIPS_ASKED = 16  # in one receipt
_DAY_NS = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Arrival:
    """A batch that was checked as far as it can be without the registry. columns, digests: of each of its runs."""

    device: int
    batch: Batch
    columns: tuple[Columns, ...]
    digests: tuple[NDArray[np.uint32], ...]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an arrival. blocks: on their way to the archive."""

    receipt: Receipt
    blocks: tuple[ArchiveBlock, ...]


class Intake:
    """Takes arrivals, and hands out what the archive has not got yet. quota_bytes: of a device in a day, UTC."""

    def __init__(self, database: Database, quota_bytes: int) -> None:
        self._database = database
        self._quota_bytes = quota_bytes
        with database.reading() as connection:
            row = connection.execute("SELECT value FROM fact WHERE key = 'digest_key'").fetchone()
        self.digest_key: bytes = row[0]

    def keep(self, arrivals: Sequence[Arrival], now_ns: int) -> list[Kept | WireError | OverQuotaError]:
        """Keep what is new of arrivals in one commit; it is on the disk when this returns.

        An arrival with numbers beyond all bounds, or of a device over its quota, is answered by an error and leaves
        nothing but its bytes in the quota. Raises NoRoomError for a full disk, HubError for all else; then nothing is kept.
        """
        answers: list[Kept | WireError | OverQuotaError] = []
        with self._database.writing() as connection:
            for arrival in arrivals:
                connection.execute("SAVEPOINT arrival")
                try:
                    answers.append(self._keep(connection, arrival, now_ns))
                except (WireError, OverQuotaError) as error:
                    connection.execute("ROLLBACK TO arrival")
                    _count_bytes(connection, arrival, 0, now_ns)
                    answers.append(error)
                connection.execute("RELEASE arrival")
        return answers

    def next_uid(self) -> int:
        """Return the uid that the next observation gets."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT value FROM fact WHERE key = 'next_uid'").fetchone()
        return int(row[0])

    def waiting(self) -> Iterator[ArchiveBlock]:
        """Walk through the blocks that are not known to be in the archive, in the order of uid."""
        last_uid = 0
        while True:
            with self._database.reading() as connection:
                row = connection.execute(
                    "SELECT first_uid, device, epoch, run FROM outbox WHERE first_uid > ? ORDER BY first_uid LIMIT 1",
                    (last_uid,),
                ).fetchone()
            if row is None:
                return
            last_uid, device, epoch, packed = row
            yield ArchiveBlock(last_uid, device, epoch, unpack_run(packed))

    def archived(self, blocks: Sequence[ArchiveBlock]) -> None:
        """Forget blocks that are in the archive."""
        with self._database.writing() as connection:
            connection.executemany(
                "DELETE FROM outbox WHERE first_uid = ?", [(block.first_uid,) for block in blocks]
            )

    def untold(self) -> list[int]:
        """Return the uids of archived observations whose detections came later and know only their seq."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT uid FROM detection WHERE uid IS NOT NULL AND source IS NULL"
            ).fetchall()
        return [uid for (uid,) in rows]

    def tell(self, block: ArchiveBlock) -> None:
        """Tell the detections of a block's observations what they are of."""
        columns = block.run.unpacked()
        with self._database.writing() as connection:
            tell_detections(connection, block, columns, block.run)

    def _keep(self, connection: sqlite3.Connection, arrival: Arrival, now_ns: int) -> Kept:
        batch, device = arrival.batch, arrival.device
        n_bytes = _count_bytes(connection, arrival, sum(run.n for run in batch.runs), now_ns)
        if n_bytes > self._quota_bytes:
            raise OverQuotaError(
                f"expected at most {self._quota_bytes} bytes of a recorder in a day, found {n_bytes}",
                ((now_ns // _DAY_NS + 1) * _DAY_NS - now_ns) / 1e9,
            )
        _require_near(batch, {s: next_number(connection, device, batch.epoch, s) for s in STREAMS})
        has_made = _enter_epoch(connection, arrival, now_ns)
        n_before = connection.total_changes
        differing = {
            "detections": keep_detections(connection, device, batch, now_ns),
            "events": keep_events(connection, device, batch, now_ns),
            "observations": [],
        }
        has_records = connection.total_changes > n_before
        blocks: list[ArchiveBlock] = []
        for run, columns, digests in zip(batch.runs, arrival.columns, arrival.digests, strict=True):
            new, changed = keep_run(connection, device, batch.epoch, run, digests)
            blocks += new
            differing["observations"] += changed
            for block in new:
                tell_detections(connection, block, columns, run)
        _keep_dropped(connection, device, batch)
        done: dict[Stream, Progress] = {}
        for stream in STREAMS:
            note_conflicts(connection, device, batch.epoch, stream, differing[stream], now_ns)
            done[stream] = progress(connection, device, batch.epoch, stream)
        n_conflicts = sum(n for ranges in differing.values() for _, n in ranges)
        if has_made or has_records or blocks:  # not for a visit alone, and not for what comes again
            connection.execute("UPDATE device SET seen_ns = ? WHERE number = ?", (now_ns, device))
        if batch.health:
            _note_health(connection, device, batch.health, has_made, now_ns)
        if batch.calibrations is not None:
            keep_calibrations(connection, device, batch.calibrations, now_ns)
        wanted = connection.execute(
            "SELECT epoch, seq FROM clip WHERE device = ? AND received_ns IS NULL ORDER BY wanted_ns LIMIT ?",
            (device, MAX_CLIPS_ASKED),
        ).fetchall()
        return Kept(Receipt(batch.epoch, done, n_conflicts, tuple(wanted)), tuple(blocks))


def _count_bytes(connection: sqlite3.Connection, arrival: Arrival, n_observations: int, now_ns: int) -> int:
    """Count what a device sends in a day, also what came before or is refused; return how many bytes that are."""
    ((n_bytes,),) = connection.execute(
        "INSERT INTO usage VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes,"
        " observations = observations + excluded.observations RETURNING bytes",
        (arrival.device, now_ns // _DAY_NS, arrival.n_bytes, n_observations),
    ).fetchall()
    return int(n_bytes)


def _require_near(batch: Batch, known: dict[Stream, int]) -> None:
    """Refuse numbers far beyond what is settled: one wrong number would leave a gap that nothing fills."""
    ends: list[tuple[Stream, int]] = [("observations", run.first_seq) for run in batch.runs]
    ends += [("observations", first + n) for first, n, _ in batch.dropped]
    ends += [("detections", number) for number, _ in batch.detections]
    ends += [("events", event.number) for event in batch.events]
    for stream, number in ends:
        if number > known[stream] + MAX_JUMP:
            raise WireError(
                f"{stream}: expected numbers up to {known[stream] + MAX_JUMP}, found {number}; "
                "send what comes before it first"
            )


def _enter_epoch(connection: sqlite3.Connection, arrival: Arrival, now_ns: int) -> bool:
    """Note how many of each stream were made; return whether these are more than ever."""
    key, made = (arrival.device, arrival.batch.epoch), arrival.batch.next
    row = connection.execute(
        "SELECT observations, detections, events FROM epoch WHERE device = ? AND epoch = ?", key
    ).fetchone()
    if row is not None:
        connection.execute(
            "UPDATE epoch SET observations = max(observations, ?), detections = max(detections, ?), events = max(events, ?)"
            " WHERE device = ? AND epoch = ?",
            (*made, *key),
        )
        return any(now > before for now, before in zip(made, row, strict=True))
    (n_epochs,) = connection.execute("SELECT count(*) FROM epoch WHERE device = ?", key[:1]).fetchone()
    if n_epochs >= MAX_EPOCHS:
        raise WireError(f"epoch: expected at most {MAX_EPOCHS} of one recorder, found another one")
    connection.execute("INSERT INTO epoch VALUES (?, ?, ?, ?, ?, ?)", (*key, now_ns, *made))
    return any(made)


def _keep_dropped(connection: sqlite3.Connection, device: int, batch: Batch) -> None:
    """Note what a recorder has dropped, as far as it is neither kept nor noted already."""
    for first, n, reason in batch.dropped:
        for start, count in settle(connection, device, batch.epoch, "observations", first, n):
            connection.execute(
                "INSERT OR REPLACE INTO dropped VALUES (?, ?, ?, ?, ?)",
                (device, batch.epoch, start, count, reason),
            )


def _note_health(
    connection: sqlite3.Connection, device: int, health: Mapping[str, Any], has_made: bool, now_ns: int
) -> None:
    """Note how a device is where that is newer than what is known: by its clock, or as more was made than ever.

    What is known from a time that has not come yet was told by a wrong clock, and gives way to anything.
    """
    connection.execute(
        "UPDATE device SET health_at_ns = ?, health = ? WHERE number = ?"
        " AND (? OR coalesce(health_at_ns, -1) < ? OR health_at_ns > ?)",
        (health["at_ns"], _health_text(health), device, has_made, health["at_ns"], now_ns + _DAY_NS),
    )


def _health_text(health: Mapping[str, Any]) -> str:
    """Return a heartbeat as JSON, which has no NaN and no infinity. Raises WireError for one that is too long."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in health.items()
    }
    text = json.dumps(finite)
    if len(text) > MAX_HEALTH_CHARACTERS:
        raise WireError(f"health: expected at most {MAX_HEALTH_CHARACTERS} characters, found {len(text)}")
    return text
