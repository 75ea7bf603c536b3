"""Detections and events of a batch, each number once; and the conflicts: what came twice and differed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import astuple

from edge.batch import STREAMS, Batch, Range, Stream
from hub.store_registry_ranges import settle

MAX_CONFLICTS = 10_000  # rows of a device; what differs beyond them is not listed

_DETECTION = "seq, query, text, distance, probability, false_alarms_per_day, clip"
_EVENT = "kind, before_seq, source, first_sample, n_samples, sample_rate_hz, reason"

# of an observation that came in an earlier batch; what else it was is told once the archive has it
_FIND_UID = """
UPDATE detection SET uid = (
    SELECT first_uid + detection.seq - first_seq FROM part WHERE part.device = detection.device AND part.epoch = detection.epoch
    AND first_seq = (SELECT max(first_seq) FROM part AS p WHERE p.device = detection.device AND p.epoch = detection.epoch
        AND p.first_seq <= detection.seq)
    AND detection.seq < first_seq + n)
WHERE device = ? AND epoch = ? AND number = ?"""


def keep_detections(connection: sqlite3.Connection, device: int, batch: Batch, now_ns: int) -> list[Range]:
    """Keep the new detections of a batch; return the numbers of those that differ from what was kept before."""
    rows = [(number, astuple(each)[2:]) for number, each in batch.detections]
    return _keep_records(
        connection, "detection", _DETECTION, "detections", (device, batch.epoch), rows, now_ns
    )


def keep_events(connection: sqlite3.Connection, device: int, batch: Batch, now_ns: int) -> list[Range]:
    """Keep the new events of a batch; return the numbers of those that differ from what was kept before."""
    rows = [(each.number, astuple(each)[1:]) for each in batch.events]
    return _keep_records(connection, "event", _EVENT, "events", (device, batch.epoch), rows, now_ns)


def note_conflicts(
    connection: sqlite3.Connection,
    device: int,
    epoch: int,
    stream: Stream,
    differing: Iterable[Range],
    now_ns: int,
) -> None:
    """Note the ranges of a stream that came twice and differed; the rows that were kept first stay as they are."""
    for first, n in differing:
        key = (device, epoch, STREAMS.index(stream), first)
        changed = connection.execute(
            "UPDATE conflict SET n = max(n, ?), last_ns = ?, n_times = n_times + 1"
            " WHERE device = ? AND epoch = ? AND stream = ? AND first = ?",
            (n, now_ns, *key),
        )
        if not changed.rowcount:
            connection.execute(
                "INSERT INTO conflict SELECT ?, ?, ?, ?, ?, ?, ?, 1"
                " WHERE (SELECT count(*) FROM conflict WHERE device = ?) < ?",
                (*key, n, now_ns, now_ns, device, MAX_CONFLICTS),
            )


def _keep_records(
    connection: sqlite3.Connection,
    table: str,
    columns: str,
    stream: Stream,
    key: tuple[int, int],
    rows: Sequence[tuple[int, tuple[object, ...]]],
    now_ns: int,
) -> list[Range]:
    places = ", ".join("?" * (4 + len(columns.split(","))))
    insert = f"INSERT INTO {table} (device, epoch, number, received_ns, {columns}) VALUES ({places})"
    select = f"SELECT {columns} FROM {table} WHERE device = ? AND epoch = ? AND number = ?"
    differing = []
    for number, values in rows:
        before = connection.execute(select, (*key, number)).fetchone()
        if before is None:
            connection.execute(insert, (*key, number, now_ns, *values))
            if table == "detection":
                connection.execute(_FIND_UID, (*key, number))
            settle(connection, *key, stream, number, 1)
        elif before != values:
            differing.append((number, 1))
    return differing
