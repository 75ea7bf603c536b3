"""Data sets as an evaluation sees them: every item as it is, whatever it shows, and species in a wording of choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge.bundle import AudioInput, ImageInput
from edge.errors import UsageError
from train.data import DataError
from train.dataset_examples import audio_view, digest_of, picture_view
from train.datasets import Dataset, Species, load_audio, load_image, prompts_of
from train.datasets.prompts import FORMATS
from train.evaluate_codes import Features, Head
from train.features import CacheSettings, cached_pairs, sentence_features
from train.questions import Questions
from train.towers import TowerPair


def wordings_of(formats: Sequence[str]) -> Callable[[Species], Sequence[str]]:
    """How species are worded in some prompt formats (prompts.FORMATS), () = all; raises UsageError for an unknown one."""
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise UsageError(f"prompts: expected some of {', '.join(FORMATS)}; found {unknown[0]!r}")
    chosen = tuple(formats) or FORMATS
    return lambda species: prompts_of(species, chosen)


class AllItems:
    """Every item of a data set, also those of no or several species, as examples without labels: for the feature cache."""

    def __init__(self, dataset: Dataset, takes: AudioInput | ImageInput) -> None:
        modality = "audio" if isinstance(takes, AudioInput) else "image"
        if dataset.modality != modality:
            raise DataError(
                f"data set {dataset.name}: expected {modality} for this encoder, found {dataset.modality}"
            )
        self.items, self.takes = dataset.items, takes
        self.name = f"{dataset.name} {digest_of(dataset.items)}"
        self.classes: NDArray[np.int64] = np.zeros(len(dataset.items), dtype=np.int64)
        self.sentences: tuple[str, ...] = ("an observation",)
        self.sentence_classes: NDArray[np.int64] = np.zeros(1, dtype=np.int64)

    def load(self, index: int, random: np.random.Generator | None) -> Tensor:
        """Window or picture as the tower takes it."""
        item = self.items[index]
        if isinstance(self.takes, AudioInput):
            return audio_view(load_audio(item, self.takes.sample_rate_hz), self.takes, random)
        return picture_view(load_image(item), self.takes, random)


def as_head(module: nn.Module) -> Head:
    """Wrap a trained head as a map of arrays; the module moves to the CPU."""
    module = module.cpu().eval()

    @torch.no_grad()
    def run(features: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = module(torch.from_numpy(np.ascontiguousarray(features))).numpy()
        return logits

    return run


def features_of(
    pair: TowerPair, dataset: Dataset, questions: Questions, cache: Path, device: str = "cpu"
) -> Features:
    """Features of the questions' wordings, and of the items as they are (from the cache where they are in it)."""
    for tower in (pair.observation, pair.text):
        tower.to(device).requires_grad_(False)
    examples, settings = AllItems(dataset, pair.input), CacheSettings(views=1, seed=0)
    items = cached_pairs(pair, examples, settings, cache, device).observation[0]
    return Features(sentence_features(pair, questions.texts, device), np.array(items))  # a copy in memory
