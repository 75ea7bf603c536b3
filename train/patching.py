"""Patching (as in TaxaBind): towers between the pretrained and the adapted weights, at the point where held-out items are told apart best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.examples import Examples
from train.features import sentence_features
from train.hash_checkpoint import HashCheckpoint, load_hash_checkpoint
from train.lora import LoraError, patched_state
from train.metrics import hamming_table
from train.retrieval import zero_shot
from train.towers import open_towers

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
BATCH = 32


def choose_patch(
    path: Path,
    examples: Examples,
    encoder: str | None = None,
    device: str = "cpu",
    alphas: Sequence[float] = ALPHAS,
    n_items: int = 2000,
) -> tuple[float, dict[float, float]]:
    """Return the alpha with the highest zero-shot accuracy of codes (the larger of equals), and the accuracy at each.

    Args:
        examples: held-out items; at most n_items of them, drawn with a fixed seed, are looked at.

    Raises:
        LoraError: the towers of the checkpoint stayed frozen, so that there is nothing between.
    """
    checkpoint = load_hash_checkpoint(path, encoder)
    if checkpoint.notes.patch_alpha != 1.0:
        raise LoraError(
            f"{path}: expected a checkpoint as training left it, found one patched at {checkpoint.notes.patch_alpha:g}"
        )
    original = open_towers(encoder or checkpoint.settings.encoder)
    towers = checkpoint.pair.observation, checkpoint.pair.text
    adapted = [_copied(tower.state_dict()) for tower in towers]
    pretrained = [_copied(tower.state_dict()) for tower in (original.observation, original.text)]
    if all(torch.equal(a[k], b[k]) for a, b in zip(adapted, pretrained, strict=True) for k in a):
        raise LoraError(
            f"{path}: expected towers with adapters, found frozen ones; there is nothing to patch"
        )
    for module in (*towers, checkpoint.observation_head, checkpoint.text_head):
        module.to(device)
    rows = np.random.default_rng(0).permutation(len(examples.classes))[:n_items]
    table = {}
    for alpha in alphas:
        for tower, before, after in zip(towers, pretrained, adapted, strict=True):
            tower.load_state_dict(patched_state(before, after, alpha))
        table[alpha] = code_accuracy(checkpoint, examples, rows, device)
    return max(table, key=lambda alpha: (table[alpha], alpha)), table


@torch.no_grad()
def code_accuracy(
    checkpoint: HashCheckpoint, examples: Examples, rows: NDArray[np.int64], device: str
) -> float:
    """Share of items whose nearest class code, of all classes, is their own; a class's code is the mean of its sentences' logits."""
    features = torch.from_numpy(sentence_features(checkpoint.pair, examples.sentences, device))
    texts = checkpoint.text_head(features.to(device)).cpu().numpy()
    present, first = np.unique(examples.sentence_classes, return_index=True)
    queries = np.add.reduceat(texts, first, axis=0)  # the sign of a sum is that of the mean
    parts = []
    for start in range(0, len(rows), BATCH):
        inputs = torch.stack([examples.load(int(row), None) for row in rows[start : start + BATCH]])
        parts.append(checkpoint.observation_head(checkpoint.pair.observation(inputs.to(device))).cpu())
    right = present[:, None] == examples.classes[rows][None]  # [n_classes, n_items]
    return float(zero_shot(hamming_table(queries, torch.cat(parts).numpy()), right).mean())


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
