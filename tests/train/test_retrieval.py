"""Ranking, re-ranking, zero-shot classes and added logits: against brute force and numbers worked out by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from edge.codes import hamming, pack
from train import retrieval
from train.combination import (
    compose,
    conjunctions,
    evened,
    fuse,
    place_logits,
    with_place,
)
from train.metrics import asymmetric_table, average_precision, cosine_table, hamming_table, sigmoid_table
from train.retrieval import Relevance, ranked_hits, rerank, retrieve, shuffles, zero_shot


def plain_average_precision(relevant_in_order: list[bool], k: int, divisor: int) -> float:
    """AP@k by its definition: the mean over relevant answers of the precision at their rank."""
    found, total = 0, 0.0
    for rank, relevant in enumerate(relevant_in_order[:k], start=1):
        if relevant:
            found += 1
            total += found / rank
    return total / divisor if divisor else 0.0


def database(n_queries: int = 12, n_items: int = 90, n_bits: int = 16, seed: int = 0):
    random = np.random.default_rng(seed)
    queries = random.normal(size=(n_queries, n_bits)).astype(np.float32)
    species = random.integers(n_queries - 1, size=n_items)  # the last query has no answer
    items = (queries[species] + random.normal(size=(n_items, n_bits))).astype(np.float32)
    groups = np.asarray(["birds", "frogs"])[np.arange(n_queries) % 2]
    keys = [f"s{i}" for i in range(n_queries)]
    relevance = Relevance.of_species(keys, groups, [[keys[s]] for s in species], groups[species])
    return queries, items, species, relevance


def test_figures_equal_a_loop_over_the_definition():
    queries, items, species, relevance = database()
    table = cosine_table(queries, items)  # no ties: one order is enough
    found = retrieve(lambda a, b: table[a:b], relevance, n_orders=1, cuts=(1, 5, 20, 1000))
    for k in (1, 5, 20, 1000):
        retrieved, relevant, precision = [], [], []
        for query in range(11):
            order = sorted(range(90), key=lambda item: table[query, item])
            answers = [bool(species[item] == query) for item in order]
            n = sum(answers)
            if not n:
                continue
            retrieved.append(plain_average_precision(answers, k, sum(answers[:k])))
            relevant.append(plain_average_precision(answers, k, min(k, n)))
            precision.append(sum(answers[:k]) / k)
        assert found.map_retrieved[k] == pytest.approx(np.mean(retrieved))
        assert found.map_relevant[k] == pytest.approx(np.mean(relevant))
        assert found.precision[k] == pytest.approx(np.mean(precision))
    assert found.n_queries == len(set(species))
    assert found.map_retrieved[5] > found.map_relevant[5]


def test_hamming_figures_agree_with_the_recorders_codes_and_the_single_query_metric(monkeypatch):
    monkeypatch.setattr(retrieval, "QUERIES_PER_BLOCK", 5)  # a figure does not depend on the blocks
    queries, items, species, relevance = database(n_bits=64)
    packed = np.stack([hamming(pack(q), pack(items)) for q in queries]).astype(np.float32)
    found = retrieve(lambda a, b: hamming_table(queries[a:b], items), relevance, n_orders=200)
    same = retrieve(lambda a, b: packed[a:b], relevance, n_orders=200)
    assert found == same
    each = [average_precision(packed[q], species == q) for q in range(12) if (species == q).any()]
    assert found.map_retrieved[1000] == pytest.approx(np.mean(each), abs=0.01)


def test_ties_at_the_end_of_the_top_are_drawn_fairly():
    table = np.array([[0.0, 1.0, 1.0, 1.0]], dtype=np.float32)
    relevant = np.array([[False, True, False, False]])
    every = [ranked_hits(table, relevant, 2, np.array(order)) for order in permutations(range(4))]
    assert np.mean([hits[0, 1] for hits in every]) == pytest.approx(1 / 3)
    assert not any(hits[0, 0] for hits in every)


def test_a_database_in_the_order_of_its_classes_is_no_better_than_one_shuffled():
    n = 400
    relevance = Relevance.of_species(["a"], [""], [["a"] if i < 40 else ["b"] for i in range(n)], [""] * n)
    tied = retrieve(lambda a, b: np.zeros((b - a, n), dtype=np.float32), relevance, n_orders=20)
    assert tied.map_relevant[1000] == pytest.approx(0.1, abs=0.04)
    orders = list(shuffles(n, 2))
    assert (orders[0] == next(shuffles(n, 1))).all()
    assert (orders[0] != orders[1]).any()


def test_a_group_is_a_database_of_its_own():
    queries, items, species, relevance = database()
    cut, asked, kept = relevance.within("frogs")
    assert asked.tolist() == [1, 3, 5, 7, 9, 11]
    assert (species[kept] % 2 == 1).all()
    for row, query in zip(cut.rows(0, 6), asked, strict=True):
        assert (row == (species[kept] == query)).all()
    table = cosine_table(queries[asked], items[kept])
    pooled = cosine_table(queries, items)
    alone = retrieve(lambda a, b: table[a:b], cut, n_orders=1)
    within_all = retrieve(lambda a, b: pooled[a:b], relevance, n_orders=1)
    assert alone.n_items < within_all.n_items
    assert alone.map_relevant[1000] > within_all.map_relevant[1000]  # fewer rivals


def test_no_answers_give_no_figure_instead_of_zero():
    relevance = Relevance.of_species(["a"], [""], [["b"], []], ["", ""])
    found = retrieve(lambda a, b: np.zeros((b - a, 2), dtype=np.float32), relevance)
    assert found.n_queries == 0
    assert np.isnan(found.map_retrieved[1000])


def test_reranking_orders_the_fetched_and_leaves_the_rest_behind():
    first = np.array([[3.0, 1.0, 2.0, 9.0, 8.0]], dtype=np.float32)
    finer = {1: 90.0, 2: 10.0, 0: 50.0}  # larger than the coarse distances of those that stay behind
    asked: list[int] = []

    def second(row: int, items: np.ndarray) -> np.ndarray:
        asked.extend(items.tolist())
        return np.array([finer[i] for i in items])

    staged = rerank(first, second, 3)
    assert np.argsort(staged[0]).tolist() == [2, 0, 1, 4, 3]
    assert sorted(asked) == [0, 1, 2]


@pytest.mark.parametrize("n", [1, 7, 90, 500])
def test_reranking_all_is_the_finer_distance_and_never_lets_a_far_item_in(n):
    queries, items, _, _ = database()
    cosine, coarse = cosine_table(queries, items), hamming_table(queries, items)
    staged = rerank(coarse, lambda row, chosen: cosine[row, chosen], n)
    if n >= 90:
        assert (np.argsort(staged, axis=1) == np.argsort(cosine, axis=1)).all()
    for row in range(len(queries)):
        top = np.argsort(staged[row])[:n]
        rest = np.setdiff1d(np.arange(90), top)
        assert not len(rest) or coarse[row, top].max() <= coarse[row, rest].min()


def test_asymmetric_distances_by_hand():
    query = np.array([[2.0, -1.0, 0.5]], dtype=np.float32)
    items = np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0]], dtype=np.float32)
    assert asymmetric_table(query, items)[0].tolist() == [1.0, 2.0]
    share = 1 / (1 + np.exp(-query[0]))
    by_hand = [np.abs(share - np.array(bits)).sum() for bits in ([1, 1, 1], [0, 0, 1])]
    np.testing.assert_allclose(sigmoid_table(query, items)[0], by_hand, rtol=1e-6)
    np.testing.assert_allclose(sigmoid_table(100 * query, items), hamming_table(query, items), atol=1e-5)


def test_zero_shot_shares_a_tie_among_the_nearest():
    table = np.array([[0.0, 1.0, 2.0], [0.0, 3.0, 2.0], [5.0, 2.0, 2.0]], dtype=np.float32)
    relevant = np.array([[True, False, True], [False, True, True], [False, False, False]])
    np.testing.assert_allclose(zero_shot(table, relevant), [1 / 2, 0.0, 2 / 3])


def test_added_modalities_find_what_each_alone_misses():
    random = np.random.default_rng(0)
    queries = random.normal(size=(20, 128)).astype(np.float32)
    truth = random.integers(20, size=300)
    sound, picture = (
        (queries[truth] + 4 * random.normal(size=(300, 128))).astype(np.float32) for _ in range(2)
    )
    relevant = np.arange(20)[:, None] == truth[None]
    accuracy = {
        name: zero_shot(hamming_table(queries, logits), relevant).mean()
        for name, logits in (("sound", sound), ("picture", picture), ("both", fuse(sound, picture)))
    }
    assert accuracy["both"] > max(accuracy["sound"], accuracy["picture"]) + 0.1
    likely = np.full((300, 20), 0.01, dtype=np.float32)
    likely[np.arange(300), truth] = 0.5
    placed = with_place(sound, likely, queries)
    assert zero_shot(hamming_table(queries, placed), relevant).mean() > accuracy["sound"]


def test_a_missing_modality_adds_nothing_and_weights_count():
    a = np.array([[1.0, -3.0], [0.0, 0.0]], dtype=np.float32)
    b = np.array([[-8.0, 8.0], [-2.0, 2.0]], dtype=np.float32)
    np.testing.assert_allclose(fuse(a, b), [[-0.5, -0.5], [-1.0, 1.0]])
    np.testing.assert_allclose(fuse(a, b, weights=[2.0, np.array([0.0, 1.0])]), [[1.0, -3.0], [-1.0, 1.0]])
    np.testing.assert_allclose(fuse(a), evened(a))
    with pytest.raises(ValueError, match="one shape"):
        fuse(a, b[:1])


def test_a_flat_prior_changes_nothing_and_a_certain_one_points_to_its_species():
    queries = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    flat = place_logits(np.stack([np.full(6, 0.3), np.zeros(6)]).astype(np.float32), queries)
    np.testing.assert_allclose(flat, 0, atol=1e-6)
    certain = place_logits(np.eye(6, dtype=np.float32), queries)
    np.testing.assert_allclose(certain, evened(queries) - evened(queries).mean(axis=0), atol=1e-6)
    sound = np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32)
    np.testing.assert_allclose(
        with_place(sound, np.ones((2, 6), dtype=np.float32), queries), evened(sound), atol=1e-6
    )
    with pytest.raises(ValueError, match=">= 0"):
        place_logits(np.array([[-1.0, 2.0]], dtype=np.float32), queries[:2])


def test_conjunctions_are_the_sets_that_items_answer_together():
    heard = [(0, 1), (1, 0, 2), (2,), (), (0, 1)]
    found = conjunctions(heard)
    assert [(c.parts, c.answers.tolist()) for c in found] == [
        ((0, 1), [0, 1, 4]),
        ((0, 2), [1]),
        ((1, 2), [1]),
    ]
    assert len(conjunctions(heard, least=2)) == 1
    assert [c.parts for c in conjunctions(heard, n_parts=3)] == [(0, 1, 2)]


def test_a_composed_question_is_nearest_to_what_has_both_parts():
    random = np.random.default_rng(0)
    parts = random.normal(size=(2, 256)).astype(np.float32)
    items = np.stack([parts.sum(axis=0), parts[0], parts[1], random.normal(size=256)]).astype(np.float32)
    question = compose(parts * np.array([[10.0], [0.1]], dtype=np.float32))  # scale of a part does not count
    assert np.argsort(hamming_table(question[None], items)[0])[0] == 0
