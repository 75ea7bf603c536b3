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

from edge.batch import Run
from edge.codes import from_planes
from edge.errors import ArchiveError, StoreError, WireError
from edge.store_blocks import UNKNOWN_WALL_NS, Columns, planes_of, unpack_columns
from edge.store_schema import transaction
from hub.archive import ArchiveBlock
from hub.archive_blocks import after, cut
from hub.archive_segments import BLOCK, OFFSET, START, Codes, N, Piece, View, hours_present

if TYPE_CHECKING:
    from numpy.typing import NDArray

APPLICATION_ID = 0x66636172  # "fcar"
SCHEMA_VERSION = 1
PIECE_ROWS = (
    512  # unpacking the facts of one result takes 0.1 ms; 4,096 would take 1 ms and save 4 % of the disk
)
_PAGE_BYTES = 16_384  # blocks are large, and are read whole
_BUSY_TIMEOUT_S = 30.0
_FACTS_KEPT = 1024  # blocks, 32 KiB each
_WALK_BLOCKS = 256  # read at once by blocks()

_VERSION_1 = """
CREATE TABLE code_space (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
-- id: the order in which blocks came; hours: a bit for each hour of the UTC day that occurs; sources, boots: JSON;
-- columns before codes: reading them then does not walk the overflow pages of the codes
CREATE TABLE block (
    id INTEGER PRIMARY KEY, first_uid INTEGER NOT NULL UNIQUE, n INTEGER NOT NULL, device INTEGER NOT NULL,
    epoch INTEGER NOT NULL, first_seq INTEGER NOT NULL, code_space INTEGER NOT NULL, n_planes INTEGER NOT NULL,
    n_wall INTEGER NOT NULL, wall_min_ns INTEGER NOT NULL, wall_max_ns INTEGER NOT NULL, hours INTEGER NOT NULL,
    sources TEXT NOT NULL, boots TEXT NOT NULL, columns BLOB NOT NULL, codes BLOB NOT NULL)
"""
_INSERT = (
    "INSERT OR IGNORE INTO block (first_uid, n, device, epoch, first_seq, code_space, n_planes, n_wall, wall_min_ns,"
    " wall_max_ns, hours, sources, boots, columns, codes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PIECES = (
    "SELECT name, n_planes, block.id, n, first_uid, device, epoch, first_seq, n_wall = n, wall_min_ns, wall_max_ns,"
    " hours FROM block JOIN code_space ON code_space.id = block.code_space WHERE block.id > ? ORDER BY block.id"
)
_WALK = (
    "SELECT first_uid, device, epoch, first_seq, n, name, sources, boots, columns, codes"
    " FROM block JOIN code_space ON code_space.id = block.code_space WHERE first_uid >= ? ORDER BY first_uid LIMIT ?"
)
_HOLDER = "SELECT first_uid, n, codes FROM block WHERE first_uid <= ? ORDER BY first_uid DESC LIMIT 1"


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What is told of the observations of a block."""

    columns: Columns
    sources: Sequence[str]


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """A block at hand, unpacked. row: as it is inserted, its code space by name; planes: uint64 [n_planes, n]."""

    piece: Piece
    row: tuple[Any, ...]
    planes: NDArray[np.uint64]
    walls: NDArray[np.int64]

    def copy(self, codes: Codes, start: int, offset: int, n: int) -> None:
        """Copy n of its observations from offset on into a segment from the row start on."""
        codes.planes[:, start : start + n] = self.planes[:, offset : offset + n]
        codes.walls[start : start + n] = self.walls[offset : offset + n]


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

    def prepared(self, blocks: Sequence[ArchiveBlock]) -> list[Fresh]:
        """Return blocks in pieces, ready to insert."""
        return [_fresh(*piece) for block in blocks for piece in cut(block, PIECE_ROWS)]

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
                self._writer.execute(_INSERT, (*each.row[:5], spaces[name], *each.row[6:]))

    def state(self) -> int:
        """Return a number that is another one after any process has added something."""
        (version,) = self._watch.execute("PRAGMA data_version").fetchone()
        return int(version)

    def pieces(self, last_block: int) -> list[tuple[str, int, Piece]]:
        """Return code space, planes and place of every block behind one."""
        rows = self._watch.execute(_PIECES, (last_block,)).fetchall()
        return [(row[0], row[1], Piece(*row[2:])) for row in rows]

    def fresh(self, block: int) -> Fresh:
        """Read one block with its codes and times."""
        with self.reader() as connection:
            query = "SELECT n, columns, codes FROM block WHERE id = ?"
            n, columns, codes = connection.execute(query, (block,)).fetchone()
        piece = Piece(block, n, 0, 0, 0, 0, False, 0, 0, 0)
        return Fresh(piece, (), planes_of(codes, n), unpack_columns(columns, n).wall_ns)

    def load(self, view: View, codes: Codes) -> None:
        """Read the codes and times of a segment."""
        blocks = view.table[BLOCK]
        places = {int(column[BLOCK]): column for column in view.table.T}
        query = "SELECT id, n, columns, codes FROM block WHERE id BETWEEN ? AND ? ORDER BY id"
        with self.reader() as connection:
            for block, n, columns, packed in connection.execute(query, (int(blocks[0]), int(blocks[-1]))):
                place = places.get(block)
                if place is not None:  # else of another code space
                    held = Fresh(
                        Piece(block, n, 0, 0, 0, 0, False, 0, 0, 0),
                        (),
                        planes_of(packed, n),
                        unpack_columns(columns, n).wall_ns,
                    )
                    held.copy(codes, int(place[START]), int(place[OFFSET]), int(place[N]))

    def facts(self, connection: sqlite3.Connection, block: int) -> Facts:
        """Return the facts of a block; those used last are kept."""
        with self._lock:
            if block in self._facts:
                self._facts.move_to_end(block)
                return self._facts[block]
        query = "SELECT n, sources, columns FROM block WHERE id = ?"
        n, sources, columns = connection.execute(query, (block,)).fetchone()
        facts = Facts(unpack_columns(columns, n), json.loads(sources))
        with self._lock:
            self._facts[block] = facts
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
            if not rows:
                return
            for uid, device, epoch, first_seq, n, space, sources, boots, columns, codes in rows:
                run = Run(
                    first_seq, n, space, tuple(json.loads(sources)), tuple(json.loads(boots)), columns, codes
                )
                yield after(ArchiveBlock(uid, device, epoch, run), first_uid)
            next_uid = rows[-1][0] + 1

    def codes_of(self, uids: Sequence[int]) -> dict[int, bytes]:
        """Return the codes of observations that are there."""
        found = {}
        with mapped(self.path), self.reader() as connection:
            for uid in uids:
                row = connection.execute(_HOLDER, (uid,)).fetchone()
                if row is not None and uid < row[0] + row[1]:
                    planes = planes_of(row[2], row[1])[:, uid - row[0] : uid - row[0] + 1]
                    found[uid] = from_planes(np.ascontiguousarray(planes)).tobytes()
        return found

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


def _fresh(block: ArchiveBlock, columns: Columns, planes: NDArray[np.uint64]) -> Fresh:
    run, walls = block.run, columns.wall_ns
    n_wall, first_ns, last_ns = columns.wall_range()
    low, high = (
        UNKNOWN_WALL_NS if first_ns is None else first_ns,
        UNKNOWN_WALL_NS if last_ns is None else last_ns,
    )
    hours = hours_present(walls[walls != UNKNOWN_WALL_NS])
    piece = Piece(
        0, run.n, block.first_uid, block.device, block.epoch, run.first_seq, n_wall == run.n, low, high, hours
    )
    names = (json.dumps(run.sources, ensure_ascii=False), json.dumps(run.boots, ensure_ascii=False))
    row = (
        block.first_uid,
        run.n,
        block.device,
        block.epoch,
        run.first_seq,
        run.code_space,
        planes.shape[0],
        n_wall,
        low,
        high,
        hours,
        *names,
        run.columns,
        run.codes,
    )
    return Fresh(piece, row, planes, walls)


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
