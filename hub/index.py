"""edge-hub index: recordings and pictures that exist already become observations of the hub, in parallel processes."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge.bundle import Bundle
from edge.encoder import RuntimeChoice
from edge.errors import HubError
from hub.index_delivery import Deliver
from hub.index_encoding import Encoded, EncodingSettings, refused, suffixes_of
from hub.index_files import FileArchive, Listed, Unlisted, open_archive, place_id, place_name, plain_place
from hub.index_schedule import Crew, encode_all
from hub.index_workers import Orders, ProcessCrew
from hub.store_index import IndexStore, Problem, Task, Totals

FILE_TIMEOUT_S = 3600.0
_KEEP_EVERY_S = 1.0
_KEEP_FILES = 256
_DELIVER_OBSERVATIONS = 4096  # in a batch, while more is to come
_DELIVER_EVERY_S = 30.0  # or less often than that
_MAX_UNREADABLE = (
    20  # files in a row: more means that the disk or the network has gone, not that files are bad
)


@dataclass(frozen=True, slots=True)
class IndexJob:
    """What to index and how. name: of the device that the archive is at the hub, "" = made of its place.

    n_workers: 0 = a CPU each; ray: address of a cluster, "" = processes of this machine; retry: try again what gave nothing.
    """

    place: str
    bundle: Path
    name: str = ""
    runtime: RuntimeChoice = "auto"
    hop_s: float | None = None
    n_workers: int = 1
    ray: str = ""
    retry: bool = False
    file_timeout_s: float = FILE_TIMEOUT_S

    @property
    def device_id(self) -> str:
        """Return the name under which the observations are kept."""
        return self.name or f"{place_name(self.place)}-{place_id(self.place)}"


@dataclass(frozen=True, slots=True)
class Indexed:
    """What a run came to. n_new: files that were new or changed; unlisted: folders that could not be read."""

    device_id: str
    epoch: int
    n_new: int
    totals: Totals
    problems: tuple[Problem, ...]
    unlisted: tuple[Unlisted, ...]


class Report(Protocol):
    """Who is told how far it is."""

    def begun(self, totals: Totals, n_workers: int) -> None:
        """All files are known."""

    def encoded(self, task: Task, encoded: Encoded) -> None:
        """One more file is done."""

    def waited(self) -> None:
        """Time has passed."""


def epoch_of(device_id: str, code_space: str, hop_s: float | None) -> int:
    """Return the epoch of an archive's observations: the same for the same encoder and hop, so that twice is once."""
    told = f"{device_id}\0{code_space}\0{hop_s}".encode()
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big") >> 1


def index(
    job: IndexJob,
    progress: Path,
    deliver: Deliver,
    report: Report,
    clock: Callable[[], float] = time.monotonic,
) -> Indexed:
    """Index what is new in an archive; return when the hub keeps it. May be stopped at any moment, and run again.

    progress: the file in which it is noted how far it is; one for each hub. Raises FieldcubeError.
    """
    bundle = Bundle.load(job.bundle)
    suffixes = suffixes_of(bundle)
    epoch = epoch_of(job.device_id, bundle.manifest.code_space, job.hop_s)
    settings = EncodingSettings(job.device_id, epoch, job.runtime, job.hop_s)
    archive = open_archive(job.place)
    orders = Orders(job.bundle, job.place, settings)
    unlisted: list[Unlisted] = []
    with ExitStack() as opened:
        store = opened.enter_context(IndexStore(progress, job.device_id, epoch, plain_place(job.place)))
        crew, n_workers = _crew(job, orders, opened)
        deliver.enrol(job.device_id)
        n_new = store.retry_problems() if job.retry else 0
        n_new += store.add_files(_listed(archive, suffixes, unlisted))
        report.begun(store.totals(), n_workers)
        if next(store.tasks(), None) is not None:
            _encode(job, store, crew, n_workers, settings, deliver, report, clock)
        while _deliver_next(store, deliver, 0):
            pass
        store.settle()
        return Indexed(job.device_id, epoch, n_new, store.totals(), tuple(store.problems()), tuple(unlisted))


def _crew(job: IndexJob, orders: Orders, opened: ExitStack) -> tuple[Crew, int]:
    """Return who encodes, and how many they are."""
    if not job.ray:
        return ProcessCrew(orders), job.n_workers or _n_cpus()
    from hub.index_ray import RayCrew  # brings Ray: only where it is asked for

    crew = RayCrew(job.ray, orders)
    opened.callback(crew.close)
    return crew, job.n_workers or crew.n_cpus


def _encode(
    job: IndexJob,
    store: IndexStore,
    crew: Crew,
    n_workers: int,
    settings: EncodingSettings,
    deliver: Deliver,
    report: Report,
    clock: Callable[[], float],
) -> None:
    """Encode what is pending; note results, and deliver them, every now and then."""
    results: list[tuple[Task, Encoded]] = []
    unreadable: list[tuple[Task, Encoded]] = []  # the last ones in a row
    kept_s = delivered_s = clock()

    def refuse(task: Task, reason: str) -> Encoded:
        return refused(settings, task.name, reason)

    done = encode_all(store.tasks(), crew, n_workers, refuse, file_timeout_s=job.file_timeout_s, clock=clock)
    try:
        for each in done:
            if each is None:
                report.waited()
            elif each[1].is_unreadable:
                unreadable.append(each)
                if len(unreadable) > _MAX_UNREADABLE:
                    raise HubError(
                        f"{plain_place(job.place)}: expected files that can be read, found {len(unreadable)} in a row that cannot "
                        f"({each[1].problem}); is it still there? Then run the same command again: they count as not yet tried"
                    )
            else:
                results += [*unreadable, each]
                unreadable = []
                report.encoded(*each)
            now_s = clock()
            if results and (now_s - kept_s >= _KEEP_EVERY_S or len(results) >= _KEEP_FILES):
                store.keep(results)
                results, kept_s = [], now_s
                is_late = now_s - delivered_s >= _DELIVER_EVERY_S
                while _deliver_next(store, deliver, 1 if is_late else _DELIVER_OBSERVATIONS):
                    delivered_s = now_s
        results += unreadable
    finally:
        done.close()
        store.keep(results)


def _deliver_next(store: IndexStore, deliver: Deliver, at_least: int) -> bool:
    """Deliver one batch; return whether there was one. Raises HubError where the hub keeps something else."""
    delivery = store.next_delivery(at_least)
    if delivery is None:
        return False
    batch = delivery.batch
    receipt = deliver.keep(batch)
    if receipt.n_conflicts:
        raise HubError(
            f"{batch.device_id}: expected a hub that has nothing else under these numbers, found {receipt.n_conflicts} "
            f"observations or events that differ; {store.path} is not the progress of this hub: give another --name"
        )
    store.delivered(delivery)
    return True


def _listed(archive: FileArchive, suffixes: frozenset[str], unlisted: list[Unlisted]) -> Iterator[Listed]:
    for found in archive.list(suffixes):
        if isinstance(found, Unlisted):
            unlisted.append(found)
        else:
            yield found


def _n_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
