"""The frozen phase: heads alone, from features that were computed once. Minutes on a CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from edge.errors import FieldcubeError
from train.model import HashCoder
from train.objectives import HashObjective, hash_terms


class PairError(FieldcubeError):
    """Features or examples that do not fit together."""


@dataclass(frozen=True, slots=True)
class CachedPairs:
    """Features of observations and of sentences.

    observation: float32 [n_views, n_items, n_features]; classes: int64 [n_items].
    text: float32 [n_sentences, n_features]; text_classes: int64 [n_sentences], ascending, every class of an item at least once.
    """

    observation: NDArray[np.float32]
    classes: NDArray[np.int64]
    text: NDArray[np.float32]
    text_classes: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.observation.ndim != 3 or self.observation.shape[1] != len(self.classes):
            raise PairError(
                f"observations: expected features [views, {len(self.classes)}, n], found {self.observation.shape}"
            )
        if len(self.text) != len(self.text_classes) or (np.diff(self.text_classes) < 0).any():
            raise PairError(
                "sentences: expected one class each, in ascending order, found another order or number"
            )
        missing = np.setdiff1d(self.classes, self.text_classes)
        if len(missing):
            raise PairError(
                f"sentences: expected at least one for every class, found none for class {missing[0]}"
            )


def epoch_order(
    classes: NDArray[np.int64], batch: int, balanced: bool, random: np.random.Generator
) -> NDArray[np.int64]:
    """Item indices of one epoch, whole batches only; balanced: every class equally often, items of a class in turn."""
    n = max(len(classes) // batch, 1) * batch
    if not balanced:
        return np.resize(random.permutation(len(classes)), n)
    members = {c: random.permutation(np.flatnonzero(classes == c)) for c in np.unique(classes)}
    keys = list(members)
    order = []
    for turn in range(-(-n // len(keys))):
        order += [members[keys[k]][turn % len(members[keys[k]])] for k in random.permutation(len(keys))]
    return np.asarray(order[:n], dtype=np.int64)


def draw_sentences(
    classes: NDArray[np.int64], text_classes: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int64]:
    """One sentence for each class of a batch: items of a class share it. Row numbers [batch]."""
    present, inverse = np.unique(classes, return_inverse=True)
    low = np.searchsorted(text_classes, present, "left")
    high = np.searchsorted(text_classes, present, "right")
    return (low + (random.random(len(present)) * (high - low)).astype(np.int64))[inverse]


def cosine_rate(step: int, n_steps: int, peak: float, final: float) -> float:
    """Learning rate at a step."""
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * step / max(n_steps, 1)))


def batches_of(
    pairs: CachedPairs, batch: int, epochs: int, balanced: bool, seed: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]]:
    """Yield (observation, text, classes) of every step."""
    n_views = len(pairs.observation)
    for epoch in range(epochs):
        random = np.random.default_rng([seed, epoch])
        order = epoch_order(pairs.classes, batch, balanced, random)
        for first in range(0, len(order), batch):
            rows = order[first : first + batch]
            classes = pairs.classes[rows]
            view = random.integers(n_views, size=len(rows))
            sentences = draw_sentences(classes, pairs.text_classes, random)
            yield pairs.observation[view, rows], pairs.text[sentences], classes


def fit_heads(
    pairs: CachedPairs,
    n_bits: int,
    objective: HashObjective,
    *,
    epochs: int = 5,
    batch: int = 256,
    rate: float = 1e-3,
    weight_decay: float = 1e-2,
    balanced: bool = True,
    large: bool = False,
    seed: int = 1,
) -> tuple[HashCoder, HashCoder]:
    """Train heads on cached features; returns (observation's, text's) in eval mode. Everything follows from the seed."""
    torch.manual_seed(seed)
    n_features = pairs.text.shape[1]
    batch = min(batch, len(pairs.classes))
    heads = HashCoder(pairs.observation.shape[2], n_bits, large), HashCoder(n_features, n_bits, large)
    parameters = [p for head in heads for p in head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay)
    n_steps = epochs * max(len(pairs.classes) // batch, 1)
    steps = tqdm(
        batches_of(pairs, batch, epochs, balanced, seed),
        total=n_steps,
        desc="heads",
        unit="step",
        disable=None,
    )
    for step, (observation, text, classes) in enumerate(steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine_rate(step, n_steps, rate, 1e-6)
        logits = heads[0](torch.from_numpy(observation)), heads[1](torch.from_numpy(text))
        terms = hash_terms(logits[1], logits[0], torch.from_numpy(classes), objective)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
    return heads[0].eval(), heads[1].eval()
