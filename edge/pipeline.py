"""The main path: sound -> windows -> encoder -> code -> observation -> matcher -> clips -> store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from edge.audio_events import AudioEvent, Block, Gap, Skipped
from edge.clips import ClipWriter
from edge.codes import pack
from edge.encoder import Encoder
from edge.errors import EncoderError, StoreError
from edge.matcher import Matcher
from edge.observation import Detection, Observation
from edge.utf8 import shown
from edge.windows import Window, windows


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
        """Note a source that could not be heard. Raises StoreError as add does."""
        ...

    def commit_if_due(self) -> None:
        """Write what waited long enough. Raises StoreError as add does."""
        ...


class Listener(Protocol):
    """Who is told what happens, in order."""

    def heard(self, block: Block) -> None:
        """Sound arrived."""

    def observed(self, observation: Observation, detections: Sequence[Detection]) -> None:
        """A window became an observation, and the store has taken it."""

    def lost(self, gap: Gap, sample_rate_hz: int) -> None:
        """Sound is missing."""

    def skipped(self, skipped: Skipped) -> None:
        """A source, or the rest of one, could not be heard."""

    def failing(self, reason: str) -> None:
        """The store cannot write, or ("") can again; recording goes on."""


@dataclass(slots=True)
class Totals:
    """What a run came to; busy_s: from having a window to having stored it, so without waiting for sound."""

    n_windows: int = 0
    n_detections: int = 0
    n_gaps: int = 0
    n_skipped: int = 0
    n_clips_lost: int = 0
    seconds_audio: float = 0.0
    busy_s: float = 0.0


@dataclass(slots=True)
class Pipeline:
    """The parts of a recorder, and the one way that sound takes through them.

    A store that cannot write does not stop it: the store keeps what it can in memory and tries again by
    itself. Sound that the encoder refuses becomes a gap. clips: None = keep no sound.
    """

    encoder: Encoder
    matcher: Matcher
    store: Store
    clips: ClipWriter | None
    listener: Listener
    hop_samples: int
    clock: Callable[[], float] = time.perf_counter
    totals: Totals = field(default_factory=Totals)
    _is_failing: bool = False

    def run(self, events: Iterable[AudioEvent | None]) -> None:
        """Take the events of a source at the encoder's rate to their end; totals are kept up to date.

        None among them is a tick (edge.ticks): nothing was heard, but the store may write what waits in it.
        """
        heard = self._heard(events)
        recording = heard if self.clips is None else self.clips.listen(heard)
        encoder = self.encoder
        for item in windows(recording, encoder.window_samples, self.hop_samples, encoder.sample_rate_hz):
            if isinstance(item, Window):
                self._observe(item)
            elif isinstance(item, Gap):
                self._lose(item)
            elif isinstance(item, Skipped):
                self._skip(item)

    def _observe(self, window: Window) -> None:
        start = self.clock()
        try:
            code = pack(self.encoder.encode(window.samples), self.encoder.code_bits)
        except EncoderError as error:  # one impossible sound must not stop the rest
            self._lose(Gap(window.source, window.first_sample, window.n_samples, f"not encoded: {error}"))
            return
        observation = Observation(
            device_id=self.store.device_id,
            epoch=self.store.epoch,
            seq=self.store.next_seq,
            code=code.tobytes(),
            code_space=self.encoder.code_space,
            source=window.source,
            first_sample=window.first_sample,
            sample_rate_hz=window.sample_rate_hz,
            n_samples=window.n_samples,
            instant=window.instant,
        )
        detections = self.matcher.match(observation)
        if detections and self.clips is not None:
            names, distances = [d.query for d in detections], [d.distance for d in detections]
            path = self.clips.keep(window, observation, names, distances)
            detections = [replace(d, clip=None if path is None else shown(path)) for d in detections]
        with self._writing():
            self.store.add(observation, detections)
        self.totals.n_windows += 1
        self.totals.n_detections += len(detections)
        self.totals.busy_s += self.clock() - start
        self.listener.observed(observation, detections)

    def _lose(self, gap: Gap) -> None:
        rate_hz = self.encoder.sample_rate_hz
        self.totals.n_gaps += 1
        with self._writing():
            self.store.record_gap(
                gap.source, gap.first_sample, gap.n_samples, gap.reason, sample_rate_hz=rate_hz
            )
        self.listener.lost(gap, rate_hz)

    def _skip(self, skipped: Skipped) -> None:
        self.totals.n_skipped += 1
        with self._writing():
            self.store.record_skipped(skipped.source, skipped.reason)
        self.listener.skipped(skipped)

    def _heard(self, events: Iterable[AudioEvent | None]) -> Iterator[AudioEvent]:
        """Pass events on; count and tell the sound among them, and let the store write in time."""
        for event in events:
            with self._writing():
                self.store.commit_if_due()
            if event is None:
                continue
            if isinstance(event, Block):
                self.totals.seconds_audio += len(event.samples) / self.encoder.sample_rate_hz
                self.listener.heard(event)
            yield event

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
