"""The sound of a detection for whoever judges it: where it is, playing it, a copy of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from edge.durable import write_file
from edge.errors import AudioError, UsageError
from edge.observation import Detection, Observation

_AROUND_S = 1.0  # of the recording, before and after the window, where no clip was kept


@dataclass(frozen=True, slots=True)
class Evidence:
    """A file, or the part of a recording from start_s to end_s; a picture cannot be played."""

    path: Path
    start_s: float | None = None
    end_s: float | None = None
    is_picture: bool = False

    def __str__(self) -> str:
        part = "" if self.start_s is None else f", from {self.start_s:.1f} s to {self.end_s:.1f} s"
        return f"{self.path}{part}"


def evidence_of(observation: Observation, detection: Detection, store: Path) -> Evidence | None:
    """Return the clip of a detection, else its place in the recording, None where neither is there any more.

    A clip is looked for where edge-monitor wrote it, and in a folder of its name beside the store.
    """
    if detection.clip is not None:
        clip = Path(detection.clip)
        for path in (clip, store.parent / clip.parent.name / clip.name):
            if path.is_file():
                return Evidence(path)
    source = Path(observation.source)
    if not source.is_file():
        return None
    if observation.is_picture:
        return Evidence(source, is_picture=True)
    start_s = max(0.0, observation.offset_s - _AROUND_S)
    return Evidence(source, start_s, observation.offset_s + observation.duration_s + _AROUND_S)


def play(evidence: Evidence, portaudio: Any) -> None:
    """Play the sound to its end, or until Ctrl-C. portaudio: the module sounddevice. Raises AudioError."""
    samples, rate_hz = _read(evidence)
    try:
        portaudio.play(samples, rate_hz, blocking=True)
    except KeyboardInterrupt:
        portaudio.stop()
    except portaudio.PortAudioError as error:
        raise AudioError(
            f"{evidence.path}: expected a loudspeaker that plays {rate_hz} Hz, found {error}; use --save"
        ) from error


def save(evidence: Evidence, seq: int, query: str, folder: Path) -> Path:
    """Copy what there is to a folder, named by the detection, and return its path. Raises UsageError, AudioError."""
    plain = "-".join(re.findall(r"[^\W_]+", query.lower()))[:40] or "detection"
    suffix = evidence.path.suffix if evidence.start_s is None else ".flac"
    path = folder / f"{seq:08d}_{plain}{suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if evidence.start_s is None:
            write_file(path, evidence.path.read_bytes())
        else:
            soundfile.write(path, *_read(evidence), subtype="PCM_16")
    except (OSError, soundfile.SoundFileError) as error:
        raise UsageError(
            f"{path}: expected a place that can be written, found {error}; give --save"
        ) from error
    return path


def _read(evidence: Evidence) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    """Return samples float32 [n, n_channels] and their rate in Hz."""
    if evidence.is_picture:
        raise AudioError(f"{evidence.path}: expected sound, found a picture; look at it")
    try:
        with soundfile.SoundFile(evidence.path) as file:
            rate_hz = file.samplerate
            if evidence.start_s is None or evidence.end_s is None:
                return file.read(dtype="float32", always_2d=True), rate_hz
            start = min(round(evidence.start_s * rate_hz), file.frames)
            file.seek(start)
            n_frames = round(evidence.end_s * rate_hz) - start
            return file.read(n_frames, dtype="float32", always_2d=True), rate_hz
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioError(f"{evidence.path}: expected sound that can be read, found {error}") from error
