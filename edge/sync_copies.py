"""Whether a store is the one that the hub heard of before, or an older copy of its card: found by sending something twice.

The hub compares what comes twice and overwrites nothing, so a record that it keeps and that differs tells of the copy. That is
asked where the hub keeps more than this side can account for: after a lost reply, a lost cursor, or a restored card.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edge.batch import STREAMS, Batch, Progress, Range, Receipt, Stream
from edge.store_cursor import Mark
from edge.store_epochs import Numbers, Section
from edge.sync_plan import n_records, packed

_GLANCE = 16  # records sent again to see whether the newest ones at the hub are ours
_AT_ONCE = 512  # records of one question while the first difference is looked for
_WALKED = 4096  # records that are compared one by one before the place that halving comes to

Ask = Callable[[Batch], int]  # sends a batch; gives how many of its records differ from what the hub keeps
Known = Mapping[Stream, Progress]


@dataclass(slots=True)
class Sure:
    """How far the hub keeps exactly what a part of the store holds. is_newest: what was remembered last is borne out."""

    section: Section
    next: dict[Stream, int]
    is_newest: bool = True
    is_changed: bool = False

    @classmethod
    def of(cls, section: Section, marks: Sequence[Mark]) -> Sure:
        """Begin with the newest mark that the store bears out. marks: the newest first."""
        for i, mark in enumerate(marks):
            if all(_digest(section, stream, mark[stream][0]) == mark[stream][1] for stream in STREAMS):
                return cls(section, {stream: mark[stream][0] for stream in STREAMS}, i == 0)
        return cls(section, dict.fromkeys(STREAMS, 0), not marks)

    def mark(self) -> Mark:
        """Return what is to be remembered."""
        return {s: (n, _digest(self.section, s, n) or "") for s, n in self.next.items()}

    def compare(self, batch: Batch, receipt: Receipt, ask: Ask) -> Numbers | None:
        """Take the receipt of a batch; return from where on the store differs (counted in the store), None where it does not."""
        made = dict(zip(STREAMS, self.section.made(), strict=True))
        expected = {stream: max(self.next[stream], n) for stream, n in _ends(batch).items()}
        differs = receipt.n_conflicts > 0
        for stream, known in receipt.progress.items():
            differs |= known.next > made[stream]
            if not differs and known.next > expected[stream]:
                end = min(known.next, made[stream])
                differs = self._n_differing(stream, known, max(0, end - _GLANCE), end, ask) > 0
        if differs:
            return self._first(receipt.progress, ask)
        self._agreed(receipt.progress)
        return None

    def beyond(self, progress: Known) -> Numbers | None:
        """Return as compare does, of a hub that compares nothing: all that is not sure, where the store is another one."""
        made = dict(zip(STREAMS, self.section.made(), strict=True))
        if self.is_newest and all(known.next <= made[stream] for stream, known in progress.items()):
            self._agreed(progress)
            return None
        last = [each.seq for _, each in self.section.detections(self.next["detections"] - 1, 1)]
        seq = max([self.next["observations"], *(seq + 1 for seq in last)])
        return self._in_store(seq, self.next["detections"], self.next["events"])

    def _agreed(self, progress: Known) -> None:
        """Note that the hub keeps what the store holds, as far as it says."""
        now = {stream: progress[stream].next for stream in STREAMS}
        self.is_changed |= now != self.next
        self.next = now

    def _first(self, progress: Known, ask: Ask) -> Numbers:
        """Look for the first record that differs; nothing before it may differ, it would never be sent."""
        section = self.section
        n_made = section.made()
        found = {stream: self._first_of(stream, progress[stream], ask) for stream in STREAMS}
        seqs = [n_made[0]]
        if found["observations"] is not None:
            seqs.append(found["observations"])
        if found["detections"] is not None:
            seqs += [each.seq for _, each in section.detections(found["detections"], 1)]
        if found["events"] is not None:
            seqs += [each.before_seq for each in section.events(found["events"], 1)]
        seq = min(seqs)
        for first, n, _ in reversed(section.dropped()):  # what was given up is never compared
            seq = first if first < seq <= first + n else seq
        detection = bisect_left(range(n_made[1]), seq, key=lambda k: _seq_of(section, k))
        event = bisect_left(range(n_made[2]), seq, key=lambda k: _before_seq_of(section, k))
        known = progress["events"]
        while event < n_made[2] and _kept(known, event, event + 1):
            if self._n_differing("events", known, event, event + 1, ask):
                break
            event += 1  # made before the copy was
        return self._in_store(seq, detection, event)

    def _in_store(self, seq: int, detection: int, event: int) -> Numbers:
        first = self.section.first
        shift = first[2] - int(self.section.epoch != self.section.store.epoch)
        return first[0] + seq, first[1] + detection, max(first[2], shift + event)

    def _first_of(self, stream: Stream, known: Progress, ask: Ask) -> int | None:
        """Return the first number of a stream that differs at the hub, None where none does."""
        low = self.next[stream]
        high = min(known.next, self.section.made()[STREAMS.index(stream)])
        while high - low > _WALKED:
            middle = (low + high) // 2
            if self._n_differing(stream, known, middle - _GLANCE, middle, ask):
                high = middle
            else:
                low = middle
        for start in range(max(self.next[stream], low - _WALKED), high, _AT_ONCE):
            first, end = start, min(start + _AT_ONCE, high)
            if not self._n_differing(stream, known, first, end, ask):
                continue
            while end - first > 1:
                middle = (first + end) // 2
                if self._n_differing(stream, known, first, middle, ask):
                    end = middle
                else:
                    first = middle
            return first
        return None

    def _n_differing(self, stream: Stream, known: Progress, first: int, end: int, ask: Ask) -> int:
        """Send again what the hub keeps of [first, end); return how many records differ."""
        section = self.section
        question = Batch(section.device_id, section.epoch, section.made())
        ranges = _kept(known, first, end)
        if stream == "observations":
            runs = tuple(packed(run) for start, n in ranges for run in section.runs(start, n))
            question = replace(question, runs=runs)
        elif stream == "detections":
            found = tuple(each for start, n in ranges for each in section.detections(start, n))
            question = replace(question, detections=found)
        else:
            question = replace(
                question, events=tuple(each for start, n in ranges for each in section.events(start, n))
            )
        return ask(question) if n_records(question) else 0


def _kept(known: Progress, first: int, end: int) -> list[Range]:
    """Return the ranges of [first, end) that the hub keeps."""
    found, end = [], min(end, known.next)
    for start, n in (*known.missing, (end, 0)):
        if first < min(start, end):
            found.append((first, min(start, end) - first))
        first = max(first, start + n)
    return found


def _ends(batch: Batch) -> dict[Stream, int]:
    """Return by stream the number after the last one in a batch."""
    observations = [run.first_seq + run.n for run in batch.runs] + [at + n for at, n, _ in batch.dropped]
    return {
        "observations": max(observations, default=0),
        "detections": max((number + 1 for number, _ in batch.detections), default=0),
        "events": max((each.number + 1 for each in batch.events), default=0),
    }


def _digest(section: Section, stream: Stream, end: int) -> str | None:
    """Return what tells the record before a number from any other, None where the store has not made it."""
    if end > section.made()[STREAMS.index(stream)]:
        return None
    found = section.digest(stream, end - 1)
    return "" if found is None else found.hex()


def _seq_of(section: Section, number: int) -> int:
    return next((each.seq for _, each in section.detections(number, 1)), 0)


def _before_seq_of(section: Section, number: int) -> int:
    return next((each.before_seq for each in section.events(number, 1)), 0)
