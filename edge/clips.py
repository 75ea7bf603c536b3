"""Clips: the sound around a detection, kept as FLAC files with GUANO metadata, within a budget of bytes."""

from __future__ import annotations

import io
import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from edge.audio_events import CLIP_SUFFIX, AudioEvent, Block, Skipped
from edge.clock import later
from edge.durable import write_file
from edge.guano import compose
from edge.observation import Instant, Observation, iso_utc
from edge.resampling import Samples
from edge.windows import Window

_MAX_NAME_LETTERS = 40  # of a query in a file name; 4 bytes each stay far below the 255 of most file systems

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Clip:
    """A clip whose sound is still arriving: from start, up to end (exclusive), of one contiguous segment."""

    path: Path
    start: int
    end: int
    instant: Instant
    observation: Observation
    pieces: list[Samples] = field(default_factory=list)
    position: int = 0  # up to here the sound is in pieces
    queries: dict[str, int | None] = field(default_factory=dict)  # name -> smallest distance


class ClipWriter:
    """Remembers the sound of the last seconds, and writes that around each window which keep is given.

    A clip goes from pre_s before to post_s after a window; those that overlap become one, of max_s at most,
    so a clip is written once no window can join it any more: pre_s and a window's length after its end, or
    when its segment ends. folder is made when it is first needed. quota_bytes: budget of all clips in it, the
    oldest are removed first (only files named as clips); None = no limit. A clip that cannot be written (a full disk) is given up with a
    warning: recording goes on. latitude, longitude: of the deployment, in degrees, for the metadata.
    """

    def __init__(
        self,
        folder: Path,
        pre_s: float = 3.0,
        post_s: float = 3.0,
        *,
        rate_hz: int,
        window_samples: int,
        max_s: float = 60.0,
        quota_bytes: int | None = None,
        latitude: float | None = None,
        longitude: float | None = None,
    ) -> None:
        self.n_written = self.n_lost = 0
        self._folder, self._rate_hz, self._quota_bytes = folder, rate_hz, quota_bytes
        self._pre, self._post = round(pre_s * rate_hz), round(post_s * rate_hz)
        self._max = max(round(max_s * rate_hz), self._pre + window_samples + self._post)
        self._window_samples = window_samples
        self._position = None if latitude is None or longitude is None else f"{latitude} {longitude}"
        self._recent: deque[Block] = deque()  # of one contiguous segment, oldest first
        self._open: list[_Clip] = []
        self._failing = self._looked = False
        self._stored: deque[tuple[str, int]] = (
            deque()
        )  # name and size of the clips in the folder, oldest first

    def listen(self, events: Iterable[AudioEvent]) -> Iterator[AudioEvent]:
        """Pass events on, and remember their sound; put it between a source and windows."""
        for event in events:
            if isinstance(event, Block):
                self.feed(event)
            yield event
            if not isinstance(event, (Block, Skipped)):
                self.end_segment()  # only now: at its end windows gives a last window of the segment

    def feed(self, block: Block) -> None:
        """Take the sound of a block: for clips that wait for it, and for those to come."""
        if self._recent and not _follows(self._recent[-1], block):
            self.end_segment()
        if self._recent:
            self._write_final()
        self._recent.append(block)
        end = block.first_sample + len(block.samples)
        oldest_needed = end - len(block.samples) - self._window_samples - self._pre
        while _end(self._recent[0]) <= oldest_needed:
            self._recent.popleft()
        self._collect()

    def end_segment(self) -> None:
        """Write the clips that wait for sound which will not come, and forget the sound before."""
        for clip in self._open:
            self._write(clip)
        self._open.clear()
        self._recent.clear()

    def close(self) -> None:
        """Write what is still open."""
        self.end_segment()

    def keep(
        self, window: Window, observation: Observation, names: Sequence[str], distances: Sequence[int] = ()
    ) -> Path | None:
        """Keep the sound around a window in which the queries of these names were found.

        Return the path at which the clip will be once its post-roll arrived, or None where its sound is gone.
        distances: one for each name, for the metadata.
        """
        first = next((b.first_sample for b in self._recent if b.source == window.source), None)
        if first is None or window.first_sample + window.n_samples > _end(self._recent[-1]):
            return None
        start = max(first, window.first_sample - self._pre)
        end = window.first_sample + window.n_samples + self._post
        nearest: Sequence[int | None] = distances or [None] * len(names)
        queries = dict(zip(names, nearest, strict=True))
        for clip in self._open:
            if start <= clip.end and end - clip.start <= self._max:
                clip.end = max(clip.end, end)
                _merge(clip.queries, queries)
                return clip.path
        if self._open:
            start = max(start, self._open[-1].end)  # the clip before is full: no sound is kept twice
        instant = later(self._recent[0].instant, start - self._recent[0].first_sample, self._rate_hz)
        path = self._new_path(window.source, start, instant, names)
        self._open.append(_Clip(path, start, end, instant, observation, position=start, queries=queries))
        self._collect()
        return path

    def _collect(self) -> None:
        """Give every open clip the sound that is there."""
        for clip in self._open:
            for block in self._recent:
                if block.first_sample <= clip.position < min(_end(block), clip.end):
                    piece = block.samples[clip.position - block.first_sample : clip.end - block.first_sample]
                    clip.pieces.append(piece)
                    clip.position += len(piece)

    def _write_final(self) -> None:
        """Write the clips that no window can join any more."""
        too_early = _end(self._recent[-1]) - self._window_samples - self._pre
        for clip in [clip for clip in self._open if clip.end < too_early]:
            self._open.remove(clip)
            self._write(clip)

    def _new_path(self, source: str, start: int, instant: Instant, names: Sequence[str]) -> Path:
        """Return a path that no clip has, named after the time of the first sample where it is known."""
        if instant.wall_ns is not None:
            when = re.sub(r"[-:]|\..*", "", iso_utc(instant.wall_ns)).replace("T", "_")
        else:
            when = f"{_plain(Path(source).stem) or 'clip'}_{start / self._rate_hz:09.2f}s"
        name = f"{when}_{_plain(names[0]) if names else 'sound'}"
        taken = {clip.path for clip in self._open}
        path, n = self._folder / f"{name}{CLIP_SUFFIX}", 1
        while path in taken or path.exists():
            n += 1
            path = self._folder / f"{name}-{n}{CLIP_SUFFIX}"
        return path

    def _write(self, clip: _Clip) -> None:
        """Write a clip whole or not at all; never raises for a disk that is full or gone."""
        if not clip.pieces:
            return
        try:
            content = self._encode(clip)
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(len(content))
            write_file(clip.path, content)
        except (OSError, soundfile.SoundFileError) as error:
            self.n_lost += 1
            if not self._failing:  # once, and not for each: logs must not fill a disk either
                _log.warning("%s: the clip is lost, and more may be: %s", clip.path, error)
            self._failing = True
            return
        if self._failing:
            _log.info("clips can be written again; %s were lost", self.n_lost)
        self._failing = False
        self.n_written += 1
        self._stored.append((clip.path.name, len(content)))

    def _encode(self, clip: _Clip) -> bytes:
        content = io.BytesIO()
        with soundfile.SoundFile(content, "w", self._rate_hz, 1, "PCM_16", format="FLAC") as file:
            file.comment = compose(self._metadata(clip, sum(map(len, clip.pieces))))
            for piece in clip.pieces:  # one by one: a minute at once would take 30 MB more
                file.write(np.clip(np.rint(piece * 32768), -32768, 32767).astype(np.int16))
        return content.getvalue()

    def _metadata(self, clip: _Clip, n_samples: int) -> dict[str, str]:
        observation = clip.observation
        fields = {"Make": "fieldcube", "Model": "fieldcube", "Samplerate": str(self._rate_hz)}
        fields["Length"] = f"{n_samples / self._rate_hz:.3f}"
        if clip.instant.wall_ns is not None:
            fields["Timestamp"] = iso_utc(clip.instant.wall_ns)
        if self._position is not None:
            fields["Loc Position"] = self._position
        fields["Original Filename"] = observation.source
        fields["Fieldcube|clock"] = clip.instant.clock_state
        fields["Fieldcube|offset"] = f"{clip.start / self._rate_hz:.3f}"
        fields["Fieldcube|observation"] = f"{observation.device_id}/{observation.epoch}/{observation.seq}"
        fields["Fieldcube|code space"] = observation.code_space
        fields["Fieldcube|query"] = "; ".join(clip.queries)
        if None not in clip.queries.values():
            fields["Fieldcube|distance"] = "; ".join(map(str, clip.queries.values()))
        return fields

    def _make_room(self, n_bytes: int) -> None:
        """Remove the oldest clips until n_bytes more fit in the quota. Raises OSError where they cannot."""
        if not self._looked:
            self._stored.extend(_clips_in(self._folder))
            self._looked = True
        if self._quota_bytes is None:
            return
        if n_bytes > self._quota_bytes:
            raise OSError(f"expected at most {self._quota_bytes} bytes (the quota of clips), found {n_bytes}")
        excess = sum(size for _, size in self._stored) + n_bytes - self._quota_bytes
        while excess > 0 and self._stored:
            name, size = self._stored[0]
            (self._folder / name).unlink(missing_ok=True)
            self._stored.popleft()
            excess -= size


def _clips_in(folder: Path) -> list[tuple[str, int]]:
    """Return names and sizes of the clips in a folder, oldest first; remove what a cut left half written."""
    for left_over in folder.glob(f".*{CLIP_SUFFIX}.*.tmp"):
        left_over.unlink(missing_ok=True)
    found = [(path.stat(), path.name) for path in folder.glob(f"*{CLIP_SUFFIX}")]
    return [(name, status.st_size) for status, name in sorted(found, key=lambda f: (f[0].st_mtime_ns, f[1]))]


def _end(block: Block) -> int:
    return block.first_sample + len(block.samples)


def _follows(last: Block, block: Block) -> bool:
    return block.source == last.source and block.first_sample == _end(last)


def _merge(into: dict[str, int | None], queries: Mapping[str, int | None]) -> None:
    """Add queries, keeping the smaller distance of those that were there."""
    for name, distance in queries.items():
        known = into.get(name)
        into[name] = distance if known is None else known if distance is None else min(known, distance)


def _plain(name: str) -> str:
    """Return letters and digits of any script, joined by hyphens: safe in a file name."""
    return "-".join(re.findall(r"[^\W_]+", name.lower()))[:_MAX_NAME_LETTERS].rstrip("-")
