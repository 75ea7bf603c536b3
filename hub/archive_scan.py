"""Exact scan of codes in memory: the k nearest to a query, rows that a filter refuses left out as late as can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.codes import popcount

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCAN_ROWS = 65_536  # scratch of 640 KiB, in the L2 cache

Found = tuple["NDArray[np.uint16]", "NDArray[np.int64]"]  # distances, rows


@dataclass(frozen=True, slots=True)
class Place:
    """Where found observations are: uids int64 [n], and rows int64 [n] of the segment they were found in."""

    uids: NDArray[np.int64]
    segment: int
    rows: NDArray[np.int64]


class Scan:
    """Scratch for measuring distances; one for each thread."""

    def __init__(self) -> None:
        self._words = np.empty(SCAN_ROWS, np.uint64)
        self._counts = np.empty((2, SCAN_ROWS), np.uint8)
        self._is_near = np.empty(SCAN_ROWS, np.bool_)

    def within(self, planes: NDArray[np.uint64], query: NDArray[np.uint64], limit: int) -> Found:
        """Return distances and rows of what lies within limit bits, in the order of rows.

        planes: uint64 [n_planes, n], n <= SCAN_ROWS; query: words uint64 [at most n_planes]: the first planes count.
        """
        if limit < 0:
            return np.empty(0, np.uint16), np.empty(0, np.int64)
        n_rows = planes.shape[1]
        words, is_near = self._words[:n_rows], self._is_near[:n_rows]
        total, counts = self._counts[0, :n_rows], self._counts[1, :n_rows]
        np.bitwise_xor(planes[0], query[0], out=words)
        popcount(words, total)
        for plane, word in zip(planes[1:], query[1:], strict=False):  # of a prefix, fewer planes
            np.bitwise_xor(plane, word, out=words)
            popcount(words, counts)
            np.add(total, counts, out=total)  # wraps only for 256, which becomes 0: put right below
        np.less_equal(total, np.uint8(min(limit, 255)), out=is_near)
        rows = np.flatnonzero(is_near)
        found = total[rows].astype(np.uint16)
        found[(found == 0) & (planes[0, rows] != query[0])] = 256  # not equal: different in every bit
        if found.size and int(found.max()) > limit:
            rows, found = rows[found <= limit], found[found <= limit]
        return found, rows


class Nearest:
    """The k nearest to one query by (distance, uid), over rows in any order.

    words: uint64 [n_planes] of the query; most: the largest distance that is let in, None = any.
    """

    def __init__(self, words: NDArray[np.uint64], k: int, most: int | None) -> None:
        if k < 1:
            raise ValueError(f"k: expected at least 1, found {k}")
        self.words = words
        self._k = k
        n_bits = 64 * words.size
        self._most = n_bits if most is None else min(most, n_bits)
        self._kept = np.empty((4, 0), np.int64)  # distance, uid, segment, row: in order, at most k
        self._found: list[NDArray[np.int64]] = []  # not merged yet
        self._n_found = 0

    def limit(self, first_uid: int) -> int:
        """Return the largest distance at which a row whose uid is first_uid or larger can still enter; -1 = none."""
        if self._kept.shape[1] < self._k:
            return self._most
        farthest, uid = int(self._kept[0, -1]), int(self._kept[1, -1])
        return farthest - 1 if first_uid > uid else farthest  # behind it an equal distance is too late

    def take(self, distances: NDArray[np.uint16], place: Place) -> None:
        """Take in rows that are let through, none of them twice."""
        if not distances.size:
            return
        if distances.size > self._k:  # of very many, only those that can be among the k nearest
            kth = np.partition(distances, self._k - 1)[self._k - 1]
            near = np.flatnonzero(distances <= kth)
            distances = distances[near]
            place = Place(place.uids[near], place.segment, place.rows[near])
        segments = np.full(distances.size, place.segment, np.int64)
        self._found.append(np.stack([distances.astype(np.int64), place.uids, segments, place.rows]))
        self._n_found += distances.size
        if self._n_found >= self._k:
            self._merge()

    def result(self) -> NDArray[np.int64]:
        """Return distance, uid, segment and row of the nearest, int64 [4, at most k], best first."""
        self._merge()
        return self._kept.copy()

    def _merge(self) -> None:
        if not self._found:
            return
        everything = np.concatenate([self._kept, *self._found], axis=1)
        order = np.lexsort((everything[1], everything[0]))[: self._k]
        self._kept = everything[:, order]
        self._found.clear()
        self._n_found = 0


def words_of(code: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return a code uint8 [n_bytes] as words uint64 [n_bytes // 8]."""
    return np.ascontiguousarray(code).view("<u8").astype(np.uint64)
