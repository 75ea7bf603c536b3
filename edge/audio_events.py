"""What a sound source tells: blocks, gaps, ends and skipped files, and how sound becomes blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge.clock import later
from edge.observation import Instant
from edge.resampling import Cutter, Resampler, Samples

CLIP_SUFFIX = ".clip.flac"  # of sound that fieldcube has kept: the search of folders passes it over


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A piece of contiguous sound: samples float32 [n], mono, -1..1, at the rate of the source's events.

    first_sample: index of the first one from the start of source, gaps included; instant: its time.
    """

    source: str
    samples: Samples
    first_sample: int
    instant: Instant


@dataclass(frozen=True, slots=True)
class Gap:
    """Sound that is missing: n_samples from first_sample on, and why."""

    source: str
    first_sample: int
    n_samples: int
    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """The last event of a source that gave sound."""

    source: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A source, or the rest of one, that could not be heard, and why."""

    source: str
    reason: str


AudioEvent = Block | Gap | End | Skipped


class AudioSource(Protocol):
    """Anything that can be listened to."""

    @property
    def sample_rate_hz(self) -> int:
        """Return the rate of the blocks, after resampling."""
        ...

    def events(self) -> Iterator[AudioEvent]:
        """Yield what is heard, in order of time."""
        ...


class BlockStream:
    """Turns the sound of one source into Blocks at the encoder's rate: resampled, cut, counted and stamped.

    start: instant of sample 0 of the source; every block's instant follows from it by the sample counter.
    rate_in_hz: rate of what push is given; may be changed after skip.
    """

    def __init__(self, source: str, rate_in_hz: int, rate_hz: int, block_s: float, start: Instant) -> None:
        self.source, self.rate_in_hz, self.rate_hz, self.start = source, rate_in_hz, rate_hz, start
        self._n_out = 0  # index of the next sample that comes out
        self._segment_start = self._n_in = 0  # where the segment began; frames pushed since then
        self._blocks = Cutter(max(1, round(block_s * rate_hz)))
        self._resampler: Resampler | None = None

    @property
    def next_sample(self) -> int:
        """Return the index, at rate_hz, of the sample that is pushed next."""
        return self._segment_start + round(self._n_in * self.rate_hz / self.rate_in_hz)

    def push(self, samples: Samples) -> Iterator[Block]:
        """Take mono samples at rate_in_hz that follow the last ones; yield the blocks that are full."""
        if self._resampler is None:
            self._resampler = Resampler(self.rate_in_hz, self.rate_hz)
        self._n_in += len(samples)
        for resampled in self._resampler.push(samples):
            yield from map(self._block, self._blocks.push(resampled))

    def flush(self) -> Iterator[Block]:
        """End the contiguous segment and yield the rest of it."""
        if self._resampler is not None:
            last = self._resampler.finish()
            self._resampler = None
            yield from map(self._block, self._blocks.push(last))
        rest = self._blocks.rest()
        if len(rest):
            yield self._block(rest)
        self._segment_start, self._n_in = self._n_out, 0

    def skip(self, n_samples: int, reason: str) -> Iterator[Block | Gap]:
        """End the segment, then leave out n_samples (counted at the encoder's rate)."""
        yield from self.flush()
        gap = Gap(self.source, self._n_out, n_samples, reason)
        self._n_out += n_samples
        self._segment_start = self._n_out
        yield gap

    def _block(self, samples: Samples) -> Block:
        first = self._n_out
        self._n_out += len(samples)
        return Block(self.source, samples, first, later(self.start, first, self.rate_hz))


def mono(frames: Samples) -> Samples:
    """Return the mean of the channels of frames float32 [n, channels] as [n]; not finite where any is not."""
    if frames.shape[1] == 1:
        return frames[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):
        mean: Samples = frames.mean(axis=1, dtype=np.float32)
    return mean
