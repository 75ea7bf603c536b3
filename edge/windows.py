"""Fixed-length windows of a stream of sound: none straddles a gap, and none depends on the size of blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from edge.audio_events import AudioEvent, Block, End, Gap, Skipped
from edge.clock import later
from edge.errors import UsageError
from edge.observation import Instant
from edge.resampling import Samples

MIN_REST_S = 0.25  # shorter rests of sound at the end of a segment get no window of their own


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What the encoder takes: samples float32 [window_samples], mono, and where and when they were recorded.

    first_sample: index of the first one from the start of source; n_samples: how many are real sound (fewer
    than window_samples where a short one was repeated to fill the window); instant: that of the first sample.
    """

    samples: Samples
    source: str
    first_sample: int
    n_samples: int
    sample_rate_hz: int
    instant: Instant


def hop_samples(hop_s: float | None, window_samples: int, rate_hz: int) -> int:
    """Return the hop; half a window by default, so that every sound of up to half a window is whole in one.

    Raises UsageError for a hop over which sound would be passed unheard.
    """
    if hop_s is None:
        return max(1, window_samples // 2)
    window_s = window_samples / rate_hz
    if not 0 < hop_s <= window_s:
        raise UsageError(
            f"--hop: expected more than 0 and at most a window ({window_s:g} s), found {hop_s:g}"
        )
    return max(1, round(hop_s * rate_hz))


def windows(
    events: Iterable[AudioEvent], window_samples: int, hop_samples: int, rate_hz: int
) -> Iterator[Window | Gap | End | Skipped]:
    """Yield the windows of a stream, and its other events in their place.

    Windows start at multiples of hop_samples within each contiguous segment; a Gap, an End, another source or
    a jump of the sample counter ends it. Where 0.25 s or more at the end of a segment were in no window, one
    last window ends with it; a whole segment shorter than a window is repeated to fill one. Of a source that
    ends without a window, a Gap or a Skipped, a Skipped before its End tells that it was too short.
    Raises ValueError where window_samples or hop_samples is below 1.
    """
    if window_samples < 1 or hop_samples < 1:
        raise ValueError(
            f"expected a window and a hop of 1 sample or more, found {window_samples}, {hop_samples}"
        )
    told = ""  # the source of the last item, from one End to the next
    for item in _cut(events, window_samples, hop_samples, rate_hz):
        if isinstance(item, End) and item.source != told:
            yield Skipped(item.source, f"shorter than {MIN_REST_S:g} s")
        told = "" if isinstance(item, End) else item.source
        yield item


def _cut(
    events: Iterable[AudioEvent], window_samples: int, hop_samples: int, rate_hz: int
) -> Iterator[Window | Gap | End | Skipped]:
    """Yield as windows does, and nothing for a source that is too short."""
    segment: _Segment | None = None
    for event in events:
        if isinstance(event, Block):
            if segment is not None and not segment.continues_with(event):
                yield from segment.last_window()
                segment = None
            if segment is None:
                segment = _Segment(event, window_samples, hop_samples, rate_hz)
            yield from segment.push(event)
            continue
        if segment is not None and not isinstance(event, Skipped):
            yield from segment.last_window()
            segment = None
        yield event
    if segment is not None:
        yield from segment.last_window()


class _Segment:
    """Contiguous sound of one source; keeps the last window_samples of it and what is not in a window yet."""

    def __init__(self, first: Block, window_samples: int, hop_samples: int, rate_hz: int) -> None:
        self._source, self._offset, self._instant = first.source, first.first_sample, first.instant
        self._window_samples, self._hop_samples, self._rate_hz = window_samples, hop_samples, rate_hz
        self._buffer: Samples = np.empty(3 * window_samples, np.float32)
        self._buffer_start = 0  # all positions count from the start of the segment
        self._end = 0
        self._next_start = 0
        self._covered_to = 0

    def continues_with(self, block: Block) -> bool:
        """Return whether block follows the last one without a gap."""
        return block.source == self._source and block.first_sample == self._offset + self._end

    def push(self, block: Block) -> Iterator[Window]:
        """Take a block and yield the windows that it completes."""
        self._follow_wall_clock(block.instant)
        for start in range(0, len(block.samples), self._window_samples):
            self._append(block.samples[start : start + self._window_samples])
            while self._next_start + self._window_samples <= self._end:
                yield self._window(self._next_start)
                self._covered_to = self._next_start + self._window_samples
                self._next_start += self._hop_samples

    def last_window(self) -> Iterator[Window]:
        """Yield the window that ends with the segment, where enough sound is in no window yet."""
        rest_samples = self._end - max(self._covered_to, self._next_start)
        if rest_samples >= MIN_REST_S * self._rate_hz:
            yield self._window(max(0, self._end - self._window_samples))

    def _append(self, samples: Samples) -> None:
        """Take at most window_samples; the last window_samples before them stay within reach."""
        if self._end - self._buffer_start + len(samples) > len(self._buffer):
            kept = self._buffer[self._end - self._buffer_start - self._window_samples :]
            kept = kept[: self._window_samples]
            self._buffer[: len(kept)] = kept
            self._buffer_start = self._end - len(kept)
        at = self._end - self._buffer_start
        self._buffer[at : at + len(samples)] = samples
        self._end += len(samples)

    def _window(self, start: int) -> Window:
        n_samples = min(self._window_samples, self._end - start)
        at = start - self._buffer_start
        samples = np.resize(
            self._buffer[at : at + n_samples], self._window_samples
        )  # repeats to fill, and copies
        instant = later(self._instant, start, self._rate_hz)
        return Window(samples, self._source, self._offset + start, n_samples, self._rate_hz, instant)

    def _follow_wall_clock(self, instant: Instant) -> None:
        """Take the wall clock of a block whose state changed: NTP may answer long after a segment began."""
        if instant.clock_state != self._instant.clock_state:
            wall_ns = instant.wall_ns
            if wall_ns is not None:
                wall_ns -= instant.boottime_ns - self._instant.boottime_ns
            self._instant = replace(self._instant, wall_ns=wall_ns, clock_state=instant.clock_state)
