"""The frozen phase: heads alone, from features that were computed once. Minutes on a CPU."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from edge.errors import FieldcubeError
from train.distributed import average_gradients, n_processes, rank
from train.gauges import BitGauges, bit_gauges
from train.model import HashCoder
from train.objectives import HashObjective, hash_terms

logger = logging.getLogger(__name__)
FINAL_RATE = 1e-6  # of the cosine, where no schedule says another
GAUGED = 2000  # classes that the gauges look at


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
    in_classes = np.argsort(classes, kind="stable")
    keys, firsts = np.unique(classes[in_classes], return_index=True)
    members = [random.permutation(each) for each in np.split(in_classes, firsts[1:])]
    order = []
    for turn in range(-(-n // len(keys))):
        order += [members[k][turn % len(members[k])] for k in random.permutation(len(keys))]
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
    final_rate: float = FINAL_RATE,
    weight_decay: float = 1e-2,
    balanced: bool = True,
    large: bool = False,
    seed: int = 1,
    later_epochs: int = 0,
    device: str = "cpu",
    log: bool = False,
) -> tuple[HashCoder, HashCoder]:
    """Train heads on cached features; returns (observation's, text's) in eval mode. Everything follows from the seed.

    Several processes train on a share of each batch, with the result of one; a batch holds a multiple of their number.

    Args:
        later_epochs: that another phase will train: the rate's cosine spans them too.
        log: terms and gauges of every epoch.
    """
    torch.manual_seed(seed)
    share = max(min(batch, len(pairs.classes)) // n_processes(), 1)
    batch = share * n_processes()
    own = slice(rank() * share, (rank() + 1) * share)
    heads = (
        HashCoder(pairs.observation.shape[2], n_bits, large).to(device),
        HashCoder(pairs.text.shape[1], n_bits, large).to(device),
    )
    parameters = [p for head in heads for p in head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay)
    per_epoch = max(len(pairs.classes) // batch, 1)
    drawn = batches_of(pairs, batch, epochs, balanced, seed)
    steps = tqdm(drawn, total=epochs * per_epoch, desc="heads", unit="step", disable=rank() > 0 or None)
    for step, (observation, text, classes) in enumerate(steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine_rate(step, (epochs + later_epochs) * per_epoch, rate, final_rate)
        observation_logits = heads[0](torch.from_numpy(observation[own]).to(device))
        text_logits = heads[1](torch.from_numpy(text[own]).to(device))
        terms = hash_terms(
            text_logits, observation_logits, torch.from_numpy(classes[own]).to(device), objective
        )
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        average_gradients(parameters)
        optimiser.step()
        if log and rank() == 0 and (step + 1) % per_epoch == 0:
            report((step + 1) // per_epoch, terms, text_gauges(heads[1], pairs, device))
    return heads[0].eval(), heads[1].eval()


def fit_view_head(
    features: NDArray[np.float32],
    n_bits: int,
    objective: HashObjective,
    *,
    epochs: int = 5,
    batch: int = 256,
    rate: float = 1e-3,
    weight_decay: float = 1e-2,
    large: bool = False,
    seed: int = 1,
) -> HashCoder:
    """Train one head on one modality without labels: two augmented views of an item are a pair (CroVCA as published).

    Args:
        features: float32 [n_views, n_items, n_features], n_views >= 2.
    """
    if len(features) < 2:
        raise PairError(f"views: expected two or more of each item, found {len(features)}")
    torch.manual_seed(seed)
    n_items = features.shape[1]
    batch = min(batch, n_items)
    head = HashCoder(features.shape[2], n_bits, large)
    optimiser = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=weight_decay)
    per_epoch = n_items // batch
    n_steps = epochs * per_epoch
    order = np.empty(0, np.int64)
    for step in range(n_steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order = np.random.default_rng([seed, epoch]).permutation(n_items)
        rows = order[place * batch : (place + 1) * batch]
        random = np.random.default_rng([seed, epoch, place])
        first = random.integers(len(features), size=batch)
        second = (first + random.integers(1, len(features), size=batch)) % len(features)
        for group in optimiser.param_groups:
            group["lr"] = cosine_rate(step, n_steps, rate, FINAL_RATE)
        both = torch.from_numpy(np.concatenate([features[first, rows], features[second, rows]]))
        views = head(both).chunk(2)
        terms = hash_terms(*views, torch.from_numpy(rows), objective)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
    return head.eval()


def class_targets(observation: NDArray[np.float32], classes: NDArray[np.int64]) -> CachedPairs:
    """One modality with labels: the mean direction of each class stands where its sentences would, with a head of its own.

    Args:
        observation: float32 [n_views, n_items, n_features]; classes: int64 [n_items].
    """
    unit = observation / np.maximum(np.linalg.norm(observation, axis=2, keepdims=True), 1e-12)
    present = np.unique(classes)
    means = np.stack([unit[:, classes == c].mean(axis=(0, 1)) for c in present]).astype(np.float32)
    return CachedPairs(observation, classes, means, present)


@torch.no_grad()
def text_gauges(head: HashCoder, pairs: CachedPairs, device: str = "cpu") -> BitGauges | None:
    """Gauges of the codes of each class's first sentence; None for a single class. Leaves the head in training mode."""
    _, first = np.unique(pairs.text_classes, return_index=True)
    if len(first) < 2:
        return None
    logits = head.eval()(torch.from_numpy(pairs.text[first[:GAUGED]]).to(device))
    head.train()
    return bit_gauges(logits.float().cpu().numpy())


def report(epoch: int, terms: Mapping[str, torch.Tensor], gauges: BitGauges | None) -> None:
    """Log an epoch's last terms and the gauges of the text codes; warn when codes collapse."""
    shown = ", ".join(f"{name} {float(term.detach()):.3f}" for name, term in terms.items())
    logger.info("epoch %d: %s | text codes: %s", epoch, shown, gauges or "one class")
    if gauges is not None and gauges.distinct < 0.9:
        logger.warning(
            "text codes collapse: only %.2f of them are distinct; raise diversity", gauges.distinct
        )
