"""What a run trains on: recordings with their mel-band powers, and sentences with their embeddings."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.data import (
    AudioCache,
    PowerCache,
    Recording,
    is_open,
    load_recordings,
    open_cache,
    open_power_cache,
    split,
)
from train.model import LogMel
from train.settings import DataSettings, RunSettings
from train.text_tower import SentenceTower
from train.texts import Vocabulary, build_vocabulary


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Recordings, their audio, and sentences with their embeddings."""

    recordings: tuple[Recording, ...]
    cache: AudioCache
    power: PowerCache
    vocabulary: Vocabulary
    classes: NDArray[np.int64]  # [n_recordings]
    training: tuple[int, ...]
    validation: tuple[int, ...]
    prompt_embeddings: Tensor  # [n_prompts, n_text_features]
    other_embeddings: Tensor  # [n_others, n_text_features], sentences of no class: keep the text codes spread


def select(settings: DataSettings, root: Path) -> tuple[list[Recording], list[int], list[int]]:
    """Recordings of a run, and the indices of those that train and that validate.

    Folds are dealt over all recordings before licences are looked at: a recording is in one fold whatever trains.
    """
    everything = load_recordings(root, settings.datasets)
    training, validation = split(everything, settings.fold)
    keeps_all = settings.licences == "all"
    left_out = {r.origin_key for r in everything if r.dataset in settings.leave_out}
    kept = [
        i
        for i, r in enumerate(everything)
        if (keeps_all or is_open(r.licence)) and r.origin_key not in left_out
    ]
    position = {old: new for new, old in enumerate(kept)}
    return (
        [everything[i] for i in kept],
        [position[i] for i in training if i in position],
        [position[i] for i in validation if i in position],
    )


def prepare(settings: RunSettings, root: Path, cache_folder: Path) -> TrainingData:
    """Load recordings and embed all sentences."""
    recordings, training, validation = select(settings.data, root)
    vocabulary = build_vocabulary(recordings)
    classes = np.asarray([vocabulary.class_keys.index(r.class_key) for r in recordings], dtype=np.int64)
    tower = SentenceTower(settings.text_tower)
    prompts = tower.embed([p.text for p in vocabulary.prompts])
    others = tower.embed(other_sentences(root, recordings))
    cache = open_cache(recordings, settings.audio.sample_rate_hz, cache_folder)
    power = open_power_cache(
        cache,
        band_power_of(settings),
        settings.augment.speeds,
        cache_folder / power_cache_name(cache, settings),
    )
    return TrainingData(
        tuple(recordings),
        cache,
        power,
        vocabulary,
        classes,
        tuple(training),
        tuple(validation),
        prompts,
        others,
    )


def band_power_of(settings: RunSettings) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The front end's map from a waveform [n] to mel-band powers [n_frames, n_mels]."""
    front_end = LogMel(settings.audio)

    def band_power(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        padded = np.pad(samples, (0, max(0, settings.audio.n_fft - len(samples))))
        powers: NDArray[np.float32] = front_end.band_power(torch.from_numpy(padded)[None])[0].T.numpy()
        return powers

    return band_power


def power_cache_name(cache: AudioCache, settings: RunSettings) -> str:
    """File name that tells recordings, front end and speeds apart."""
    a = settings.audio
    front_end = [
        a.sample_rate_hz,
        a.n_fft,
        a.hop_samples,
        a.n_mels,
        a.fmin_hz,
        a.fmax_hz,
        settings.augment.speeds,
    ]
    return f"{cache.fingerprint}-{hashlib.sha256(json.dumps(front_end).encode()).hexdigest()[:12]}.f32"


def other_sentences(root: Path, recordings: Sequence[Recording], n_names: int = 3000) -> list[str]:
    """Common names of animals that are in no recording here, evenly drawn from the species lists."""
    known = {r.label.strip().lower() for r in recordings} | {r.species.strip().lower() for r in recordings}
    names: list[str] = []
    for file in sorted((root / "text").glob("species_*.csv")):
        with file.open(newline="", encoding="utf-8") as stream:
            names += [
                row["common_name"]
                for row in csv.DictReader(stream)
                if not {row["common_name"].lower(), row["scientific_name"].lower()} & known
            ]
    return names[:: max(1, len(names) // n_names)]
