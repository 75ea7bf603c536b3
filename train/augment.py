"""Training windows: pieces of recordings, mixed, cut, masked and tilted so that clean clips teach faint, far sounds.

All of it happens on mel-band powers, where sounds add (their phases are independent) and a window is ten times smaller than
its waveform. The powers come from the encoder's own front end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.data import PowerCache


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How far training windows stray from the recordings."""

    mix_share: float = 0.5  # windows that get a second labelled recording
    mix_db: float = 12.0  # the second one is 0 .. mix_db weaker
    background_share: float = 0.6  # windows that get a background
    snr_db: tuple[float, float] = (-5.0, 30.0)  # sound over background
    cut_share: float = 0.3  # windows in which only part of the sound is left
    cut_s: tuple[float, float] = (1.0, 4.0)  # how much is left
    speeds: tuple[float, ...] = (0.9, 0.95, 1.0, 1.05, 1.1)  # playback speeds, drawn evenly
    level_dbfs: tuple[float, float] = (-60.0, -6.0)  # RMS of the finished window
    tilt: float = 0.35  # size of a random smooth change of the band levels, in units of the log-mel plane
    band_shift: int = 2  # largest shift along the mel axis
    time_mask_frames: int = 60
    band_mask: int = 12


@dataclass(frozen=True, slots=True)
class Batch:
    """Training windows with what is in them."""

    power: NDArray[np.float32]  # [batch, n_mels, n_frames], mel-band powers
    weights: NDArray[np.float32]  # [batch, n_classes]; share of each class in the window, rows sum to 1


def piece(power: NDArray[np.float32], n_frames: int, random: np.random.Generator) -> NDArray[np.float32]:
    """A random piece of a recording at unit mean power, float32 [n_mels, n_frames]; short recordings repeat, as on the recorder.

    Of three candidate pieces the one that varies most over time is taken: labels hold for a whole recording, and birds pause.

    Args:
        power: [n_frames_of_the_recording, n_mels].
    """
    n_available = len(power)
    if n_available < n_frames + n_frames // 4:  # about as long as a window: vary the position by rolling
        repeated = np.tile(power, (-(-n_frames // n_available), 1)) if n_available < n_frames else power
        window = np.roll(repeated, -int(random.integers(len(repeated))), axis=0)[:n_frames]
    else:
        starts = random.integers(n_available - n_frames + 1, size=3)
        variation = [float(np.log(power[s : s + n_frames : 4] + 1e-12).std(axis=0).mean()) for s in starts]
        start = int(starts[int(np.argmax(variation))])
        window = power[start : start + n_frames]
    return window.T / max(float(window.mean()), 1e-12)


def keep_part(window: NDArray[np.float32], n_kept: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Silence all but `n_kept` frames around the loudest one, and move them to a random place; unit mean power over what is left."""
    n_frames = window.shape[1]
    loudest = int(np.argmax(window.sum(axis=0)))
    start = int(np.clip(loudest - random.integers(n_kept), 0, n_frames - n_kept))
    kept = np.zeros_like(window)
    target = int(random.integers(n_frames - n_kept + 1))
    kept[:, target : target + n_kept] = window[:, start : start + n_kept]
    return kept / max(float(kept.sum()) / (n_kept * len(kept)), 1e-12)


class WindowSampler:
    """Draws batches of labelled windows from a cache, all randomness from one generator."""

    def __init__(
        self,
        cache: PowerCache,
        indices: Sequence[int],
        classes: NDArray[np.int64],
        background_class: int,
        n_frames: int,
        frames_per_s: float,
        settings: AugmentSettings,
    ) -> None:
        """Take recordings `indices` of the cache; `classes` int64 [n_recordings] gives each its class, `background_class` the one that is mixed in."""
        self.cache, self.classes, self.settings = cache, classes, settings
        self.n_frames, self.frames_per_s = n_frames, frames_per_s
        self.n_classes = int(classes.max()) + 1
        self.members = {
            c: [i for i in indices if classes[i] == c] for c in sorted({int(classes[i]) for i in indices})
        }
        self.backgrounds = self.members.get(background_class, [])
        counts = np.asarray([len(m) for m in self.members.values()], dtype=np.float64)
        self.keys = list(self.members)
        self.chances = np.sqrt(counts) / np.sqrt(counts).sum()

    def _piece_of(self, recording: int, random: np.random.Generator) -> NDArray[np.float32]:
        speed = int(random.integers(len(self.settings.speeds)))
        return piece(self.cache.get(recording, speed), self.n_frames, random)

    def _draw(self, random: np.random.Generator) -> tuple[int, NDArray[np.float32]]:
        key = self.keys[int(random.choice(len(self.keys), p=self.chances))]
        members = self.members[key]
        return key, self._piece_of(members[int(random.integers(len(members)))], random)

    def batch(self, size: int, random: np.random.Generator) -> Batch:
        """Draw `size` windows."""
        s = self.settings
        windows = []
        weights = np.zeros((size, self.n_classes), dtype=np.float32)
        for row in range(size):
            key, window = self._draw(random)
            if random.random() < s.cut_share:
                window = keep_part(window, int(random.uniform(*s.cut_s) * self.frames_per_s), random)
            weights[row, key] = 1.0
            if random.random() < s.mix_share:
                other, second = self._draw(random)
                gain = 10 ** (-random.uniform(0, s.mix_db) / 10)
                window = window + gain * second
                share = np.sqrt(gain) / (
                    1 + np.sqrt(gain)
                )  # by amplitude: 12 dB weaker still counts for a fifth
                weights[row, key] -= share
                weights[row, other] += share
            if self.backgrounds and random.random() < s.background_share:
                background = self._piece_of(
                    self.backgrounds[int(random.integers(len(self.backgrounds)))], random
                )
                window = window + background * 10 ** (-random.uniform(*s.snr_db) / 10)
            # 0 dBFS RMS is a mean band power of about 1.5 / n_fft at unit variance: near 1e-3
            level = 10 ** (random.uniform(*s.level_dbfs) / 10) * 1.5e-3
            windows.append(window * np.float32(level / max(float(window.mean()), 1e-12)))
        return Batch(np.stack(windows).astype(np.float32), weights)


def mask_and_tilt(planes: Tensor, settings: AugmentSettings, random: torch.Generator) -> Tensor:
    """Change the band levels smoothly, shift the mel axis, and blank one stretch of time and one of bands in each window.

    Args:
        planes: [batch, 2, n_mels, n_frames]; a new tensor is returned.
    """
    n_batch, _, n_mels, n_frames = planes.shape
    device = planes.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random).to(device)

    knots = (uniform(n_batch, 1, 6) * 2 - 1) * settings.tilt
    tilt = torch.nn.functional.interpolate(
        knots, size=n_mels, mode="linear", align_corners=True
    )  # [batch, 1, n_mels]
    planes = planes + torch.cat([tilt, torch.zeros_like(tilt)], dim=1).unsqueeze(3)
    if settings.band_shift:
        shift = int(torch.randint(-settings.band_shift, settings.band_shift + 1, (1,), generator=random))
        planes = torch.roll(planes, shift, dims=2)
    frames, bands = torch.arange(n_frames, device=device), torch.arange(n_mels, device=device)
    n_time = uniform(n_batch, 1) * settings.time_mask_frames
    t0 = uniform(n_batch, 1) * (n_frames - n_time)
    n_band = uniform(n_batch, 1) * settings.band_mask
    b0 = uniform(n_batch, 1) * (n_mels - n_band)
    blank = ((frames >= t0) & (frames < t0 + n_time)).view(n_batch, 1, 1, n_frames)
    blank = blank | ((bands >= b0) & (bands < b0 + n_band)).view(n_batch, 1, n_mels, 1)
    return planes.masked_fill(blank, 0.0)
