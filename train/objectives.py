"""What hashing is trained for: one switch between CroVCA (the paper) and contrastive codes (CVA-Hash), so that one table compares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from edge.errors import ConfigError
from train import losses
from train.distributed import all_rows, is_distributed, rank, sum_over_processes

Kind = Literal["crovca", "contrastive"]


@dataclass(frozen=True, slots=True)
class HashObjective:
    """An objective and its weights; the defaults are the measured ones for 256 bits (0.3 to 0.8 of diversity for 128 and fewer)."""

    kind: Kind = "crovca"
    form: losses.DiversityForm = "code"
    alignment: float = 1.0
    diversity: float = 0.2  # lambda of the paper's Eq. 12, on each modality's mean
    temperature: float = 0.07  # contrastive: of the similarity of two codes, -1 .. 1
    quantisation: float = 0.1  # contrastive: pulls logits to -1 and 1
    balance: float = 0.01  # contrastive: every bit as often 1 as 0
    prefixes: tuple[
        int, ...
    ] = ()  # also train these first bits as codes of their own, each with the same weight

    def __post_init__(self) -> None:
        if self.kind not in ("crovca", "contrastive"):
            raise ConfigError(f"objective kind: expected crovca or contrastive, found {self.kind!r}")
        if self.form not in ("code", "paper"):
            raise ConfigError(f"objective form: expected code or paper, found {self.form!r}")
        for name in ("alignment", "diversity", "quantisation", "balance"):
            if getattr(self, name) < 0:
                raise ConfigError(f"objective {name}: expected 0 or more, found {getattr(self, name)}")
        if self.temperature <= 0:
            raise ConfigError(f"objective temperature: expected more than 0, found {self.temperature}")
        if any(bits <= 0 for bits in self.prefixes):
            raise ConfigError(f"objective prefixes: expected numbers of bits, found {self.prefixes}")


def hash_terms(
    text: Tensor, observation: Tensor, classes: Tensor, objective: HashObjective
) -> dict[str, Tensor]:
    """All weighted terms of a batch of pairs; their sum is the loss.

    Two augmented views of one modality are a pair as well (single-modality CroVCA), as are items and their class's own target logits.

    Args:
        text, observation: logits [batch, n_bits], row i of both shows one item.
        classes: int64 [batch]; rows of one class are no negatives of each other, and count once in the text's diversity.
    """
    widths = (text.shape[1], *(bits for bits in objective.prefixes if bits < text.shape[1]))
    parts = [_terms_of(text[:, :bits], observation[:, :bits], classes, objective) for bits in widths]
    return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}


def _terms_of(text: Tensor, observation: Tensor, classes: Tensor, o: HashObjective) -> dict[str, Tensor]:
    if o.kind == "crovca":
        distinct = first_of_each(classes)
        spread = 0.5 * (losses.diversity(text[distinct], o.form) + losses.diversity(observation, o.form))
        return {
            "alignment": o.alignment * losses.alignment(text, observation),
            "diversity": o.diversity * spread,
        }
    signs = losses.soft_sign(text), losses.soft_sign(observation)
    both = torch.cat([text, observation])
    return {
        "contrast": o.alignment
        * code_contrast(*(all_rows(s) for s in signs), all_rows(classes), o.temperature),
        "quantisation": o.quantisation * (both.abs() - 1).abs().mean(),
        "balance": o.balance * torch.stack([_mean_row(sign).abs().mean() for sign in signs]).mean(),
    }


def first_of_each(classes: Tensor) -> Tensor:
    """Index of the rows of this process that are the first of their class in the whole batch, int64 [n]."""
    if is_distributed():
        n = len(classes)
        first = _first_rows(all_rows(classes))
        own = first[(first >= rank() * n) & (first < (rank() + 1) * n)]
        return own - rank() * n
    return _first_rows(classes)


def _first_rows(classes: Tensor) -> Tensor:
    rows = torch.arange(len(classes), device=classes.device)
    _, inverse = torch.unique(classes, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(classes), device=classes.device)
    return first.scatter_reduce(0, inverse, rows, "amin")


def _mean_row(rows: Tensor) -> Tensor:
    """Mean over the rows of all processes, [n_bits]."""
    n = sum_over_processes(torch.tensor(float(len(rows)), device=rows.device))
    return sum_over_processes(rows.sum(dim=0)) / n


def code_contrast(text: Tensor, observation: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """InfoNCE of codes in both directions; items of the same class are left out of the negatives.

    Args:
        text, observation: signs [batch, n_bits] with straight-through gradients.
    """
    similarity = text @ observation.T / (text.shape[1] * temperature)  # [batch, batch]
    same = (classes[:, None] == classes[None]) & ~torch.eye(
        len(classes), dtype=torch.bool, device=classes.device
    )
    similarity = similarity.masked_fill(same, -torch.inf)
    target = torch.arange(len(classes), device=classes.device)
    return 0.5 * (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target))
