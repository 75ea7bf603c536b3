"""Repair of the registry: what it says of the archive made true again, after a restored copy or a lost archive."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from edge.batch import Range
from hub.archive import ArchiveBlock
from hub.archive_blocks import joined
from hub.store_registry_database import Database
from hub.store_registry_ranges import gaps, settle, unsettle
from hub.store_registry_runs import find_again

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PARTS = "SELECT first_uid, device, epoch, first_seq, n, digests FROM part WHERE first_uid < ? AND first_uid + n > ?"


class Repair:
    """Compares by uid, and changes what differs. No ingest may run meanwhile. Every method raises HubError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def uids(self) -> tuple[list[Range], list[Range]]:
        """Return the uids (first, n) that were given, and those of them that do not wait in the outbox: the archive has them."""
        with self._database.reading() as connection:
            kept = joined(connection.execute("SELECT first_uid, n FROM part").fetchall())
            waiting = joined(
                connection.execute(
                    "SELECT part.first_uid, part.n FROM outbox JOIN part ON part.first_uid = outbox.first_uid"
                ).fetchall()
            )
        return kept, without(kept, waiting)

    def n_devices(self) -> int:
        """Return how many recorders are known."""
        with self._database.reading() as connection:
            return int(connection.execute("SELECT count(*) FROM device").fetchone()[0])

    def forget(self, lost: Iterable[Range]) -> Mapping[str, int]:
        """Forget that observations came, so that the next receipt lists them as missing; return how many of each recorder.

        Their detections stay, and are told of their observations when these come again.
        """
        counted: Counter[int] = Counter()
        with self._database.writing() as connection:
            for first, n in lost:
                for uid, device, epoch, first_seq, count, digests in connection.execute(
                    _PARTS, (first + n, first)
                ).fetchall():
                    low, high = max(first, uid) - uid, min(first + n, uid + count) - uid
                    connection.execute("DELETE FROM part WHERE first_uid = ?", (uid,))
                    for start, end in ((0, low), (high, count)):
                        if start < end:
                            row = (uid + start, device, epoch, first_seq + start, end - start)
                            connection.execute(
                                "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)",
                                (*row, digests[4 * start : 4 * end]),
                            )
                    unsettle(connection, device, epoch, "observations", first_seq + low, high - low)
                    connection.execute(
                        "UPDATE detection SET uid = NULL, source = NULL WHERE device = ? AND epoch = ? AND seq >= ? AND seq < ?",
                        (device, epoch, first_seq + low, first_seq + high),
                    )
                    counted[device] += high - low
            names = dict(connection.execute("SELECT number, name FROM device").fetchall())
        return {names.get(number, str(number)): n for number, n in sorted(counted.items())}

    def adopt(
        self, blocks: Sequence[tuple[ArchiveBlock, NDArray[np.uint32]]], now_ns: int
    ) -> list[ArchiveBlock]:
        """Enter blocks of the archive, each with its digests, as if they had come; return those that cannot be.

        Those are of a recorder that is not known, or of numbers that came under another uid.
        """
        left = []
        with self._database.writing() as connection:
            for block, digests in blocks:
                if not _is_free(connection, block):
                    left.append(block)
                    continue
                key, first, n = (block.device, block.epoch), block.run.first_seq, block.n
                connection.execute(
                    "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)",
                    (block.first_uid, *key, first, n, digests.astype("<u4").tobytes()),
                )
                if sum(count for _, count in settle(connection, *key, "observations", first, n)) < n:
                    find_again(connection, *key, first, n)
                connection.execute(
                    "INSERT INTO epoch VALUES (?, ?, ?, ?, 0, 0) ON CONFLICT DO UPDATE"
                    " SET observations = max(observations, excluded.observations)",
                    (*key, now_ns, first + n),
                )
                connection.execute(
                    "UPDATE detection SET uid = ? + seq - ? WHERE device = ? AND epoch = ? AND seq >= ? AND seq < ?",
                    (block.first_uid, first, *key, first, first + n),
                )
        return left

    def begin_behind(self, uid: int) -> None:
        """Give no uid below this one to what comes from now on."""
        with self._database.writing() as connection:
            connection.execute("UPDATE fact SET value = max(value, ?) WHERE key = 'next_uid'", (uid,))


def without(ranges: Iterable[Range], taken: list[Range]) -> list[Range]:
    """Return what of ranges lies in none of taken; all of them in order, none over another."""
    found: list[Range] = []
    i = 0
    for first, n in ranges:
        while i < len(taken) and taken[i][0] + taken[i][1] <= first:
            i += 1
        end = i
        while end < len(taken) and taken[end][0] < first + n:
            end += 1
        found += gaps(taken[i:end], first, first + n)
    return found


def _is_free(connection: sqlite3.Connection, block: ArchiveBlock) -> bool:
    """Return whether a block is of a known recorder and none of its numbers has come under another uid."""
    (is_known,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM device WHERE number = ?)", (block.device,)
    ).fetchone()
    first, end, key = block.run.first_seq, block.run.first_seq + block.n, (block.device, block.epoch)
    (is_taken,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM part WHERE device = ? AND epoch = ? AND first_seq < ? AND first_seq >= coalesce("
        "(SELECT max(first_seq) FROM part WHERE device = ? AND epoch = ? AND first_seq <= ?), 0) AND first_seq + n > ?)",
        (*key, end, *key, first, first),
    ).fetchone()
    return bool(is_known) and not is_taken
