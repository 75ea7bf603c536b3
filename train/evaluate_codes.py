"""Figures of codes and of continuous features on one data set: every representation, every group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.combination import evened
from train.gauges import bit_gauges
from train.metrics import asymmetric_table, cosine_table, hamming_table, sigmoid_table
from train.paper import AVERAGE, PREFIX
from train.questions import Questions, Vectors
from train.retrieval import CUTS, Relevance, RetrievalFigures, rerank, retrieve, zero_shot
from train.rows import POOLED, Row

BITS = (16, 32, 64, 128, 256)
ITEMS_PER_BLOCK = 4096  # of a zero-shot table
GAUGED = 5000  # codes that the gauges look at: the distinct share and the rank need no more

Head = Callable[[Vectors], Vectors]  # features [n, n_features] -> logits [n, n_bits]
TABLES: Mapping[str, Callable[[Vectors, Vectors], Vectors]] = {
    "binary": hamming_table,
    "asymmetric": asymmetric_table,
    "sigmoid": sigmoid_table,
}
TableOf = Callable[[Vectors, Vectors], Vectors]  # queries, items -> distances [n_queries, n_items]


@dataclass(frozen=True, slots=True)
class Features:
    """What a pair of towers makes of the questions and of the items, in its joint space, not normalised."""

    texts: Vectors  # [n_texts, n_features]
    items: Vectors  # [n_items, n_features]


@dataclass(frozen=True, slots=True)
class Representation:
    """Queries and items as vectors, and the distance between them."""

    name: str  # as in the paper's tables where it is one of theirs: "continuous pretrained", "binary 256"
    n_bits: int  # 0 = continuous
    queries: Vectors
    items: Vectors
    table_of: TableOf
    finer: TableOf | None = None  # second stage, on the vectors below
    finer_queries: Vectors | None = None
    finer_items: Vectors | None = None
    n_fetched: int = 0  # of the first stage

    def distances(
        self,
        queries: NDArray[np.int64],
        items: NDArray[np.int64],
        candidates: Sequence[NDArray[np.int64]] | None = None,
    ) -> NDArray[np.floating]:
        """Distances of the queries to the items with the given indices, [n_queries, n_items]; infinite to those that are no candidates.

        Args:
            candidates: of each query, positions in `items`.
        """
        first = self.table_of(self.queries[queries], self.items[items])
        if candidates is not None:
            kept = np.full_like(first, np.inf)
            for row, own in enumerate(candidates):
                kept[row, own] = first[row, own]
            first = kept
        if self.finer is None or self.finer_queries is None or self.finer_items is None:
            return first
        table_of, own_queries, stored = self.finer, self.finer_queries[queries], self.finer_items[items]

        def second(row: int, near: NDArray[np.int64]) -> Vectors:
            finer = table_of(own_queries[row : row + 1], stored[near])[0]
            return np.where(np.isfinite(first[row, near]), finer, np.inf)

        return rerank(first, second, self.n_fetched)


def unit(vectors: Vectors) -> Vectors:
    """Rows of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def continuous(name: str, questions: Questions, features: Features) -> Representation:
    """Cosine similarity in the joint space; a query is the mean of its wordings' unit vectors."""
    return Representation(name, 0, questions.of_queries(unit(features.texts)), features.items, cosine_table)


def binary(
    questions: Questions,
    features: Features,
    text_head: Head,
    observation_head: Head,
    bits: Sequence[int] = BITS,
    n_fetched: int = 100,
    before: str = "",
) -> list[Representation]:
    """Codes of every width up to that of the heads: Hamming, both asymmetric distances, and Hamming's top n re-ranked.

    A query is the mean of its wordings' logits; a width below the heads' is a prefix of the same logits.

    Args:
        before: what the names begin with, such as "ITQ ".
    """
    queries = questions.of_queries(text_head(features.texts))
    items = observation_head(features.items)
    widths = sorted({b for b in bits if b < items.shape[1]} | {items.shape[1]})
    found: list[Representation] = []
    for width in widths:
        # asymmetric: queries of one scale, so that the distances of two queries can be compared
        own = evened(queries[:, :width]), items[:, :width]
        ending = PREFIX if width < widths[-1] else ""
        for name, table_of in TABLES.items():
            pair = (queries[:, :width], items[:, :width]) if name == "sigmoid" else own
            found.append(Representation(f"{before}{name} {width}{ending}", width, *pair, table_of))
    width = widths[-1]
    cosine = questions.of_queries(unit(features.texts)), features.items
    stages = {"continuous": (cosine_table, *cosine), "asymmetric": (asymmetric_table, queries, items)}
    for name, stage in stages.items():
        title = f"{before}binary {width}, top {n_fetched} by {name}"
        found.append(Representation(title, width, queries, items, hamming_table, *stage, n_fetched))
    return found


def accuracy(
    representation: Representation,
    relevance: Relevance,
    queries: NDArray[np.int64],
    items: NDArray[np.int64],
) -> float:
    """Share of the items whose nearest query is right, ties shared; items that answer no query are left out."""
    shares = []
    answered = np.zeros(relevance.n_items, dtype=bool)
    for answers in relevance.answers:
        answered[answers] = True
    kept = np.flatnonzero(answered)
    place = np.empty(relevance.n_items, dtype=np.int64)
    for start in range(0, len(kept), ITEMS_PER_BLOCK):
        block = kept[start : start + ITEMS_PER_BLOCK]
        place[:] = -1
        place[block] = np.arange(len(block))
        right = np.zeros((len(queries), len(block)), dtype=bool)
        for row, answers in zip(right, relevance.answers, strict=True):
            inside = place[answers]
            row[inside[inside >= 0]] = True
        table = representation.table_of(representation.queries[queries], representation.items[items[block]])
        shares.append(zero_shot(table, right))
    return float(np.concatenate(shares).mean()) if shares else float("nan")


def average(figures: Sequence[RetrievalFigures]) -> RetrievalFigures:
    """Plain mean over groups, as the paper's Avg; groups without an answered query are left out."""
    counted = [f for f in figures if f.n_queries]
    nan = dict.fromkeys(CUTS, float("nan"))

    def mean(of: Callable[[RetrievalFigures], Mapping[int, float]]) -> dict[int, float]:
        return {k: float(np.mean([of(f)[k] for f in counted])) for k in CUTS} if counted else dict(nan)

    return RetrievalFigures(
        sum(f.n_queries for f in counted),
        sum(f.n_items for f in figures),
        mean(lambda f: f.map_retrieved),
        mean(lambda f: f.map_relevant),
        mean(lambda f: f.precision),
    )


def measure(
    dataset: str, encoder: str, representation: Representation, questions: Questions, n_orders: int = 10
) -> list[Row]:
    """Rows of one representation: every group, their average, and the pool."""

    def row(group: str, relevance: Relevance, queries: NDArray[np.int64], items: NDArray[np.int64]) -> Row:
        def distances(start: int, stop: int) -> NDArray[np.floating]:
            asked = queries[start:stop]
            listed = [questions.candidates[q] for q in asked] if questions.candidates else None
            return representation.distances(asked, items, listed)

        figures = retrieve(distances, relevance, n_orders)
        share = float("nan")
        if questions.classify and representation.finer is None:
            share = accuracy(representation, relevance, queries, items)
        gauges = None
        if group == POOLED and representation.n_bits and representation.table_of is hamming_table:
            gauges = bit_gauges(representation.items[:GAUGED]) if len(representation.items) > 1 else None
        return Row(
            dataset, encoder, representation.name, representation.n_bits, group, figures, share, gauges
        )

    relevance = questions.relevance
    rows = []
    for group in np.unique(relevance.query_groups):
        if questions.in_group:
            cut, queries, items = relevance.within(str(group))
        else:
            queries, items = np.flatnonzero(relevance.query_groups == group), np.arange(relevance.n_items)
            cut = Relevance(
                tuple(relevance.answers[q] for q in queries),
                relevance.query_groups[queries],
                relevance.item_groups,
            )
        rows.append(row(str(group), cut, queries, items))
    if len(rows) > 1:
        shares = [r.zero_shot for r in rows if not np.isnan(r.zero_shot)]
        rows.append(
            Row(
                dataset,
                encoder,
                representation.name,
                representation.n_bits,
                AVERAGE,
                average([r.figures for r in rows]),
                float(np.mean(shares)) if shares else float("nan"),
            )
        )
    everything = np.arange(questions.n_queries), np.arange(relevance.n_items)
    rows.append(row(POOLED, relevance, *everything))
    return rows


def evaluate_pair(
    dataset: str,
    encoder: str,
    questions: Questions,
    representations: Iterable[Representation],
    n_orders: int = 10,
) -> list[Row]:
    """Rows (representation x group) of one encoder on one data set."""
    return [r for each in representations for r in measure(dataset, encoder, each, questions, n_orders)]
