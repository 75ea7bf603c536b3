"""Bundles to publish, good and bad ones, and a recorder that takes them; all real, in a temporary folder."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from edge.bundle import Bundle, new_code_space, write_bundle
from edge.codes import pack
from edge.query import Query
from edge.run_start import write_start
from edge.store import ObservationStore
from edge.update import visit
from edge.update_client import UpdateClient
from edge.update_install import Installed
from edge.update_trial import Rules, resume
from edge.watchlist import Watchlist
from hub.publisher import Publisher
from tests.simulate.recorder import Recorder

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"


def now() -> datetime:
    return datetime.now(timezone.utc)


def watchlist_for(bundle: Bundle, *names: str) -> Watchlist:
    """Return a watchlist of made-up codes in a bundle's code space."""
    codes = [pack(np.random.default_rng(len(name)).normal(size=256)).tobytes() for name in names]
    queries = [Query(name, f"a {name}", code=code) for name, code in zip(names, codes, strict=True)]
    return Watchlist(bundle.manifest.code_space, 256, "tiny", tuple(queries))


def other_space(folder: Path, version: str = "2") -> Bundle:
    """Write the tiny bundle under another code space."""
    tiny = Bundle.load(TINY)
    manifest = replace(tiny.manifest, version=version, code_space=new_code_space("tiny", version))
    return write_bundle(folder, manifest, files_in(tiny))


def wrong_codes(folder: Path) -> Bundle:
    """Write a bundle whose files are all as its manifest says, and whose encoder does not give its golden codes."""
    tiny = Bundle.load(TINY)
    golden = tiny.golden("audio")
    assert golden is not None
    changed = {
        name: -value if name.startswith("logits") else ~value if name.startswith("codes") else value
        for name, value in golden.items()
    }
    stream = io.BytesIO()
    np.savez(stream, **changed)  # type: ignore[arg-type]
    entries = tuple(
        replace(each, sha256=hashlib.sha256(stream.getvalue()).hexdigest())
        if each.modality == "audio"
        else each
        for each in tiny.manifest.golden
    )
    files = files_in(tiny) | {next(e.file for e in entries if e.modality == "audio"): stream.getvalue()}
    return write_bundle(folder, replace(tiny.manifest, version="bad", golden=entries), files)


def no_encoder(folder: Path) -> Bundle:
    """Write a bundle whose encoder is no model at all."""
    tiny = Bundle.load(TINY)
    junk = b"\x3a\x00"  # an empty graph: nothing outside of it, and nothing in it
    encoders = tuple(
        replace(each, sha256=hashlib.sha256(junk).hexdigest())
        if (each.modality, each.runtime) == ("audio", "onnx")
        else each
        for each in tiny.manifest.encoders
    )
    name = next(e.file for e in encoders if (e.modality, e.runtime) == ("audio", "onnx"))
    manifest = replace(tiny.manifest, version="junk", encoders=encoders)
    return write_bundle(folder, manifest, files_in(tiny) | {name: junk})


def files_in(bundle: Bundle) -> dict[str, bytes | Path]:
    return {each.name: each for each in bundle.folder.iterdir() if each.name != "manifest.json"}


@dataclass
class FieldRecorder:
    """A recorder with the tiny bundle, whose clock and codes a test makes."""

    folder: Path
    url: str
    root: bytes
    test: Callable[[Path], list[str]] = lambda pair: []
    now_ns: int = 1_790_000_000 * 10**9
    restarts: list[str] = field(default_factory=list)
    starts: bool = True
    runs_anew: bool = True  # edge-monitor begins anew when it is asked to

    def __post_init__(self) -> None:
        self.installed = Installed(self.folder / "updates")
        tiny = Bundle.load(TINY)
        self.installed.adopt(tiny, watchlist_for(tiny, "first"))
        self.record(5, tiny.manifest.code_space)

    def visit(self, watchlist: str = "default") -> str:
        rules = Rules(self.test, self._restart, self.folder / "store.sqlite", lambda: self.now_ns, 3600.0, 10)
        resume(self.installed, rules)
        with closing(UpdateClient(self.folder / "tuf", self.url, self.root)) as client:
            return visit(self.installed, client, watchlist, rules)

    def record(self, n: int, code_space: str) -> None:
        with ObservationStore.open(self.folder / "store.sqlite") as store:
            made = Recorder("owl-1", space=code_space).run(store.next_seq, n)
            for each in made.observations(store.device_id, store.epoch):
                store.add(each, [])

    def runs(self) -> tuple[str, str]:
        """Return version and first query of what runs, after seeing that both belong together."""
        from edge.watchlist import load_watchlist

        bundle = Bundle.load(self.installed.current / "bundle")
        bundle.verify()
        listed = load_watchlist(
            self.installed.current / "watchlist.json", bundle.manifest.code_space, bundle.manifest.code_bits
        )
        assert isinstance(listed, Watchlist)
        return bundle.manifest.version, listed.queries[0].name

    def _restart(self) -> bool:
        self.restarts.append(self.runs()[0])
        if self.starts and self.runs_anew:
            self.start()
        return self.starts

    def start(self) -> None:
        """Begin as edge-monitor does, with the installed pair."""
        with ObservationStore.open(self.folder / "store.sqlite") as store:
            pair = int(self.installed.current.resolve().name)
            write_start(self.folder / "store.sqlite", pair, store.epoch, store.next_seq)


def publish(publisher: Publisher, bundle: Bundle, *names: str, watchlist: str = "default") -> int:
    """Publish a bundle with queries of these names; return the number of the pair."""
    return publisher.publish(bundle, watchlist_for(bundle, *names), watchlist, 1).number
