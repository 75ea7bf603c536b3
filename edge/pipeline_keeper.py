"""What becomes of every observation, of sound or of a picture: numbered, stored and told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from edge.audio_events import Block, Gap, Skipped
from edge.errors import StoreError
from edge.observation import Detection, Instant, Observation


class Store(Protocol):
    """What remembers: edge.store, or nothing at all."""

    @property
    def device_id(self) -> str:
        """Return whose observations these are."""
        ...

    @property
    def epoch(self) -> int:
        """Return the id of the database; it may change between two observations."""
        ...

    @property
    def next_seq(self) -> int:
        """Return the seq of the next observation."""
        ...

    @property
    def failure(self) -> str | None:
        """Return why it cannot write just now, None where it can."""
        ...

    def add(self, observation: Observation, detections: Sequence[Detection] = ()) -> None:
        """Take an observation and its detections. Raises StoreError where it cannot write just now."""
        ...

    def record_gap(
        self, source: str, first_sample: int, n_samples: int, reason: str, *, sample_rate_hz: int
    ) -> None:
        """Note lost sound. Raises StoreError as add does."""
        ...

    def record_skipped(self, source: str, reason: str) -> None:
        """Note a source that could not be heard or seen. Raises StoreError as add does."""
        ...

    def commit_if_due(self) -> None:
        """Write what waited long enough. Raises StoreError as add does."""
        ...


class Listener(Protocol):
    """Who is told what happens, in order."""

    def heard(self, block: Block) -> None:
        """Sound arrived."""

    def observed(self, observation: Observation, detections: Sequence[Detection]) -> None:
        """A window or a picture became an observation, and the store has taken it."""

    def lost(self, gap: Gap, sample_rate_hz: int) -> None:
        """Sound is missing."""

    def skipped(self, skipped: Skipped) -> None:
        """A source, or the rest of one, could not be heard or seen."""

    def failing(self, reason: str) -> None:
        """The store cannot write, or ("") can again; recording goes on."""


@dataclass(slots=True)
class Totals:
    """What a run came to; n_windows: of sound, and pictures; busy_s: from having one to having stored it.

    n_limited: alarms that were held back because their query was at its limit an hour.
    """

    n_windows: int = 0
    n_pictures: int = 0
    n_detections: int = 0
    n_gaps: int = 0
    n_skipped: int = 0
    n_clips_lost: int = 0
    n_limited: int = 0
    seconds_audio: float = 0.0
    busy_s: float = 0.0


@dataclass(slots=True)
class Keeper:
    """The end of every way: a store, and a listener who is told; totals are kept up to date.

    A store that cannot write does not stop it: the store keeps what it can in memory and tries again by itself.
    """

    store: Store
    listener: Listener
    totals: Totals = field(default_factory=Totals)
    _is_failing: bool = False

    def observation(
        self,
        code: bytes,
        code_space: str,
        source: str,
        first_sample: int,
        sample_rate_hz: int,
        n_samples: int,
        instant: Instant,
    ) -> Observation:
        """Return the next observation of the store; keep() must follow before another is asked for."""
        return Observation(
            device_id=self.store.device_id,
            epoch=self.store.epoch,
            seq=self.store.next_seq,
            code=code,
            code_space=code_space,
            source=source,
            first_sample=first_sample,
            sample_rate_hz=sample_rate_hz,
            n_samples=n_samples,
            instant=instant,
        )

    def keep(self, observation: Observation, detections: Sequence[Detection]) -> None:
        """Store an observation and its detections."""
        with self._writing():
            self.store.add(observation, detections)
        self.totals.n_windows += 1
        self.totals.n_pictures += observation.is_picture
        self.totals.n_detections += len(detections)

    def lose(self, gap: Gap, sample_rate_hz: int) -> None:
        """Store a gap, and tell of it."""
        self.totals.n_gaps += 1
        with self._writing():
            self.store.record_gap(
                gap.source, gap.first_sample, gap.n_samples, gap.reason, sample_rate_hz=sample_rate_hz
            )
        self.listener.lost(gap, sample_rate_hz)

    def skip(self, skipped: Skipped) -> None:
        """Store what could not be heard or seen, and tell of it."""
        self.totals.n_skipped += 1
        with self._writing():
            self.store.record_skipped(skipped.source, skipped.reason)
        self.listener.skipped(skipped)

    def write_if_due(self) -> None:
        """Let the store write what waited long enough."""
        with self._writing():
            self.store.commit_if_due()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold back a failure of the store; tell when failures begin and when they end."""
        reason = ""
        try:
            yield
        except StoreError as error:
            reason = str(error)
        reason = (
            reason or self.store.failure or ""
        )  # that nothing was due does not mean that it can write again
        if bool(reason) != self._is_failing:
            self._is_failing = bool(reason)
            self.listener.failing(reason)
