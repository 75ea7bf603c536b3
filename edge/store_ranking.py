"""Exact search over everything stored: scan the blocks and the tail, rank, and look up only what is asked for."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge.codes import TopK, asymmetric_distance_planes, distances, pack
from edge.errors import CodeSpaceError
from edge.observation import iso_utc
from edge.store_blocks import UNKNOWN_WALL_NS, Columns, pack_codes, planes_of, unpack_columns
from edge.store_period import Period

if TYPE_CHECKING:
    from numpy.typing import NDArray

SELECT_TAIL = (
    "SELECT source, first_sample, n_samples, sample_rate_hz, boot, boottime_ns, wall_ns, clock_state, seq, code"
    " FROM tail"
)
_CODES_PER_CALL = 1 << 18  # amortises what asymmetric_distance_planes and numpy spend on each call
_MOST_PRUNED = (
    10_000  # above that many results a plain sort of all distances is faster than keeping a best list
)


@dataclass(frozen=True, slots=True)
class Hit:
    """An observation that a search found. distance: in bits; of --asymmetric a float on the same scale."""

    seq: int
    source: str
    first_sample: int
    n_samples: int
    sample_rate_hz: int
    wall_ns: int | None
    distance: float

    @property
    def offset_s(self) -> float:
        """Return where the window starts, in seconds from the start of its source."""
        return self.first_sample / self.sample_rate_hz

    @property
    def duration_s(self) -> float:
        """Return the length of its real audio in seconds."""
        return self.n_samples / self.sample_rate_hz

    @property
    def started_at(self) -> str | None:
        """Return UTC of its first sample, ISO 8601 with ms and Z, or None where unknown."""
        return None if self.wall_ns is None else iso_utc(self.wall_ns)


class Ranking(Protocol):
    """What takes in codes and ranks them; edge.codes.TopK is one."""

    def scan(self, planes: NDArray[np.uint64], first_index: int) -> None:
        """Take in planes uint64 [n_planes, n] whose codes have the indices first_index, first_index + 1, ..."""

    def result(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return (distances, indices), best first, ties by index."""


class FullRanking:
    """Rank by the distance of every code: for all results, or for a distance that TopK does not know.

    distance_of: planes uint64 [n_planes, n] -> [n]; k: how many results, 0 = all.
    """

    def __init__(self, distance_of: Callable[[NDArray[np.uint64]], NDArray[Any]], k: int) -> None:
        self._distance_of = distance_of
        self._k = k
        self._n = 0
        self._waiting: list[NDArray[np.uint64]] = []
        self._n_waiting = 0
        self._distances: list[NDArray[Any]] = []

    def scan(self, planes: NDArray[np.uint64], first_index: int) -> None:
        """Take in planes; they must come in the order of their indices, from 0."""
        if first_index != self._n:
            raise ValueError(f"first_index: expected {self._n}, found {first_index}")
        self._n += planes.shape[1]
        self._waiting.append(planes)
        self._n_waiting += planes.shape[1]
        if self._n_waiting >= _CODES_PER_CALL:
            self._measure()

    def result(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return (distances, indices) of the k best, ties by index."""
        if self._waiting:
            self._measure()
        if not self._distances:
            return np.empty(0, np.uint16), np.empty(0, np.int64)
        found = np.concatenate(self._distances)
        if 0 < self._k < found.size:
            kth = np.partition(found, self._k - 1)[self._k - 1]
            candidates = np.flatnonzero(found <= kth)
            order = candidates[np.argsort(found[candidates], kind="stable")][: self._k]
        else:
            order = np.argsort(found, kind="stable")
        return found[order], order

    def _measure(self) -> None:
        planes = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting, axis=1)
        self._distances.append(self._distance_of(planes))
        self._waiting, self._n_waiting = [], 0


def hamming_ranking(code: NDArray[np.uint8], k: int) -> Ranking:
    """Return what ranks by Hamming distance to code uint8 [n_bytes]; k = 0 ranks all."""
    if 0 < k <= _MOST_PRUNED:
        return TopK(code, k)
    return FullRanking(lambda planes: distances(code, planes), k)


def asymmetric_ranking(logits: NDArray[np.float32], k: int) -> Ranking:
    """Return what ranks by the share of |logit| that disagrees, times the number of bits; k = 0 ranks all.

    logits: float32 [n_bits] of the query. On the scale of Hamming distance: equal to it when all |logit| are equal.
    """
    pack(logits)  # refuses a wrong width and non-finite logits
    total = float(np.abs(logits).sum(dtype=np.float64))
    scale = np.float32(logits.size / total if total else 0.0)
    return FullRanking(lambda planes: asymmetric_distance_planes(logits, planes) * scale, k)


@dataclass(frozen=True, slots=True)
class _Segment:
    """A run of the scan: a block or the tail, or those of its rows that lie in the period."""

    start: int  # index of its first code in the whole scan
    first_seq: int  # of the block; the tail's seq are in `seqs`
    n: int  # observations in the block
    rows: NDArray[np.int64] | None  # None: every row
    seqs: NDArray[np.int64] | None = None
    columns: Columns | None = None


def rank(
    connection: sqlite3.Connection, code_space: int, n_bytes: int, ranking: Ranking, period: Period
) -> Iterator[Hit]:
    """Scan every observation of a code space in the period and return the ranking's hits, best first.

    Runs inside one read transaction of the caller, which may end before the hits are consumed.
    Raises CodeSpaceError when the stored codes have another width.
    """
    segments = list(_scan(connection, code_space, n_bytes, ranking, period))
    found, order = ranking.result()
    if not segments:
        return iter(())
    starts = np.array([segment.start for segment in segments], dtype=np.int64)
    places = (np.searchsorted(starts, order, side="right") - 1).astype(np.int32)
    needed = np.unique(places)
    facts = {int(place): _facts(connection, segments[place]) for place in needed}
    wanted = {int(each) for fact in facts.values() for each in np.unique(fact[1])}
    sources = _source_names(connection, wanted)
    return _hits(found, order, places, segments, facts, sources)


def _scan(
    connection: sqlite3.Connection, code_space: int, n_bytes: int, ranking: Ranking, period: Period
) -> Iterator[_Segment]:
    start = 0
    query = "SELECT first_seq, n, n_wall, wall_min_ns, wall_max_ns, codes FROM block WHERE code_space = ?"
    values = [code_space]
    if not period.is_always:
        query += " AND wall_max_ns >= ? AND wall_min_ns < ?"
        values += [period.since_or_min, period.until_or_max]
    for first_seq, n, n_wall, wall_min, wall_max, packed in connection.execute(
        query + " ORDER BY first_seq", values
    ):
        planes = _checked_planes(packed, n, n_bytes)
        whole = n_wall == n and period.contains(wall_min) and period.contains(wall_max)
        rows = None
        if not (whole or period.is_always):
            rows = _rows_in(_block_columns(connection, first_seq, n).wall_ns, period)
            planes = np.ascontiguousarray(planes[:, rows])
        if planes.shape[1]:
            ranking.scan(planes, start)
            yield _Segment(start, first_seq, n, rows)
            start += planes.shape[1]
    tail = connection.execute(SELECT_TAIL + " WHERE code_space = ? ORDER BY seq", (code_space,)).fetchall()
    tail = [row for row in tail if period.contains(row[6])]
    if tail:
        ranking.scan(_checked_planes(pack_codes([row[9] for row in tail]), len(tail), n_bytes), start)
        seqs = np.array([row[8] for row in tail], dtype=np.int64)
        yield _Segment(start, 0, len(tail), None, seqs, Columns.of_rows([row[:8] for row in tail]))


def _checked_planes(packed: bytes, n: int, n_bytes: int) -> NDArray[np.uint64]:
    if len(packed) != n * n_bytes:
        raise CodeSpaceError(
            f"expected codes of {n_bytes * 8} bits, found {len(packed) * 8 // n}; search with the bundle that made them"
        )
    return planes_of(packed, n)


def _rows_in(wall_ns: NDArray[np.int64], period: Period) -> NDArray[np.int64]:
    known = (wall_ns >= period.since_or_min) & (wall_ns < period.until_or_max)
    return np.flatnonzero(known)


def _block_columns(connection: sqlite3.Connection, first_seq: int, n: int) -> Columns:
    (packed,) = connection.execute("SELECT columns FROM block WHERE first_seq = ?", (first_seq,)).fetchone()
    return unpack_columns(packed, n)


_Facts = Sequence[
    "NDArray[Any]"
]  # seq, source, first_sample, n_samples, sample_rate_hz, wall_ns; each [rows]


def _facts(connection: sqlite3.Connection, segment: _Segment) -> _Facts:
    """Return what hits need of a segment, in the smallest integers that hold it (10 M hits stay under 300 MB)."""
    columns = segment.columns or _block_columns(connection, segment.first_seq, segment.n)
    rows = slice(None) if segment.rows is None else segment.rows
    seqs = segment.seqs if segment.seqs is not None else segment.first_seq + np.arange(segment.n)
    kept = (seqs, columns.source, columns.first_sample, columns.n_samples, columns.sample_rate_hz)
    narrow = [each[rows].astype(np.min_scalar_type(int(each.max()))) for each in kept]
    return [*narrow, columns.wall_ns[rows].copy()]  # a view would keep every column alive


def _source_names(connection: sqlite3.Connection, wanted: set[int]) -> dict[int, str]:
    if len(wanted) > _MOST_PRUNED:
        return dict(connection.execute("SELECT id, name FROM source").fetchall())
    one = "SELECT name FROM source WHERE id = ?"
    return {each: connection.execute(one, (each,)).fetchone()[0] for each in wanted}


def _hits(
    found: NDArray[Any],
    order: NDArray[np.int64],
    places: NDArray[np.int32],
    segments: Sequence[_Segment],
    facts: dict[int, _Facts],
    sources: dict[int, str],
) -> Iterator[Hit]:
    for distance, index, place in zip(found, order, places, strict=True):
        row = int(index) - segments[place].start
        seq, source, first_sample, n_samples, rate_hz, wall_ns = (
            int(each[row]) for each in facts[int(place)]
        )
        known = None if wall_ns == UNKNOWN_WALL_NS else wall_ns
        yield Hit(seq, sources[source], first_sample, n_samples, rate_hz, known, distance.item())
