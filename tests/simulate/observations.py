"""Observations, detections and a clock for tests of the store and of what reads it."""

from __future__ import annotations

import numpy as np

from edge.observation import Detection, Instant, Observation
from edge.store import ObservationStore

SPACE = "test-0123456789ab"
RATE_HZ = 32_000
FIRST_WALL_NS = 1_777_777_777 * 10**9


class Clock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def code_of(seq: int, n_bytes: int = 32) -> bytes:
    return np.random.default_rng(seq).bytes(n_bytes)


def observation(store: ObservationStore, code: bytes | None = None, space: str = SPACE) -> Observation:
    """Return the next observation of a store; every third one has no wall clock, every 20 another source."""
    seq = store.next_seq
    wall_ns = None if seq % 3 == 2 else FIRST_WALL_NS + seq * 5 * 10**9
    return Observation(
        device_id=store.device_id,
        epoch=store.epoch,
        seq=seq,
        code=code_of(seq) if code is None else code,
        code_space=space,
        source=f"card/{seq // 20}.wav",
        first_sample=seq % 20 * 160_000,
        sample_rate_hz=RATE_HZ,
        n_samples=160_000 - seq % 7,
        instant=Instant(
            "boot-1", 10**12 + seq * 5 * 10**9 + seq % 11, wall_ns, "unset" if wall_ns is None else "ntp"
        ),
    )


def detection(found: Observation, query: str = "owl") -> Detection:
    return Detection(
        found.device_id, found.epoch, found.seq, query, f"a {query}", 70, 0.75, None, "clips/a.flac"
    )


def fill(store: ObservationStore, n: int) -> list[Observation]:
    added = []
    for _ in range(n):
        added.append(observation(store))
        store.add(added[-1])
    return added
