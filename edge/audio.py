"""Sources of sound: files, folders and pipes. Their events can be imported from here too."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from edge.audio_events import (
    CLIP_SUFFIX,
    AudioEvent,
    AudioSource,
    Block,
    BlockStream,
    End,
    Gap,
    Skipped,
    mono,
)
from edge.clock import Clock, SystemClock, later
from edge.errors import AudioError, FieldcubeError
from edge.file_search import files_below
from edge.guano import parse
from edge.observation import MAX_RECORDING_HZ, MIN_RECORDING_HZ, ClockState, Instant
from edge.recording_time import recording_start_ns
from edge.riff import WavHeader, read_wav_header

__all__ = ["AudioEvent", "AudioSource", "Block", "End", "FileSource", "Gap", "PcmSource", "Skipped"]

# For the search of folders: what libsndfile may open. A file named outright is tried whatever it is called.
_PCM_SUFFIXES = (".wav", ".wave", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf")
SUFFIXES = frozenset((*_PCM_SUFFIXES, ".flac", ".ogg", ".oga", ".opus", ".mp3"))
_PIECE_FRAMES = 1024  # decoded at once: as much as may be lost before the place where a file is damaged
_TRUNCATED_S = 0.1  # less may be missing at the end of a file: MP3 headers are not exact


class FileSource:
    """Recordings in files and folders, one after the other.

    Folders are searched in depth, in order of name; hidden files and our own clips are left out. What cannot be read is a Skipped,
    and the rest goes on; of a truncated or damaged file everything that could be decoded is given first.
    A file is reported as it was given, one in a folder as the folder was given and the way from there (a Path drops
    a leading ./). Channels are averaged. The wall clock of a recording is recording_start_ns (state rtc: a recorder's clock)
    or unknown; its boottime is the moment of reading, plus the position in the file.
    """

    def __init__(
        self, paths: Sequence[Path | str], rate_hz: int, block_s: float = 1.0, clock: Clock | None = None
    ) -> None:
        self._paths, self._rate_hz, self._block_s = tuple(paths), rate_hz, block_s
        self._clock = clock or SystemClock()

    @property
    def sample_rate_hz(self) -> int:
        """Return the rate of the blocks."""
        return self._rate_hz

    def events(self) -> Iterator[AudioEvent]:
        """Yield Blocks and an End for each recording, Gaps where samples are not numbers, and Skipped."""
        for found in self._recordings():
            if isinstance(found, Skipped):
                yield found
                continue
            source = _shown(found)
            try:
                yield from self._recording(Path(found), source)
            except OSError as error:
                yield Skipped(source, f"cannot be read: {error.strerror or error}")
            except soundfile.SoundFileError as error:
                yield Skipped(source, f"not a sound file that can be read: {_said(error)}")
            except FieldcubeError as error:  # what it says of itself is impossible: the next ones may be good
                yield Skipped(source, str(error))

    def _recordings(self) -> Iterator[Path | str | Skipped]:
        for given in self._paths:
            path = Path(given)
            if path.is_dir():
                yield from _search(given)
            elif path.is_file():
                yield given
            else:
                reason = "not a regular file" if path.exists() else "no such file or folder"
                yield Skipped(_shown(given), reason)

    def _recording(self, path: Path, source: str) -> Iterator[AudioEvent]:
        with path.open("rb", buffering=0) as file:
            header = read_wav_header(file)
            if not file.seek(0, os.SEEK_END):
                yield Skipped(source, "empty: no bytes")
                return
            file.seek(0)
            with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
                if not MIN_RECORDING_HZ <= sound.samplerate <= MAX_RECORDING_HZ:
                    expected = f"expected {MIN_RECORDING_HZ} to {MAX_RECORDING_HZ} Hz"
                    yield Skipped(source, f"{expected}, found a sample rate of {sound.samplerate} Hz")
                    return
                guano = parse(header.guano if header else "") or parse(sound.comment)
                wall_ns = recording_start_ns(path.name, guano, sound.comment)
                now = self._clock.now()
                state: ClockState = "unset" if wall_ns is None else "rtc"
                start = Instant(now.boot_id, now.boottime_ns, wall_ns, state)
                stream = BlockStream(source, sound.samplerate, self._rate_hz, self._block_s, start)
                yield from _decoded(sound, stream, header)


class PcmSource:
    """Raw signed 16-bit little-endian sound from a pipe, such as `arecord -t raw -f S16_LE` or ffmpeg gives.

    Taken as live: its first sample is stamped with the moment at which it was read.
    """

    def __init__(
        self,
        stream: BinaryIO,
        rate_in_hz: int,
        rate_hz: int,
        channels: int = 1,
        block_s: float = 1.0,
        clock: Clock | None = None,
        source: str = "stdin",
    ) -> None:
        if not MIN_RECORDING_HZ <= rate_in_hz <= MAX_RECORDING_HZ or channels < 1:
            raise AudioError(
                f"{source}: expected a sample rate of {MIN_RECORDING_HZ} to {MAX_RECORDING_HZ} Hz and one channel or "
                f"more, found {rate_in_hz} Hz and {channels}; say what the pipe carries"
            )
        self._stream, self._rate_in_hz, self._rate_hz = stream, rate_in_hz, rate_hz
        self._channels, self._block_s, self._source = channels, block_s, source
        self._clock = clock or SystemClock()

    @property
    def sample_rate_hz(self) -> int:
        """Return the rate of the blocks."""
        return self._rate_hz

    def events(self) -> Iterator[AudioEvent]:
        """Yield Blocks until the pipe is closed, then an End; one Skipped where nothing came."""
        frame_bytes = 2 * self._channels
        blocks: BlockStream | None = None
        rest = b""
        while data := self._stream.read(max(1, round(self._block_s * self._rate_in_hz)) * frame_bytes):
            data = rest + data
            n_frames = len(data) // frame_bytes
            rest = data[n_frames * frame_bytes :]
            frames = np.frombuffer(data, "<i2", n_frames * self._channels).reshape(n_frames, self._channels)
            if blocks is None:
                start = later(self._clock.now(), -n_frames, self._rate_in_hz)
                blocks = BlockStream(self._source, self._rate_in_hz, self._rate_hz, self._block_s, start)
            yield from blocks.push(mono(frames.astype(np.float32) / np.float32(32768)))
        if blocks is None:
            yield Skipped(self._source, "empty: no samples")
            return
        yield from blocks.flush()
        yield End(self._source)


def _decoded(
    sound: soundfile.SoundFile, stream: BlockStream, header: WavHeader | None
) -> Iterator[AudioEvent]:
    """Yield all that can be decoded, then what was wrong, then End."""
    n_read = n_bad = 0
    problem = ""
    while True:
        try:
            frames = sound.read(_PIECE_FRAMES, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            problem = f"damaged after {n_read / sound.samplerate:.2f} s: {_said(error)}"
            break
        if not len(frames):
            break
        n_read += len(frames)
        samples = mono(frames)
        if not np.isfinite(samples).all():
            n_bad += len(frames)
            continue
        if n_bad:
            yield from _not_numbers(stream, n_bad)
            n_bad = 0
        yield from stream.push(samples)
    if n_bad:
        yield from _not_numbers(stream, n_bad)
    yield from stream.flush()
    problem = problem or _missing(sound, n_read, header)
    if problem:
        yield Skipped(stream.source, problem)
    if n_read:
        yield End(stream.source)


def _not_numbers(stream: BlockStream, n_frames: int) -> Iterator[AudioEvent]:
    n_samples = round(n_frames * stream.rate_hz / stream.rate_in_hz)
    return stream.skip(n_samples, "samples are not finite numbers")


def _missing(sound: soundfile.SoundFile, n_read: int, header: WavHeader | None) -> str:
    """Return what is missing of the sound that the header promises, or "" where nothing is."""
    if header and header.promised_bytes is not None and header.present_bytes < header.promised_bytes:
        return f"truncated: expected {header.promised_bytes} bytes of sound, found {header.present_bytes}"
    if not n_read and header and header.present_bytes:
        return (
            f"cut off: the header says 0 bytes of sound and {header.present_bytes} follow; repair the header"
        )
    if not n_read:
        return "empty: no samples"
    known_length = sound.frames < 2**62  # libsndfile says 2**63 - 1 where it does not know
    if known_length and sound.frames - n_read > _TRUNCATED_S * sound.samplerate:
        expected_s, found_s = sound.frames / sound.samplerate, n_read / sound.samplerate
        return f"truncated: expected {expected_s:.2f} s of sound, found {found_s:.2f} s"
    return ""


def _search(folder: Path | str) -> Iterator[str | Skipped]:
    """Yield the sound files below folder, those of a folder before those of its subfolders, without our clips."""
    n_found = n_clips = n_unreadable = 0
    for found in files_below(folder, SUFFIXES):
        if isinstance(found, OSError):
            n_unreadable += 1
            yield Skipped(str(found.filename), f"cannot be read: {found.strerror}")
        elif found.lower().endswith(CLIP_SUFFIX):
            n_clips += 1
        else:
            n_found += 1
            yield found
    if not n_found and not n_unreadable:
        clips = f" but {n_clips} clips, which are heard only where they are named outright" if n_clips else ""
        yield Skipped(_shown(folder), f"no sound files in this folder{clips}")


def _shown(path: Path | str) -> str:
    """Return a path as text that any file or database takes, also where its bytes are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _said(error: soundfile.SoundFileError) -> str:
    """Return what libsndfile said, without the number of the file descriptor."""
    return str(getattr(error, "error_string", error)).rstrip(".")
