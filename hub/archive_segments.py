"""What an archive knows in memory: segments of codes as planes, and a table of the pieces of blocks they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.store_blocks import UNKNOWN_WALL_NS
from hub.archive import Filter
from hub.archive_scan import SCAN_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

HOUR_NS = 3600 * 10**9
_DAY_HOURS = 24
_MOST_RANGES = 16  # runs of pieces in a segment that are scanned one by one; of more, their rows are gathered
_FIRST_CAPACITY = 16  # pieces that the table of a new segment holds

# Rows of the table of pieces, each int64. start: its first row in the segment; all_known: whether every observation of
# its block has a wall clock; wall_min_ns, wall_max_ns, hours: of its whole block, hours as a bit for each hour of the
# UTC day; block: its number on the disk, offset: its first observation in it.
FIELDS = (
    "start", "n", "first_uid", "device", "epoch", "first_seq", "all_known", "wall_min_ns", "wall_max_ns", "hours", "block", "offset",
)  # fmt: skip
START, N, FIRST_UID, DEVICE, EPOCH, FIRST_SEQ, ALL_KNOWN, WALL_MIN, WALL_MAX, HOURS, BLOCK, OFFSET = range(
    len(FIELDS)
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A block as it lies on the disk; the fields are those of FIELDS."""

    block: int
    n: int
    first_uid: int
    device: int
    epoch: int
    first_seq: int
    all_known: bool
    wall_min_ns: int
    wall_max_ns: int
    hours: int


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A segment as it was at one moment; what comes later changes nothing of it. table: [len(FIELDS), n_pieces]."""

    number: int
    n: int
    table: NDArray[np.int64]

    def piece_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the pieces in which rows lie."""
        return np.searchsorted(self.table[START], rows, side="right") - 1

    def uids(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the uids of rows."""
        pieces = self.piece_of(rows)
        result: NDArray[np.int64] = self.table[FIRST_UID, pieces] + rows - self.table[START, pieces]
        return result

    def places(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the blocks of rows, and where in them they are."""
        pieces = self.piece_of(rows)
        return self.table[BLOCK, pieces], self.table[OFFSET, pieces] + rows - self.table[START, pieces]

    def find(self, uids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which of uids (their positions) are here, and their rows."""
        order = np.argsort(self.table[FIRST_UID], kind="stable")
        at = np.searchsorted(self.table[FIRST_UID, order], uids, side="right") - 1
        pieces = order[np.maximum(at, 0)]
        within = uids - self.table[FIRST_UID, pieces]
        here = np.flatnonzero((at >= 0) & (within < self.table[N, pieces]))
        return here, self.table[START, pieces[here]] + within[here]


class Segment:
    """Up to SCAN_ROWS observations of one code space and width, in the order in which they came. The owner locks."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.n = 0
        self._table = np.empty((len(FIELDS), _FIRST_CAPACITY), np.int64)
        self._n_pieces = 0
        self.planes: NDArray[np.uint64] | None = None  # [n_planes, SCAN_ROWS]; None: on the disk only
        self.walls: NDArray[np.int64] | None = (
            None  # [SCAN_ROWS]; None: not asked for yet, or on the disk only
        )

    @property
    def room(self) -> int:
        """Return how many observations it can still take."""
        return SCAN_ROWS - self.n

    def append(self, piece: Piece, offset: int, n: int) -> int:
        """Note n observations of a block from its offset on; return the row of the first."""
        if self._n_pieces == self._table.shape[1]:
            self._table = np.concatenate([self._table, np.empty_like(self._table)], axis=1)
        self._table[:, self._n_pieces] = (
            self.n,
            n,
            piece.first_uid + offset,
            piece.device,
            piece.epoch,
            piece.first_seq + offset,
            piece.all_known,
            piece.wall_min_ns,
            piece.wall_max_ns,
            piece.hours,
            piece.block,
            offset,
        )
        self._n_pieces += 1
        start = self.n
        self.n += n
        return start

    def view(self) -> View:
        """Return it as it is now. A piece is never changed, and a table that grows is another one."""
        return View(self.number, self.n, self._table[:, : self._n_pieces])


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The rows of a segment that a filter may let through; is_exact: it lets all of them through.

    first_uid: the smallest uid among them; ranges: (start, stop) one after the other, or rows where they are many.
    """

    is_exact: bool
    first_uid: int
    ranges: tuple[tuple[int, int], ...]
    rows: NDArray[np.int64] | None

    def parts(
        self, planes: NDArray[np.uint64]
    ) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64] | int]]:
        """Give the planes to scan, each with the rows that its columns are: an array, or the first of contiguous ones."""
        if self.rows is not None:
            yield planes[:, self.rows], self.rows
            return
        for start, stop in self.ranges:
            yield planes[:, start:stop], start


def selected(view: View, where: Filter) -> Selection | None:
    """Return which rows a filter may let through, by what is known of whole blocks; None where there is none."""
    table = view.table
    may = np.ones(table.shape[1], np.bool_)
    is_whole = np.ones(table.shape[1], np.bool_)
    if where.devices is not None:
        may &= np.isin(table[DEVICE], np.fromiter(where.devices, np.int64, len(where.devices)))
    if has_period(where):
        low, high = period_of(where)
        may &= (table[WALL_MAX] >= low) & (table[WALL_MIN] < high)
        is_whole &= (table[ALL_KNOWN] == 1) & (table[WALL_MIN] >= low) & (table[WALL_MAX] < high)
    if where.hours is not None:
        some, every = hour_bits(where.hours, where.utc_offset_s)
        may &= (table[HOURS] & some) != 0
        is_whole &= (table[ALL_KNOWN] == 1) & ((table[HOURS] & ~every) == 0)
    if not may.any():
        return None
    first_uid = int(table[FIRST_UID, may].min())
    is_exact = bool(is_whole[may].all())
    if may.all():
        return Selection(is_exact, first_uid, ((0, view.n),), None)
    edges = np.flatnonzero(np.diff(may.astype(np.int8), prepend=0, append=0))
    starts = table[START, edges[::2]]
    stops = table[START, edges[1::2] - 1] + table[N, edges[1::2] - 1]
    if starts.size <= _MOST_RANGES:
        ranges = zip(starts.tolist(), stops.tolist(), strict=True)
        return Selection(is_exact, first_uid, tuple(ranges), None)
    return Selection(is_exact, first_uid, (), np.flatnonzero(np.repeat(may, table[N])))


def passes(walls: NDArray[np.int64], where: Filter) -> NDArray[np.bool_]:
    """Return which of the times wall_ns [n] a filter lets through; devices are not its matter."""
    passing = np.ones(walls.size, np.bool_)
    if has_period(where):
        low, high = period_of(where)
        passing &= (walls >= low) & (walls < high)
    if where.hours is not None:
        hours = (walls + where.utc_offset_s * 10**9) // HOUR_NS % _DAY_HOURS
        is_asked = np.zeros(_DAY_HOURS, np.bool_)
        is_asked[list(where.hours)] = True
        passing &= (walls != UNKNOWN_WALL_NS) & is_asked[hours]
    return passing


def has_period(where: Filter) -> bool:
    """Return whether a filter asks for a period."""
    return where.since_ns is not None or where.until_ns is not None


def period_of(where: Filter) -> tuple[int, int]:
    """Return the first time of a filter's period and that at which it is over, within what int64 can hold."""
    earliest, latest = UNKNOWN_WALL_NS + 1, 2**63 - 1
    since = earliest if where.since_ns is None else where.since_ns
    until = latest if where.until_ns is None else where.until_ns
    return min(max(since, earliest), latest), min(max(until, earliest), latest)


def hours_present(walls: NDArray[np.int64]) -> int:
    """Return a bit for each hour of the UTC day that occurs in known wall_ns [n]."""
    if not walls.size:
        return 0
    hours = walls // HOUR_NS % _DAY_HOURS
    return int(np.bitwise_or.reduce(np.left_shift(1, hours)))


def hour_bits(hours: frozenset[int], utc_offset_s: int) -> tuple[int, int]:
    """Return the UTC hours, as bits, of which some time, and of which every time, lies in hours of another clock."""
    some = every = 0
    for hour in range(_DAY_HOURS):
        first = (hour * 3600 + utc_offset_s) // 3600 % _DAY_HOURS
        last = (hour * 3600 + 3599 + utc_offset_s) // 3600 % _DAY_HOURS
        some |= (first in hours or last in hours) << hour
        every |= (first in hours and last in hours) << hour
    return some, every
