"""What to send next: detections first, then what went missing at the hub, then from the front; by the tier of the link."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from edge.batch import MAX_RECORDS, STREAMS, Batch, Progress, Range, Run, Stream
from edge.config import Link
from edge.observation import MAX_INT, Detection
from edge.store_blocks import pack_columns
from edge.store_epochs import Section
from edge.store_runs import StoredRun, StoreRuns

TIERS: tuple[Link, ...] = get_args(Link)
MAX_JUMP = 1_000_000  # the hub refuses numbers further ahead of what it keeps
_CODE_BYTES = 32  # of an observation, at most
_FACTS_BYTES = (
    8  # of an observation beside its code, packed: 1 where time is steady, 8 where each is of another file
)
_RUN_BYTES = 160  # of a run of one observation beside its code and names
_RECORD_BYTES = 48  # of a detection or an event beside its texts

Refused = Mapping[Stream, frozenset[int]]


@dataclass(frozen=True, slots=True)
class Limit:
    """How much one batch may hold; it always holds one record where there is one. codes: False = no observations."""

    n_bytes: int
    n_records: int = MAX_RECORDS
    codes: bool = True


@dataclass(slots=True)
class _Room:
    """What is left of a limit while a batch is filled."""

    n_bytes: int
    n_records: int
    is_empty: bool = True

    def take(self, n_bytes: int) -> bool:
        """Take one record's bytes; return whether there was room. The first record always has."""
        if self.n_records < 1 or not (self.is_empty or n_bytes <= self.n_bytes):
            return False
        self.n_bytes -= n_bytes
        self.n_records -= 1
        self.is_empty = False
        return True

    def fitting(self, each_bytes: int) -> int:
        """Return how many records of this size fit."""
        n = min(self.n_records, max(0, self.n_bytes) // each_bytes)
        return max(n, 1) if self.is_empty and self.n_records else n


@dataclass(slots=True)
class Plan:
    """Fills batches from a store. refused: numbers that the hub does not take, never offered again."""

    store: StoreRuns | Section
    link: Link
    refused: Refused = field(default_factory=dict)

    def next_batch(
        self, progress: Mapping[Stream, Progress], limit: Limit, health: Mapping[str, Any] | None
    ) -> Batch:
        """Return what to send next; without records where the hub keeps all that this link is for."""
        made = self.store.made()
        waiting = {
            stream: unsettled(progress[stream], n, self.refused.get(stream, frozenset()))
            for stream, n in zip(STREAMS, made, strict=True)
        }
        room = _Room(limit.n_bytes, min(limit.n_records, MAX_RECORDS))
        detections = list(self._detections(waiting["detections"], room))
        best: list[Run] = []
        if self.link == "satellite" and limit.codes:
            near = progress["observations"].next + MAX_JUMP
            best = list(self._best(detections, waiting["observations"], near, room))
        events = list(self._events(waiting["events"], room))
        runs, dropped = best, list[tuple[int, int, str]]()
        if self.link == "lte" and limit.codes:
            runs, dropped = self._observations(waiting["observations"], room)
        return Batch(
            self.store.device_id,
            self.store.epoch,
            made,
            tuple(runs),
            tuple(detections),
            tuple(events),
            tuple(dropped),
            health,
        )

    def _detections(self, waiting: Iterable[Range], room: _Room) -> Iterator[tuple[int, Detection]]:
        for first, n in waiting:
            for number, each in self.store.detections(first, n):
                n_bytes = len(each.query.encode()) + len(each.text.encode()) + len((each.clip or "").encode())
                if not room.take(_RECORD_BYTES + n_bytes):
                    return
                yield number, each

    def _best(
        self,
        detections: Sequence[tuple[int, Detection]],
        waiting: Sequence[Range],
        near: int,
        room: _Room,
    ) -> Iterator[Run]:
        """Give the code of each query's most probable detection of these, so that it travels with its detection."""
        best: dict[str, Detection] = {}
        for _, each in detections:
            if each.query not in best or each.probability > best[each.query].probability:
                best[each.query] = each
        for seq in sorted({each.seq for each in best.values()}):
            if seq < near and any(first <= seq < first + n for first, n in waiting):
                for stored in self.store.runs(seq, 1):
                    if not room.take(_RUN_BYTES + _names_bytes(stored) + 8 * len(stored.planes)):
                        return
                    yield packed(stored)

    def _events(self, waiting: Iterable[Range], room: _Room) -> Iterator[Any]:
        for first, n in waiting:
            for event in self.store.events(first, min(n, room.n_records)):
                n_bytes = len(event.kind) + len(event.source.encode()) + len(event.reason.encode())
                if not room.take(_RECORD_BYTES + n_bytes):
                    return
                yield event

    def _observations(
        self, waiting: Sequence[Range], room: _Room
    ) -> tuple[list[Run], list[tuple[int, int, str]]]:
        """Return runs and dropped ranges, both from the front: what is settled then grows without leaving holes."""
        runs: list[Run] = []
        told: list[tuple[int, int, str]] = []
        dropped = deque(self.store.dropped())
        for start, n in waiting:
            first, end = start, start + n
            while first < end:
                while dropped and sum(dropped[0][:2]) <= first:
                    dropped.popleft()
                if dropped and dropped[0][0] <= first:
                    if not room.take(_RECORD_BYTES + len(dropped[0][2].encode())):
                        return runs, told
                    told.append(dropped.popleft())
                    first = sum(told[-1][:2])
                    continue
                stop = min(end, dropped[0][0]) if dropped else end
                n_fitting = room.fitting(_CODE_BYTES + _FACTS_BYTES)
                if not n_fitting:
                    return runs, told
                run = next(self.store.runs(first, min(stop - first, n_fitting)), None)
                if run is None:
                    first = stop
                    continue
                room.n_bytes -= run.n * (8 * len(run.planes) + _FACTS_BYTES) + _names_bytes(run)
                room.n_records -= run.n
                room.is_empty = False
                runs.append(packed(run))
                first = run.first_seq + run.n
        return runs, told


def packed(stored: StoredRun) -> Run:
    """Return a stored run as it travels."""
    return Run(
        stored.first_seq,
        stored.n,
        stored.code_space,
        stored.sources,
        stored.boots,
        pack_columns(stored.columns),
        stored.planes.astype("<u8", copy=False).tobytes(),
    )


def unsettled(progress: Progress, made: int, refused: frozenset[int] = frozenset()) -> list[Range]:
    """Return the ranges of [0, made) that the hub does not keep and has not refused, in order."""
    ranges = [(first, min(n, made - first)) for first, n in progress.missing if first < made]
    if progress.next < made:
        ranges.append((progress.next, made - progress.next))
    return [part for each in ranges for part in _without(each, refused)]


def n_records(batch: Batch) -> int:
    """Return how many records a batch holds; a dropped range is one."""
    n = len(batch.detections) + len(batch.events) + len(batch.dropped)
    return n + sum(run.n for run in batch.runs)


def gone(batch: Batch, progress: Mapping[Stream, Progress]) -> Batch:
    """Return a batch without the detections and events that a line had no room for; such a line carries nothing else."""
    left = {stream: unsettled(progress[stream], MAX_INT) for stream in STREAMS[1:]}

    def went(stream: Stream, number: int) -> bool:
        return not any(first <= number < first + n for first, n in left[stream])

    return replace(
        batch,
        runs=(),
        dropped=(),
        detections=tuple(each for each in batch.detections if went("detections", each[0])),
        events=tuple(each for each in batch.events if went("events", each.number)),
    )


def only_record(batch: Batch) -> tuple[Stream, int]:
    """Return which record a batch of one holds."""
    if batch.detections:
        return "detections", batch.detections[0][0]
    if batch.events:
        return "events", batch.events[0].number
    return "observations", batch.dropped[0][0] if batch.dropped else batch.runs[0].first_seq


def _without(each: Range, refused: frozenset[int]) -> Iterator[Range]:
    first, n = each
    end = first + n
    for number in sorted(number for number in refused if first <= number < end):
        if number > first:
            yield first, number - first
        first = number + 1
    if first < end:
        yield first, end - first


def _names_bytes(stored: StoredRun) -> int:
    return len(stored.code_space) + sum(len(name.encode()) for name in (*stored.sources, *stored.boots))
