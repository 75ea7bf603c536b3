"""A trial of delivery: thousands of random steps of a fleet, a hub and a bad line between them; then every seq is accounted for.

As a command: python -m tests.simulate.delivery_trial FOLDER --steps 10000 [--hub-folder ON_A_SMALL_DISK]
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from edge.errors import SyncError
from edge.store_epochs import Section, sections
from edge.store_reader import StoreReader
from edge.store_runs import StoreRuns
from hub.store_registry import Registry
from tests.simulate.fault_proxy import Fault, FaultProxy, random_faults
from tests.simulate.fleet import DROPPED, FIRST_WALL_NS, FieldRecorder, make_fleet
from tests.simulate.hub_process import HubProcess

_WEIGHTS = {
    "record": 28,
    "visit": 40,
    "give up observations": 4,
    "lose the cursor": 4,
    "all visit at once": 1,
    "copy a card": 2,
    "restore an old card": 1,
    "clone a recorder": 1,
    "kill the hub": 1,
    "fill the hub's disk": 1,
}
_MAX_RECORDERS, _MAX_COPIES = 14, 12
_BACK_AFTER = 0.25  # chance in each step that a hub that is down is started again, or a full disk emptied
_LAST_ROUNDS = 5

Epoch = tuple[str, int]
Parts = dict[Epoch, tuple[int, int]]  # epoch of the store, and from which seq on


class DeliveryTrial:
    """One trial. With small_disk, hub_folder must be on a small file system of its own, which gets full now and then.

    dirty: epochs of stores of which there is, or was, more than one copy.
    """

    def __init__(
        self,
        folder: Path,
        hub_folder: Path,
        seed: int,
        n_recorders: int,
        *,
        small_disk: bool,
        fault_share: float = 0.4,
    ) -> None:
        self._folder, self._random, self._small_disk = folder, random.Random(seed), small_disk
        folder.mkdir(parents=True, exist_ok=True)
        self.hub = HubProcess(hub_folder, folder / "hub.log")
        with Registry.open(self.hub.settings.registry_path) as registry:
            self.fleet = make_fleet(folder / "cards", registry, n_recorders, time.time_ns(), seed)
        self.proxy = FaultProxy("http://127.0.0.1:9", random_faults(seed, fault_share), seed)
        self.steps, self.outcomes = Counter[str](), Counter[str]()
        self.dirty: set[Epoch] = set()
        self._copies: list[tuple[FieldRecorder, Path, Epoch | None]] = []
        self._n_folders = self._salt = 0
        self._is_full = False
        self._last_error = ""

    def __enter__(self) -> DeliveryTrial:
        self.proxy.__enter__()
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hub.free_disk()
        self.hub.kill()
        self.proxy.__exit__(kind, error, trace)

    def step(self) -> None:
        """Do one thing of those that happen in the field."""
        if not self.hub.is_running and self._random.random() < _BACK_AFTER:
            self._start()
        if self._is_full and self._random.random() < _BACK_AFTER:
            self.hub.free_disk()
            self._is_full = False
        (name,) = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        recorder = self._random.choice(self.fleet)
        self.steps[name] += 1
        match name:
            case "record":
                recorder.record(self._random.randint(1, 60), self._now_ns(), gap=self._random.random() < 0.2)
            case "visit":
                self._visit(recorder)
            case "give up observations":
                n = self._random.randint(1, 20)
                recorder.record(n, self._now_ns(), n_dropped=self._random.randint(1, n))
            case "lose the cursor":
                recorder.lose_cursor()
            case "all visit at once":
                with ThreadPoolExecutor(8) as pool:
                    list(pool.map(self._visit, self.fleet))
            case "copy a card":
                if len(self._copies) < _MAX_COPIES and _may_be_copied(recorder):
                    copy = recorder.copy_card(self._new_folder(recorder))
                    self._copies.append((recorder, copy, _epoch(recorder)))
            case "restore an old card":
                self._restore()
            case "clone a recorder":
                self._clone(recorder)
            case "kill the hub":
                self.hub.kill()
            case "fill the hub's disk":
                if self._small_disk:
                    self.hub.fill_disk()
                    self._is_full = True

    def settle(self) -> None:
        """Give everybody time, a good line and a hub with room: all that waits arrives."""
        self.hub.free_disk()
        self._is_full = False
        if not self.hub.is_running:
            self._start()
        self.proxy.choose = Fault
        for recorder in self.fleet:
            for _ in range(_LAST_ROUNDS):
                if not recorder.store_path.exists() or self._visit(recorder) == "delivered":
                    break
            else:
                raise AssertionError(f"{recorder.name}: expected that all arrives, found {self._last_error}")
        self.hub.stop()  # hands on to the archive what is still on its way

    def check(self) -> dict[str, int]:
        """Require that every seq is stored once or dropped, with the code that was recorded; return what was counted.

        Of cards that were copied: that all that is on any card still in use is at the hub, whatever another one has sent.
        """
        truth = {identity: codes for each in self.fleet for identity, codes in each.truth.items()}
        parts = {(each.name, epoch): part for each in self.fleet for epoch, part in each.parts.items()}
        sent = set[tuple[str, int, int]]()
        stored: dict[tuple[str, int, int], set[bytes]] = {}
        for device, epoch, seq, code in self.hub.observations():
            assert (device, epoch, seq) not in sent, f"{device} {epoch} {seq}: expected once, found twice"
            sent.add((device, epoch, seq))
            identity = _in_store(parts, device, epoch, seq)
            assert code in truth[identity] - {DROPPED}, f"{identity}: found a code that was never recorded"
            stored.setdefault(identity, set()).add(code)
        dropped = set()
        for device, epoch, first, n in self.hub.rows(
            "SELECT name, epoch, first_seq, n FROM dropped JOIN device ON device.number = dropped.device"
        ):
            start = _in_store(parts, str(device), int(str(epoch)), int(str(first)))
            dropped |= {(*start[:2], start[2] + i) for i in range(int(str(n)))}
        for identity in dropped:
            assert identity not in stored or identity[:2] in self.dirty, (
                f"{identity}: found stored and dropped"
            )
            assert DROPPED in truth[identity], f"{identity}: expected one that was recorded, found it dropped"
        for identity, codes in truth.items():
            if identity[:2] not in self.dirty:
                assert identity in dropped or identity in stored, (
                    f"{identity}: expected stored or dropped, found neither"
                )
                assert (identity in dropped) == (codes == {DROPPED}), identity
        for recorder in self.fleet:
            self._check_card(recorder, stored, dropped, parts)
        n_conflicts = self._check_conflicts(parts)
        return {
            "observations": sum(len(codes) for codes in truth.values()),
            "stored": len(sent),
            "of them by two epochs": len(sent) - sum(len(codes) for codes in stored.values()),
            "dropped": len(dropped),
            "of cards that nobody copied": sum(identity[:2] not in self.dirty for identity in truth),
            "epochs of stores": len({identity[:2] for identity in truth}),
            "of copied cards": len(self.dirty),
            "epochs begun for what a copy recorded": len(parts) - len({identity[:2] for identity in truth}),
            "ranges in conflict": n_conflicts,
        }

    def _check_card(
        self,
        recorder: FieldRecorder,
        stored: dict[tuple[str, int, int], set[bytes]],
        dropped: set[tuple[str, int, int]],
        parts: Parts,
    ) -> None:
        """Require that the hub has all that is on a card that is still in use: each code, detection and event."""
        if not recorder.store_path.exists():
            return
        detected = {
            (_in_store(parts, recorder.name, int(str(epoch)), int(str(seq))), query)
            for epoch, seq, query in self.hub.rows(
                f"SELECT epoch, seq, query FROM detection JOIN device ON device.number = device WHERE name = '{recorder.name}'"
            )
        }
        with StoreReader.open(recorder.store_path) as reader:
            root = (recorder.name, reader.epoch)
            for each in reader.observations():
                assert each.code in stored.get((*root, each.seq), ()), (
                    f"{root}: {each.seq} of the card is lost"
                )
            for each, detection in reader.detections():
                assert ((*root, each.seq), detection.query) in detected, f"{root}: {detection} is lost"
            for first, n, _ in reader.dropped():
                for seq in range(first, first + n):
                    assert (*root, seq) in dropped or (*root, seq) in stored, f"{root}: {seq} is not told"
        with StoreRuns.open(recorder.store_path) as store:
            for section in sections(store):
                self._check_section(section, is_copied=root in self.dirty)

    def _check_section(self, section: Section, *, is_copied: bool) -> None:
        """Require that the hub has as many detections and events of an epoch as there are, without holes."""
        for table, n in (("detection", section.made()[1]), ("event", section.made()[2])):
            ((n_found, last),) = self.hub.rows(
                f"SELECT count(*), coalesce(max({table}.number) + 1, 0) FROM {table} JOIN device ON device.number = {table}.device"
                f" WHERE name = '{section.device_id}' AND epoch = {section.epoch}"
            )
            found = (
                f"{section.device_id} {section.epoch}: expected {n} of {table}, found {n_found} up to {last}"
            )
            assert n_found == last, found
            assert int(str(n_found)) >= n if is_copied else n_found == n, found

    def _check_conflicts(self, parts: Parts) -> int:
        found = self.hub.rows(
            "SELECT name, epoch FROM conflict JOIN device ON device.number = conflict.device"
        )
        for device, epoch in found:
            assert _in_store(parts, str(device), int(str(epoch)), 0)[:2] in self.dirty, (
                f"{device} {epoch}: expected no conflict, found one"
            )
        return len(found)

    def _visit(self, recorder: FieldRecorder) -> str:
        """Let a recorder visit; return what came of it."""
        if not recorder.store_path.exists():
            return "nothing recorded"
        try:
            totals = recorder.visit(self.proxy.url)
            self.outcomes["epochs begun for older copies"] += totals.n_epochs_begun
            outcome = "pending" if totals.is_pending else "delivered"
        except SyncError as error:
            self._last_error, outcome = str(error), "failed"
        self.outcomes[outcome] += 1
        return outcome

    def _restore(self) -> None:
        if not self._copies:
            return
        recorder, copy, epoch = self._copies.pop(self._random.randrange(len(self._copies)))
        self.dirty |= {each for each in (_epoch(recorder), epoch) if each is not None}
        self._salt += 1
        recorder.restore(copy, self._salt)

    def _clone(self, recorder: FieldRecorder) -> None:
        epoch = _epoch(recorder)
        if epoch is None or len(self.fleet) >= _MAX_RECORDERS or not _may_be_copied(recorder):
            return
        self.dirty.add(epoch)
        self._salt += 1
        self.fleet.append(recorder.cloned(self._new_folder(recorder), self._salt))

    def _start(self) -> None:
        if self.hub.start():
            self.proxy.upstream = self.hub.url
        else:
            assert self._is_full, (
                f"{self.hub.folder}: expected a hub that starts, found none; see {self._folder}/hub.log"
            )

    def _new_folder(self, recorder: FieldRecorder) -> Path:
        self._n_folders += 1
        return self._folder / f"copy-{self._n_folders}-{recorder.name}"

    def _now_ns(self) -> int:
        return FIRST_WALL_NS + sum(self.steps.values()) * 3600 * 10**9


def _in_store(parts: Parts, device: str, epoch: int, seq: int) -> tuple[str, int, int]:
    """Return which number of which store an observation at the hub is."""
    root, first = parts[device, epoch]
    return device, root, first + seq


def _may_be_copied(recorder: FieldRecorder) -> bool:
    """Return whether a card is one of the half that is cloned and restored; of the others nothing at all may be lost."""
    return recorder.seed % 2 == 1


def _epoch(recorder: FieldRecorder) -> Epoch | None:
    return _known_epoch(recorder) if recorder.store_path.exists() else None


def _known_epoch(recorder: FieldRecorder) -> Epoch:
    with StoreRuns.open(recorder.store_path) as store:
        return recorder.name, store.epoch


def main(argv: Sequence[str] | None = None) -> int:
    """Run a trial and print what it counted; an AssertionError tells what is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hub-folder", type=Path, help="on a small file system of its own, which gets full")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--recorders", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    began_s = time.monotonic()
    with DeliveryTrial(
        args.folder,
        args.hub_folder or args.folder / "hub",
        args.seed,
        args.recorders,
        small_disk=args.hub_folder is not None,
    ) as trial:
        for n in range(args.steps):
            trial.step()
            if n % 500 == 499:
                print(f"{n + 1} steps, {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
        trial.settle()
        counted = trial.check()
    table = {
        "seed": args.seed,
        "steps": sum(trial.steps.values()),
        **counted,
        "minutes": round((time.monotonic() - began_s) / 60, 1),
        "done": dict(trial.steps),
        "visits": dict(trial.outcomes),
        "requests": dict(trial.proxy.n),
    }
    print(json.dumps(table, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
