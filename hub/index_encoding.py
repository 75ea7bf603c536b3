"""One recording or picture of an archive -> its observations, exactly as edge-monitor would make them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge.audio import SUFFIXES, FileSource
from edge.audio_events import AudioEvent, Block, Gap, Skipped
from edge.batch import MAX_RUN, Batch, Run, encode_batch
from edge.bundle import Bundle
from edge.codes import pack
from edge.encoder import AudioEncoder, ImageEncoder, RuntimeChoice, open_audio_encoder, open_image_encoder
from edge.errors import BundleError, EncoderError
from edge.file_search import PICTURE_SUFFIXES
from edge.observation import PICTURE_RATE_HZ, Instant, Observation
from edge.picture_files import PictureSource
from edge.store_schema import Event
from edge.utf8 import shown
from edge.windows import Window, hop_samples, windows

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class EncodingSettings:
    """What decides which observations a file gives, and under whose name. hop_s: None = half a window, as edge-monitor."""

    device_id: str
    epoch: int
    runtime: RuntimeChoice = "auto"
    hop_s: float | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of a file.

    digest: BLAKE2b of its bytes, 32 hexadecimal digits, "" where it was not read; pieces: edge.batch batches whose seq and
    event numbers count from 0 in each; problem: why not all of it was encoded, "" = nothing; is_known: its bytes were
    indexed under this path before; is_unreadable: not the file was wrong, but what it lies on.
    """

    digest: str
    pieces: tuple[bytes, ...] = ()
    n_observations: int = 0
    seconds_audio: float = 0.0
    problem: str = ""
    is_known: bool = False
    is_unreadable: bool = False


class _StillClock:
    """The clock of a file that is read now and was recorded at another time: two readings give the same observations."""

    def now(self) -> Instant:
        """Return a moment of no boot."""
        return Instant("", 0, None, "unset")

    def boottime_ns(self) -> int:
        """Return 0."""
        return 0


def suffixes_of(bundle: Bundle) -> frozenset[str]:
    """Return what files are called that a bundle can encode. Raises BundleError where it can encode none."""
    held = {entry.modality for entry in bundle.manifest.encoders if entry.size_bytes}
    found = (SUFFIXES if "audio" in held else frozenset()) | (
        PICTURE_SUFFIXES if "image" in held else frozenset()
    )
    if not found:
        raise BundleError(f"{bundle.folder}: expected an encoder of sound or of pictures, found neither")
    return frozenset(found)


class FileEncoder:
    """The encoders of a bundle, open, and the way of a file through them."""

    def __init__(self, bundle: Bundle, settings: EncodingSettings) -> None:
        suffixes = suffixes_of(bundle)
        self._settings = settings
        self._audio = open_audio_encoder(bundle, settings.runtime) if ".wav" in suffixes else None
        self._image = open_image_encoder(bundle, settings.runtime) if ".jpg" in suffixes else None
        self._hop_samples = 0
        if self._audio is not None:
            self._hop_samples = hop_samples(
                settings.hop_s, self._audio.window_samples, self._audio.sample_rate_hz
            )

    def encode(self, path: Path, name: str, known: frozenset[str] = frozenset()) -> Encoded:
        """Encode one file. name: its source; known: digests that were indexed under this name before.

        What is wrong with the file is told in the result. Raises OSError where it cannot be read.
        """
        digest = _digest(path)
        if digest in known:
            return Encoded(digest, is_known=True)
        record = _Record(self._settings, name)
        if self._image is not None and (self._audio is None or path.suffix.lower() in PICTURE_SUFFIXES):
            record.see(path, self._image)
        else:
            assert self._audio is not None  # suffixes_of has required one of both
            record.hear(path, self._audio, self._hop_samples)
        pieces = tuple(record.pieces())
        return Encoded(
            digest, pieces, len(record.observations), record.seconds_audio, "; ".join(record.problems)
        )


def refused(settings: EncodingSettings, name: str, reason: str, *, is_unreadable: bool = False) -> Encoded:
    """Return what a file comes to that could not be encoded at all: an event that says so."""
    record = _Record(settings, name)
    record.skip(reason)
    problem = "; ".join(record.problems)
    return Encoded("", tuple(record.pieces()), problem=problem, is_unreadable=is_unreadable)


def renumbered(pieces: Iterable[Batch], first_seq: int, first_event: int) -> Batch:
    """Return the batch that holds pieces one after the other, from these numbers on; MAX_RUN observations at most."""
    observations: list[Observation] = []
    events: list[Event] = []
    device_id, epoch = "", 0
    for piece in pieces:
        device_id, epoch = piece.device_id, piece.epoch
        before = first_seq + len(observations)
        events += [
            Event(first_event + len(events) + each.number, each.kind, before + each.before_seq, *_rest(each))
            for each in piece.events
        ]
        for run in piece.runs:
            observations += run.observations(device_id, epoch)
    runs = (_moved(Run.of(observations), first_seq),) if observations else ()
    next_numbers = (first_seq + len(observations), 0, first_event + len(events))
    return Batch(device_id, epoch, next_numbers, runs, events=tuple(events))


@dataclass(slots=True)
class _Record:
    """What is found out about one file."""

    settings: EncodingSettings
    name: str
    observations: list[Observation] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds_audio: float = 0.0

    def hear(self, path: Path, encoder: AudioEncoder, hop: int) -> None:
        """Take a recording window by window."""
        rate_hz = encoder.sample_rate_hz
        events = self._heard(FileSource([path], rate_hz, clock=_StillClock()).events(), rate_hz)
        for item in windows(events, encoder.window_samples, hop, rate_hz):
            if isinstance(item, Window):
                try:
                    code = pack(encoder.encode(item.samples), encoder.code_bits)
                except EncoderError as error:  # as in the recorder: it becomes a gap, and the rest goes on
                    self._lose(item.first_sample, item.n_samples, rate_hz, f"not encoded: {error}")
                    continue
                self._add(
                    code.tobytes(),
                    encoder.code_space,
                    item.first_sample,
                    rate_hz,
                    item.n_samples,
                    item.instant,
                )
            elif isinstance(item, Gap):
                self._lose(item.first_sample, item.n_samples, rate_hz, item.reason)
            elif isinstance(item, Skipped):
                self.skip(item.reason)

    def see(self, path: Path, encoder: ImageEncoder) -> None:
        """Take a picture."""
        for item in PictureSource([path], encoder.takes, clock=_StillClock()).events():
            if isinstance(item, Skipped):
                self.skip(item.reason)
                continue
            try:
                code = pack(encoder.encode(item.pixels), encoder.code_bits)
            except EncoderError as error:
                self.skip(f"not encoded: {error}")
                continue
            self._add(code.tobytes(), encoder.code_space, 0, PICTURE_RATE_HZ, 0, item.instant)

    def skip(self, reason: str) -> None:
        """Note that the file, or the rest of it, gave nothing."""
        self.problems.append(shown(reason))
        self._event("skipped", reason, 0, 0, 0)

    def pieces(self) -> Iterator[bytes]:
        """Yield batches of MAX_RUN observations and of MAX_RUN events at most, each counting from 0."""
        taken = 0
        for first in range(0, len(self.observations), MAX_RUN):
            part = self.observations[first : first + MAX_RUN]
            end = first + len(part)
            is_last = end == len(self.observations)
            stop = taken
            while (
                stop < len(self.events)
                and (self.events[stop].before_seq < end or is_last)
                and stop - taken < MAX_RUN
            ):
                stop += 1
            yield self._piece(part, self.events[taken:stop], first)
            taken = stop
        for first in range(taken, len(self.events), MAX_RUN):
            yield self._piece([], self.events[first : first + MAX_RUN], len(self.observations))

    def _piece(self, observations: list[Observation], events: list[Event], first_seq: int) -> bytes:
        counted = tuple(
            Event(number, each.kind, max(0, each.before_seq - first_seq), *_rest(each))
            for number, each in enumerate(events)
        )
        runs = (_moved(Run.of(observations), 0),) if observations else ()
        batch = Batch(
            self.settings.device_id,
            self.settings.epoch,
            (len(observations), 0, len(events)),
            runs,
            events=counted,
        )
        return encode_batch(batch)

    def _heard(self, events: Iterable[AudioEvent], rate_hz: int) -> Iterator[AudioEvent]:
        for event in events:
            if isinstance(event, Block):
                self.seconds_audio += len(event.samples) / rate_hz
            yield event

    def _add(
        self, code: bytes, space: str, first_sample: int, rate_hz: int, n_samples: int, instant: Instant
    ) -> None:
        self.observations.append(
            Observation(
                device_id=self.settings.device_id,
                epoch=self.settings.epoch,
                seq=len(self.observations),
                code=code,
                code_space=space,
                source=self.name,
                first_sample=first_sample,
                sample_rate_hz=rate_hz,
                n_samples=n_samples,
                instant=instant,
            )
        )

    def _lose(self, first_sample: int, n_samples: int, rate_hz: int, reason: str) -> None:
        self._event("gap", reason, first_sample, n_samples, rate_hz)

    def _event(self, kind: str, reason: str, first_sample: int, n_samples: int, rate_hz: int) -> None:
        before = len(self.observations)
        number = len(self.events)
        self.events.append(
            Event(number, kind, before, self.name, first_sample, n_samples, rate_hz, shown(reason))
        )


def _rest(event: Event) -> tuple[str, int, int, int, str]:
    return event.source, event.first_sample, event.n_samples, event.sample_rate_hz, event.reason


def _moved(run: Run, first_seq: int) -> Run:
    return Run(first_seq, run.n, run.code_space, run.sources, run.boots, run.columns, run.codes)


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while content := file.read(_READ_BYTES):
            digest.update(content)
    return digest.hexdigest()
