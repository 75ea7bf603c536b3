"""A hub with a small fleet for people to look at: seasons of detections, gaps, clips, a cloned card. Real parts throughout."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from edge.batch import MAX_RUN, Run
from edge.bundle import Bundle
from edge.codes import pack
from edge.encoder import open_text_encoder
from edge.observation import Detection
from edge.store_blocks import Columns, pack_codes, pack_columns
from hub.clips import keep_clip as take
from hub.enrolment import enrol as enter
from hub.parts import Hub
from hub.serving import opened_hub, running
from hub.settings import Settings
from tests.simulate.recorder import Recorder

NOW_NS = 1_779_000_000 * 10**9  # 2026-05-17 06:40 UTC
RATE_HZ = 32_000
WINDOW_S = 60  # a window a minute: enough to look at
N_DAYS = 3
PLACES = {
    "north-ridge": (46.8102, 9.8210),
    "spring": (46.8034, 9.8305),
    "old-oak": (46.7981, 9.8117),
    "ford": (46.7920, 9.8251),
    "quarry": (46.8065, 9.8442),
}
# name, sentence, hour of the day at which it is heard most, width in hours, share of windows there
QUERIES = (
    ("owl", "an owl hooting", 1.0, 2.5, 0.35),
    ("dawn birds", "birds singing", 4.5, 1.5, 0.6),
    ("chainsaw", "a chainsaw", 10.0, 2.0, 0.12),
)
WATCHLIST = """# What we listen for in the valley
an owl hooting        | name=owl | alarms_per_day=0.5 | active=night
birds singing         | name=dawn birds | confirm=2/3
a chainsaw OR a truck | name=chainsaw | priority=high | cooldown=10min
decoy: wind in trees
"""


@dataclass
class PageHub:
    """A running hub. recorders: by name."""

    hub: Hub
    url: str
    recorders: dict[str, Recorder]


@contextmanager
def page_hub(folder: Path, bundle: Bundle, n_days: int = N_DAYS) -> Iterator[PageHub]:
    """Run a hub with a fleet."""
    settings = Settings(folder / "hub", port=0)
    with opened_hub(settings, bundle, now_ns=lambda: NOW_NS) as app:
        hub: Hub = app.state.hub
        recorders = {name: Recorder(name, seed) for seed, name in enumerate(PLACES)}
        codes = sentences(bundle)
        for seed, recorder in enumerate(recorders.values()):
            fill(hub, recorder, seed, codes, n_days)
        waiting = Recorder("new-board", seed=99)
        enrol(hub, waiting, is_approved=False)
        assert hub.ingest.wait_archived(60)
        hub.registry.people.keep_watchlist("valley", WATCHLIST, NOW_NS - 86_400 * 10**9)
        with running(app, settings) as url:
            yield PageHub(hub, url, recorders)


def sentences(bundle: Bundle) -> list[np.ndarray]:
    """Return the codes of the queries."""
    encoder = open_text_encoder(bundle)
    return [pack(encoder.encode(text)) for _, text, *_ in QUERIES]


def enrol(hub: Hub, recorder: Recorder, is_approved: bool = True) -> None:
    """Make a recorder known."""
    enter(hub.registry, recorder.enrolment(), NOW_NS - 20 * 86_400 * 10**9)
    if is_approved:
        hub.registry.devices.set_status(recorder.name, "enrolled")


def fill(hub: Hub, recorder: Recorder, seed: int, codes: Sequence[np.ndarray], n_days: int) -> None:
    """Let a recorder deliver days of windows; some recorders stop early, all have a gap."""
    assert hub.bundle is not None
    enrol(hub, recorder)
    hub.registry.devices.set_place(recorder.name, *PLACES[recorder.name])
    generator = np.random.default_rng(seed)
    stops_ns = NOW_NS - {3: 2, 4: 4}.get(seed, 0) * 86_400 * 10**9
    starts = np.arange(NOW_NS // 10**9 - n_days * 86_400, stops_ns // 10**9, WINDOW_S) + seed
    in_gap = (starts > starts[len(starts) // 2]) & (starts < starts[len(starts) // 2] + 20_000)
    starts = starts[~in_gap]
    packed = [code.tobytes() for code in generator.integers(0, 256, (len(starts), 32), np.uint8)]
    detections = []
    for number, (name, text, peak, width, share) in enumerate(QUERIES):
        away = np.abs((starts / 3600 - peak + 12) % 24 - 12)
        often = 0.3 * share * np.exp(-((away / width) ** 2)) * (1 + (seed + number) % 3)
        for seq in np.flatnonzero(generator.random(len(starts)) < often).tolist():
            distance = int(generator.integers(30, 75))
            packed[seq] = near(codes[number], distance, generator)
            probability = float(np.clip(1.15 - distance / 100, 0, 1))
            per_day = float(10 ** (distance / 20 - 3.5))
            clip = f"clips/{seq}.flac"
            each = (seq, name, text, distance, probability, per_day, clip)
            detections.append(Detection(recorder.name, recorder.epoch, *each))
    for start in range(0, len(starts), MAX_RUN):
        part = run_of(recorder, starts, packed, hub.bundle.manifest.code_space, slice(start, start + MAX_RUN))
        hub.ingest.take(recorder.envelope(recorder.batch([part])))
    batch = recorder.batch(
        next=(len(starts) + (40 if seed == 2 else 0), len(detections), 1),
        detections=tuple(enumerate(detections)),
        events=(recorder.event(0, "microphone unplugged"),),
        dropped=((len(starts), 30, "the disk was full"),) if seed == 2 else (),
        health={
            "at_ns": stops_ns,
            "last_code_ns": int(starts[-1]) * 10**9,
            "coverage": 0.97,
            "battery_percent": 88 - 19 * seed,
            "temperature_c": 31.5 + 9 * seed,
            "disk_free_bytes": 21_000_000_000,
            "version": "0.1.0",
            "uptime_s": 830_000,
        },
    )
    hub.ingest.take(recorder.envelope(batch))
    newest = sorted(detections, key=lambda each: each.seq, reverse=True)
    for each in newest[:: max(1, len(detections) // 6)]:
        keep_clip(hub, recorder, each.seq, generator)


def near(code: np.ndarray, distance: int, generator: np.random.Generator) -> bytes:
    """Return a code at a distance of another."""
    bits = np.unpackbits(code, bitorder="little")
    bits[generator.choice(256, distance, replace=False)] ^= 1
    return np.packbits(bits, bitorder="little").tobytes()


def run_of(
    recorder: Recorder, starts: np.ndarray, codes: Sequence[bytes], code_space: str, part: slice
) -> Run:
    """Return a part of the observations that start at times in s since 1970."""
    since_s = (starts - starts[0])[part]
    same = np.ones(len(since_s), np.int64)
    columns = Columns(
        source=0 * same,
        first_sample=since_s * RATE_HZ,
        n_samples=5 * RATE_HZ * same,
        sample_rate_hz=RATE_HZ * same,
        boot=0 * same,
        boottime_ns=10**12 + since_s * 10**9,
        wall_ns=starts[part] * 10**9,
        clock_state=2 * same,
    )
    source = f"microphone:{recorder.name}"
    packed = (pack_columns(columns), pack_codes(codes[part]))
    return Run(part.start, len(since_s), code_space, (source,), ("boot",), *packed)


def keep_clip(hub: Hub, recorder: Recorder, seq: int, generator: np.random.Generator) -> None:
    """Let somebody ask for a clip, and the recorder send it."""
    number = hub.registry.devices.named(recorder.name).number
    hub.registry.people.want_clip(number, recorder.epoch, seq, NOW_NS)
    take(hub.registry, hub.settings.clips_folder, recorder.clip(seq, hoots(generator)), NOW_NS)


def hoots(generator: np.random.Generator, duration_s: float = 5.0) -> bytes:
    """Return a FLAC of something like an owl."""
    time_s = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
    sound = 0.02 * generator.standard_normal(len(time_s))
    for start_s in np.arange(0.4, duration_s - 0.7, 1.3):
        inside = (time_s > start_s) & (time_s < start_s + 0.6)
        pitch_hz = 900 + 500 * np.sin(2 * np.pi * 1.6 * (time_s - start_s))
        for harmonic in (1, 2, 3, 5):
            sound += (
                inside * 0.3 / harmonic**1.5 * np.sin(2 * np.pi * np.cumsum(harmonic * pitch_hz) / RATE_HZ)
            )
    out = io.BytesIO()
    soundfile.write(out, (0.5 * sound).astype(np.float32), RATE_HZ, format="FLAC")
    return out.getvalue()
