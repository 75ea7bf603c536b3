"""Send very many damaged batches, enrolments, clips and radio frames to a hub's parts; nothing but its own refusals may come back."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import numpy as np

from edge.batch import Purpose, encode_batch
from edge.errors import WireError
from hub.archive_sqlite import SqliteArchive
from hub.clips import keep_clip
from hub.enrolment import enrol
from hub.ingest import Ingest
from hub.refusal import OverQuotaError, TooLargeError, UnauthorizedError, UnknownError
from hub.store_registry import Registry
from tests.simulate.fuzz import fuzzed
from tests.simulate.fuzz_frames import fuzz_frames
from tests.simulate.recorder import Recorder

REFUSALS = (WireError, UnauthorizedError, OverQuotaError, TooLargeError, UnknownError)
_NOW_NS = 1_790_000_000 * 10**9


def fuzz_hub(folder: Path, n: int, seed: int = 0) -> Counter[str]:
    """Send n messages; return how many were answered how. Raises whatever is no refusal."""
    random = np.random.default_rng(seed)
    recorder = Recorder("owl-1")
    batch = recorder.batch(
        [recorder.run(0, 12), recorder.run(12, 3)],
        next=(15, 1, 1),
        detections=((0, recorder.detection(2)),),
        events=(recorder.event(0),),
        dropped=((15, 2, "full"),),
        health={"at_ns": 5, "battery": 0.5, "state": "ok"},
    )
    request = {"format_version": 1, "device": "owl-1", "public": recorder.key.public, "code": None}
    clip = {"format_version": 1, "epoch": recorder.epoch, "seq": 3, "name": "a.flac", "audio": b"sound"}
    payloads: dict[Purpose, bytes] = {
        "batch": encode_batch(batch),
        "enrolment": cbor2.dumps(request),
        "clip": cbor2.dumps(clip),
    }
    answers: Counter[str] = Counter()
    with Registry.open(folder / "hub.sqlite", 1 << 60) as registry:
        enrol(registry, recorder.enrolment(), _NOW_NS)
        registry.devices.set_status("owl-1", "enrolled")
        registry.people.want_clip(1, recorder.epoch, 3, _NOW_NS)
        archive = SqliteArchive.open(folder / "archive.sqlite")
        with Ingest(registry, archive, lambda: _NOW_NS, max_waiting=4096) as ingest:
            doors: dict[Purpose, Callable[[bytes], Any]] = {
                "batch": ingest.submit,
                "enrolment": lambda body: enrol(registry, body, _NOW_NS),
                "clip": lambda body: keep_clip(registry, folder / "clips", body, _NOW_NS),
            }
            waiting = []
            for i in range(n):
                purpose: Purpose = "batch" if i % 8 else ("enrolment", "clip")[i // 8 % 2]
                body = fuzzed(payloads[purpose], lambda sent, p=purpose: recorder.signed(p, sent), random)
                answers[_answer(lambda p=purpose, sent=body: doors[p](sent), waiting)] += 1
                if len(waiting) >= 512:
                    answers.update(_answer(future.result, []) for future in waiting)
                    waiting.clear()
            answers.update(_answer(future.result, []) for future in waiting)
            assert ingest.take(recorder.sent(500, 5)).progress  # and it still works
            assert ingest.wait_archived(60)
        archive.close()
    return answers


def _answer(ask: Callable[[], Any], waiting: list[Any]) -> str:
    try:
        found = ask()
    except REFUSALS as error:
        return type(error).__name__
    if hasattr(found, "add_done_callback"):
        waiting.append(found)
        return "submitted"
    return "taken"


def main() -> int:
    """Fuzz from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for what, fuzz in (("messages", fuzz_hub), ("radio frames", fuzz_frames)):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.monotonic()
            answers = fuzz(Path(folder), args.n, args.seed)
        took_s = time.monotonic() - begun
        print(f"{args.n:,} {what} in {took_s:.0f} s, none answered but by a refusal or a receipt")
        for name, count in answers.most_common():
            print(f"  {name:20}{count:>12,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
