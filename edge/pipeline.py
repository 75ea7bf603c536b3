"""The main path: sound -> windows -> encoder -> code -> observation -> matcher -> clips -> store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from edge.audio_events import AudioEvent, Block, Gap, Skipped
from edge.clips import ClipWriter
from edge.codes import pack
from edge.encoder import Encoder
from edge.errors import EncoderError
from edge.matcher import Matcher
from edge.pipeline_keeper import Keeper
from edge.utf8 import shown
from edge.windows import Window, windows


@dataclass(slots=True)
class Pipeline:
    """The parts of a recorder, and the one way that sound takes through them.

    A store that cannot write does not stop it (Keeper). Sound that the encoder refuses becomes a gap.
    clips: None = keep no sound.
    """

    encoder: Encoder
    matcher: Matcher
    keeper: Keeper
    clips: ClipWriter | None
    hop_samples: int
    clock: Callable[[], float] = time.perf_counter

    def run(self, events: Iterable[AudioEvent | None]) -> None:
        """Take the events of a source at the encoder's rate to their end.

        None among them is a tick (edge.ticks): nothing was heard, but the store may write what waits in it.
        """
        heard = self._heard(events)
        recording = heard if self.clips is None else self.clips.listen(heard)
        encoder = self.encoder
        for item in windows(recording, encoder.window_samples, self.hop_samples, encoder.sample_rate_hz):
            if isinstance(item, Window):
                self._observe(item)
            elif isinstance(item, Gap):
                self.keeper.lose(item, encoder.sample_rate_hz)
            elif isinstance(item, Skipped):
                self.keeper.skip(item)

    def _observe(self, window: Window) -> None:
        start = self.clock()
        encoder, keeper = self.encoder, self.keeper
        try:
            code = pack(encoder.encode(window.samples), encoder.code_bits)
        except EncoderError as error:  # one impossible sound must not stop the rest
            gap = Gap(window.source, window.first_sample, window.n_samples, f"not encoded: {error}")
            keeper.lose(gap, encoder.sample_rate_hz)
            return
        observation = keeper.observation(
            code.tobytes(),
            encoder.code_space,
            window.source,
            window.first_sample,
            window.sample_rate_hz,
            window.n_samples,
            window.instant,
        )
        detections = self.matcher.match(observation)
        if detections and self.clips is not None:
            names, distances = [d.query for d in detections], [d.distance for d in detections]
            path = self.clips.keep(window, observation, names, distances)
            detections = [replace(d, clip=None if path is None else shown(path)) for d in detections]
        keeper.keep(observation, detections)
        keeper.totals.busy_s += self.clock() - start
        keeper.listener.observed(observation, detections)

    def _heard(self, events: Iterable[AudioEvent | None]) -> Iterator[AudioEvent]:
        """Pass events on; count and tell the sound among them, and let the store write in time."""
        for event in events:
            self.keeper.write_if_due()
            if event is None:
                continue
            if isinstance(event, Block):
                self.keeper.totals.seconds_audio += len(event.samples) / self.encoder.sample_rate_hz
                self.keeper.listener.heard(event)
            yield event
