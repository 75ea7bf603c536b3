"""Logits that are added before the sign: sound + picture + place of one event, and the parts of one question.

Addition of modalities: TaxaBind (arXiv 2411.00683), where embeddings of one event are summed; here it is the logits, so that the
result is one code of the same space.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Conjunction:
    """A question with several parts, all of which must hold, such as two species in one recording."""

    parts: tuple[int, ...]  # indices of the single queries
    answers: NDArray[np.int64]  # ascending indices of the items that answer every part


def evened(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row to a mean |logit| of 1, so that no part outweighs another by its scale alone; rows of zeros stay."""
    scale = np.abs(logits).mean(axis=-1, keepdims=True)
    return np.divide(logits, scale, out=np.zeros_like(logits), where=scale > 0)


def fuse(
    *modalities: NDArray[np.float32], weights: Sequence[float | NDArray[np.float32]] | None = None
) -> NDArray[np.float32]:
    """Add the logits that several modalities give for the same events; the sign of the sum is the code.

    Args:
        modalities: each [n_events, n_bits], of one code space. A row of zeros says that this event lacks this modality.
        weights: of each modality, one number or one for each event; default 1.

    Returns:
        [n_events, n_bits].
    """
    if not modalities:
        raise ValueError("fuse: expected the logits of at least one modality, found none")
    shapes = {m.shape for m in modalities}
    if len(shapes) > 1:
        raise ValueError(f"fuse: expected logits of one shape [n_events, n_bits], found {sorted(shapes)}")
    shares = [1.0] * len(modalities) if weights is None else list(weights)
    total = np.zeros(modalities[0].shape, dtype=np.float32)
    for logits, share in zip(modalities, shares, strict=True):
        total += np.reshape(np.asarray(share, dtype=np.float32), (-1, 1)) * evened(logits)
    return total


def place_logits(prior: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits that say what is expected at a place: the mean of the species' text logits under the prior, less their plain mean.

    A flat prior says nothing and gives zeros; a prior of one species gives that species' own logits, centred. The length is kept: a vague
    prior is weak beside a sound. Add them as they are (see `with_place`), not through `fuse`, which would even out that strength.

    Args:
        prior: [n_events, n_species], >= 0; how likely each species is at the place and date of an event. Rows need not sum to 1;
            a row of zeros counts as flat.
        queries: [n_species, n_bits], text logits.
    """
    if (prior < 0).any():
        raise ValueError("place_logits: expected weights >= 0, found a negative one")
    n_species = prior.shape[1]
    total = prior.sum(axis=1, keepdims=True)
    flat = np.full(prior.shape, 1 / n_species)
    shares = np.divide(prior, total, out=flat.copy(), where=total > 0)
    logits: NDArray[np.float32] = ((shares - flat) @ evened(queries)).astype(np.float32)
    return logits


def with_place(
    logits: NDArray[np.float32],
    prior: NDArray[np.float32],
    queries: NDArray[np.float32],
    weight: float = 1.0,
) -> NDArray[np.float32]:
    """Add what the place makes likely to the logits of events, [n_events, n_bits]."""
    return fuse(logits) + weight * place_logits(prior, queries)


def compose(parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of a question made of parts: their sum, [n_parts, n_bits] -> [n_bits]."""
    composed: NDArray[np.float32] = evened(parts).sum(axis=0)
    return composed


def conjunctions(
    item_queries: Sequence[Sequence[int]], n_parts: int = 2, least: int = 1
) -> list[Conjunction]:
    """Every set of queries that at least `least` items answer together, by the number of those items, most first.

    Args:
        item_queries: for each item the queries that it answers (the species heard in a recording).
    """
    counts: Counter[tuple[int, ...]] = Counter()
    answers: dict[tuple[int, ...], list[int]] = {}
    for item, queries in enumerate(item_queries):
        for parts in combinations(sorted(set(queries)), n_parts):
            counts[parts] += 1
            answers.setdefault(parts, []).append(item)
    ordered = sorted(counts, key=lambda parts: (-counts[parts], parts))
    return [Conjunction(parts, np.asarray(answers[parts])) for parts in ordered if counts[parts] >= least]
