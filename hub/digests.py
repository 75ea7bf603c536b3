"""Digests of observations, 4 bytes each: whether one that comes twice is the same, without keeping it twice.

Multilinear hashing: digest = high 32 bits of (a0 + sum a_i x_i mod 2^64) over the 32-bit pieces x_i of an observation, with
a_i drawn at random by each hub: two different observations agree with probability 2^-32 (Lemire and Kaser 2014, strongly
universal). numpy makes 4,096 of them in less than a millisecond.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from edge.batch import Run
from edge.store_blocks import Columns, planes_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY_BYTES = 256  # a0, and a_i of 31 pieces
_NUMBERS = ("first_sample", "n_samples", "sample_rate_hz", "boottime_ns", "wall_ns", "clock_state")
_LOW = np.uint64(0xFFFF_FFFF)
_HIGH = np.uint64(32)


def run_digests(run: Run, columns: Columns, key: bytes) -> NDArray[np.uint32]:
    """Return the digests uint32 [n] of a run whose columns are unpacked. key: KEY_BYTES random bytes, kept by the hub."""
    factors = np.frombuffer(key, "<u8")
    planes = planes_of(run.codes, run.n)  # uint64 [n_planes, n]
    sources, boots = _words(run.sources), _words(run.boots)
    words = [
        *planes,
        *(np.zeros(run.n, np.uint64) for _ in range(4 - len(planes))),
        sources[columns.source],
        boots[columns.boot],
        *(getattr(columns, name).view(np.uint64) for name in _NUMBERS),
    ]
    constant = (int(_words((f"{len(planes)} {run.code_space}",))[0]), int(factors[0]))
    total = np.full(run.n, (constant[0] + constant[1]) % 2**64, np.uint64)
    for i, word in enumerate(words):
        total += factors[2 * i + 1] * (word & _LOW)
        total += factors[2 * i + 2] * (word >> _HIGH)
    return (total >> _HIGH).astype(np.uint32)


def _words(texts: tuple[str, ...]) -> NDArray[np.uint64]:
    """Return a number of 64 bits for each text."""
    joined = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(joined, "<u8").astype(np.uint64)
