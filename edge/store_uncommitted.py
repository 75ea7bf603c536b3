"""What the store's writer holds in memory until the next commit, and how it survives a failed one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edge.observation import Detection, Observation
from edge.store_schema import Event


@dataclass(slots=True)
class Uncommitted:
    """What add() and record_*() took and no commit has yet put on the disk."""

    observations: list[tuple[Observation, tuple[Detection, ...]]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    dropped: list[tuple[int, int]] = field(default_factory=list)  # (first_seq, n)

    def __bool__(self) -> bool:
        return bool(self.observations or self.events or self.dropped)

    def drop_oldest(self) -> None:
        """Give up the oldest observation without a detection, or the oldest of all."""
        index = next((i for i, (_, detections) in enumerate(self.observations) if not detections), 0)
        seq = self.observations.pop(index)[0].seq
        if self.dropped and sum(self.dropped[-1]) == seq:
            self.dropped[-1] = (self.dropped[-1][0], self.dropped[-1][1] + 1)
        else:
            self.dropped.append((seq, 1))
            self.dropped.sort()

    def forget_stored(self, next_seq: int, next_event: int) -> None:
        """Forget what a commit of unknown outcome turns out to have stored."""
        self.observations = [item for item in self.observations if item[0].seq >= next_seq]
        self.events = [event for event in self.events if event.number >= next_event]
        ends = [(max(first, next_seq), first + n) for first, n in self.dropped]
        self.dropped = [(first, end - first) for first, end in ends if end > first]

    def renumber(self, epoch: int, next_seq: int, next_event: int) -> None:
        """Give everything its identity in a new database; what was dropped belonged to the old one."""
        renumbered = []
        for seq, (observation, detections) in enumerate(self.observations, start=next_seq):
            moved = tuple(replace(detection, epoch=epoch, seq=seq) for detection in detections)
            renumbered.append((replace(observation, epoch=epoch, seq=seq), moved))
        self.observations = renumbered
        self.events = [
            replace(event, number=number, before_seq=next_seq)
            for number, event in enumerate(self.events, start=next_event)
        ]
        self.dropped = []
