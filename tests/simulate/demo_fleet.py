"""A fleet to look at: six recorders in a valley, days of real codes in their stores, delivered with the real client.

Simulated is only what there was to hear: codes of the starter's reference backgrounds, and of the example clips at hours of
the day when such things are heard, each with a few bits turned as another recording of it would have.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from edge import sync_visits
from edge.bundle import Bundle, default_bundle
from edge.codes import pack
from edge.config import Sync
from edge.encoder import compile_queries, open_audio_encoder
from edge.errors import FieldcubeError
from edge.matcher import Matcher
from edge.observation import Detection, Instant, Observation
from edge.reference import load_reference
from edge.store import ObservationStore
from edge.watchlist import parse_text
from hub.enrolment import new_code
from hub.settings import Settings
from hub.store_registry import Registry

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PLACES = {
    "north-ridge": (46.8102, 9.8210),
    "spring": (46.8034, 9.8305),
    "old-oak": (46.7981, 9.8117),
    "ford": (46.7920, 9.8251),
    "quarry": (46.8065, 9.8442),
    "farm": (46.7893, 9.8366),
}
# clips, hour of the day (UTC) at which it is heard most, width in hours, share of windows there, where
SOUNDS = (
    ("rooster-crowing", 4.5, 1.0, 0.06, ("farm",)),
    ("dog-barking", 18.0, 5.0, 0.03, ("farm", "ford")),
    ("chainsaw", 10.0, 2.0, 0.15, ("old-oak", "quarry")),
    ("helicopter", 13.0, 3.0, 0.004, tuple(PLACES)),
    ("rain", 22.0, 2.0, 0.25, tuple(PLACES)),
    ("crackling-fire", 20.0, 1.0, 0.05, ("spring",)),
)
STEP_S = 10  # from observation to observation
TURNED = 0.02  # share of bits of a code that another recording of the same sound does not share
_VISIT_EVERY_S = 30.0
_DAY_S = 86_400


@dataclass(frozen=True)
class Ears:
    """What is heard: codes by name of a clip, background codes [n, n_bytes], and the rule that detects."""

    bundle: Bundle
    matcher: Matcher
    background: np.ndarray
    clips: dict[str, np.ndarray]

    @classmethod
    def open(cls, bundle: Bundle) -> Ears:
        """Encode the example clips and compile the example watchlist."""
        watchlist = compile_queries(bundle, parse_text(EXAMPLES / "watchlist.txt"))
        reference, calibration = load_reference(bundle), bundle.manifest.calibration
        assert reference is not None
        assert calibration is not None  # the starter has both
        encoder = open_audio_encoder(bundle)
        clips = {}
        for path in sorted((EXAMPLES / "clips").glob("*.ogg")):
            samples, rate_hz = soundfile.read(path, dtype="float32")
            heard = soxr.resample(samples, rate_hz, encoder.sample_rate_hz)[: encoder.window_samples]
            heard = np.pad(heard, (0, encoder.window_samples - len(heard)))
            clips[path.stem] = pack(encoder.encode(heard))
        return cls(
            bundle, Matcher(watchlist, bundle.manifest.decoys, calibration), reference.background, clips
        )


class DemoRecorder:
    """A recorder with a card of its own: store, key, cursor and clips."""

    def __init__(self, name: str, folder: Path, ears: Ears, seed: int) -> None:
        self.name, self.store_path = name, folder / "observations.sqlite"
        self._folder, self._ears = folder, ears
        self._random = np.random.default_rng(seed)
        shutil.copytree(EXAMPLES / "clips", folder / "clips")

    def listen(self, first_s: int, n: int) -> None:
        """Hear n windows from a time on, s since 1970."""
        with ObservationStore.open(self.store_path, self.name, commit_interval_s=3600.0) as store:
            for at_s in range(first_s, first_s + n * STEP_S, STEP_S):
                clip = self._heard(at_s)
                observation = self._observation(store, at_s, clip)
                found = self._ears.matcher.match(observation) if clip else []
                store.add(observation, [self._with_clip(each, clip) for each in found])

    def visit(self, hub: str, code: str | None) -> None:
        """Deliver what waits, and the clips that somebody asked for. Raises FieldcubeError."""
        settings = Sync(hub=hub, code=code, clips=True)
        clocks = sync_visits.system_clocks()
        sync_visits.run(settings, self.store_path, clocks, for_s=60.0, follow=False, at_once=True)

    def _heard(self, at_s: int) -> str:
        """Return the clip that is heard at a time, "" for the background alone."""
        hour = at_s % _DAY_S / 3600
        for kind, peak, width, share, places in SOUNDS:
            apart = min((hour - peak) % 24, (peak - hour) % 24)
            if self.name in places and self._random.random() < share * math.exp(-0.5 * (apart / width) ** 2):
                return f"{kind}-{self._random.integers(1, 3)}"
        return ""

    def _observation(self, store: ObservationStore, at_s: int, clip: str) -> Observation:
        background = self._ears.background
        code = self._ears.clips[clip] if clip else background[self._random.integers(len(background))]
        bits = np.packbits(self._random.random(code.size * 8) < TURNED, bitorder="little")
        return Observation(
            device_id=store.device_id,
            epoch=store.epoch,
            seq=store.next_seq,
            code=(code ^ bits).tobytes(),
            code_space=self._ears.bundle.manifest.code_space,
            source="microphone:USB Audio",
            first_sample=store.next_seq * STEP_S * 32_000,
            sample_rate_hz=32_000,
            n_samples=160_000,
            instant=Instant("boot", at_s * 10**9, at_s * 10**9, "ntp"),
        )

    def _with_clip(self, found: Detection, clip: str) -> Detection:
        return Detection(
            found.device_id,
            found.epoch,
            found.seq,
            found.query,
            found.text,
            found.distance,
            found.probability,
            found.false_alarms_per_day,
            str(self._folder / "clips" / f"{clip}.ogg"),
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Fill a running hub, then go on for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hub_folder", type=Path, help="of the hub's files: recorders are let in there")
    parser.add_argument("url", help="of the hub")
    parser.add_argument("--cards", type=Path, required=True, help="new folder for the recorders' cards")
    parser.add_argument("--days", type=float, default=3.0, help="that they have recorded (default 3)")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="to go on after that (default: for ever)"
    )
    args = parser.parse_args(argv)
    with Registry.open(Settings(args.hub_folder).registry_path) as registry:
        codes = {name: new_code(registry, name, time.time_ns()) for name in PLACES}
        ears = Ears.open(Bundle.load(default_bundle()))
        until_s = time.time() + args.minutes * 60
        heard_s = int(time.time() - args.days * _DAY_S) // STEP_S * STEP_S
        recorders = [DemoRecorder(name, args.cards / name, ears, i) for i, name in enumerate(PLACES)]
        stopped = threading.Event()
        while not stopped.is_set():
            now_s = int(time.time())
            n = (now_s - heard_s) // STEP_S
            for recorder in recorders:
                recorder.listen(heard_s, n)
                try:
                    recorder.visit(args.url, codes[recorder.name])
                except FieldcubeError as error:  # the hub is away; the next visit delivers
                    print(f"{recorder.name}: {error}", file=sys.stderr)
                else:
                    registry.devices.set_place(recorder.name, *PLACES[recorder.name])
            heard_s += n * STEP_S
            print(f"{n * len(recorders)} observations recorded and delivered", file=sys.stderr)
            if time.time() + _VISIT_EVERY_S > until_s:
                break
            stopped.wait(_VISIT_EVERY_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
