"""Recorders that have listened for hours: real learnt backgrounds, beside real stores."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge.alarms import Alarms
from edge.bundle import Bundle, ReferenceEntry, write_bundle
from edge.config import Config
from edge.monitor_alarms import StateKeeper, open_alarms
from edge.observation import Instant, Observation
from edge.query import Query, QueryPart
from edge.store import ObservationStore
from edge.watchlist import Watchlist

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"
HOP_S = 60.0


def quiet(n: int, seed: int) -> np.ndarray:
    """Return codes [n, 32] that are 128 +- 8 bits from everything."""
    return np.random.default_rng(seed).integers(0, 256, (n, 32), np.uint8)


def with_background(folder: Path) -> Bundle:
    """Write the tiny bundle with reference codes."""
    tiny, stream, none = Bundle.load(TINY), io.BytesIO(), np.zeros(0, np.int64)
    empty = np.zeros((0, 32), np.uint8)
    np.savez(
        stream, background=quiet(3_000, 0), runs=np.zeros(3_000, np.int64), sounds=empty, sound_text=none,
        sound_event=none, snr_db=np.zeros(0), texts=np.zeros(0, "U1"), text_codes=empty,
    )  # fmt: skip
    content = stream.getvalue()
    entry = ReferenceEntry("reference.npz", hashlib.sha256(content).hexdigest(), HOP_S, "made up")
    files: dict[str, bytes | Path] = {p.name: p for p in tiny.folder.iterdir() if p.name != "manifest.json"}
    return write_bundle(folder, replace(tiny.manifest, reference=entry), {**files, "reference.npz": content})


def asked(bundle: Bundle, n_queries: int = 1) -> Watchlist:
    """Return a watchlist: sentences with rates of their own, one of two sentences, one with confirmation, and a decoy."""
    codes = [row.tobytes() for row in quiet(n_queries + 4, 1)]
    two = (QueryPart("a dog", codes[0]), QueryPart("an owl", codes[1]))
    queries = [
        Query("two", "a dog & an owl", code=codes[0], combine="and", parts=two, alarms_per_day=5.0),
        Query("often", "rain", code=codes[2], confirm=(2, 3), alarms_per_day=20.0),
        Query("wind", "wind", code=codes[3], decoy=True),
        *(Query(f"query {i}", f"query {i}", code=codes[4 + i]) for i in range(n_queries)),
    ]
    return Watchlist(bundle.manifest.code_space, 256, "tiny 1", tuple(queries))


def listen(
    bundle: Bundle, watchlist: Watchlist, store: Path, n: int, seed: int, device: str = "owl-1"
) -> Alarms:
    """Let a recorder hear n windows of its site, as edge-monitor does, and keep what it learnt beside its store."""
    alarms = open_alarms(bundle, watchlist, Config(), HOP_S, store)
    assert alarms is not None
    keeper = StateKeeper(alarms, store)
    with ObservationStore.open(store, device) as kept:
        for code in quiet(n, seed):
            instant = Instant("boot", 60 * 10**9 * kept.next_seq, None, "unset")
            facts = (code.tobytes(), bundle.manifest.code_space, "mic", 0, 100, 1000, instant)
            observation = Observation(device, kept.epoch, kept.next_seq, *facts)
            kept.add(observation)
            alarms.hear(observation)
    keeper.save()
    return alarms
