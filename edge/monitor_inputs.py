"""What edge-monitor takes in: which of its inputs are heard, which are looked at, and with what."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.audio import SUFFIXES, FileSource, PcmSource
from edge.audio_events import AudioEvent, AudioSource
from edge.bundle import Bundle
from edge.config import STDIN, Audio, Config, Encoding
from edge.encoder import AudioEncoder, ImageEncoder, open_audio_encoder, open_image_encoder
from edge.file_search import PICTURE_SUFFIXES, files_below
from edge.matcher import Matcher
from edge.pipeline_keeper import Keeper, Totals
from edge.ticks import with_ticks
from edge.windows import hop_samples

if TYPE_CHECKING:
    from edge.picture_files import PictureSource
    from edge.pipeline_pictures import PicturePipeline


@dataclass(frozen=True, slots=True)
class Inputs:
    """sound: where sound comes from, None where nothing is heard; pictures: files and folders as given."""

    sound: Audio | None
    pictures: tuple[str, ...]


def inputs_of(audio: Audio, bundle: Bundle) -> Inputs:
    """Return what is heard and what is looked at.

    A microphone and a pipe are heard. Files and folders are for the encoders that the bundle has; where it has both, a
    folder is for what lies in it, and a file named outright is a picture where it is called like one, else sound.
    """
    held = {entry.modality for entry in bundle.manifest.encoders if entry.size_bytes}
    if "image" not in held or not audio.input or STDIN in audio.input:
        return Inputs(audio, ())
    if "audio" not in held:
        return Inputs(None, audio.input)
    pictures = tuple(given for given in audio.input if _holds(given, PICTURE_SUFFIXES))
    heard = tuple(given for given in audio.input if given not in pictures or _holds(given, SUFFIXES))
    return Inputs(replace(audio, input=heard) if heard else None, pictures)


@dataclass(frozen=True, slots=True)
class Hearing:
    """An open source of sound and the encoder for it; is_live: sound is waited for."""

    encoder: AudioEncoder
    hop_samples: int
    source: AudioSource
    is_live: bool

    @classmethod
    def open(cls, bundle: Bundle, sound: Audio, config: Config) -> Hearing:
        """Open the encoder and the source. Raises what opening an encoder raises, UsageError for the hop."""
        encoder = open_audio_encoder(bundle, config.encoder.runtime, config.encoder.threads)
        hop = hop_samples(config.monitor.hop_s, encoder.window_samples, encoder.sample_rate_hz)
        is_live = not sound.input or STDIN in sound.input
        return cls(encoder, hop, _sound_source(sound, encoder.sample_rate_hz), is_live)

    def events(self) -> Iterator[AudioEvent | None]:
        """Return the events of the source, with ticks where it is live."""
        return with_ticks(self.source.events()) if self.is_live else self.source.events()


@dataclass(frozen=True, slots=True)
class Seeing:
    """Pictures and the encoder for them."""

    encoder: ImageEncoder
    source: PictureSource

    @classmethod
    def open(cls, bundle: Bundle, pictures: tuple[str, ...], encoding: Encoding) -> Seeing:
        """Open the encoder. Raises what opening an encoder raises."""
        from edge.picture_files import PictureSource  # brings Pillow: only where there are pictures

        encoder = open_image_encoder(bundle, encoding.runtime, encoding.threads)
        return cls(encoder, PictureSource(pictures, encoder.takes))

    def pipeline(self, matcher: Matcher, keeper: Keeper) -> PicturePipeline:
        """Return the way that the pictures take."""
        from edge.pipeline_pictures import PicturePipeline

        return PicturePipeline(self.encoder, matcher, keeper)


class Speed:
    """How fast sound is worked on: seconds of work for a second of sound; to wait for live sound is no work."""

    def __init__(self, *, is_live: bool, clock: Callable[[], float] = time.perf_counter) -> None:
        self._is_live, self._clock = is_live, clock
        self._started_s = clock()
        self._ended_s: float | None = None

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Take the time of a with block as that in which sound was worked on."""
        self._started_s = self._clock()
        try:
            yield
        finally:
            self._ended_s = self._clock()

    def real_time_factor(self, totals: Totals) -> float | None:
        """Return the factor so far, None where nothing was heard."""
        ended_s = self._clock() if self._ended_s is None else self._ended_s
        spent_s = totals.busy_s if self._is_live else ended_s - self._started_s
        return spent_s / totals.seconds_audio if totals.seconds_audio else None


def _sound_source(audio: Audio, rate_hz: int) -> AudioSource:
    """Return the source of sound; PortAudio is looked for only where it is a microphone."""
    if STDIN in audio.input:
        assert audio.sample_rate_hz is not None  # configuration() refuses a pipe without it
        # Unbuffered: a thread that waits in a buffered stdin would abort the process when it ends.
        stream = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        return PcmSource(stream, audio.sample_rate_hz, rate_hz, audio.channels or 1)
    if audio.input:
        return FileSource(audio.input, rate_hz)
    from edge.microphone import MicrophoneSource

    return MicrophoneSource(
        audio.microphone or None,
        rate_hz,
        rate_in_hz=audio.sample_rate_hz,
        channels=audio.channels,
        sample_format=audio.sample_format,
    )


def _holds(given: str, suffixes: frozenset[str]) -> bool:
    """Return whether a file is called, or a folder holds one that is called, with one of these suffixes."""
    if not Path(given).is_dir():
        return Path(given).suffix.lower() in suffixes
    return any(not isinstance(found, OSError) for found in files_below(given, suffixes))
