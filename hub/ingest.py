"""Ingest: a signed batch becomes a receipt once it is on the disk, and its codes go on to the archive.

Batches that wait at the same time are committed together. What was committed goes to the archive in a thread of its own; what
a crash left on the way goes there at the next start. The archive knows blocks by their first uid, so twice is once.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import islice

from edge.batch import Batch, Purpose, Receipt, decode_batch, decode_envelope
from edge.device_key import is_signed
from edge.errors import ArchiveError, FieldcubeError, HubError, WireError
from hub.archive import Archive, ArchiveBlock
from hub.digests import run_digests
from hub.reconciliation import reconcile
from hub.refusal import BusyError, NoRoomError, UnauthorizedError
from hub.store_registry import Registry
from hub.store_registry_devices import Device
from hub.store_registry_intake import Arrival, Kept

log = logging.getLogger(__name__)

MAX_TOGETHER = 64  # batches of one commit
_MAX_BLOCKS = 512  # handed to the archive at once

_Waiting = tuple[Arrival, "Future[Kept]"]


def opened(registry: Registry, purpose: Purpose, body: bytes) -> tuple[Device, bytes]:
    """Return who sent an envelope, and its payload: signed by a recorder that is enrolled.

    Raises WireError for what is no envelope, UnauthorizedError for all that may not send.
    """
    name, payload, signature = decode_envelope(body)
    device = registry.devices.find(name)
    if device is None or device.status != "enrolled":
        found = "an unknown one" if device is None else device.status
        raise UnauthorizedError(f"device {name!r}: expected a recorder that is enrolled, found {found}")
    if not is_signed(device.public, purpose, payload, signature):
        raise UnauthorizedError(f"device {name!r}: expected the signature of its key, found another")
    return device, payload


class Ingest:
    """Takes batches from any number of threads. Use it as a context manager or call close().

    now_ns: the clock, UTC. max_waiting: batches that may wait for the disk; retry_s: until an archive that failed is tried
    again; ask_again: what an empty archive has lost, too. Registry and archive are reconciled first. Raises HubError where another
    process takes in batches of this registry, and where a person must decide about registry and archive.
    """

    def __init__(
        self,
        registry: Registry,
        archive: Archive,
        now_ns: Callable[[], int],
        max_waiting: int = 256,
        retry_s: float = 5.0,
        *,
        ask_again: bool = False,
    ) -> None:
        self._registry, self._archive, self.now_ns = registry, archive, now_ns
        self._retry_s = retry_s
        self._lock = registry.database.lock_ingest()
        try:
            reconcile(registry, archive, now_ns(), ask_again=ask_again)
        except BaseException:
            os.close(self._lock)
            raise
        self._arrivals: queue.Queue[_Waiting | None] = queue.Queue(max_waiting)
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._archived = threading.Condition()
        self._n_behind = 1  # so that the first round looks for what a crash left
        self._committer = threading.Thread(target=self._commit_all, name="ingest", daemon=True)
        self._archiver = threading.Thread(target=self._archive_all, name="archiver", daemon=True)
        self._committer.start()
        self._archiver.start()
        self._news.set()

    def take(self, body: bytes) -> Receipt:
        """Return the receipt of an envelope with a batch, once it is committed and synced.

        Raises WireError, UnauthorizedError, OverQuotaError, NoRoomError, BusyError where too many wait, HubError.
        """
        return self.submit(body).result().receipt

    def submit(self, body: bytes) -> Future[Kept]:
        """Check an envelope with a batch and let it wait for the next commit; the future raises as take does."""
        device, payload = opened(self._registry, "batch", body)
        batch = decode_batch(payload)
        if batch.device_id != device.name:
            raise WireError(f"device: expected a batch of {device.name!r}, found one of {batch.device_id!r}")
        return self.submit_arrival(self.arrival(device, batch, len(body)))

    def keep(self, device: Device, batch: Batch) -> Receipt:
        """Keep a batch of which the caller knows who sent it, as from a frame or a folder of recordings."""
        return self.submit_arrival(self.arrival(device, batch, 0)).result().receipt

    def arrival(self, device: Device, batch: Batch, n_bytes: int) -> Arrival:
        """Check and digest the observations of a batch that came as n_bytes. Raises WireError."""
        columns = tuple(run.unpacked() for run in batch.runs)
        key = self._registry.intake.digest_key
        digests = tuple(
            run_digests(run, unpacked, key) for run, unpacked in zip(batch.runs, columns, strict=True)
        )
        return Arrival(device.number, batch, columns, digests, n_bytes)

    def submit_arrival(self, arrival: Arrival) -> Future[Kept]:
        """Let an arrival wait for the next commit. Raises BusyError where too many wait."""
        waiting: Future[Kept] = Future()
        waiting.set_running_or_notify_cancel()  # it will be committed, whoever gives up waiting
        if self._stopping.is_set():
            raise BusyError("the hub is stopping")
        try:
            self._arrivals.put_nowait((arrival, waiting))
        except queue.Full:
            raise BusyError(
                f"expected fewer batches than {self._arrivals.maxsize} at once; come again"
            ) from None
        return waiting

    def wait_archived(self, timeout_s: float | None = None) -> bool:
        """Wait until everything that is committed is in the archive; return whether it is."""
        with self._archived:
            return self._archived.wait_for(lambda: self._n_behind == 0, timeout_s)

    def close(self) -> None:
        """Commit what waits, hand it to the archive and stop. What the archive does not take stays in the outbox."""
        self._stopping.set()
        self._arrivals.put(None)
        self._committer.join()
        self._news.set()
        self._archiver.join()
        os.close(self._lock)

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _commit_all(self) -> None:
        """Commit what waits, several batches at once, until None comes."""
        while True:
            found = [self._arrivals.get()]
            while len(found) < MAX_TOGETHER and found[-1] is not None:
                try:
                    found.append(self._arrivals.get_nowait())
                except queue.Empty:
                    break
            group = [each for each in found if each is not None]
            if group:
                self._commit(group)
            if len(group) < len(found):
                return

    def _commit(self, group: list[_Waiting]) -> None:
        try:
            answers = self._registry.intake.keep([arrival for arrival, _ in group], self.now_ns())
        except NoRoomError as error:
            if len(group) > 1:  # a smaller one may still fit
                for each in group:
                    self._commit([each])
                return
            log.warning("%s", error)
            group[0][1].set_exception(error)
            return
        except Exception as error:  # the thread must live on; whoever waits is told
            log.exception("a commit failed")
            for _, waiting in group:
                waiting.set_exception(
                    error if isinstance(error, FieldcubeError) else HubError(f"a commit failed: {error!r}")
                )
            return
        n_blocks = sum(len(answer.blocks) for answer in answers if isinstance(answer, Kept))
        n_detections = sum(len(arrival.batch.detections) for arrival, _ in group)
        if n_blocks or n_detections:
            with self._archived:
                self._n_behind += 1
            self._news.set()
        for (_, waiting), answer in zip(group, answers, strict=True):
            if isinstance(answer, Kept):
                waiting.set_result(answer)
            else:
                waiting.set_exception(answer)

    def _archive_all(self) -> None:
        """Hand the outbox to the archive whenever something is in it, until close()."""
        while True:
            self._news.wait()
            self._news.clear()
            is_last = self._stopping.is_set() and not self._committer.is_alive()
            with self._archived:
                n_seen = self._n_behind
            try:
                self._archive_waiting()
            except (
                Exception
            ) as error:  # the thread must live on; nothing is lost, the codes wait in the outbox
                level = logging.WARNING if isinstance(error, HubError) else logging.ERROR
                log.log(level, "the archive does not take codes, they wait in the registry: %r", error)
                if not is_last and not self._stopping.wait(self._retry_s):
                    self._news.set()
                    continue
            else:
                with self._archived:
                    self._n_behind -= n_seen
                    self._archived.notify_all()
            if is_last:
                return

    def _archive_waiting(self) -> None:
        intake = self._registry.intake
        told_later = set(intake.untold())  # what comes in meanwhile is still on its way to the archive
        waiting = intake.waiting()
        while blocks := list(islice(waiting, _MAX_BLOCKS)):
            self._archive.add(blocks)
            intake.archived(blocks)
        told_until = 0
        for uid in sorted(told_later.intersection(intake.untold())):
            if uid >= told_until:  # a block tells all of its detections at once
                block = self._block_at(uid)
                intake.tell(block)
                told_until = block.first_uid + block.n

    def _block_at(self, uid: int) -> ArchiveBlock:
        """Return the block of the archive in which an observation is. Raises ArchiveError where there is none."""
        for block in self._archive.blocks(uid):
            if block.first_uid <= uid < block.first_uid + block.n:
                return block
            break
        raise ArchiveError(f"archive: expected observation {uid}, which was handed to it, found none")
