"""The archive on one machine: blocks in a SQLite file, their codes in memory as planes. Exact, nothing to start."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge.batch import Range
from edge.codes import from_planes
from edge.store_blocks import UNKNOWN_WALL_NS
from hub.archive import ArchiveBlock, ArchiveHit, Filter
from hub.archive_blocks import joined, require_codes
from hub.archive_scan import SCAN_ROWS, Nearest, Place, Scan, words_of
from hub.archive_segments import (
    BLOCK,
    DEVICE,
    EPOCH,
    FIRST_SEQ,
    FIRST_UID,
    OFFSET,
    START,
    N,
    Segment,
    View,
    passes,
    selected,
)
from hub.archive_sqlite_file import CHUNK_ROWS, CHUNKS, ArchiveFile, Fresh, mapped, prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_CACHE_BYTES = (
    4 * 2**30
)  # codes of 100 M observations; what is beyond is read from the disk by every search
_Group = tuple[str, int]  # code space, planes


class SqliteArchive:
    """The archive in one file; several processes may have it open. See hub.archive.Archive for what the methods do.

    Segments of codes are loaded by the first search that needs them and kept up to cache_bytes of memory.
    """

    @classmethod
    def open(cls, path: Path | str, cache_bytes: int = DEFAULT_CACHE_BYTES) -> SqliteArchive:
        """Open or create an archive. Raises ArchiveError: a place that cannot be written, another program's file."""
        return cls(ArchiveFile.open(Path(path)), cache_bytes)

    def __init__(self, file: ArchiveFile, cache_bytes: int) -> None:
        self.path = file.path
        self._file = file
        self._cache_bytes = cache_bytes
        self._n_cached_bytes = 0
        self._writing = threading.Lock()
        self._lock = threading.RLock()  # of everything below
        self._groups: dict[_Group, list[Segment]] = {}
        self._last_block = 0
        self._seen: int | None = None  # the state of the file that memory knows
        self._catch_up({})

    def add(self, blocks: Sequence[ArchiveBlock]) -> None:
        """Keep blocks; they are on the disk when it returns."""
        with mapped(self.path):
            fresh = [prepared(block) for block in blocks]
            with self._writing:
                self._file.insert(fresh)
                with self._lock:
                    self._catch_up({each.first_uid: each for each in fresh})

    def search(
        self,
        codes: NDArray[np.uint8],
        code_space: str,
        k: int,
        where: Filter,
        max_distance: Sequence[int] | None = None,
    ) -> list[list[ArchiveHit]]:
        """Return for each query the k nearest by (distance, uid), exact."""
        limits = [None] * len(codes) if max_distance is None else list(max_distance)
        nearest = [Nearest(words_of(code), k, most) for code, most in zip(codes, limits, strict=True)]
        views = self._views(code_space, codes.shape[1] // 8)
        scan = Scan()
        for number, (group, view) in enumerate(views):
            selection = selected(view, where)
            if selection is None or all(each.limit(selection.first_uid) < 0 for each in nearest):
                continue
            for planes, place in selection.parts(self._planes(group, view)[:, : view.n]):
                for query in nearest:
                    found, columns = scan.within(planes, query.words, query.limit(selection.first_uid))
                    rows = columns + place if isinstance(place, int) else place[columns]
                    if rows.size and not selection.is_exact:
                        passing = passes(self._walls(group, view, rows), where)
                        found, rows = found[passing], rows[passing]
                    if rows.size:
                        query.take(found, Place(view.uids(rows), number, rows))
        return [self._hits(each.result(), [view for _, view in views]) for each in nearest]

    def histogram(
        self, code: NDArray[np.uint8], code_space: str, where: Filter, max_distance: int, bin_s: int
    ) -> Mapping[int, int]:
        """Return how many observations lie within max_distance, by floor(wall_ns / 1e9 / bin_s)."""
        counted: dict[int, int] = {}
        scan, words = Scan(), words_of(code)
        for group, view in self._views(code_space, words.size):
            selection = selected(view, where)
            if selection is None:
                continue
            for planes, place in selection.parts(self._planes(group, view)[:, : view.n]):
                _, columns = scan.within(planes, words, max_distance)
                rows = columns + place if isinstance(place, int) else place[columns]
                if not rows.size:
                    continue
                walls = self._walls(group, view, rows)
                walls = walls[passes(walls, where) & (walls != UNKNOWN_WALL_NS)]
                for each, n in zip(*np.unique(walls // (bin_s * 10**9), return_counts=True), strict=True):
                    counted[int(each)] = counted.get(int(each), 0) + int(n)
        return counted

    def counts(self) -> Mapping[tuple[int, str], int]:
        """Return how many observations there are of each (device, code space)."""
        counted: dict[tuple[int, str], int] = {}
        with self._lock, mapped(self.path):
            self._catch_up({})
            views = [(key[0], each.view()) for key, segments in self._groups.items() for each in segments]
        for space, view in views:
            devices, which = np.unique(view.table[DEVICE], return_inverse=True)
            sums = np.bincount(which, weights=view.table[N], minlength=devices.size)
            for device, n in zip(devices.tolist(), sums.tolist(), strict=True):
                counted[device, space] = counted.get((device, space), 0) + int(n)
        return counted

    def blocks(self, first_uid: int = 0) -> Iterator[ArchiveBlock]:
        """Walk through everything in the order of uid."""
        return self._file.blocks(first_uid)

    def ranges(self) -> Sequence[Range]:
        """Return the uids that are there as (first, n)."""
        with self._lock, mapped(self.path):
            self._catch_up({})
            tables = [each.view().table for segments in self._groups.values() for each in segments]
        found = [
            pair
            for table in tables
            for pair in zip(table[FIRST_UID].tolist(), table[N].tolist(), strict=True)
        ]
        return joined(found)

    def remove(self, ranges: Sequence[Range]) -> None:
        """Remove the blocks in ranges of uids, all or, where one reaches out of them, none. No other process may have it open."""
        with mapped(self.path), self._writing, self._lock:
            self._file.remove(ranges)
            self._groups.clear()
            self._n_cached_bytes, self._last_block, self._seen = 0, 0, None
            self._catch_up({})

    def codes_of(self, uids: Sequence[int]) -> Mapping[int, bytes]:
        """Return the codes of observations that are there."""
        asked = np.array(sorted(set(uids)), np.int64)
        found: dict[int, bytes] = {}
        with self._lock, mapped(self.path):
            self._catch_up({})
            views = [(key, each.view()) for key, segments in self._groups.items() for each in segments]
        for group, view in views:
            here, rows = view.find(asked)
            if here.size:
                codes = from_planes(np.ascontiguousarray(self._planes(group, view)[:, rows]))
                found.update(zip(asked[here].tolist(), map(bytes, codes), strict=True))
        return found

    def close(self) -> None:
        """Free what is held."""
        self._file.close()
        with self._lock:
            self._groups.clear()

    def _views(self, code_space: str, n_planes: int) -> list[tuple[_Group, View]]:
        """Return every segment whose codes have at least so many planes, in the order in which they were made."""
        with self._lock, mapped(self.path):
            self._catch_up({})
            groups = {key: each for key, each in self._groups.items() if key[0] == code_space}
            widths = {space: max(n for name, n in self._groups if name == space) for space, _ in self._groups}
            require_codes(str(self.path), widths, code_space, n_planes)
            return [
                (key, segment.view())
                for key, each in groups.items()
                if key[1] >= n_planes
                for segment in each
            ]

    def _catch_up(self, fresh: Mapping[int, Fresh]) -> None:
        """Take over blocks that were added since, by this process or another; fresh: those at hand, by first_uid."""
        state = self._file.state()
        if state == self._seen:
            return
        is_first = self._seen is None
        for space, n_planes, piece in self._file.pieces(self._last_block):
            segments = self._groups.setdefault((space, n_planes), [])
            offset = 0
            while offset < piece.n:
                if not segments or not segments[-1].room:
                    segments.append(Segment(len(segments)))
                    if not is_first:  # at the start they stay on the disk until they are asked for
                        self._make_room(segments[-1], n_planes)
                segment = segments[-1]
                n = min(piece.n - offset, segment.room)
                start = segment.append(piece, offset, n)
                if segment.planes is not None:
                    at_hand = fresh.get(piece.first_uid) or self._file.fresh(
                        piece.block, segment.walls is not None
                    )
                    at_hand.copy(segment, start, offset, n)
                offset += n
            self._last_block = piece.block
        self._seen = state

    def _make_room(self, segment: Segment, n_planes: int) -> None:
        """Give a new segment memory, where so much may be held."""
        if self._n_cached_bytes < self._cache_bytes:
            segment.planes = np.empty((n_planes, SCAN_ROWS), np.uint64)
            segment.walls = np.empty(SCAN_ROWS, np.int64)
            self._n_cached_bytes += segment.planes.nbytes + segment.walls.nbytes

    def _planes(self, group: _Group, view: View) -> NDArray[np.uint64]:
        """Return the planes of a segment, from the disk where they are not held."""
        with self._lock, mapped(self.path):
            segment = self._groups[group][view.number]
            if segment.planes is not None:
                return segment.planes
            planes = np.empty((group[1], SCAN_ROWS), np.uint64)
            if self._n_cached_bytes < self._cache_bytes:
                self._file.load_planes(segment.view(), planes)
                self._n_cached_bytes += planes.nbytes
                segment.planes = planes
                return planes
        with mapped(self.path):  # of what is not held, several threads read at once
            self._file.load_planes(view, planes)
        return planes

    def _walls(self, group: _Group, view: View, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return wall_ns of rows: all of a segment are held where its codes are, else only those blocks are read."""
        with self._lock, mapped(self.path):
            segment = self._groups[group][view.number]
            if segment.planes is not None:
                if segment.walls is None:
                    walls = np.empty(SCAN_ROWS, np.int64)
                    self._file.load_walls(segment.view(), walls)
                    self._n_cached_bytes += walls.nbytes
                    segment.walls = walls
                return segment.walls[rows]
        with mapped(self.path), self._file.reader() as connection:
            found = np.empty(rows.size, np.int64)
            blocks, offsets = view.places(rows)
            chunks = blocks * CHUNKS + offsets // CHUNK_ROWS
            for chunk in np.unique(chunks).tolist():
                own = np.flatnonzero(chunks == chunk)
                columns = self._file.facts(connection, chunk).columns
                found[own] = columns.wall_ns[offsets[own] % CHUNK_ROWS]
            return found

    def _hits(self, found: NDArray[np.int64], views: Sequence[View]) -> list[ArchiveHit]:
        """Return hits of distance, uid, segment and row, int64 [4, n]; their facts are read from the disk."""
        hits = []
        with mapped(self.path), self._file.reader() as connection:
            for distance, uid, number, row in found.T.tolist():
                table = views[number].table
                piece = int(np.searchsorted(table[START], row, side="right")) - 1
                within = row - int(table[START, piece])
                at = int(table[OFFSET, piece]) + within
                facts = self._file.facts(connection, int(table[BLOCK, piece]) * CHUNKS + at // CHUNK_ROWS)
                at %= CHUNK_ROWS
                wall_ns = int(facts.columns.wall_ns[at])
                hits.append(
                    ArchiveHit(
                        uid,
                        int(table[DEVICE, piece]),
                        int(table[EPOCH, piece]),
                        int(table[FIRST_SEQ, piece]) + within,
                        distance,
                        None if wall_ns == UNKNOWN_WALL_NS else wall_ns,
                        facts.sources[int(facts.columns.source[at])],
                        int(facts.columns.first_sample[at]),
                        int(facts.columns.n_samples[at]),
                        int(facts.columns.sample_rate_hz[at]),
                    )
                )
        return hits
