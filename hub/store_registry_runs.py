"""Observations of the registry: what is new of a run gets uids and goes into the outbox; what repeats is compared."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import cbor2
import numpy as np

from edge.batch import Range, Run
from edge.store_blocks import UNKNOWN_WALL_NS, Columns
from hub.archive import ArchiveBlock
from hub.store_registry_ranges import gaps, settle

if TYPE_CHECKING:
    from numpy.typing import NDArray


def keep_run(
    connection: sqlite3.Connection, device: int, epoch: int, run: Run, digests: NDArray[np.uint32]
) -> tuple[list[ArchiveBlock], list[Range]]:
    """Keep what is new of a run; return its blocks, and the ranges of seq that differ from what was kept before."""
    end = run.first_seq + run.n
    parts = connection.execute(
        "SELECT first_seq, n, digests FROM part WHERE device = ? AND epoch = ? AND first_seq < ? AND first_seq >= coalesce("
        "(SELECT max(first_seq) FROM part WHERE device = ? AND epoch = ? AND first_seq <= ?), 0) AND first_seq + n > ?"
        " ORDER BY first_seq",
        (device, epoch, end, device, epoch, run.first_seq, run.first_seq),
    ).fetchall()
    differing = []
    for first, n, packed in parts:
        low, high = max(first, run.first_seq), min(first + n, end)
        before = np.frombuffer(packed, "<u4")[low - first : high - first]
        now = digests[low - run.first_seq : high - run.first_seq]
        differing += _as_ranges(low + np.flatnonzero(before != now))
    blocks = []
    for first, n in gaps([(first, n) for first, n, _ in parts], run.first_seq, end):
        start = first - run.first_seq
        block = ArchiveBlock(_take_uids(connection, n), device, epoch, run.part(start, start + n))
        packed = digests[start : start + n].astype("<u4").tobytes()
        connection.execute(
            "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)", (block.first_uid, device, epoch, first, n, packed)
        )
        connection.execute(
            "INSERT INTO outbox VALUES (?, ?, ?, ?)", (block.first_uid, device, epoch, pack_run(block.run))
        )
        if sum(count for _, count in settle(connection, device, epoch, "observations", first, n)) < n:
            find_again(connection, device, epoch, first, n)
        blocks.append(block)
    return blocks, differing


def find_again(connection: sqlite3.Connection, device: int, epoch: int, first: int, n: int) -> None:
    """Take observations that came after all out of the ranges that were told as dropped."""
    key, end = (device, epoch), first + n
    rows = connection.execute(
        "SELECT first_seq, n, reason FROM dropped WHERE device = ? AND epoch = ? AND first_seq < ? AND first_seq + n > ?",
        (*key, end, first),
    ).fetchall()
    for start, count, reason in rows:
        connection.execute(
            "DELETE FROM dropped WHERE device = ? AND epoch = ? AND first_seq = ?", (*key, start)
        )
        left = gaps([(first, n)], start, start + count)
        connection.executemany(
            "INSERT INTO dropped VALUES (?, ?, ?, ?, ?)", [(*key, *each, reason) for each in left]
        )


def _take_uids(connection: sqlite3.Connection, n: int) -> int:
    (first,) = connection.execute("SELECT value FROM fact WHERE key = 'next_uid'").fetchone()
    connection.execute("UPDATE fact SET value = ? WHERE key = 'next_uid'", (first + n,))
    return int(first)


def tell_detections(connection: sqlite3.Connection, block: ArchiveBlock, columns: Columns, run: Run) -> None:
    """Tell the detections of a block's observations that came earlier what they are of."""
    rows = connection.execute(
        "SELECT DISTINCT seq FROM detection WHERE device = ? AND epoch = ? AND seq >= ? AND seq < ? AND source IS NULL",
        (block.device, block.epoch, block.run.first_seq, block.run.first_seq + block.n),
    ).fetchall()
    for (seq,) in rows:
        i = seq - run.first_seq
        wall_ns = int(columns.wall_ns[i])
        connection.execute(
            "UPDATE detection SET uid = ?, code_space = ?, wall_ns = ?, source = ?, first_sample = ?, n_samples = ?,"
            " sample_rate_hz = ? WHERE device = ? AND epoch = ? AND seq = ?",
            (
                block.first_uid + seq - block.run.first_seq,
                run.code_space,
                None if wall_ns == UNKNOWN_WALL_NS else wall_ns,
                run.sources[columns.source[i]],
                int(columns.first_sample[i]),
                int(columns.n_samples[i]),
                int(columns.sample_rate_hz[i]),
                block.device,
                block.epoch,
                seq,
            ),
        )


def pack_run(run: Run) -> bytes:
    """Return a run as a row of the outbox holds it."""
    return cbor2.dumps(
        [run.first_seq, run.n, run.code_space, list(run.sources), list(run.boots), run.columns, run.codes]
    )


def unpack_run(packed: bytes) -> Run:
    """Return the run in a row of the outbox."""
    first, n, space, sources, boots, columns, codes = cbor2.loads(packed)
    return Run(first, n, space, tuple(sources), tuple(boots), columns, codes)


def _as_ranges(numbers: NDArray[np.int64]) -> list[Range]:
    """Return rising numbers as ranges."""
    if not numbers.size:
        return []
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 2) != 1)
    lengths = np.diff(starts, append=numbers.size)
    return [(int(numbers[start]), int(n)) for start, n in zip(starts, lengths, strict=True)]
