"""Answers of a database ranked for many queries: hits, mAP@k and precision@k with ties broken fairly, re-ranking, zero-shot classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.metrics import Normaliser, precision_of_hits

DEPTH = 1000  # the paper's mAP@1000
CUTS = (1, 5, 10, 20, 50, DEPTH)  # 50: INQUIRE's
QUERIES_PER_BLOCK = 128  # distances of 128 queries to 100,000 items: 51 MB

Distances = Callable[[int, int], NDArray[np.float32]]  # of the queries start..stop, [stop - start, n_items]


@dataclass(frozen=True, slots=True)
class Relevance:
    """Which items answer which query, and in which group both are."""

    answers: tuple[NDArray[np.int64], ...]  # for each query the ascending indices of its relevant items
    query_groups: NDArray[np.str_]  # [n_queries]
    item_groups: NDArray[np.str_]  # [n_items]

    @classmethod
    def of_species(
        cls,
        query_keys: Sequence[str],
        query_groups: Sequence[str],
        item_keys: Sequence[Sequence[str]],
        item_groups: Sequence[str],
    ) -> Relevance:
        """Make an item the answer to each of its own species; an item without species answers none."""
        number = {key: i for i, key in enumerate(query_keys)}
        answers: list[list[int]] = [[] for _ in query_keys]
        for item, keys in enumerate(item_keys):
            for key in sorted(set(keys)):
                if key in number:
                    answers[number[key]].append(item)
        return cls(
            tuple(np.asarray(a, dtype=np.int64) for a in answers),
            np.asarray(query_groups, dtype=np.str_),
            np.asarray(item_groups, dtype=np.str_),
        )

    @property
    def n_items(self) -> int:
        """Items of the database."""
        return len(self.item_groups)

    def rows(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Whether each item answers each of the queries start..stop, [stop - start, n_items]."""
        table = np.zeros((stop - start, self.n_items), dtype=bool)
        for row, answers in zip(table, self.answers[start:stop], strict=True):
            row[answers] = True
        return table

    def within(self, group: str) -> tuple[Relevance, NDArray[np.int64], NDArray[np.int64]]:
        """Cut to the queries and the items of one group; also give the indices of those queries and items."""
        queries = np.flatnonzero(self.query_groups == group)
        items = np.flatnonzero(self.item_groups == group)
        place = np.full(self.n_items, -1, dtype=np.int64)
        place[items] = np.arange(len(items))
        kept = []
        for query in queries:
            inside = place[self.answers[query]]
            kept.append(inside[inside >= 0])
        cut = Relevance(tuple(kept), self.query_groups[queries], self.item_groups[items])
        return cut, queries, items


@dataclass(frozen=True, slots=True)
class RetrievalFigures:
    """Means over the queries that have an answer, each a mapping from k; NaN where no query has one."""

    n_queries: int  # with at least one answer
    n_items: int
    map_retrieved: dict[int, float]  # AP@k divided by the relevant items in the top k
    map_relevant: dict[int, float]  # AP@k divided by min(k, relevant items)
    precision: dict[int, float]  # share of the top k that is relevant; ranks beyond the database are misses


def ranked_hits(
    table: NDArray[np.float32], relevant: NDArray[np.bool_], depth: int, order: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the item at each rank is relevant, nearest first; of equal distances the one that comes first in `order` wins.

    Args:
        table, relevant: [n_queries, n_items]. order: a permutation of the items.

    Returns:
        [n_queries, min(depth, n_items)].
    """
    depth = min(depth, table.shape[1])
    hits = np.empty((len(table), depth), dtype=bool)
    if not depth:
        return hits
    for row, (distances, answers) in enumerate(zip(table[:, order], relevant[:, order], strict=True)):
        farthest = np.partition(distances, depth - 1)[depth - 1]
        near = np.flatnonzero(distances <= farthest)  # all that may be in the top, ties at its end included
        hits[row] = answers[near[np.argsort(distances[near], kind="stable")[:depth]]]
    return hits


def shuffles(n_items: int, n_orders: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Yield seeded orders of the database: its own order would leak the classes through ties."""
    random = np.random.default_rng(seed)
    for _ in range(n_orders):
        yield random.permutation(n_items)


def retrieve(
    distances: Distances, relevance: Relevance, n_orders: int = 10, seed: int = 0, cuts: Sequence[int] = CUTS
) -> RetrievalFigures:
    """Rank the database for every query, block by block, and average the figures over queries and over shuffled orders.

    Args:
        distances: gives the distances of the queries start..stop to all items.
        n_orders: shuffles to average over; one is enough where the database is large.
    """
    depth = max(cuts)
    orders = list(shuffles(relevance.n_items, n_orders, seed))
    kinds: tuple[Normaliser, ...] = ("retrieved", "relevant")
    sums = {(kind, k): 0.0 for kind in (*kinds, "precision") for k in cuts}
    n_queries = 0
    for start in range(0, len(relevance.answers), QUERIES_PER_BLOCK):
        stop = min(start + QUERIES_PER_BLOCK, len(relevance.answers))
        n_relevant = np.asarray([len(a) for a in relevance.answers[start:stop]])
        asked = n_relevant > 0
        if not asked.any():
            continue
        n_queries += int(asked.sum())
        table, relevant = distances(start, stop)[asked], relevance.rows(start, stop)[asked]
        for order in orders:
            hits = ranked_hits(table, relevant, depth, order)
            for k in cuts:
                for kind in kinds:
                    sums[kind, k] += float(precision_of_hits(hits, n_relevant[asked], k, kind).sum())
                sums["precision", k] += float(hits[:, :k].sum()) / k
    n = n_queries * n_orders
    mean = {key: value / n if n else float("nan") for key, value in sums.items()}
    return RetrievalFigures(
        n_queries,
        relevance.n_items,
        *({k: mean[kind, k] for k in cuts} for kind in ("retrieved", "relevant", "precision")),
    )


def rerank(
    first: NDArray[np.float32],
    second: Callable[[int, NDArray[np.int64]], NDArray[np.float32]],
    n: int,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Order the n nearest items of each query anew by a finer distance; all others stay behind them, as they were.

    Args:
        first: [n_queries, n_items], the coarse distances (Hamming).
        second: finer distances of one query (its row) to the items with the given indices; asked for n items alone.
        n: how many are fetched by the coarse distance; ties at its end are broken by a seeded shuffle.

    Returns:
        [n_queries, n_items], distances whose order is that of the two stages; the numbers mean nothing else.
    """
    n_items = first.shape[1]
    n = min(n, n_items)
    order = np.random.default_rng(seed).permutation(n_items)
    staged = np.empty(first.shape, dtype=np.float64)
    for row, distances in enumerate(first):
        fetched = order[np.argsort(distances[order], kind="stable")[:n]]
        finer = np.asarray(second(row, fetched), dtype=np.float64)
        span = finer[np.isfinite(finer)].max(initial=0.0) - distances.min() + 1 if n else 0.0
        staged[row] = distances + span  # behind the farthest of the fetched
        staged[row, fetched] = finer
    return staged


def zero_shot(table: NDArray[np.float32], relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Chance that the nearest query of each item is a right one, [n_items]; among k nearest at the same distance each is taken with chance 1/k.

    Args:
        table, relevant: [n_queries, n_items].
    """
    nearest = table == table.min(axis=0, keepdims=True)
    share: NDArray[np.float64] = (nearest & relevant).sum(axis=0) / nearest.sum(axis=0)
    return share
