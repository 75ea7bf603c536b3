"""The test that every new tower or objective must pass first: 100 pairs are learnt by heart, the distance of matched codes goes to 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from train.head_fitting import CachedPairs, fit_heads
from train.metrics import hamming_table
from train.objectives import HashObjective

EPOCHS = 200  # of one batch of all pairs each
MATCHED_SHARE = 0.01  # of the bits: the mean distance of matched pairs must stay below
OTHER_SHARE = 0.25  # and that of other pairs above: codes that collapse match as well


@dataclass(frozen=True, slots=True)
class Overfit:
    """Mean Hamming distances after training on the same pairs."""

    n_pairs: int
    n_bits: int
    matched: float  # text and observation of one pair
    other: float  # text and observation of two pairs
    nearest: float  # share of texts whose nearest observation is their own, ties counted against

    @property
    def ok(self) -> bool:
        """Whether matched codes are equal and others are not."""
        return self.matched <= MATCHED_SHARE * self.n_bits and self.other >= OTHER_SHARE * self.n_bits

    def __str__(self) -> str:
        return (
            f"{self.n_pairs} pairs, {self.n_bits} bits: matched pairs differ in {self.matched:.2f} bits (wanted: at most "
            f"{MATCHED_SHARE * self.n_bits:.1f}), others in {self.other:.1f} (wanted: at least {OTHER_SHARE * self.n_bits:.0f}); "
            f"nearest is the own one for {100 * self.nearest:.0f} %"
        )


def pairs_of(observation: NDArray[np.float32], text: NDArray[np.float32]) -> CachedPairs:
    """Row i of both as one pair, each its own class; [n_pairs, n_features] each."""
    numbers = np.arange(len(text))
    return CachedPairs(observation[None], numbers, text, numbers)


def random_pairs(n_pairs: int = 100, n_features: int = 128, seed: int = 0) -> CachedPairs:
    """Pairs whose two sides have nothing in common: only learning by heart can match them."""
    random = np.random.default_rng(seed)
    observation, text = (random.normal(size=(n_pairs, n_features)).astype(np.float32) for _ in range(2))
    return pairs_of(observation, text)


@torch.no_grad()
def _logits(head: torch.nn.Module, features: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = head(torch.from_numpy(features)).numpy()
    return found


def overfit(
    pairs: CachedPairs,
    n_bits: int = 256,
    objective: HashObjective | None = None,
    epochs: int = EPOCHS,
    seed: int = 0,
) -> Overfit:
    """Train heads on the pairs, one view and one sentence each, and measure them on the same pairs."""
    observation_head, text_head = fit_heads(
        pairs, n_bits, objective or HashObjective(), epochs=epochs, batch=len(pairs.classes), seed=seed
    )
    table = hamming_table(_logits(text_head, pairs.text), _logits(observation_head, pairs.observation[0]))
    own, n = table.diagonal(), len(table)
    others = table[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    nearest = float((own < others.min(axis=1)).mean())
    return Overfit(n, n_bits, float(own.mean()), float(others.mean()), nearest)
