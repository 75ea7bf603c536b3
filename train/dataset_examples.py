"""A data set as what a hashing run draws from: labelled items as the tower takes them, as they are or augmented, and sentences of their species."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from edge.bundle import AudioInput, ImageInput
from edge.errors import ConfigError
from edge.images import pixels_of
from train.data import DataError

if TYPE_CHECKING:
    from train.datasets import Dataset, Item, Species

GAIN_DB = (-18.0, 3.0)  # recordings are loud and close, the field is faint and far
CROP_AREA = (0.35, 1.0)  # share of a picture that an augmented view shows
CROP_ASPECT = (3 / 4, 4 / 3)
N_READ = 8  # items at most whose bytes tell one data set from another with the same names


class DatasetExamples:
    """Items of one species each; those of none or of several (soundscapes) train nothing. Any indexable data set will do, also shards.

    load reads one item wherever it lies, so that shuffling is exact and a resumed run sees the same; a shard set must therefore lie on a disk
    that reads at random (a local NVMe), not behind a pipe.
    """

    def __init__(
        self,
        dataset: Dataset,
        takes: AudioInput | ImageInput,
        wordings: Callable[[Species], Sequence[str]],
    ) -> None:
        modality = "audio" if isinstance(takes, AudioInput) else "image"
        if dataset.modality != modality:
            raise ConfigError(
                f"data set {dataset.name}: expected {modality} for this encoder, found {dataset.modality}"
            )
        self.takes = takes
        self.items = [item for item in dataset.items if len(item.species) == 1]
        if not self.items:
            raise DataError(
                f"data set {dataset.name}: expected items of one species each, found none in {len(dataset.items)}"
            )
        self.name = f"{dataset.name}-{digest_of(self.items)}"
        keys = sorted({item.species[0] for item in self.items})
        number = {key: i for i, key in enumerate(keys)}
        self.classes: NDArray[np.int64] = np.asarray([number[i.species[0]] for i in self.items], np.int64)
        own = [tuple(dict.fromkeys(wordings(dataset.species[key]))) for key in keys]
        self.sentences: tuple[str, ...] = tuple(text for each in own for text in each)
        self.sentence_classes: NDArray[np.int64] = np.repeat(np.arange(len(keys)), [len(e) for e in own])

    def load(self, index: int, random: np.random.Generator | None) -> Tensor:
        """Window or picture as the tower takes it; random: another part, level or crop of it."""
        from train.datasets import load_audio, load_image

        item = self.items[index]
        if isinstance(self.takes, AudioInput):
            return audio_view(load_audio(item, self.takes.sample_rate_hz), self.takes, random)
        return picture_view(load_image(item), self.takes, random)


def digest_of(items: Sequence[Item]) -> str:
    """Twelve digits that change with the items of a data set, not with the folder that they lie in: names, parts, the bytes of a few of them."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{PurePath(item.content.name).name} {item.start_s} {item.duration_s}\n".encode())
    for item in items[:: -(-len(items) // N_READ)]:
        digest.update(hashlib.sha256(item.content.read()).digest())
    return digest.hexdigest()[:12]


def audio_view(samples: NDArray[np.float32], takes: AudioInput, random: np.random.Generator | None) -> Tensor:
    """One window, float32 [window_samples]: the first, or a random one at a random level; a short recording repeats."""
    n = takes.window_samples
    if len(samples) < n:
        samples = np.resize(samples, n)
    if random is None:
        return torch.from_numpy(samples[:n].copy())
    first = int(random.integers(len(samples) - n + 1))
    gain = np.float32(10 ** (random.uniform(*GAIN_DB) / 20))
    return torch.from_numpy(np.clip(samples[first : first + n] * gain, -1, 1))


def picture_view(picture: Image.Image, takes: ImageInput, random: np.random.Generator | None) -> Tensor:
    """One picture, float32 [3, size, size], normalised: as the encoder resizes it, or a random part of it, perhaps mirrored."""
    if random is None:
        return torch.from_numpy(pixels_of(picture, takes))
    box = random_box(picture.width, picture.height, random)
    square = picture.resize((takes.size, takes.size), Image.Resampling.BICUBIC, box=box)
    if random.random() < 0.5:
        square = ImageOps.mirror(square)
    return torch.from_numpy(pixels_of(square, takes))


def random_box(width: int, height: int, random: np.random.Generator) -> tuple[float, float, float, float]:
    """Part of a picture to crop: (left, top, right, bottom) in pixels."""
    area = width * height * random.uniform(*CROP_AREA)
    aspect = np.exp(random.uniform(*np.log(CROP_ASPECT)))
    wide, high = min(width, (area * aspect) ** 0.5), min(height, (area / aspect) ** 0.5)
    left, top = random.uniform(0, width - wide), random.uniform(0, height - high)
    return left, top, left + wide, top + high
