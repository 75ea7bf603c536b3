"""The observation store's writer: every observation and detection, committed in groups, outlives a kill or power cut."""

from __future__ import annotations

import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from edge.errors import ObservationError, StoreError
from edge.observation import Detection, Observation
from edge.store_files import WriterLock, put_aside
from edge.store_schema import Event, store_path
from edge.store_tables import StoreTables
from edge.store_uncommitted import Uncommitted
from edge.utf8 import shown

LOG = logging.getLogger(__name__)

BLOCK_OBSERVATIONS = 8192  # 4096..16384 search alike; 256 KiB of codes, folded every 11 h at 5 s windows


class ObservationStore:
    """The only writer of one store. Not thread-safe; use it as a context manager or call close().

    An observation's identity is (device_id, epoch, next_seq) at the time of add(). epoch and next_seq jump when the
    database had to be begun anew: read them for every observation.
    """

    @classmethod
    def open(
        cls,
        path: Path | str | None,
        device_id: str | None = None,
        *,
        commit_interval_s: float = 5.0,
        block_observations: int = BLOCK_OBSERVATIONS,
        max_uncommitted: int = 5000,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        new_epoch: Callable[[], int] = lambda: secrets.randbits(63),
    ) -> ObservationStore:
        """Open or create the store for writing.

        path: file, existing folder (observations.sqlite in it) or None (./fieldcube.sqlite). device_id: None takes the
        store's own, or "recorder" in a new one. commit_interval_s: longest time that an observation stays in memory
        while commits succeed. max_uncommitted: observations kept in memory while they fail.
        A damaged database is renamed (put_aside tells) and a new one with a new epoch begun.
        Raises StoreError: another writer, another program's file, a newer schema, another device_id, no space.
        """
        chosen = store_path(path)
        try:
            chosen.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{chosen}: expected a folder for it, found {error}; give another --store"
            ) from error
        store = cls(
            chosen, device_id, commit_interval_s, block_observations, max_uncommitted, clock, now, new_epoch
        )
        try:
            store._retry_once_anew(store._connected)
            store._lock.mark()
        except BaseException:
            store._lock.release()
            raise
        return store

    def __init__(
        self,
        path: Path,
        device_id: str | None,
        commit_interval_s: float,
        block_observations: int,
        max_uncommitted: int,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        new_epoch: Callable[[], int],
    ) -> None:
        self.path = path
        self.put_aside: tuple[Path, ...] = ()  # damaged databases renamed since open
        self.n_dropped = 0  # observations given up since open, because they could not be written for too long
        self._device_id = device_id
        self._epoch: int | None = None
        self._next_seq = 0
        self._next_event = 0
        self._interval_s, self._block_n, self._max_uncommitted = (
            commit_interval_s,
            block_observations,
            max_uncommitted,
        )
        self._clock, self._now, self._new_epoch = clock, now, new_epoch
        self._uncommitted = Uncommitted()
        self._due_s: float | None = None
        self._failure: str | None = None  # why the last commit failed
        self._tables: StoreTables | None = None
        self._lock = WriterLock(path)

    @property
    def device_id(self) -> str:
        """Return the id of the device whose observations these are."""
        assert self._device_id is not None  # open() has connected once
        return self._device_id

    @property
    def epoch(self) -> int:
        """Return the random id of this database."""
        assert self._epoch is not None  # open() has connected once
        return self._epoch

    @property
    def next_seq(self) -> int:
        """Return the seq that the next observation must carry."""
        return self._next_seq

    @property
    def committed_seq(self) -> int:
        """Return the seq below which everything is on the disk, or in a dropped range that is."""
        firsts = [observation.seq for observation, _ in self._uncommitted.observations[:1]]
        firsts += [first for first, _ in self._uncommitted.dropped[:1]]
        return min(firsts, default=self._next_seq)

    @property
    def failure(self) -> str | None:
        """Return why the last commit failed, None where it did not."""
        return self._failure

    def add(self, observation: Observation, detections: Sequence[Detection] = ()) -> None:
        """Take an observation and its detections; they are on the disk after the next commit.

        Raises ObservationError when its identity is not (device_id, epoch, next_seq), and StoreError when a commit
        was due and failed: the observation is then kept in memory, the next attempt comes after commit_interval_s.
        """
        expected = (self.device_id, self.epoch, self._next_seq)
        identities = [(observation.device_id, observation.epoch, observation.seq)]
        identities += [(detection.device_id, detection.epoch, detection.seq) for detection in detections]
        for found in identities:
            if found != expected:
                raise ObservationError(
                    f"{self.path}: expected (device, epoch, seq) {expected}, found {found}"
                )
        self._uncommitted.observations.append((observation, tuple(detections)))
        self._next_seq += 1
        try:
            if self._failure is None and len(self._uncommitted.observations) >= self._max_uncommitted:
                self.flush()
            else:
                self.commit_if_due()
        finally:
            self._drop_excess()

    def record_gap(
        self, source: str, first_sample: int, n_samples: int, reason: str, *, sample_rate_hz: int
    ) -> None:
        """Note that n_samples from first_sample of source were lost. Raises StoreError as add does."""
        self._record("gap", source, reason, first_sample, n_samples, sample_rate_hz)
        self.commit_if_due()

    def record_skipped(self, source: str, reason: str) -> None:
        """Note that a source could not be read to its end. Raises StoreError as add does."""
        self._record("skipped", source, reason)
        self.commit_if_due()

    def commit_if_due(self) -> None:
        """Commit if commit_interval_s have passed since the first uncommitted item or the last failure."""
        if not self._uncommitted:
            return
        if self._due_s is None:
            self._due_s = self._clock() + self._interval_s
        if self._clock() >= self._due_s:
            self.flush()

    def flush(self) -> None:
        """Commit everything now. Raises StoreError when that fails; what is not on the disk stays in memory."""
        if self._uncommitted:
            self._retry_once_anew(self._commit)

    def close(self) -> None:
        """Commit, close the database and let other writers in. Raises StoreError when the commit fails."""
        try:
            self.flush()
        finally:
            self._disconnect()
            self._lock.release()

    def __enter__(self) -> ObservationStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _record(
        self, kind: str, source: str, reason: str, first_sample: int = 0, n_samples: int = 0, rate_hz: int = 0
    ) -> None:
        event = Event(
            self._next_event,
            kind,
            self._next_seq,
            shown(source),
            first_sample,
            n_samples,
            rate_hz,
            shown(reason),
        )
        self._next_event += 1
        self._uncommitted.events.append(event)
        if len(self._uncommitted.events) > self._max_uncommitted:
            LOG.warning("%s: event lost: %s", self.path, self._uncommitted.events.pop(0))

    def _drop_excess(self) -> None:
        while len(self._uncommitted.observations) > self._max_uncommitted:
            if self.n_dropped == 0:
                LOG.warning("%s: giving up observations that cannot be written: %s", self.path, self._failure)
            self._uncommitted.drop_oldest()
            self.n_dropped += 1

    def _retry_once_anew(self, attempt: Callable[[], object]) -> None:
        """Run attempt; put a damaged database aside and run it once more on a new one.

        After any other fault the connection is given up, because SQLite lets the commit after a failed sync succeed:
        the next attempt opens the file again and looks what is in it.
        """
        try:
            try:
                attempt()
            except sqlite3.DatabaseError as error:
                if type(error) is not sqlite3.DatabaseError:  # its subclasses are full disks, faults, locks
                    raise
                self._put_aside(error)
                attempt()
        except (sqlite3.Error, OSError, StoreError) as error:
            self._disconnect()
            self._failure = str(error)
            self._due_s = self._clock() + self._interval_s
            if isinstance(error, StoreError):
                raise
            raise StoreError(
                f"{self.path}: expected to write the store, found {error}; "
                f"{len(self._uncommitted.observations)} observations wait in memory: free space, or check the disk"
            ) from error
        if self._failure is not None:
            LOG.info("%s: written again after: %s", self.path, self._failure)
        self._failure = None
        self._due_s = self._clock() if self._uncommitted else None

    def _put_aside(self, error: sqlite3.DatabaseError) -> None:
        self._disconnect()
        may_be_ours = self._lock.is_ours or self._epoch is not None
        aside = put_aside(self.path, now=self._now(), may_be_ours=may_be_ours)
        LOG.warning("%s: damaged (%s); renamed to %s, a new store is begun", self.path, error, aside)
        self.put_aside += (aside,)
        self._record("recovered", str(aside), f"database damaged: {error}")

    def _commit(self) -> None:
        """Write everything uncommitted, then fold full runs of the tail into blocks."""
        tables = self._connected()
        waiting = self._uncommitted
        tables.write(
            waiting.observations, waiting.events, waiting.dropped, f"not written in time: {self._failure}"
        )
        self._uncommitted = Uncommitted()
        while tables.n_tail >= self._block_n:
            tables.fold(self._block_n)

    def _connected(self) -> StoreTables:
        """Return the open tables; open them where they are not, and settle what is still to be written."""
        if self._tables is not None and self._tables.is_current():
            return self._tables
        if self._tables is not None:
            LOG.warning("%s: the file was removed or replaced while it was open", self.path)
            self._disconnect()
        tables = self._tables = StoreTables(self.path, self._device_id, self._new_epoch())
        seq, event = tables.next_numbers()
        waiting = self._uncommitted
        if tables.epoch == self._epoch:
            waiting.forget_stored(seq, event)
            self._next_seq = max(self._next_seq, seq)
        else:
            waiting.renumber(tables.epoch, seq, event)
            self._next_seq = seq + len(waiting.observations)
        self._next_event = max([event, *(waits.number + 1 for waits in waiting.events)])
        self._device_id, self._epoch = tables.device_id, tables.epoch
        return tables

    def _disconnect(self) -> None:
        if self._tables is not None:
            try:
                self._tables.close()
            except sqlite3.Error as error:
                LOG.warning("%s: closing: %s", self.path, error)
        self._tables = None
