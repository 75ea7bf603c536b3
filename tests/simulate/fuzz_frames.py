"""Send very many damaged radio frames to the hub's intake: damaged as a whole, or with a right tag over a damaged body."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge import sync_frames_writer
from edge.device_key import DeviceKey
from edge.errors import WireError
from edge.frames import encode_frame
from edge.frames_key import frame_key
from edge.observation import Observation
from edge.sync_frames_writer import FrameWriter, Told
from hub.archive_sqlite import SqliteArchive
from hub.enrolment import enrol
from hub.frame_intake import FrameIntake
from hub.ingest import Ingest
from hub.store_frames import FrameStore
from hub.store_registry import Registry
from tests.simulate.fuzz import damaged
from tests.simulate.recorder import Recorder

_NOW_NS = 1_790_000_000 * 10**9


def fuzz_frames(folder: Path, n: int, seed: int = 0) -> Counter[str]:
    """Send n frames; return how many were answered how. Raises whatever is no refusal."""
    random = np.random.default_rng(seed)
    recorder = Recorder("owl-1")
    hub_key = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"h" * 32))
    key = frame_key(recorder.key, hub_key.public, recorder.key.public)
    made = _frames(recorder, key)
    answers: Counter[str] = Counter()
    with Registry.open(folder / "hub.sqlite", 1 << 60) as registry:
        enrol(registry, recorder.enrolment(), _NOW_NS)
        registry.devices.set_status("owl-1", "enrolled")
        archive, store = SqliteArchive.open(folder / "archive.sqlite"), FrameStore(folder / "frames.sqlite")
        with Ingest(registry, archive, lambda: _NOW_NS) as ingest:
            intake = FrameIntake(registry, ingest, store, hub_key)
            for arguments in made[: len(made) // 2]:  # so that much of what is damaged has what it relies on
                intake.take(encode_frame(*arguments))
            for _ in range(n):
                arguments = made[int(random.integers(len(made)))]
                try:
                    frame = _fuzzed(arguments, random)
                    answers[intake.take(frame)] += 1
                except WireError:
                    answers["WireError"] += 1
            assert intake.take(encode_frame(*made[0])) == "kept"  # and it still works
        store.close()
        archive.close()
    return answers


def _fuzzed(arguments: tuple[Any, ...], random: np.random.Generator) -> bytes:
    if random.integers(4) == 0:
        return damaged(encode_frame(*arguments), random)
    key, kind, name, body, *rest = arguments
    return encode_frame(key, kind, name, damaged(body, random), *rest)


def _frames(recorder: Recorder, key: bytes) -> list[tuple[Any, ...]]:
    """Return what the frames of some batches are made of: the arguments of encode_frame."""
    runs = [recorder.run(0, 12), recorder.run(12, 3)]
    batch = recorder.batch(
        runs,
        next=(15, 2, 1),
        detections=((0, recorder.detection(2)), (1, recorder.detection(7))),
        health={"at_ns": _NOW_NS, "battery": 0.5, "clock": "ntp"},
    )
    known = {each.seq: each for run in runs for each in run.observations("owl-1", batch.epoch)}

    def fact(seq: int) -> Observation | None:
        return known.get(seq)

    made: list[tuple[Any, ...]] = []

    def noted(*arguments: Any) -> bytes:
        made.append(arguments)
        return encode_frame(*arguments)

    with patch.object(sync_frames_writer, "encode_frame", noted):
        for n_bytes in (51, 340):
            list(FrameWriter(key, "owl-1", n_bytes, fact, Told()).frames(batch))
    return made
