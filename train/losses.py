"""Objectives: CroVCA (alignment + coding-rate diversity, two forms) and the contrastive term on codes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from train.distributed import sum_over_processes

DiversityForm = Literal["code", "paper"]


class _LogDeterminant(torch.autograd.Function):
    """log det of a symmetric positive definite matrix by its Cholesky factor, which gives the gradient (the inverse) as well."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        factor, _ = torch.linalg.cholesky_ex(matrix)
        ctx.save_for_backward(factor)
        return 2 * factor.diagonal().log().sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (factor,) = ctx.saved_tensors
        return gradients[0] * torch.cholesky_inverse(factor)


def log_determinant(matrix: Tensor) -> Tensor:
    """Natural logarithm of the determinant of a symmetric positive definite matrix; twice as fast as torch.logdet."""
    value: Tensor = _LogDeterminant.apply(matrix)
    return value


def alignment(text_logits: Tensor, audio_logits: Tensor) -> Tensor:
    """Binary cross-entropy of each view against the other view's bits (paper Eq. 9), in nats per bit.

    Args:
        text_logits, audio_logits: [batch, n_bits], row i of both describes one item.
    """
    text_bits = (text_logits.detach() >= 0).to(text_logits.dtype)
    audio_bits = (audio_logits.detach() >= 0).to(audio_logits.dtype)
    to_text = F.binary_cross_entropy_with_logits(audio_logits, text_bits)
    to_audio = F.binary_cross_entropy_with_logits(text_logits, audio_bits)
    return 0.5 * (to_text + to_audio)


def diversity(logits: Tensor, form: DiversityForm = "code", eps: float = 0.05) -> Tensor:
    """Negative coding rate of a batch of codes (paper Eq. 10-12): small when the rows spread over all directions.

    `code` is the form that works: -1/2 logdet(I + b / (B eps) V^T V) (b + B) / (b B). `paper` is the formula as printed,
    -1/2 logdet(I + b / B^2 V^T V) (no eps, divided by B twice); it moves by 0.15 nats between collapse and perfect spread, so it hardly acts.

    Args:
        logits: [B, b], rows of one modality, of all processes together. Computed in float32 whatever the dtype.
    """
    rows = F.normalize(logits.float(), dim=1)
    n_bits = rows.shape[1]
    gram = sum_over_processes(rows.T @ rows)  # [b, b]
    n_rows = float(sum_over_processes(torch.tensor(float(len(rows)), device=rows.device)))
    identity = torch.eye(n_bits, device=rows.device)
    if form == "paper":
        return -0.5 * log_determinant(identity + n_bits / n_rows**2 * gram)
    return (
        -0.5
        * log_determinant(identity + n_bits / (n_rows * eps) * gram)
        * (n_bits + n_rows)
        / (n_bits * n_rows)
    )


def soft_sign(logits: Tensor) -> Tensor:
    """Signs (-1, 1) forward, the gradient of tanh backward (straight-through)."""
    smooth = torch.tanh(logits)
    hard = torch.where(logits >= 0, 1.0, -1.0).to(logits.dtype)
    return smooth + (hard - smooth).detach()


def multi_positive_cross_entropy(similarity: Tensor, weight: Tensor, is_negative: Tensor) -> Tensor:
    """Mean over rows of the weighted cross-entropy of each positive against all negatives.

    Args:
        similarity: [batch, n_texts], scaled.
        weight: [batch, n_texts], >= 0, the weight of each positive; rows sum to 1 (rows of zeros are ignored).
        is_negative: bool [batch, n_texts]; a text that is neither positive nor negative is left out.
    """
    negatives = torch.logsumexp(similarity.masked_fill(~is_negative, -torch.inf), dim=1, keepdim=True)
    each = F.softplus(negatives - similarity)  # -log(e^s / (e^s + sum of negatives))
    each = torch.where(weight > 0, each, torch.zeros_like(each))
    return (weight * each).sum() / weight.sum().clamp_min(1e-6)
