"""Codes: bit order, packing, Hamming distance and exact top-k over packed bits. Needs only numpy.

Bit i of a code is 1 iff logit i >= 0, stored little-endian: bit i lies in byte i // 8 at position i % 8.
A prefix of a code (64, 128, 192 bits) is a code too. For scanning, codes lie as planes: uint64 [n_bits // 64, n],
one contiguous row for each 64 bits (structure of arrays, several times faster than rows of bytes).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.errors import CodeSpaceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODE_BITS = 256

_ROWS_PER_BLOCK = 32_768  # 64k..8k are within noise of each other; one block's scratch stays in the L2 cache
_FAR = 0x7FFF  # above any distance, fits uint16


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
    """Count bits without np.bitwise_count: sums of 2, 4, 8 neighbouring bits (Hacker's Delight, figure 5-2)."""
    pairs = words - ((words >> np.uint64(1)) & np.uint64(0x5555555555555555))
    low = np.uint64(0x3333333333333333)
    nibbles = (pairs & low) + ((pairs >> np.uint64(2)) & low)
    octets = (nibbles + (nibbles >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    counts: NDArray[np.uint64] = (octets * np.uint64(0x0101010101010101)) >> np.uint64(56)  # wraps on purpose
    if out is None:
        return counts.astype(np.uint8)
    np.copyto(out, counts, casting="unsafe")
    return out


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
    return popcount(words ^ query_words).sum(axis=1, dtype=np.uint16)


def distances(query: bytes | NDArray[Any], planes: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Return the distances uint16 [n] of one code (bytes, uint8 code or uint64 words) to planes."""
    _require_planes(planes)
    query_words = _query_words(query, planes.shape[0])
    total = np.zeros(planes.shape[1], dtype=np.uint16)
    for plane, word in zip(planes, query_words):
        total += popcount(plane ^ word)
    return total


class TopK:
    """The k codes nearest to a query, exact, over any number of scans; ties go to the smaller index.

    query: bytes, uint8 [n_bytes] or uint64 words [n_planes]; k >= 1.
    """

    def __init__(self, query: bytes | NDArray[Any], k: int) -> None:
        if k < 1:
            raise ValueError(f"k: expected at least 1, found {k}")
        self._query = _query_words(query, None)
        self._k = k
        self._distances = np.empty(0, dtype=np.uint16)
        self._indices = np.empty(0, dtype=np.int64)

    def scan(self, planes: NDArray[np.uint64], first_index: int = 0) -> None:
        """Take in planes uint64 [n_planes, n], whose codes have the indices first_index, first_index + 1, ..."""
        found = distances(self._query, planes)
        self._merge(found, np.arange(first_index, first_index + found.size, dtype=np.int64))

    def result(self) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        """Return (distances uint16, indices int64), at most k of each, by distance and then index."""
        return self._distances.copy(), self._indices.copy()

    def _merge(self, distances: NDArray[np.uint16], indices: NDArray[np.int64]) -> None:
        all_distances = np.concatenate([self._distances, distances])
        all_indices = np.concatenate([self._indices, indices])
        order = np.lexsort((all_indices, all_distances))[: self._k]
        self._distances, self._indices = all_distances[order], all_indices[order]


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
    words = np.frombuffer(query, dtype=np.uint8) if isinstance(query, bytes) else np.asarray(query)
    if words.ndim != 1:
        raise CodeSpaceError(f"query: expected one code, found shape {words.shape}")
    if words.dtype != np.uint64:
        if words.dtype != np.uint8:
            raise CodeSpaceError(f"query: expected bytes, uint8 or uint64, found {words.dtype}")
        _require_width(words.size * 8, "query")
        words = np.ascontiguousarray(words).view("<u8").astype(np.uint64)
    _require_width(words.size * 64, "query")
    if n_planes is not None and words.size != n_planes:
        raise CodeSpaceError(f"query: expected {n_planes * 64} bits like the codes, found {words.size * 64}")
    return words


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
