"""Heads without training: sign random projection (LSH) and its rotation by ITQ, from features of a pretrained tower alone.

Features of each modality are normalised and centred on their own mean (the gap between modalities would otherwise decide most bits), then
both go through one matrix: a pair that is near in the joint space differs in few bits.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edge.errors import FieldcubeError


class ProjectionError(FieldcubeError):
    """Features that no projection tells apart."""


N_ROTATIONS = 50  # iterations of ITQ; the error stops falling before


class ProjectionHead(nn.Module):
    """Features -> logits: normalise, centre, multiply."""

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        super().__init__()
        self.bits = nn.Linear(matrix.shape[0], matrix.shape[1])
        with torch.no_grad():
            self.bits.weight.copy_(matrix.T)
            self.bits.bias.copy_(-(mean @ matrix))

    def forward(self, features: Tensor) -> Tensor:
        """Map [..., n_features] to logits [..., n_bits]."""
        logits: Tensor = self.bits(F.normalize(features, dim=-1))
        return logits

    def folded(self) -> ProjectionHead:
        """The same map: there is nothing to fold."""
        return self


def fit_lsh(
    text: NDArray[np.float32], observation: NDArray[np.float32], n_bits: int, seed: int
) -> tuple[ProjectionHead, ProjectionHead]:
    """Heads of a random projection (Charikar 2002), (text's, observation's).

    Args:
        text, observation: features [n_texts, n_features], [n_observations, n_features]; pairs are not needed. Without
            observations ([0, n_features]) their mean is taken to be zero.

    Raises ProjectionError for features that are all the same.
    """
    matrix = np.random.default_rng(seed).standard_normal((text.shape[1], n_bits))
    return _heads(text, observation, matrix)


def fit_itq(
    text: NDArray[np.float32], observation: NDArray[np.float32], n_bits: int, seed: int
) -> tuple[ProjectionHead, ProjectionHead]:
    """Heads of iterative quantisation (Gong and Lazebnik 2011): principal directions, rotated so that signs lose least; arguments as fit_lsh.

    More bits than principal directions: the rest are random projections of the whole space, so that what nobody named here can be told
    apart when it is asked for later.
    """
    parts = [_centred(features) for features in (text, observation) if len(features)]
    _require_spread(parts)
    both = np.concatenate([part / np.sqrt(len(part)) for part in parts])  # each modality weighs the same
    _, singular, directions = np.linalg.svd(both, full_matrices=False)
    rank = int((singular > singular[0] * 1e-5).sum())
    n_main = min(n_bits, rank)
    basis = directions[:n_main].T  # [n_features, n_main]
    projected = np.concatenate(parts) @ basis
    random = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(random.standard_normal((n_main, n_main)))
    for _ in range(N_ROTATIONS):
        signs = np.where(projected @ rotation >= 0, 1.0, -1.0)
        u, _, v = np.linalg.svd(signs.T @ projected)
        rotation = (u @ v).T
    matrix = basis @ rotation
    if n_main < n_bits:
        extra = random.standard_normal((len(matrix), n_bits - n_main)) / np.sqrt(len(matrix))
        matrix = np.concatenate([matrix, extra], axis=1)
    return _heads(text, observation, matrix)


def _centred(features: NDArray[np.float32]) -> NDArray[np.float64]:
    unit = _unit(features)
    return unit - unit.mean(axis=0)


def _require_spread(parts: list[NDArray[np.float64]]) -> None:
    if max((float(np.abs(part).max()) for part in parts), default=0.0) < 1e-6:
        raise ProjectionError(
            "projection: expected features of several things, found all the same; give more texts or observations"
        )


def _unit(features: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = features.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


def _heads(
    text: NDArray[np.float32], observation: NDArray[np.float32], matrix: NDArray[np.float64]
) -> tuple[ProjectionHead, ProjectionHead]:
    heads = []
    parts = [_centred(features) for features in (text, observation) if len(features)]
    _require_spread(parts)
    # logits of unit spread: limits of parity hold for them as for others
    matrix = matrix / float(np.concatenate([part @ matrix for part in parts]).std())
    for features in (text, observation):
        mean = _unit(features).mean(axis=0) if len(features) else np.zeros(features.shape[1])
        heads.append(ProjectionHead(torch.from_numpy(mean).float(), torch.from_numpy(matrix).float()))
    return heads[0].eval(), heads[1].eval()
