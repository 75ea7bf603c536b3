"""A fleet of simulated recorders: real stores, keys and cursors in folders, and the real client that visits the hub.

What is simulated is the sound: codes are random, each known from (seed, salt, seq), so that the hub can be asked what became
of every one. As a command it loads a running hub: python -m tests.simulate.fleet FOLDER URL --recorders 2000 --minutes 10
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge.batch import Purpose
from edge.config import Sync
from edge.device_key import DeviceKey
from edge.errors import SyncError
from edge.observation import Detection, Instant, Observation
from edge.store import ObservationStore
from edge.store_cursor import SyncCursor, cursor_path
from edge.store_epochs import sections
from edge.store_runs import StoreRuns
from edge.sync_carrier import Answer, Carrier
from edge.sync_client import HttpCarrier
from edge.sync_delivery import Delivery, Totals
from edge.sync_pace import Pace
from hub.enrolment import new_code
from hub.store_registry import Registry

SPACE = "test-0123456789ab"
RATE_HZ = 32_000
WINDOW_NS = 5 * 10**9
FIRST_WALL_NS = 1_790_000_000 * 10**9
DROPPED = b""  # what a seq is remembered by that the recorder itself gave up
_QUERIES = ("owl", "chainsaw", "rain")
_STORE = "observations.sqlite"

Identity = tuple[str, int, int]  # device, epoch, seq
Truth = dict[Identity, set[bytes]]


def code_of(seed: int, salt: int, seq: int) -> bytes:
    """Return the code that a recorder makes of its seq-th window; another salt is another place or time."""
    return np.random.default_rng([seed, salt, seq]).bytes(32)


@dataclass(slots=True)
class FieldRecorder:
    """One recorder. folder: its memory card; truth: every code it ever made, shared with clones and older copies of it.

    parts: of which epoch of a store another one is a part, and from which seq on; shared likewise.
    """

    name: str
    folder: Path
    seed: int
    truth: Truth = field(default_factory=dict)
    salt: int = 0
    code: str | None = None
    n_events: int = 0
    parts: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def store_path(self) -> Path:
        """Return the observation store."""
        return self.folder / _STORE

    def record(self, n: int, now_ns: int = FIRST_WALL_NS, *, n_dropped: int = 0, gap: bool = False) -> None:
        """Make n observations, of which the first n_dropped are given up before they reach the disk; some are detected."""
        with ObservationStore.open(self.store_path, self.name, commit_interval_s=3600.0) as store:
            if gap:
                self.n_events += 1
                store.record_gap(
                    "microphone", self.n_events * 1000, 500, f"overrun {self.salt}", sample_rate_hz=RATE_HZ
                )
            for i in range(n):
                observation = self._observation(store, now_ns + i * WINDOW_NS)
                store.add(observation, [] if i < n_dropped else self._detections(observation))
                identity = (self.name, store.epoch, observation.seq)
                self.truth.setdefault(identity, set()).add(DROPPED if i < n_dropped else observation.code)
            for _ in range(n_dropped):
                store._uncommitted.drop_oldest()  # as when the disk was full for too long

    def visit(
        self, url: str, now_ns: Callable[[], int] = time.time_ns, carrier: Carrier | None = None
    ) -> Totals:
        """Deliver what waits, with the client that edge-sync is made of. Raises SyncError, and ConfigError for a bad URL."""
        settings, totals = Sync(hub=url, code=self.code), Totals()
        opened = HttpCarrier(url, patience_s=10.0) if carrier is None else carrier
        try:
            with StoreRuns.open(self.store_path) as store, SyncCursor.open(self.store_path) as cursor:
                key = DeviceKey.open(self.folder / "device.key")
                delivery = Delivery(
                    store,
                    cursor,
                    opened,
                    key,
                    settings,
                    lambda: {"at_ns": now_ns(), "battery_percent": 80.0},
                    lambda: Instant("boot", time.monotonic_ns(), now_ns(), "ntp"),
                    now_ns,
                    time.monotonic,
                    Pace(settings.batch_bytes),
                    totals,
                )
                try:
                    delivery.visit()
                finally:
                    for section in sections(store):
                        self.parts[section.epoch] = (store.epoch, section.first[0])
                return totals
        finally:
            if carrier is None:
                opened.close()

    def lose_cursor(self) -> None:
        """Lose what edge-sync remembers, as by a damaged file."""
        path = cursor_path(self.store_path)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)

    def copy_card(self, folder: Path) -> Path:
        """Copy the whole card, key and all; return where the copy is."""
        shutil.copytree(self.folder, folder)
        return folder

    def cloned(self, folder: Path, salt: int) -> FieldRecorder:
        """Return another recorder that runs on a copy of the card, and hears something else."""
        self.copy_card(folder)
        return FieldRecorder(
            self.name, folder, self.seed, self.truth, salt, self.code, self.n_events, self.parts
        )

    def restore(self, copy: Path, salt: int) -> None:
        """Put an old copy of the card back; what is recorded now is not what was recorded then."""
        shutil.rmtree(self.folder)
        shutil.copytree(copy, self.folder)
        self.salt = salt

    def _observation(self, store: ObservationStore, wall_ns: int) -> Observation:
        seq = store.next_seq
        return Observation(
            device_id=store.device_id,
            epoch=store.epoch,
            seq=seq,
            code=code_of(self.seed, self.salt, seq),
            code_space=SPACE,
            source="microphone",
            first_sample=seq * 160_000,
            sample_rate_hz=RATE_HZ,
            n_samples=160_000,
            instant=Instant("boot", 10**12 + seq * WINDOW_NS, wall_ns, "ntp"),
        )

    def _detections(self, found: Observation) -> list[Detection]:
        """Return a detection of every 16th observation or so."""
        if found.code[0] % 16:
            return []
        query = _QUERIES[found.code[1] % len(_QUERIES)]
        distance, probability = 60 + found.code[2] % 40, round(0.5 + found.code[3] / 512, 3)
        return [
            Detection(
                found.device_id,
                found.epoch,
                found.seq,
                query,
                f"the sound of {query}",
                distance,
                probability,
                0.5,
                None,
            )
        ]


def make_fleet(folder: Path, registry: Registry, n: int, now_ns: int, seed: int = 0) -> list[FieldRecorder]:
    """Return n recorders with codes that let them in at the hub; they enrol at their first visit."""
    fleet = []
    for i in range(n):
        name = f"recorder-{i:04d}"
        (folder / name).mkdir(parents=True)
        DeviceKey.open(folder / name / "device.key")  # so that a clone made before the first visit has it too
        code = new_code(registry, name, now_ns)
        fleet.append(FieldRecorder(name, folder / name, seed * 1_000_000 + i, code=code))
    return fleet


@dataclass(slots=True)
class Load:
    """What a fleet came to. latencies_s: of every batch, from the request to its receipt."""

    n_visits: int = 0
    n_observations: int = 0
    n_late: int = 0
    latencies_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    took_s: float = 0.0

    def summary(self) -> Mapping[str, float | int]:
        """Return the figures by name."""
        latencies = np.array(self.latencies_s or [0.0])
        p50, p99 = np.percentile(latencies, [50, 99])
        return {
            "visits": self.n_visits,
            "batches": len(self.latencies_s),
            "observations": self.n_observations,
            "observations_per_s": round(self.n_observations / self.took_s, 1) if self.took_s else 0.0,
            "errors": len(self.errors),
            "late_visits": self.n_late,
            "p50_ms": round(float(p50) * 1000, 1),
            "p99_ms": round(float(p99) * 1000, 1),
            "max_ms": round(float(latencies.max()) * 1000, 1),
            "minutes": round(self.took_s / 60, 2),
        }


class _Timed:
    """A carrier that takes the time of each batch."""

    def __init__(self, real: Carrier, latencies_s: list[float]) -> None:
        self._real, self._latencies_s = real, latencies_s

    def send(self, purpose: Purpose, body: bytes) -> Answer:
        began_s = time.perf_counter()
        answer = self._real.send(purpose, body)
        if purpose == "batch":
            self._latencies_s.append(time.perf_counter() - began_s)
        return answer

    def close(self) -> None:
        self._real.close()


def run_load(
    fleet: Sequence[FieldRecorder],
    url: str,
    minutes: float,
    *,
    visit_every_s: float = 60.0,
    n_threads: int = 16,
    tell: Callable[[Load], None] = lambda load: None,
) -> Load:
    """Let every recorder make an observation each 5 s and visit the hub as often as asked, spread over that time.

    A visit that begins more than visit_every_s after its time counts as late: then it is the simulation that cannot keep up.
    """
    load, lock = Load(), threading.Lock()
    began_s = time.monotonic()
    n_each = round(visit_every_s * 1e9 / WINDOW_NS)
    due = [(began_s + visit_every_s * i / len(fleet), i) for i in range(len(fleet))]
    heapq.heapify(due)

    def visit(i: int, due_s: float) -> None:
        latencies: list[float] = []
        recorder = fleet[i]
        error = ""
        n_sent = 0
        is_late = time.monotonic() - due_s > visit_every_s
        recorder.record(n_each, time.time_ns() - n_each * WINDOW_NS)
        carrier = _Timed(HttpCarrier(url, patience_s=60.0), latencies)
        try:
            n_sent = recorder.visit(url, carrier=carrier).n_observations
        except SyncError as failed:
            error = f"{recorder.name}: {failed}"
        finally:
            carrier.close()
        with lock:
            load.n_visits += 1
            load.n_late += is_late
            load.n_observations += n_sent
            load.latencies_s += latencies
            load.errors += [error] if error else []

    told_s = began_s
    running: set[Future[None]] = set()
    with ThreadPoolExecutor(n_threads) as pool:
        while due[0][0] < began_s + minutes * 60:
            due_s, i = heapq.heappop(due)
            now_s = time.monotonic()
            if due_s > now_s:
                time.sleep(due_s - now_s)
            running.add(pool.submit(visit, i, due_s))
            heapq.heappush(due, (due_s + visit_every_s, i))
            finished = {future for future in running if future.done()}
            running -= finished
            for future in finished:
                future.result()
            if time.monotonic() - told_s > 30:
                told_s = time.monotonic()
                load.took_s = told_s - began_s
                tell(load)
        for future in running:
            future.result()
    load.took_s = time.monotonic() - began_s
    return load


def main(argv: Sequence[str] | None = None) -> int:
    """Load a hub; return 1 where a visit failed, or batches took too long."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the hub's files: recorders are let in there")
    parser.add_argument("url", help="of the hub")
    parser.add_argument("--cards", type=Path, required=True, help="folder for the recorders' memory cards")
    parser.add_argument("--recorders", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--visit-every", type=float, default=60.0, metavar="S")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument(
        "--hub-process", type=int, metavar="PID", help="tell what it took of CPU and memory too"
    )
    parser.add_argument(
        "--most-p99-ms", type=float, default=float("inf"), help="fail where 1 %% of batches take longer"
    )
    args = parser.parse_args(argv)
    with Registry.open(args.folder / "hub.sqlite") as registry:
        fleet = make_fleet(args.cards, registry, args.recorders, time.time_ns())

    def tell(load: Load) -> None:
        print(json.dumps(load.summary()), file=sys.stderr, flush=True)

    load = run_load(
        fleet, args.url, args.minutes, visit_every_s=args.visit_every, n_threads=args.threads, tell=tell
    )
    for error in load.errors[:20]:
        print(error, file=sys.stderr)
    summary = {"recorders": args.recorders, **load.summary()}
    if args.hub_process:
        summary |= _used(args.hub_process)
    print(json.dumps(summary))
    return int(bool(load.errors) or summary["p99_ms"] > args.most_p99_ms)


def _used(pid: int) -> dict[str, float]:
    """Return the CPU seconds and the largest memory of a process; Linux only."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    ticks = int(times[11]) + int(times[12])
    return {
        "hub_cpu_s": round(ticks / os.sysconf("SC_CLK_TCK"), 1),
        "hub_peak_mb": round(int(status["VmHWM"].split()[0]) / 1024, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
