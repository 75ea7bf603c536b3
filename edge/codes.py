"""Codes: bit order, packing, Hamming distance and exact top-k over packed bits. Needs only numpy.

Bit i of a code is 1 iff logit i >= 0, stored little-endian: bit i lies in byte i // 8 at position i % 8.
A prefix of a code (64, 128, 192 bits) is a code too. For scanning, codes lie as planes: uint64
[n_bits // 64, n], a contiguous row for each 64 bits (several times faster than rows of bytes).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.errors import CodeSpaceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODE_BITS = 256

_WORDS_PER_CHUNK = 16_384  # two scratch arrays of 128 KiB, in the L2 cache
_ROWS_PER_BLOCK = 65_536  # scratch of 640 KiB, in the L2 cache; 8k blocks cost 30 % more in calls


def pack(logits: NDArray[Any], n_bits: int | None = None) -> NDArray[np.uint8]:
    """Pack logits into codes.

    logits: float [..., n_bits]; n_bits: the width expected, any valid one where None.
    Returns uint8 [..., n_bits // 8]. Raises CodeSpaceError on another width, on a width that is not
    64, 128, 192 or 256, and on non-finite logits (NaN would silently pack to 0).
    """
    values = np.asarray(logits)
    width = values.shape[-1] if values.ndim else 0
    if n_bits is not None and width != n_bits:
        raise CodeSpaceError(f"logits: expected {n_bits} a code, found {width}")
    _require_width(width, "logits")
    if not np.isfinite(values).all():
        n_wrong = int(np.count_nonzero(~np.isfinite(values)))
        raise CodeSpaceError(
            f"logits: expected finite numbers, found {n_wrong} of {values.size} NaN or infinite"
        )
    return np.packbits(values >= 0, axis=-1, bitorder="little")


def unpack(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Unpack codes uint8 [..., n_bytes] into bits uint8 0/1 [..., n_bytes * 8]."""
    _require_width(codes.shape[-1] * 8, "codes")
    return np.unpackbits(codes, axis=-1, bitorder="little")


def prefix(codes: NDArray[np.uint8], n_bits: int) -> NDArray[np.uint8]:
    """Return the first n_bits of codes uint8 [..., n_bytes] as an array of its own, [..., n_bits // 8]."""
    _require_width(n_bits, "prefix")
    if codes.shape[-1] * 8 < n_bits:
        raise CodeSpaceError(f"prefix: expected codes of at least {n_bits} bits, found {codes.shape[-1] * 8}")
    return codes[..., : n_bits // 8].copy()


def popcount(words: NDArray[np.uint64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Count the set bits of uint64 words, into out (uint8, same shape) where given."""
    return _popcount(words, out)


def _popcount_numpy(words: NDArray[np.uint64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Count bits with numpy >= 2."""
    return np.bitwise_count(words) if out is None else np.bitwise_count(words, out=out)


def _popcount_swar(words: NDArray[np.uint64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Count bits without np.bitwise_count: sums of 2, 4, 8 neighbours (Hacker's Delight, figure 5-2).

    out must be C-contiguous. Goes in chunks that stay in the L2 cache.
    """
    counted = np.empty(words.shape, np.uint8) if out is None else out
    flat, counts = np.ascontiguousarray(words).reshape(-1), counted.reshape(-1)
    scratch = np.empty((2, min(flat.size, _WORDS_PER_CHUNK)), np.uint64)
    for start in range(0, flat.size, _WORDS_PER_CHUNK):
        chunk = flat[start : start + _WORDS_PER_CHUNK]
        sums, moved = scratch[:, : chunk.size]
        np.right_shift(chunk, np.uint64(1), out=moved)
        moved &= np.uint64(0x5555555555555555)
        np.subtract(chunk, moved, out=sums)  # sums of 2 bits
        np.right_shift(sums, np.uint64(2), out=moved)
        moved &= np.uint64(0x3333333333333333)
        sums &= np.uint64(0x3333333333333333)
        sums += moved  # of 4
        np.right_shift(sums, np.uint64(4), out=moved)
        sums += moved
        sums &= np.uint64(0x0F0F0F0F0F0F0F0F)  # of 8
        sums *= np.uint64(0x0101010101010101)  # of all in the highest byte; wraps on purpose
        sums >>= np.uint64(56)
        np.copyto(counts[start : start + chunk.size], sums, casting="unsafe")
    return counted


_Popcount = Callable[["NDArray[np.uint64]", "NDArray[np.uint8] | None"], "NDArray[np.uint8]"]
_popcount: _Popcount = _popcount_numpy if hasattr(np, "bitwise_count") else _popcount_swar


def to_planes(codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Turn codes uint8 [n, n_bytes] into planes uint64 [n_bytes // 8, n], C-contiguous."""
    _require_matrix(codes)
    words = np.ascontiguousarray(codes).view("<u8")  # [n, n_planes]
    return np.ascontiguousarray(words.T, dtype=np.uint64)


def from_planes(planes: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Turn planes uint64 [n_planes, n] back into codes uint8 [n, n_planes * 8]."""
    _require_planes(planes)
    return np.ascontiguousarray(planes.T, dtype="<u8").view(np.uint8)


def hamming(query: bytes | NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the distances uint16 [n] of one code to codes uint8 [n, n_bytes]."""
    _require_matrix(codes)
    words = np.ascontiguousarray(codes).view("<u8").astype(np.uint64, copy=False)  # [n, n_planes]
    query_words = _query_words(query, words.shape[1])
    total: NDArray[np.uint16] = popcount(words ^ query_words).sum(axis=1, dtype=np.uint16)
    return total


def distances(query: bytes | NDArray[Any], planes: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Return the distances uint16 [n] of one code (bytes, uint8 code or uint64 words) to planes."""
    _require_planes(planes)
    query_words = _query_words(query, planes.shape[0])
    total = np.zeros(planes.shape[1], dtype=np.uint16)
    for plane, word in zip(planes, query_words, strict=True):
        total += popcount(plane ^ word)
    return total


class TopK:
    """The k codes nearest to a query, exact, over scans in any order; ties go to the smaller index.

    query: bytes, uint8 [n_bytes] or uint64 words [n_planes]; k >= 1.
    """

    def __init__(self, query: bytes | NDArray[Any], k: int) -> None:
        if k < 1:
            raise ValueError(f"k: expected at least 1, found {k}")
        self._query = _query_words(query, None)
        self._k = k
        self._kept = (np.empty(0, np.uint16), np.empty(0, np.int64))  # distances, indices: sorted, at most k
        self._found: list[tuple[NDArray[np.uint16], NDArray[np.int64]]] = []  # not merged yet
        self._n_found = 0
        self._next_index = 0  # above every index seen
        self._words = np.empty(_ROWS_PER_BLOCK, np.uint64)
        self._counts = np.empty((2, _ROWS_PER_BLOCK), np.uint8)
        self._is_near = np.empty(_ROWS_PER_BLOCK, np.bool_)

    def scan(self, planes: NDArray[np.uint64], first_index: int = 0) -> None:
        """Take in planes uint64 [n_planes, n], whose codes have the indices first_index, first_index + 1...

        No index may be given twice.
        """
        _require_planes(planes)
        _require_same_width(self._query, planes.shape[0])
        in_order = first_index >= self._next_index
        n_rows = planes.shape[1]
        for start in range(0, n_rows, _ROWS_PER_BLOCK):
            self._scan_block(planes[:, start : start + _ROWS_PER_BLOCK], first_index + start, in_order)
            if self._n_found >= self._k:
                self._merge()
        self._next_index = max(self._next_index, first_index + n_rows)

    def result(self) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        """Return (distances uint16, indices int64), at most k of each, by distance and then index."""
        self._merge()
        return self._kept[0].copy(), self._kept[1].copy()

    def _scan_block(self, block: NDArray[np.uint64], first_index: int, in_order: bool) -> None:
        """Note the rows of a block that can still be among the k nearest."""
        limit = self._limit(in_order)
        if limit < 0:
            return
        n_rows = block.shape[1]
        words, near = self._words[:n_rows], self._is_near[:n_rows]
        total, counts = self._counts[0, :n_rows], self._counts[1, :n_rows]
        np.bitwise_xor(block[0], self._query[0], out=words)
        popcount(words, total)
        for plane, word in zip(block[1:], self._query[1:], strict=True):
            np.bitwise_xor(plane, word, out=words)
            popcount(words, counts)
            np.add(total, counts, out=total)  # wraps only for 256, which becomes 0: put right below
        np.less_equal(total, np.uint8(min(limit, 255)), out=near)
        if not near.any():
            return
        rows = np.flatnonzero(near)
        found = total[rows].astype(np.uint16)
        found[(found == 0) & (block[0, rows] != self._query[0])] = 256  # not equal: different in every bit
        if rows.size > self._k:
            limit = min(limit, int(np.partition(found, self._k - 1)[self._k - 1]))
        rows, found = rows[found <= limit], found[found <= limit]
        self._found.append((found, rows + first_index))
        self._n_found += rows.size

    def _limit(self, in_order: bool) -> int:
        """Return the largest distance that can still enter the k nearest: -1..256."""
        if self._kept[0].size < self._k:
            return 256
        farthest = int(self._kept[0][-1])
        return (
            farthest - 1 if in_order else farthest
        )  # behind all indices seen, an equal distance is too late

    def _merge(self) -> None:
        """Sort what was found into what is kept."""
        if not self._found:
            return
        distances = np.concatenate([self._kept[0], *(found for found, _ in self._found)])
        indices = np.concatenate([self._kept[1], *(rows for _, rows in self._found)])
        order = np.lexsort((indices, distances))[: self._k]
        self._kept = (distances[order], indices[order])
        self._found.clear()
        self._n_found = 0


def top_k(
    query: bytes | NDArray[Any], planes: NDArray[np.uint64], k: int
) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Return (distances, indices) of the k codes in planes nearest to query; see TopK."""
    search = TopK(query, k)
    search.scan(planes, 0)
    return search.result()


def asymmetric_distance(logits: NDArray[Any], codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return for each code the sum of |logit| over the bits whose sign disagrees: float32 [n].

    logits: float [n_bits] of the query; codes: uint8 [n, n_bits // 8].
    """
    _require_matrix(codes)
    table = _asymmetric_table(logits, codes.shape[1] // 2)
    chunks = np.ascontiguousarray(codes).view("<u2")  # [n, n_bits // 16]
    total = np.zeros(codes.shape[0], dtype=np.float32)
    for i, row in enumerate(table):
        total += row[chunks[:, i]]
    return total


def asymmetric_distance_planes(logits: NDArray[Any], planes: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return asymmetric_distance for planes uint64 [n_planes, n]."""
    _require_planes(planes)
    table = _asymmetric_table(logits, planes.shape[0] * 4)
    total = np.zeros(planes.shape[1], dtype=np.float32)
    for i, row in enumerate(table):
        total += row[(planes[i // 4] >> np.uint64(16 * (i % 4))) & np.uint64(0xFFFF)]
    return total


def _asymmetric_table(logits: NDArray[Any], n_chunks: int) -> NDArray[np.float32]:
    """Return float32 [n_chunks, 65536]: the cost of every value of every 16 bits of a code."""
    values = np.asarray(logits, dtype=np.float32)
    if values.ndim != 1:
        raise CodeSpaceError(f"logits: expected one vector, found shape {values.shape}")
    own = np.unpackbits(pack(values, n_chunks * 16), bitorder="little").reshape(n_chunks, 16)
    cost = np.abs(values).reshape(n_chunks, 16)
    table = np.zeros((n_chunks, 1), dtype=np.float32)
    for bit in range(16):  # doubles the table: the lower half has this bit 0, the upper half 1
        zero = np.where(own[:, bit] == 1, cost[:, bit], np.float32(0))[:, None]
        table = np.concatenate([table + zero, table + (cost[:, bit : bit + 1] - zero)], axis=1)
    return table


def _query_words(query: bytes | NDArray[Any], n_planes: int | None) -> NDArray[np.uint64]:
    """Return one code as uint64 words [n_planes]."""
    given = np.frombuffer(query, dtype=np.uint8) if isinstance(query, bytes) else np.asarray(query)
    if given.ndim != 1 or given.dtype not in (np.uint8, np.uint64):
        raise CodeSpaceError(f"query: expected one code, uint8 or uint64, found {given.dtype} {given.shape}")
    _require_width(given.size * given.itemsize * 8, "query")
    words = (
        np.ascontiguousarray(given).view("<u8" if given.dtype == np.uint8 else np.uint64).astype(np.uint64)
    )
    if n_planes is not None:
        _require_same_width(words, n_planes)
    return words


def _require_same_width(query: NDArray[np.uint64], n_planes: int) -> None:
    if query.size != n_planes:
        raise CodeSpaceError(f"query: expected {n_planes * 64} bits like the codes, found {query.size * 64}")


def _require_width(n_bits: int, what: str) -> None:
    if n_bits not in (64, 128, 192, 256):
        raise CodeSpaceError(f"{what}: expected 64, 128, 192 or 256 bits, found {n_bits}")


def _require_matrix(codes: NDArray[np.uint8]) -> None:
    if codes.ndim != 2 or codes.dtype != np.uint8:
        raise CodeSpaceError(f"codes: expected uint8 [n, n_bytes], found {codes.dtype} {codes.shape}")
    _require_width(codes.shape[1] * 8, "codes")


def _require_planes(planes: NDArray[np.uint64]) -> None:
    if planes.ndim != 2 or planes.dtype != np.uint64:
        raise CodeSpaceError(f"planes: expected uint64 [n_planes, n], found {planes.dtype} {planes.shape}")
    _require_width(planes.shape[0] * 64, "planes")
