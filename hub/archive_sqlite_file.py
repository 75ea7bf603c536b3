"""The file of an archive on one machine: its schema, its connections, and blocks in and out of it."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.batch import MAX_RUN, Range, Run
from edge.errors import ArchiveError, StoreError, WireError
from edge.store_blocks import UNKNOWN_WALL_NS, Columns, planes_of, unpack_columns
from edge.store_schema import transaction
from hub.archive import ArchiveBlock
from hub.archive_blocks import after, cut
from hub.archive_segments import BLOCK, OFFSET, START, N, Piece, Segment, View, hours_present

if TYPE_CHECKING:
    from numpy.typing import NDArray

APPLICATION_ID = 0x66636172  # "fcar"
SCHEMA_VERSION = 1
CHUNK_ROWS = 512  # of facts: to unpack those of one result takes 0.1 ms; of 4,096, 1 ms, for 1 % less disk
CHUNKS = MAX_RUN // CHUNK_ROWS  # of a block, at most
_PAGE_BYTES = 16_384  # blocks are large, and are read whole
_BUSY_TIMEOUT_S = 30.0
_FACTS_KEPT = 1024  # chunks, 32 KiB each
_WALK_BLOCKS = 32  # read at once by blocks()

_VERSION_1 = """
CREATE TABLE code_space (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
-- id: the order in which blocks came; hours: a bit for each hour of the UTC day that occurs
CREATE TABLE block (
    id INTEGER PRIMARY KEY, first_uid INTEGER NOT NULL UNIQUE, n INTEGER NOT NULL, device INTEGER NOT NULL,
    epoch INTEGER NOT NULL, first_seq INTEGER NOT NULL, code_space INTEGER NOT NULL, n_planes INTEGER NOT NULL,
    n_wall INTEGER NOT NULL, wall_min_ns INTEGER NOT NULL, wall_max_ns INTEGER NOT NULL, hours INTEGER NOT NULL,
    codes BLOB NOT NULL);
-- of 512 observations of a block each; id: 16 * the block's + which of them; sources, boots: JSON
CREATE TABLE facts (id INTEGER PRIMARY KEY, sources TEXT NOT NULL, boots TEXT NOT NULL, columns BLOB NOT NULL)
"""
_INSERT = (
    "INSERT OR IGNORE INTO block (first_uid, n, device, epoch, first_seq, code_space, n_planes, n_wall, wall_min_ns,"
    " wall_max_ns, hours, codes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_FACTS = "INSERT INTO facts (id, sources, boots, columns) VALUES (?, ?, ?, ?)"
_PIECES = (
    "SELECT name, n_planes, block.id, n, first_uid, device, epoch, first_seq, n_wall = n, wall_min_ns, wall_max_ns,"
    " hours FROM block JOIN code_space ON code_space.id = block.code_space WHERE block.id > ? ORDER BY block.id"
)
_WALK = (
    "SELECT block.id, first_uid, device, epoch, first_seq, n, name, codes"
    " FROM block JOIN code_space ON code_space.id = block.code_space WHERE first_uid >= ? ORDER BY first_uid LIMIT ?"
)
_FACTS = "SELECT id, sources, boots, columns FROM facts WHERE id BETWEEN ? AND ? ORDER BY id"
_HOLDER = "SELECT first_uid, n FROM block WHERE first_uid <= ? ORDER BY first_uid DESC LIMIT 1"


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What is told of up to CHUNK_ROWS observations of a block."""

    columns: Columns
    sources: Sequence[str]


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """A block at hand, unpacked.

    row: as it is inserted, its code space by name; facts: sources, boots and columns of each chunk; planes: uint64
    [n_planes, n]; walls: wall_ns [n], None where nobody needs them.
    """

    first_uid: int
    row: tuple[Any, ...]
    facts: Sequence[tuple[str, str, bytes]]
    planes: NDArray[np.uint64]
    walls: NDArray[np.int64] | None

    def copy(self, segment: Segment, start: int, offset: int, n: int) -> None:
        """Copy n of its observations from offset on into what a segment holds, from the row start on."""
        assert segment.planes is not None  # the caller has looked
        segment.planes[:, start : start + n] = self.planes[:, offset : offset + n]
        if segment.walls is not None:
            assert self.walls is not None
            segment.walls[start : start + n] = self.walls[offset : offset + n]


class ArchiveFile:
    """A SQLite file in WAL mode; what insert() took is on the disk when it returns. Safe to use from several threads."""

    @classmethod
    def open(cls, path: Path) -> ArchiveFile:
        """Open or create the file. Raises ArchiveError."""
        with mapped(path):
            writer = _connect(path)
        try:
            with mapped(path):
                _create(writer, path)
        except BaseException:
            writer.close()
            raise
        return cls(path, writer)

    def __init__(self, path: Path, writer: sqlite3.Connection) -> None:
        self.path = path
        self._writer = writer
        self._watch = _connect(path)
        self._lock = threading.Lock()  # of what follows
        self._idle: list[sqlite3.Connection] = []
        self._facts: OrderedDict[int, Facts] = OrderedDict()

    def insert(self, fresh: Sequence[Fresh]) -> None:
        """Insert what is not there yet, all or, where it fails, none. The caller lets one thread in at a time."""
        spaces: dict[str, int] = {}
        with transaction(self._writer):
            for each in fresh:
                name = each.row[5]
                if name not in spaces:
                    self._writer.execute("INSERT OR IGNORE INTO code_space (name) VALUES (?)", (name,))
                    find = "SELECT id FROM code_space WHERE name = ?"
                    (spaces[name],) = self._writer.execute(find, (name,)).fetchone()
                done = self._writer.execute(_INSERT, (*each.row[:5], spaces[name], *each.row[6:]))
                if done.rowcount and done.lastrowid is not None:
                    first = CHUNKS * done.lastrowid
                    rows = ((first + i, *facts) for i, facts in enumerate(each.facts))
                    self._writer.executemany(_INSERT_FACTS, rows)

    def remove(self, ranges: Sequence[Range]) -> None:
        """Remove the blocks in ranges of uids, all or, where one reaches out of them, none. The caller lets one thread in."""
        with transaction(self._writer):
            for first, n in ranges:
                blocks = self._writer.execute(
                    "SELECT id, n FROM block WHERE first_uid >= ? AND first_uid + n <= ? AND first_uid < ?",
                    (first, first + n, first + n),
                ).fetchall()
                if sum(count for _, count in blocks) != n:
                    raise ArchiveError(
                        f"{self.path}: expected whole blocks from uid {first}, found one that reaches out of {n}"
                    )
                for block, _ in blocks:
                    self._writer.execute("DELETE FROM block WHERE id = ?", (block,))
                    chunks = (block * CHUNKS, block * CHUNKS + CHUNKS - 1)
                    self._writer.execute("DELETE FROM facts WHERE id BETWEEN ? AND ?", chunks)
        with self._lock:
            self._facts.clear()

    def state(self) -> int:
        """Return a number that is another one after any process has added something."""
        (version,) = self._watch.execute("PRAGMA data_version").fetchone()
        return int(version)

    def pieces(self, last_block: int) -> list[tuple[str, int, Piece]]:
        """Return code space, planes and place of every block behind one."""
        rows = self._watch.execute(_PIECES, (last_block,)).fetchall()
        return [(row[0], row[1], Piece(*row[2:])) for row in rows]

    def fresh(self, block: int, with_walls: bool) -> Fresh:
        """Read the codes, and times where they are needed, of one block."""
        with self.reader() as connection:
            n, codes = connection.execute("SELECT n, codes FROM block WHERE id = ?", (block,)).fetchone()
            chunks = _chunks(connection, block, n) if with_walls else ()
            walls = [columns.wall_ns for _, _, columns in chunks]
        return Fresh(0, (), (), planes_of(codes, n), np.concatenate(walls) if walls else None)

    def load_planes(self, view: View, planes: NDArray[np.uint64]) -> None:
        """Read the codes of a segment into planes uint64 [n_planes, SCAN_ROWS]."""
        places = {int(column[BLOCK]): column for column in view.table.T}
        query = "SELECT id, n, codes FROM block WHERE id BETWEEN ? AND ? ORDER BY id"
        with self.reader() as connection:
            for block, n, packed in connection.execute(query, (min(places), max(places))):
                place = places.get(block)
                if place is not None:  # else of another code space
                    start, offset, n_here = int(place[START]), int(place[OFFSET]), int(place[N])
                    planes[:, start : start + n_here] = planes_of(packed, n)[:, offset : offset + n_here]

    def load_walls(self, view: View, walls: NDArray[np.int64]) -> None:
        """Read the times of a segment into wall_ns int64 [SCAN_ROWS]."""
        with self.reader() as connection:
            for column in view.table.T:
                start, offset, n = int(column[START]), int(column[OFFSET]), int(column[N])
                first = offset // CHUNK_ROWS * CHUNK_ROWS  # the part that lies here may begin within a chunk
                (whole,) = connection.execute(
                    "SELECT n FROM block WHERE id = ?", (int(column[BLOCK]),)
                ).fetchone()
                chunks = _chunks(connection, int(column[BLOCK]), whole, first // CHUNK_ROWS)
                here = np.concatenate([columns.wall_ns for _, _, columns in chunks])
                walls[start : start + n] = here[offset - first : offset - first + n]

    def facts(self, connection: sqlite3.Connection, chunk: int) -> Facts:
        """Return the facts of a chunk; those used last are kept."""
        with self._lock:
            if chunk in self._facts:
                self._facts.move_to_end(chunk)
                return self._facts[chunk]
        block, number = divmod(chunk, CHUNKS)
        (n,) = connection.execute("SELECT n FROM block WHERE id = ?", (block,)).fetchone()
        query = "SELECT sources, columns FROM facts WHERE id = ?"
        sources, packed = connection.execute(query, (chunk,)).fetchone()
        n_here = min(CHUNK_ROWS, n - number * CHUNK_ROWS)
        facts = Facts(unpack_columns(packed, n_here), json.loads(sources))
        with self._lock:
            self._facts[chunk] = facts
            if len(self._facts) > _FACTS_KEPT:
                self._facts.popitem(last=False)
        return facts

    def blocks(self, first_uid: int) -> Iterator[ArchiveBlock]:
        """Walk through everything in the order of uid."""
        with mapped(self.path), self.reader() as connection:
            holder = connection.execute(_HOLDER, (first_uid,)).fetchone()
        next_uid = first_uid
        if holder is not None and holder[0] + holder[1] > first_uid:
            next_uid = holder[0]  # first_uid lies in the middle of this block
        while True:
            with mapped(self.path), self.reader() as connection:
                rows = connection.execute(_WALK, (next_uid, _WALK_BLOCKS)).fetchall()
                found = [piece for row in rows for piece in _pieces(connection, row)]
            if not rows:
                return
            for piece in found:
                if piece.first_uid + piece.n > first_uid:
                    yield after(piece, first_uid)
            next_uid = rows[-1][1] + 1

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection to one thread."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        connection = connection or _connect(self.path)
        try:
            yield connection
        finally:
            with self._lock:
                self._idle.append(connection)

    def close(self) -> None:
        """Close every connection that is not lent."""
        with self._lock:
            for connection in (self._writer, self._watch, *self._idle):
                connection.close()
            self._idle.clear()


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of damaged blocks into ArchiveError."""
    try:
        yield
    except (sqlite3.Error, StoreError, WireError) as error:
        raise ArchiveError(
            f"{path}: expected an archive that can be read and written, found {error}; "
            "make room or give rights, or restore a damaged file from a copy"
        ) from error


def prepared(block: ArchiveBlock) -> Fresh:
    """Return a block ready to insert. Raises WireError, StoreError for a damaged one."""
    run = block.run
    pieces = list(cut(block, CHUNK_ROWS))
    facts = [
        (
            json.dumps(piece.run.sources, ensure_ascii=False),
            json.dumps(piece.run.boots, ensure_ascii=False),
            piece.run.columns,
        )
        for piece, _ in pieces
    ]
    walls = np.concatenate([columns.wall_ns for _, columns in pieces])
    known = walls[walls != UNKNOWN_WALL_NS]
    low, high = (int(known.min()), int(known.max())) if known.size else (UNKNOWN_WALL_NS, UNKNOWN_WALL_NS)
    planes = planes_of(run.codes, run.n)
    row = (
        block.first_uid,
        run.n,
        block.device,
        block.epoch,
        run.first_seq,
        run.code_space,
        planes.shape[0],
        known.size,
        low,
        high,
        hours_present(known),
        run.codes,
    )
    return Fresh(block.first_uid, row, facts, planes, walls)


def _chunks(
    connection: sqlite3.Connection, block: int, n: int, first: int = 0
) -> Iterator[tuple[str, str, Columns]]:
    """Give sources, boots and columns of the chunks of a block of n observations, from one of them on."""
    rows = connection.execute(_FACTS, (block * CHUNKS + first, block * CHUNKS + CHUNKS - 1))
    for number, sources, boots, packed in rows:
        start = number % CHUNKS * CHUNK_ROWS
        yield sources, boots, unpack_columns(packed, min(CHUNK_ROWS, n - start))


def _pieces(connection: sqlite3.Connection, row: tuple[Any, ...]) -> Iterator[ArchiveBlock]:
    """Give a block, as _WALK reads it, in its chunks."""
    block, uid, device, epoch, first_seq, n, space, codes = row
    planes = planes_of(codes, n)
    rows = connection.execute(_FACTS, (block * CHUNKS, block * CHUNKS + CHUNKS - 1))
    for number, sources, boots, packed in rows:
        start = number % CHUNKS * CHUNK_ROWS
        own = planes[:, start : start + CHUNK_ROWS]
        names = (tuple(json.loads(sources)), tuple(json.loads(boots)))
        run = Run(first_seq + start, own.shape[1], space, *names, packed, own.astype("<u8").tobytes())
        yield ArchiveBlock(uid + start, device, epoch, run)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")  # NORMAL loses acknowledged rows in a power cut
    return connection


def _create(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of an empty file. Raises ArchiveError for another program's file, or a newer one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or version or n_tables):
        raise ArchiveError(
            f"{path}: expected an archive of fieldcube, found another SQLite database; give another path"
        )
    if version > SCHEMA_VERSION:
        raise ArchiveError(
            f"{path}: expected an archive of schema version {SCHEMA_VERSION} or older, found {version}; update fieldcube"
        )
    if not n_tables:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    with transaction(connection):  # another process may have made them while this one waited
        (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not n_tables:
            for statement in _VERSION_1.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
