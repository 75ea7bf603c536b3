"""The sound of a detection for whoever judges it: where it is, playing it, a copy of it."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from edge.durable import write_file
from edge.errors import AudioError, UsageError
from edge.guano import parse
from edge.observation import Detection, Observation

_AROUND_S = 1.0  # before and after the window: enough to know a sound by, too little to judge another one


@dataclass(frozen=True, slots=True)
class Evidence:
    """A file, or the part of a clip or recording from start_s to end_s; a picture cannot be played."""

    path: Path
    start_s: float | None = None
    end_s: float | None = None
    is_picture: bool = False

    def __str__(self) -> str:
        part = "" if self.start_s is None else f", from {self.start_s:.1f} s to {self.end_s:.1f} s"
        return f"{self.path}{part}"


def evidence_of(observation: Observation, detection: Detection, store: Path) -> Evidence | None:
    """Return the window's part of its clip, else of its recording, None where neither is there any more.

    A clip is looked for where edge-monitor wrote it, and in a folder of its name beside the store. It may hold a minute and many
    detections, or be another store's of the same name: its metadata say. One without them is taken as a whole.
    """
    if detection.clip is not None:
        clip = Path(detection.clip)
        for path in (clip, store.parent / clip.parent.name / clip.name):
            if path.is_file() and (evidence := _in_clip(path, observation)) is not None:
                return evidence
    source = Path(observation.source)
    if not source.is_file():
        return None
    if observation.is_picture:
        return Evidence(source, is_picture=True)
    return _part(source, observation, 0.0)


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
    name = "-".join(re.findall(r"[^\W_]+", query.lower()))[:40] or "detection"
    suffix = evidence.path.suffix if evidence.start_s is None else ".flac"
    path = folder / f"{seq:08d}_{name}{suffix}"
    content = _flac(evidence) if evidence.start_s is not None else _bytes(evidence.path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    except OSError as error:
        found = error.strerror or error
        raise UsageError(
            f"{path}: expected a place that can be written, found {found}; give --save"
        ) from error
    return path


def _in_clip(path: Path, observation: Observation) -> Evidence | None:
    """Return where in a clip the window is, None for a clip of another store."""
    try:
        with soundfile.SoundFile(path) as file:
            metadata = parse(file.comment)
    except (OSError, soundfile.SoundFileError):
        return Evidence(path)  # playing it says what is wrong
    owner, _, _ = metadata.get("Fieldcube|observation", "").rpartition("/")
    try:
        clip_s = float(metadata["Fieldcube|offset"])
    except (KeyError, ValueError):
        return Evidence(path)
    if owner != f"{observation.device_id}/{observation.epoch}":
        return None
    return _part(path, observation, clip_s)


def _part(path: Path, observation: Observation, begins_s: float) -> Evidence:
    """Return the window with a little around it, in a file that begins at begins_s of the observation's source."""
    start_s = observation.offset_s - begins_s
    return Evidence(path, max(0.0, start_s - _AROUND_S), start_s + observation.duration_s + _AROUND_S)


def _flac(evidence: Evidence) -> bytes:
    content, (samples, rate_hz) = io.BytesIO(), _read(evidence)
    try:
        soundfile.write(content, samples, rate_hz, subtype="PCM_16", format="FLAC")
    except soundfile.SoundFileError as error:
        raise AudioError(f"{evidence.path}: expected sound that FLAC can hold, found {error}") from error
    return content.getvalue()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AudioError(
            f"{path}: expected a file that can be read, found {error.strerror or error}"
        ) from error


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
            samples = file.read(
                max(0, round(evidence.end_s * rate_hz) - start), dtype="float32", always_2d=True
            )
            n_frames = file.frames
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioError(f"{evidence.path}: expected sound that can be read, found {error}") from error
    if not samples.size:
        found = f"{n_frames / rate_hz:.1f} s of sound"
        raise AudioError(f"{evidence.path}: expected sound at {evidence.start_s:.1f} s, found {found}")
    return samples, rate_hz
