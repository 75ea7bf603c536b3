"""A tiny pair of towers and labelled noise to train hashing on; `python -m tests.train.tiny_hashing FOLDER` is one process of several."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn

from edge.bundle import AudioInput
from train.distributed import join, leave
from train.hash_settings import HashRunSettings, HashSchedule, LoraOverrides
from train.hashing import train_hash
from train.lora import LoraSettings
from train.towers.pair import TowerPair

N_SAMPLES, N_FEATURES, N_CLASSES, N_ITEMS, N_BITS = 24, 16, 6, 40, 16
WORDS = ("[pad]", "[unk]", "a", "call", "of", *(f"owl{i}" for i in range(N_CLASSES)))
SETTINGS = HashRunSettings(
    name="tiny",
    encoder="none",
    n_bits=N_BITS,
    seed=3,
    lora=LoraOverrides(rank=2, dropout=0.0),
    schedule=HashSchedule(frozen_epochs=1, epochs=2, batch=8, checkpoint_every=2, workers=0, bf16=False),
)
# of each phase; with more of them Adam makes whole steps of rounding errors where a gradient is 0 (a bias before BatchNorm)
ONE_STEP = {"batch": N_ITEMS, "epochs": 1, "checkpoint_every": 1}


class Block(nn.Module):
    """One residual layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(N_FEATURES, N_FEATURES)

    def forward(self, rows: Tensor) -> Tensor:
        return rows + torch.tanh(self.linear(rows))


class FrontLogMel(nn.Module):
    """Stands for a front end: matrix product, logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", torch.rand(N_SAMPLES, N_FEATURES), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        return torch.log(samples.square() @ self.filters + 1e-3)


class Observation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front_end = FrontLogMel()
        self.norm = nn.BatchNorm1d(N_FEATURES)  # as HTSAT has one: its statistics must stay
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, samples: Tensor) -> Tensor:
        rows = self.norm(self.front_end(samples))
        for block in self.blocks:
            rows = block(rows)
        return rows


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS), N_FEATURES)
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        rows = (self.words(input_ids) * attention_mask.unsqueeze(2)).sum(dim=1)
        for block in self.blocks:
            rows = block(rows)
        return rows


def tiny_pair() -> TowerPair:
    """The same towers every time."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[unk]"))
    tokenizer.pre_tokenizer = Whitespace()
    return TowerPair(
        name="tiny",
        source="none",
        modality="audio",
        observation=Observation().eval(),
        text=Text().eval(),
        input=AudioInput(1000, N_SAMPLES),
        tokenizer_json=tokenizer.to_str().encode(),
        max_tokens=8,
        pad_id=0,
        n_features=N_FEATURES,
        lora=LoraSettings(r"blocks\.\d+\.linear", r"blocks\.\d+\.linear"),
        licence="none",
        temperature=0.07,
    )


class Noise:
    """Items of a class are its own noise with more noise on it."""

    name = "noise"
    classes = np.arange(N_ITEMS) % N_CLASSES
    sentences = tuple(f"{start} owl{i}" for i in range(N_CLASSES) for start in ("call of", "a"))
    sentence_classes = np.repeat(np.arange(N_CLASSES), 2)

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.centres = random.normal(size=(N_CLASSES, N_SAMPLES))
        self.items = self.centres[self.classes] + 0.1 * random.normal(size=(N_ITEMS, N_SAMPLES))
        self.n_loaded = 0

    def load(self, index: int, random: np.random.Generator | None) -> Tensor:
        self.n_loaded += 1
        noise = 0.0 if random is None else 0.05 * random.normal(size=N_SAMPLES)
        return torch.from_numpy((self.items[index] + noise).astype(np.float32))


def tiny_run(out: Path, cache: Path, **schedule: object) -> Path:
    """Train from the beginning, or on; returns the checkpoint."""
    settings = replace(SETTINGS, schedule=replace(SETTINGS.schedule, **schedule))
    return train_hash(settings, tiny_pair(), Noise(), out, cache)


def main(folder: Path) -> None:
    """Train together with the other processes."""
    torch.set_num_threads(1)
    join("cpu")
    tiny_run(folder / "run", folder / "cache", **ONE_STEP)
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
