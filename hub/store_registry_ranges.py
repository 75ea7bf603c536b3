"""Settled ranges of the registry: which numbers of a device's streams came, as few rows as possible."""

from __future__ import annotations

import sqlite3

from edge.batch import STREAMS, Progress, Range, Stream

MAX_MISSING = 1024  # ranges in a receipt; where there are more, the oldest ones are told as one


def settle(
    connection: sqlite3.Connection, device: int, epoch: int, stream: Stream, first: int, n: int
) -> list[Range]:
    """Enter n numbers from first; return the ranges of them that are new, in order."""
    key, end = (device, epoch, STREAMS.index(stream)), first + n
    touching = connection.execute(
        "SELECT first, n FROM settled WHERE device = ? AND epoch = ? AND stream = ? AND first <= ? AND first >= coalesce("
        "(SELECT max(first) FROM settled WHERE device = ? AND epoch = ? AND stream = ? AND first <= ?), 0) AND first + n >= ?"
        " ORDER BY first",
        (*key, end, *key, first, first),
    ).fetchall()
    new = gaps(touching, first, end)
    if not new:
        return []
    low = min([first, *(start for start, _ in touching)])
    high = max([end, *(start + count for start, count in touching)])
    kept = [start for start, _ in touching if start != low]
    connection.executemany(
        "DELETE FROM settled WHERE device = ? AND epoch = ? AND stream = ? AND first = ?",
        [(*key, start) for start in kept],
    )
    connection.execute("INSERT OR REPLACE INTO settled VALUES (?, ?, ?, ?, ?)", (*key, low, high - low))
    return new


def unsettle(
    connection: sqlite3.Connection, device: int, epoch: int, stream: Stream, first: int, n: int
) -> None:
    """Take n numbers from first out again: they have not come."""
    key, end = (device, epoch, STREAMS.index(stream)), first + n
    rows = connection.execute(
        "SELECT first, n FROM settled WHERE device = ? AND epoch = ? AND stream = ? AND first < ? AND first + n > ?",
        (*key, end, first),
    ).fetchall()
    for start, count in rows:
        connection.execute(
            "DELETE FROM settled WHERE device = ? AND epoch = ? AND stream = ? AND first = ?", (*key, start)
        )
        left = gaps([(first, n)], start, start + count)
        connection.executemany("INSERT INTO settled VALUES (?, ?, ?, ?, ?)", [(*key, *each) for each in left])


def next_number(connection: sqlite3.Connection, device: int, epoch: int, stream: Stream) -> int:
    """Return one more than the highest number that is settled, 0 for none."""
    row = connection.execute(
        "SELECT first + n FROM settled WHERE device = ? AND epoch = ? AND stream = ? ORDER BY first DESC LIMIT 1",
        (device, epoch, STREAMS.index(stream)),
    ).fetchone()
    return 0 if row is None else int(row[0])


def progress(connection: sqlite3.Connection, device: int, epoch: int, stream: Stream) -> Progress:
    """Return what is settled of a stream. No missing number is left out; the oldest gaps may be told as one."""
    key = (device, epoch, STREAMS.index(stream))
    newest = connection.execute(
        "SELECT first, n FROM settled WHERE device = ? AND epoch = ? AND stream = ? ORDER BY first DESC LIMIT ?",
        (*key, MAX_MISSING),
    ).fetchall()[::-1]
    if not newest:
        return Progress(0)
    lowest = connection.execute(
        "SELECT first, n FROM settled WHERE device = ? AND epoch = ? AND stream = ? ORDER BY first LIMIT 1",
        key,
    ).fetchone()
    settled_from_0 = lowest[1] if lowest[0] == 0 else 0
    missing = gaps(newest, min(settled_from_0, newest[0][0]), newest[-1][0])
    return Progress(newest[-1][0] + newest[-1][1], tuple(missing))


def gaps(taken: list[Range], first: int, end: int) -> list[Range]:
    """Return the parts of [first, end) that no range has; taken: in order, not overlapping."""
    found = []
    for start, n in taken:
        if start > first:
            found.append((first, min(start, end) - first))
        first = max(first, start + n)
        if first >= end:
            break
    if first < end:
        found.append((first, end - first))
    return found
