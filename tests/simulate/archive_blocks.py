"""Blocks for an archive, made in bulk: devices that send runs in turn, with codes, clocks and sources as they occur."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edge.batch import MAX_RUN, Run
from edge.codes import to_planes
from edge.store_blocks import UNKNOWN_WALL_NS, Columns, pack_columns
from hub.archive import ArchiveBlock

SPACE = "simulated-000000000000"
RATE_HZ = 32_000
WINDOW_SAMPLES = 160_000  # 5 s, one after the other
FIRST_WALL_NS = 1_700_000_000 * 10**9
DAY_NS = 86_400 * 10**9

Array = np.ndarray[Any, np.dtype[Any]]


def block_of(
    first_uid: int,
    device: int,
    first_seq: int,
    codes: Array,
    walls: Array,
    space: str = SPACE,
    sources: Sequence[str] = ("microphone:USB Audio",),
    epoch: int | None = None,
) -> ArchiveBlock:
    """Return a block of codes uint8 [n, n_bytes] and wall_ns int64 [n]; the sources take turns."""
    n = len(codes)
    seq = np.arange(first_seq, first_seq + n)
    same = np.ones(n, np.int64)
    columns = Columns(
        source=seq % len(sources),
        first_sample=seq * WINDOW_SAMPLES,
        n_samples=same * WINDOW_SAMPLES,
        sample_rate_hz=same * RATE_HZ,
        boot=same * 0,
        boottime_ns=10**10 + seq * 5 * 10**9,
        wall_ns=walls,
        clock_state=same * 2,
    )
    packed = to_planes(codes).astype("<u8", copy=False).tobytes()
    run = Run(first_seq, n, space, tuple(sources), ("boot",), pack_columns(columns), packed)
    return ArchiveBlock(first_uid, device, device * 1000 + 7 if epoch is None else epoch, run)


def fleet_blocks(
    n: int,
    n_devices: int,
    run: int = MAX_RUN,
    n_bytes: int = 32,
    seed: int = 0,
    spread: int | None = None,
    unknown: float = 0.0,
    space: str = SPACE,
) -> Iterator[ArchiveBlock]:
    """Give n observations in runs of devices that take turns, one code each 5 s from FIRST_WALL_NS on.

    spread: how many different codes there are, None = all random; unknown: the share without a wall clock.
    """
    random = np.random.default_rng(seed)
    pool = None if spread is None else random.integers(0, 256, (spread, n_bytes), np.uint8)
    seqs = [0] * n_devices
    uid = 0
    while uid < n:
        device = (uid // run) % n_devices
        size = min(run, n - uid)
        first = seqs[device]
        if pool is None:
            codes = np.frombuffer(random.bytes(size * n_bytes), np.uint8).reshape(size, n_bytes)
        else:
            codes = pool[random.integers(len(pool), size=size)]
        walls = FIRST_WALL_NS + np.arange(first, first + size) * 5 * 10**9
        if unknown:
            walls = np.where(random.random(size) < unknown, UNKNOWN_WALL_NS, walls)
        sources = (f"card/{device}.wav", "microphone:USB")
        yield block_of(uid, device + 1, first, codes, walls, space, sources)
        seqs[device] = first + size
        uid += size
