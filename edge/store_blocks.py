"""One block of the store: the facts of many observations as packed columns, their codes as bit planes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from edge.codes import from_planes, to_planes
from edge.errors import StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNKNOWN_WALL_NS = -(2**63)  # in wall_ns: no wall clock was known
_INT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Columns:
    """The facts of n observations in the order of seq, each int64 [n].

    source, boot: ids in the tables of those names; clock_state: index in CLOCK_STATES;
    wall_ns: UNKNOWN_WALL_NS where unknown.
    """

    source: NDArray[np.int64]
    first_sample: NDArray[np.int64]
    n_samples: NDArray[np.int64]
    sample_rate_hz: NDArray[np.int64]
    boot: NDArray[np.int64]
    boottime_ns: NDArray[np.int64]
    wall_ns: NDArray[np.int64]
    clock_state: NDArray[np.int64]

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int | None]]) -> Columns:
        """Build from rows of integers in the order of the fields; None only in wall_ns."""
        filled = [[UNKNOWN_WALL_NS if value is None else value for value in row] for row in rows]
        matrix = np.array(filled, dtype=np.int64).reshape(len(filled), _N_COLUMNS)
        return cls(*np.ascontiguousarray(matrix.T))

    def wall_range(self) -> tuple[int, int | None, int | None]:
        """Return how many wall_ns are known, and the earliest and latest (None where none is)."""
        known = self.wall_ns[self.wall_ns != UNKNOWN_WALL_NS]
        return (known.size, int(known.min()), int(known.max())) if known.size else (0, None, None)


_N_COLUMNS = len(fields(Columns))


def pack_columns(columns: Columns) -> bytes:
    """Pack columns: differences to the row before, split by byte significance, deflated.

    Steady recording has constant differences, so whole byte lanes are runs of one value.
    """
    matrix = np.stack([getattr(columns, field.name) for field in fields(Columns)])  # [columns, n]
    differences = np.diff(matrix, axis=1, prepend=np.int64(0))  # wraps on purpose; unpacking wraps back
    lanes = differences.astype("<i8").view(np.uint8).reshape(_N_COLUMNS, -1, _INT_BYTES)
    return zlib.compress(lanes.transpose(0, 2, 1).tobytes(), 6)


def unpack_columns(packed: bytes, n: int) -> Columns:
    """Return the columns in packed bytes. Raises StoreError when they do not hold n observations."""
    n_bytes = _N_COLUMNS * n * _INT_BYTES
    try:
        raw = zlib.decompressobj().decompress(
            packed, n_bytes + 1
        )  # few bytes from outside may blow up to very many
    except zlib.error as error:
        raise StoreError(f"expected packed columns, found damaged bytes ({error})") from error
    if len(raw) != n_bytes:
        raise StoreError(f"expected the columns of {n} observations, found {len(raw)} bytes")
    lanes = np.frombuffer(raw, np.uint8).reshape(_N_COLUMNS, _INT_BYTES, n).transpose(0, 2, 1)
    differences = np.ascontiguousarray(lanes).view("<i8")[..., 0]  # [columns, n]
    return Columns(*np.cumsum(differences, axis=1, dtype=np.int64))


def pack_codes(codes: Sequence[bytes]) -> bytes:
    """Return codes of one width as the bytes of their planes (edge.codes.to_planes), little-endian."""
    matrix = np.frombuffer(b"".join(codes), np.uint8).reshape(len(codes), -1)
    return to_planes(matrix).astype("<u8", copy=False).tobytes()


def planes_of(packed: bytes, n: int) -> NDArray[np.uint64]:
    """Return planes uint64 [n_planes, n] over packed codes, without a copy where the CPU is little-endian."""
    if n < 1 or not packed or len(packed) % (n * 8):
        raise StoreError(f"expected the codes of {n} observations, found {len(packed)} bytes")
    return np.frombuffer(packed, "<u8").reshape(-1, n).astype(np.uint64, copy=False)


def unpack_codes(packed: bytes, n: int) -> list[bytes]:
    """Return the codes in packed planes, one bytes object each."""
    return [row.tobytes() for row in from_planes(planes_of(packed, n))]
