"""A clip as people see it: its spectrogram as PNG, and what is to be known of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from edge.errors import HubError

WIDTH, HEIGHT = 900, 240  # pixels
RANGE_DB = 70.0  # below the loudest, black
MAX_S = 600.0  # of a clip; what is longer is not drawn
_WINDOW = 1024
# dark to light, its lightness growing evenly: readable also without colour
_COLOURS = np.array(
    [(0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)],
    np.float64,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """Rate in Hz and duration in s of a clip."""

    rate_hz: int
    duration_s: float


def facts(path: Path) -> ClipFacts:
    """Return what is to be known of a sound file. Raises HubError where it is none."""
    try:
        found = soundfile.info(path)
    except (soundfile.SoundFileError, OSError) as error:
        raise HubError(f"{path.name}: expected a sound file, found {error}") from error
    return ClipFacts(int(found.samplerate), float(found.duration))


def spectrogram_png(path: Path) -> bytes:
    """Return the spectrogram of a sound file, all channels as one: time to the right, 0 Hz to half its rate upward.

    Raises HubError for a file that is no sound, is empty or longer than MAX_S.
    """
    known = facts(path)
    if not 0 < known.duration_s <= MAX_S:
        raise HubError(f"{path.name}: expected up to {MAX_S:g} s of sound, found {known.duration_s:g} s")
    try:
        samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise HubError(f"{path.name}: expected a sound file, found {error}") from error
    levels = _levels(samples.mean(axis=1))
    at = np.clip(1.0 + levels / RANGE_DB, 0.0, 1.0) * (len(_COLOURS) - 1)
    low = np.minimum(at.astype(int), len(_COLOURS) - 2)
    share = (at - low)[..., None]
    pixels = (_COLOURS[low] * (1 - share) + _COLOURS[low + 1] * share).round().astype(np.uint8)
    image = Image.fromarray(pixels[::-1]).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.quantize(64, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def _levels(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return dB below the loudest, [n_frequencies, WIDTH or less]."""
    padded = np.pad(np.nan_to_num(samples), (0, max(0, _WINDOW - len(samples))))
    n = min(WIDTH, max(1, (len(padded) - _WINDOW) // (_WINDOW // 4) + 1))
    starts = np.linspace(0, len(padded) - _WINDOW, n).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[starts] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)).T ** 2  # [513, n]
    loudest = max(float(power.max()), 1e-12)
    return np.asarray(10.0 * np.log10(np.maximum(power, loudest * 1e-12) / loudest), np.float64)
