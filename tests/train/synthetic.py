"""Synthetic sounds and sentences for tests of training: four tones, embeddings that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from train.data import AudioCache, PowerCache, Recording
from train.prepare import TrainingData, band_power_of
from train.settings import settings_from
from train.texts import build_vocabulary

RATE_HZ = 32_000
TINY = settings_from(
    {
        "name": "tiny",
        "n_bits": 64,
        "audio": {"window_samples": 16_384, "n_mels": 32, "channels": [16, 16, 32, 32], "stem_width": 8},
        "augment": {"speeds": [1.0], "time_mask_frames": 4, "band_mask": 2, "cut_s": [0.2, 0.4]},
        # the settings of a first training from nothing: the starter's would collapse in so few steps
        "objective": {"alignment": 1.0, "hash_contrast": 1.0, "code_temperature": 0.07},
        "schedule": {
            "pretrain_steps": 100,
            "hash_steps": 60,
            "batch": 16,
            "checkpoint_every": 20,
            "warmup_steps": 5,
            "ema": 0.9,
        },
    },
    "test",
)


def tone(hz: float, seconds: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=int(seconds * RATE_HZ)) * 0.01
    return (np.sin(2 * np.pi * hz * np.arange(len(noise)) / RATE_HZ) * 0.3 + noise).astype(np.float32)


def tones(folder: Path) -> TrainingData:
    """Twelve recordings of four tones, all of them training; the last of each sound also validates."""
    names = ["chainsaw", "rain", "helicopter", "soundscape"]
    recordings, sounds = [], []
    for i, name in enumerate(names):
        for n in range(3):
            recordings.append(Recording(folder / f"{i}{n}", "esc10", name, "", "fold1", "CC0", f"{i}{n}"))
            sounds.append(tone(400 * 2 ** (1.3 * i), 1.5, 10 * i + n))
    vocabulary = build_vocabulary(recordings)
    classes = np.array([vocabulary.class_keys.index(r.class_key) for r in recordings])
    powers = [band_power_of(TINY)(s) for s in sounds]
    starts = np.concatenate([[0], np.cumsum([len(p) for p in powers])])[None]
    random = np.random.default_rng(0)
    directions = random.normal(size=(len(names), 48))
    embeddings = np.stack(
        [directions[p.classes[0]] + 0.3 * random.normal(size=48) for p in vocabulary.prompts]
    )
    others = random.normal(size=(50, 48))
    unit = [torch.nn.functional.normalize(torch.from_numpy(e).float(), dim=1) for e in (embeddings, others)]
    audio = AudioCache(
        np.round(np.concatenate(sounds) * 32767).astype(np.int16),
        np.cumsum([0] + [len(s) for s in sounds]),
        "tones",
    )
    everything = tuple(range(len(recordings)))
    return TrainingData(
        tuple(recordings),
        audio,
        PowerCache(np.concatenate(powers), starts),
        vocabulary,
        classes,
        everything,
        everything[2::3],
        *unit,
    )


class ToneTower:
    """Stands for the sentence encoder: embeds the sentences that the tones know, any other at random but always the same."""

    def __init__(self, data: TrainingData) -> None:
        vocabulary = data.vocabulary
        self.known = {p.text: e for p, e in zip(vocabulary.prompts, data.prompt_embeddings, strict=True)}
        for text, index in vocabulary.heldout:
            self.known[text] = data.prompt_embeddings[vocabulary.own[index][0]]

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        rows = []
        for text in sentences:
            random = torch.Generator().manual_seed(sum(map(ord, text)))
            other = torch.nn.functional.normalize(torch.randn(48, generator=random), dim=0)
            rows.append(self.known.get(text, other))
        return torch.stack(rows)
