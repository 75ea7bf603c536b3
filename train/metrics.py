"""Retrieval and classification figures from distances; no torch, so that what is measured is what is deployed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Normaliser = Literal["retrieved", "relevant"]
N_SHUFFLES = 10  # codes tie often: each average precision is the mean over this many orders of the database


def hamming_table(
    queries: NDArray[np.float32], items: NDArray[np.float32], n_bits: int | None = None
) -> NDArray[np.float32]:
    """Hamming distances of the signs of two sets of logits, [n_queries, n_bits] x [n_items, n_bits] -> [n_queries, n_items]."""
    a = np.where(queries[:, :n_bits] >= 0, 1.0, -1.0).astype(np.float32)
    b = np.where(items[:, :n_bits] >= 0, 1.0, -1.0).astype(np.float32)
    return (a.shape[1] - a @ b.T) / 2


def asymmetric_table(
    queries: NDArray[np.float32], items: NDArray[np.float32], n_bits: int | None = None
) -> NDArray[np.float32]:
    """Sum of |query logit| over the bits where an item's sign disagrees, [n_queries, n_items]."""
    q = queries[:, :n_bits]
    signs = np.where(items[:, :n_bits] >= 0, 1.0, -1.0).astype(np.float32)
    return (np.abs(q).sum(axis=1, keepdims=True) - q @ signs.T) / 2


def cosine_table(
    queries: NDArray[np.float32], items: NDArray[np.float32], n_bits: int | None = None
) -> NDArray[np.float32]:
    """1 - cosine similarity of the logits, [n_queries, n_items]."""
    a, b = queries[:, :n_bits], items[:, :n_bits]
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    return 1 - a @ b.T


def sigmoid_table(
    queries: NDArray[np.float32], items: NDArray[np.float32], n_bits: int | None = None
) -> NDArray[np.float32]:
    """Sum of |sigmoid(query logit) - bit of the item| over the bits: the Hamming distance to expect if each query bit were drawn with its own probability, [n_queries, n_items]."""
    sure = np.tanh(queries[:, :n_bits] / 2)  # 2 sigmoid - 1
    return asymmetric_table(sure, items[:, :n_bits]) + (1 - np.abs(sure)).sum(axis=1, keepdims=True) / 2


def precision_of_hits(
    hits: NDArray[np.bool_], n_relevant: NDArray[np.int64], k: int, normaliser: Normaliser
) -> NDArray[np.float64]:
    """AP@k of ranked answers.

    Args:
        hits: [n_queries, depth], whether the answer at each rank is relevant; ranks beyond depth count as misses.
        n_relevant: [n_queries], relevant items in the database.
        normaliser: "retrieved" divides by the relevant items in the top k (authors of the paper), "relevant" by min(k, n_relevant) (INQUIRE).

    Returns:
        [n_queries]; 0 where there is nothing to divide by.
    """
    top = hits[:, :k]
    precision = np.cumsum(top, axis=1) / np.arange(1, top.shape[1] + 1)
    total = (precision * top).sum(axis=1)
    n = top.sum(axis=1) if normaliser == "retrieved" else np.minimum(k, n_relevant)
    return np.divide(total, n, out=np.zeros(len(hits)), where=n > 0)


def average_precision(
    distances: NDArray[np.float32],
    relevant: NDArray[np.bool_],
    k: int = 1000,
    normaliser: Normaliser = "retrieved",
    seed: int = 0,
) -> float:
    """AP@k of one query, mean over shuffled orders of the database (ties would otherwise leak its order).

    Args:
        distances, relevant: [n_items].
        normaliser: divide by the relevant items retrieved in the top k, or (INQUIRE) by min(k, number of relevant items).
    """
    random = np.random.default_rng(seed)
    orders = [random.permutation(len(distances)) for _ in range(N_SHUFFLES)]
    hits = np.stack([relevant[order[np.argsort(distances[order], kind="stable")]] for order in orders])
    return float(precision_of_hits(hits, relevant.sum(keepdims=True), k, normaliser).mean())


def mean_average_precision(
    table: NDArray[np.float32],
    query_classes: NDArray[np.int64],
    item_classes: NDArray[np.int64],
    k: int = 1000,
    normaliser: Normaliser = "retrieved",
) -> float:
    """mAP@k over queries that have at least one relevant item; table [n_queries, n_items]."""
    values = []
    for row, query_class in zip(table, query_classes, strict=True):
        relevant = item_classes == query_class
        if relevant.any():
            values.append(average_precision(row, relevant, k, normaliser))
    return float(np.mean(values)) if values else float("nan")


def raw_agreement(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Share of equal bits of two sets of logits, both [n_items, n_bits]."""
    return float(((a >= 0) == (b >= 0)).mean())


def centred_agreement(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Share of equal bits after each bit's median over the items of `a` is taken as its threshold in both: bits that never change do not flatter it.

    The threshold lies between the two middle items, on none of them: rounding would decide that one's bit.
    """
    order, middle = np.sort(a, axis=0), len(a) // 2
    threshold = (order[middle - 1] + order[middle]) / 2 if middle else np.zeros(a.shape[1], a.dtype)
    return float(((a >= threshold) == (b >= threshold)).mean())


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} % ({100 * self.low:.1f}-{100 * self.high:.1f})"


def proportion(correct: NDArray[np.bool_]) -> Interval:
    """Mean of yes/no outcomes with Wilson's 95 % interval (Wilson 1927), which stays honest when all are right."""
    n, share, z = len(correct), float(correct.mean()), 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, centre - float(half)), min(1.0, centre + float(half)))
