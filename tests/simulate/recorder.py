"""A recorder as the hub sees it: a key, and batches of simulated observations in signed envelopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cbor2
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.batch import Batch, Purpose, Run, encode_batch, encode_envelope
from edge.device_key import DeviceKey
from edge.observation import Detection
from edge.store_blocks import Columns, pack_codes, pack_columns
from edge.store_schema import Event

SPACE = "test-0123456789ab"
RATE_HZ = 32_000
FIRST_WALL_NS = 1_777_777_777 * 10**9
WINDOW_NS = 5 * 10**9


class Recorder:
    """Makes envelopes; the same seed is the same key and the same codes, which a cloned card would have."""

    def __init__(self, name: str, seed: int = 0, epoch: int = 7, space: str = SPACE) -> None:
        self.name, self.epoch, self.space = name, epoch, space
        self.key = DeviceKey(Ed25519PrivateKey.from_private_bytes(np.random.default_rng([seed, 1]).bytes(32)))
        self._seed = seed

    def run(self, first: int, n: int, salt: int = 0) -> Run:
        """Return observations [first, first + n); another salt gives other codes."""
        seq = np.arange(first, first + n)
        same = np.ones(n, np.int64)
        columns = Columns(
            source=0 * same,
            first_sample=seq * 160_000,
            n_samples=160_000 * same,
            sample_rate_hz=RATE_HZ * same,
            boot=0 * same,
            boottime_ns=10**12 + seq * WINDOW_NS,
            wall_ns=FIRST_WALL_NS + seq * WINDOW_NS,
            clock_state=2 * same,
        )
        codes = [np.random.default_rng([self._seed, salt, i]).bytes(32) for i in seq.tolist()]
        return Run(
            first,
            n,
            self.space,
            (f"microphone:{self.name}",),
            ("boot",),
            pack_columns(columns),
            pack_codes(codes),
        )

    def detection(self, seq: int, query: str = "owl", distance: int = 70) -> Detection:
        """Return a detection of an observation."""
        return Detection(self.name, self.epoch, seq, query, f"a {query}", distance, 0.75, 0.1, None)

    def event(self, number: int, reason: str = "overrun") -> Event:
        """Return a gap."""
        return Event(number, "gap", 3, f"microphone:{self.name}", 480_000, 16_000, RATE_HZ, reason)

    def batch(self, runs: Sequence[Run] = (), **more: Any) -> Batch:
        """Return a batch of runs, and of what else is given as in Batch."""
        more.setdefault("next", (max((run.first_seq + run.n for run in runs), default=0), 0, 0))
        return Batch(self.name, self.epoch, runs=tuple(runs), **more)

    def envelope(self, batch: Batch) -> bytes:
        """Return a batch as it travels."""
        return self.signed("batch", encode_batch(batch))

    def sent(self, first: int, n: int, salt: int = 0) -> bytes:
        """Return an envelope with one run of observations."""
        return self.envelope(self.batch([self.run(first, n, salt)]))

    def enrolment(self, code: str | None = None, **changes: Any) -> bytes:
        """Return a request for enrolment."""
        table = {"format_version": 1, "device": self.name, "public": self.key.public, "code": code, **changes}
        return self.signed("enrolment", cbor2.dumps(table))

    def clip(self, seq: int, audio: bytes, name: str = "a.flac") -> bytes:
        """Return a clip as it travels."""
        table = {"format_version": 1, "epoch": self.epoch, "seq": seq, "name": name, "audio": audio}
        return self.signed("clip", cbor2.dumps(table))

    def signed(self, purpose: Purpose, payload: bytes) -> bytes:
        """Return any payload in an envelope."""
        return encode_envelope(self.name, payload, self.key.sign(purpose, payload))
