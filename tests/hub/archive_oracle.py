"""What an archive must answer, said in the plainest numpy: every distance, every condition, one sort."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.codes import from_planes
from edge.store_blocks import UNKNOWN_WALL_NS, planes_of
from hub.archive import ArchiveBlock, ArchiveHit, Filter

Array = np.ndarray[Any, np.dtype[Any]]


class Oracle:
    """Everything that was added, one observation after the other."""

    def __init__(self, blocks: Sequence[ArchiveBlock]) -> None:
        self.rows: list[tuple[str, bytes, ArchiveHit]] = []
        for block in blocks:
            run, columns = block.run, block.run.unpacked()
            codes = from_planes(planes_of(run.codes, run.n))
            for i in range(run.n):
                wall_ns = int(columns.wall_ns[i])
                hit = ArchiveHit(
                    block.first_uid + i,
                    block.device,
                    block.epoch,
                    run.first_seq + i,
                    0,
                    None if wall_ns == UNKNOWN_WALL_NS else wall_ns,
                    run.sources[columns.source[i]],
                    int(columns.first_sample[i]),
                    int(columns.n_samples[i]),
                    int(columns.sample_rate_hz[i]),
                )
                self.rows.append((run.code_space, codes[i].tobytes(), hit))

    def search(
        self, code: Array, space: str, k: int, where: Filter, most: int | None = None
    ) -> list[tuple[int, ArchiveHit]]:
        """Return (distance, hit) of the k nearest; the hits' own distance is 0."""
        n_bytes = len(code)
        kept = [
            row for row in self.rows if row[0] == space and len(row[1]) >= n_bytes and lets(where, row[2])
        ]
        if not kept:
            return []
        codes = np.frombuffer(b"".join(code[:n_bytes] for _, code, _ in kept), np.uint8)
        bits = np.unpackbits(codes.reshape(-1, n_bytes) ^ code, axis=1)
        found = [(int(d), hit) for d, (_, _, hit) in zip(bits.sum(axis=1), kept, strict=True)]
        found = [each for each in found if most is None or each[0] <= most]
        return sorted(found, key=lambda each: (each[0], each[1].uid))[:k]


def lets(where: Filter, hit: ArchiveHit) -> bool:
    """Return whether a filter lets an observation through."""
    if where.devices is not None and hit.device not in where.devices:
        return False
    if where.since_ns is None and where.until_ns is None and where.hours is None:
        return True
    if hit.wall_ns is None:
        return False
    if where.since_ns is not None and hit.wall_ns < where.since_ns:
        return False
    if where.until_ns is not None and hit.wall_ns >= where.until_ns:
        return False
    hour = (hit.wall_ns // 10**9 + where.utc_offset_s) // 3600 % 24
    return where.hours is None or hour in where.hours
