"""How far the indexing of archives is: one SQLite file beside the hub's, so that a kill loses no file that was encoded."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edge.batch import MAX_RUN, Batch, decode_batch
from edge.errors import HubError
from edge.store_schema import transaction
from edge.utf8 import shown
from hub.index_encoding import Encoded, renumbered
from hub.index_files import Listed
from hub.store_index_schema import lock, prepare

_CHUNK = 10_000  # files listed in one transaction; tasks read at once
_NEXT_PENDING = (  # everything before it may be delivered
    "coalesce((SELECT min(ordinal) FROM item WHERE job = :job AND state = 0), 9223372036854775807)"
)
_IS_LAST = (  # the last state of a file that changed, or the last try of one that failed
    "NOT EXISTS (SELECT 1 FROM item later WHERE later.job = item.job AND later.path = item.path"
    " AND later.ordinal > item.ordinal)"
)

_TAKE_OVER = (  # of the item with the same bytes
    "UPDATE item SET (n, seconds, problem) = (SELECT n, seconds, problem FROM item other WHERE other.job = item.job"
    " AND other.path = item.path AND other.digest = item.digest AND other.ordinal < item.ordinal"
    " ORDER BY other.ordinal DESC LIMIT 1) WHERE job = :job AND ordinal = :ordinal"
)


@dataclass(frozen=True, slots=True)
class Task:
    """A file to encode. known: digests of what was indexed under this path before."""

    ordinal: int
    path: bytes
    size_bytes: int
    known: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Return the path as text: the source of its observations."""
        return shown(os.fsdecode(self.path))


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that was not encoded, or not to its end; n_observations: what it gave all the same."""

    name: str
    reason: str
    n_observations: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Of files as they are now. n_problems: those among n_done of which not all was encoded; seconds_audio: heard."""

    n_files: int
    n_done: int
    n_problems: int
    n_bytes: int
    n_bytes_done: int
    n_observations: int
    seconds_audio: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """A batch, and the last piece (ordinal, position) that it holds."""

    batch: Batch
    last: tuple[int, int]


class IndexStore:
    """The progress of one job. Only one process works on the jobs of a file; use it as a context manager or call close().

    Raises HubError: a file that is in use, damaged, another program's or newer; a disk that is full.
    """

    def __init__(self, path: Path, device_id: str, epoch: int, place: str) -> None:
        self.path, self._lock = path, lock(path)
        try:
            with self._mapped():
                self._connection = sqlite3.connect(path, isolation_level=None)
            with self._mapped():
                prepare(self._connection, path)
                with transaction(self._connection):
                    self._connection.execute(
                        "INSERT OR IGNORE INTO job (device, epoch, place, next_seq, next_event) VALUES (?, ?, ?, 0, 0)",
                        (device_id, epoch, shown(place)),
                    )
                (self._job,) = self._connection.execute(
                    "SELECT id FROM job WHERE device = ? AND epoch = ?", (device_id, epoch)
                ).fetchone()
        except BaseException:
            self.close()
            raise

    def add_files(self, files: Iterable[Listed]) -> int:
        """Enter what is new or changed, numbered in this order after all that was known; return how many."""
        n_new = 0
        for chunk in _chunks(files):
            with self._mapped(), transaction(self._connection):
                n_new += sum(self._add_file(each) for each in chunk)
        return n_new

    def retry_problems(self) -> int:
        """Make files that gave nothing pending again, as new ones at the end; return how many."""
        with self._mapped(), transaction(self._connection):
            rows = self._connection.execute(
                "SELECT path, size_bytes, version FROM item WHERE job = ? AND problem != '' AND n = 0 AND state = 2"
                f" AND {_IS_LAST} ORDER BY ordinal",
                (self._job,),
            ).fetchall()
            for path, size_bytes, version in rows:
                self._insert(Listed(path, size_bytes, version))
        return len(rows)

    def tasks(self) -> Iterator[Task]:
        """Walk through the pending files in their order."""
        last = -1
        while True:
            with self._mapped():
                rows = self._connection.execute(
                    "SELECT ordinal, path, size_bytes FROM item WHERE job = ? AND state = 0 AND ordinal > ?"
                    " ORDER BY ordinal LIMIT ?",
                    (self._job, last, _CHUNK),
                ).fetchall()
                tasks = [Task(ordinal, path, size, self._known(path)) for ordinal, path, size in rows]
            if not tasks:
                return
            last = tasks[-1].ordinal
            yield from tasks

    def keep(self, results: Sequence[tuple[Task, Encoded]]) -> None:
        """Keep what files came to."""
        with self._mapped(), transaction(self._connection):
            for task, encoded in results:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO piece (job, ordinal, position, batch) VALUES (?, ?, ?, ?)",
                    ((self._job, task.ordinal, at, piece) for at, piece in enumerate(encoded.pieces)),
                )
                self._connection.execute(
                    "UPDATE item SET state = 1, digest = ?, n = ?, seconds = ?, problem = ? WHERE job = ? AND ordinal = ?",
                    (
                        encoded.digest,
                        encoded.n_observations,
                        encoded.seconds_audio,
                        encoded.problem,
                        self._job,
                        task.ordinal,
                    ),
                )
                if encoded.is_known:
                    self._connection.execute(_TAKE_OVER, {"job": self._job, "ordinal": task.ordinal})

    def next_delivery(self, at_least: int) -> Delivery | None:
        """Return what comes next in the order of files, up to a run full; None where fewer observations than this wait.

        The same again until delivered() is called, if at_least is the same or 0.
        """
        with self._mapped():
            numbers = self._connection.execute(
                "SELECT next_seq, next_event FROM job WHERE id = ?", (self._job,)
            ).fetchone()
            (n_ready,) = self._connection.execute(
                f"SELECT coalesce(sum(n), 0) FROM item WHERE job = :job AND state = 1 AND ordinal < {_NEXT_PENDING}",
                {"job": self._job},
            ).fetchone()
            if n_ready < at_least:
                return None
            pieces, last, is_full = self._next_run()
        if not pieces or (not is_full and sum(piece.next[0] for piece in pieces) < at_least):
            return None
        return Delivery(renumbered(pieces, *numbers), last)

    def delivered(self, delivery: Delivery) -> None:
        """Note that the hub keeps a batch."""
        ordinal, position = delivery.last
        next_seq, _, next_event = delivery.batch.next
        with self._mapped(), transaction(self._connection):
            self._connection.execute(
                "DELETE FROM piece WHERE job = ? AND (ordinal, position) <= (?, ?)",
                (self._job, ordinal, position),
            )
            self._connection.execute(
                "UPDATE item SET state = 2 WHERE job = ? AND state = 1 AND ordinal <= ? AND NOT EXISTS"
                " (SELECT 1 FROM piece WHERE piece.job = item.job AND piece.ordinal = item.ordinal)",
                (self._job, ordinal),
            )
            self._connection.execute(
                "UPDATE job SET next_seq = ?, next_event = ? WHERE id = ?", (next_seq, next_event, self._job)
            )

    def settle(self) -> None:
        """Note of encoded files that have nothing to deliver that they are done."""
        with self._mapped(), transaction(self._connection):
            self._connection.execute(
                "UPDATE item SET state = 2 WHERE job = ? AND state = 1 AND NOT EXISTS"
                " (SELECT 1 FROM piece WHERE piece.job = item.job AND piece.ordinal = item.ordinal)",
                (self._job,),
            )

    def totals(self) -> Totals:
        """Return how far the job is, files that are encoded counting as done."""
        with self._mapped():
            row = self._connection.execute(
                "SELECT count(*), coalesce(sum(state > 0), 0), coalesce(sum(problem != ''), 0), coalesce(sum(size_bytes), 0),"
                " coalesce(sum(size_bytes * (state > 0)), 0), coalesce(sum(n), 0), coalesce(sum(seconds), 0.0)"
                f" FROM item WHERE job = ? AND {_IS_LAST}",
                (self._job,),
            ).fetchone()
        return Totals(*row)

    def problems(self) -> Iterator[Problem]:
        """Walk through the files of which not all was encoded, in their order; the last try of each."""
        with self._mapped():
            rows = self._connection.execute(
                f"SELECT path, problem, n FROM item WHERE job = ? AND problem != '' AND {_IS_LAST} ORDER BY ordinal",
                (self._job,),
            ).fetchall()
        for path, reason, n in rows:
            yield Problem(shown(os.fsdecode(path)), reason, n)

    def close(self) -> None:
        """Close the file and let others in."""
        if hasattr(self, "_connection"):
            self._connection.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> IndexStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_run(self) -> tuple[list[Batch], tuple[int, int], bool]:
        """Return the pieces that come next, MAX_RUN observations at most; which is the last; whether no more fit."""
        pieces: list[Batch] = []
        n, n_events, last = 0, 0, (0, 0)
        rows = self._connection.execute(
            f"SELECT ordinal, position, batch FROM piece WHERE job = :job AND ordinal < {_NEXT_PENDING}"
            " ORDER BY ordinal, position LIMIT :most",
            {"job": self._job, "most": MAX_RUN},
        )
        for ordinal, position, content in rows:
            piece = decode_batch(content)
            n += piece.next[0]
            n_events += piece.next[2]
            if pieces and max(n, n_events) > MAX_RUN:
                return pieces, last, True
            pieces.append(piece)
            last = (ordinal, position)
        return pieces, last, len(pieces) == MAX_RUN

    def _add_file(self, file: Listed) -> bool:
        """Enter a file unless its last state is known, or waits anyway."""
        row = self._connection.execute(
            "SELECT ordinal, size_bytes, version, state FROM item WHERE job = ? AND path = ? ORDER BY ordinal DESC LIMIT 1",
            (self._job, file.path),
        ).fetchone()
        if row is None:
            return self._insert(file)
        ordinal, size_bytes, version, state = row
        if (size_bytes, version) == (file.size_bytes, file.version):
            return False
        if state:
            return self._insert(file)
        self._connection.execute(
            "UPDATE item SET size_bytes = ?, version = ? WHERE job = ? AND ordinal = ?",
            (file.size_bytes, file.version, self._job, ordinal),
        )
        return False

    def _insert(self, file: Listed) -> bool:
        self._connection.execute(
            "INSERT INTO item SELECT ?, coalesce(max(ordinal) + 1, 0), ?, ?, ?, 0, '', 0, 0.0, '' FROM item WHERE job = ?",
            (self._job, file.path, file.size_bytes, file.version, self._job),
        )
        return True

    def _known(self, path: bytes) -> frozenset[str]:
        rows = self._connection.execute(
            "SELECT digest FROM item WHERE job = ? AND path = ? AND state > 0 AND digest != '' AND n > 0",
            (self._job, path),
        )
        return frozenset(digest for (digest,) in rows)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn SQLite's errors into HubError."""
        try:
            yield
        except sqlite3.Error as error:
            raise HubError(
                f"{self.path}: expected progress that can be read and written, found {error}; make room or give rights; "
                "a damaged one may be moved away: what the hub has already is then compared, and not kept twice"
            ) from error


def _chunks(files: Iterable[Listed]) -> Iterator[list[Listed]]:
    chunk: list[Listed] = []
    for each in files:
        chunk.append(each)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
