"""Heads from cached features, with sentences, with class targets and with two views alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.head_fitting import (
    CachedPairs,
    PairError,
    class_targets,
    cosine_rate,
    draw_sentences,
    epoch_order,
    fit_heads,
    fit_view_head,
)
from train.metrics import hamming_table
from train.model import HashCoder
from train.objectives import HashObjective

N_CLASSES, N_FEATURES, N_BITS = 12, 16, 32


def features(n_views: int = 2, n_items: int = 96) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    centres = random.normal(size=(N_CLASSES, N_FEATURES))
    classes = np.arange(n_items) % N_CLASSES
    views = centres[classes] + 0.3 * random.normal(size=(n_views, n_items, N_FEATURES))
    return views.astype(np.float32), classes, centres.astype(np.float32)


def pairs() -> CachedPairs:
    views, classes, centres = features()
    turned = centres @ np.linalg.qr(np.random.default_rng(1).normal(size=(N_FEATURES, N_FEATURES)))[0]
    return CachedPairs(views, classes, turned.astype(np.float32), np.arange(N_CLASSES))


def logits(head: HashCoder, rows: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return head(torch.from_numpy(rows)).numpy()


@pytest.mark.parametrize("kind", ["crovca", "contrastive"])
def test_heads_find_the_class_of_an_item(kind):
    data = pairs()
    heads = fit_heads(data, N_BITS, HashObjective(kind=kind), epochs=30, batch=48, rate=3e-3)
    distances = hamming_table(logits(heads[1], data.text), logits(heads[0], data.observation[0]))
    assert (distances.argmin(axis=0) == data.classes).mean() > 0.9


def test_the_same_seed_gives_the_same_heads_and_another_others():
    first, again, other = (
        fit_heads(pairs(), N_BITS, HashObjective(), epochs=1, batch=32, seed=seed)[0].state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["bits.weight"], other["bits.weight"])


def test_a_large_head_is_wider_and_smooth():
    head = fit_heads(pairs(), N_BITS, HashObjective(), epochs=1, batch=32, large=True)[0]
    assert head.hidden.out_features == 2048
    assert isinstance(head.activation, torch.nn.GELU)
    rows = torch.randn(3, N_FEATURES)
    torch.testing.assert_close(head.folded()(rows), head(rows), rtol=1e-4, atol=1e-4)


def test_class_targets_are_the_mean_directions_of_the_classes():
    views, classes, _ = features(1)
    data = class_targets(views, classes)
    unit = views[0] / np.linalg.norm(views[0], axis=1, keepdims=True)
    np.testing.assert_allclose(data.text[3], unit[classes == 3].mean(axis=0), rtol=1e-5)
    heads = fit_heads(data, N_BITS, HashObjective(), epochs=30, batch=48, rate=3e-3)
    distances = hamming_table(logits(heads[1], data.text), logits(heads[0], views[0]))
    assert (distances.argmin(axis=0) == classes).mean() > 0.9


def test_two_views_alone_make_codes_that_keep_neighbours():
    views, classes, _ = features(3)
    head = fit_view_head(views[:2], N_BITS, HashObjective(), epochs=40, batch=48, rate=3e-3)
    distances = hamming_table(logits(head, views[2]), logits(head, views[0]))
    assert (classes[distances.argmin(axis=1)] == classes).mean() > 0.85
    bits = logits(head, views[0]) >= 0
    assert len(np.unique(bits, axis=0)) > N_CLASSES / 2


def test_one_view_is_not_enough():
    with pytest.raises(PairError, match="expected two or more of each item, found 1"):
        fit_view_head(features(1)[0], N_BITS, HashObjective())


def test_balanced_order_draws_rare_classes_as_often():
    classes = np.asarray([0] * 90 + [1] * 10)
    order = epoch_order(classes, 20, True, np.random.default_rng(0))
    assert len(order) == 100
    assert np.bincount(classes[order]).tolist() == [50, 50]
    assert len(np.unique(order[classes[order] == 1])) == 10
    plain = epoch_order(classes, 20, False, np.random.default_rng(0))
    assert sorted(plain.tolist()) == list(range(100))


def test_items_of_a_class_share_one_of_its_sentences():
    sentence_classes = np.asarray([0, 0, 0, 1, 2, 2])
    drawn = draw_sentences(np.asarray([2, 0, 2, 1, 0]), sentence_classes, np.random.default_rng(0))
    assert sentence_classes[drawn].tolist() == [2, 0, 2, 1, 0]
    assert drawn[0] == drawn[2]
    many = {
        int(draw_sentences(np.asarray([0]), sentence_classes, np.random.default_rng(i))[0]) for i in range(30)
    }
    assert many == {0, 1, 2}


def test_the_rate_is_a_cosine_over_both_phases():
    assert cosine_rate(0, 10, 1.0, 0.1) == 1.0
    assert cosine_rate(5, 10, 1.0, 0.1) == pytest.approx(0.55)
    assert cosine_rate(10, 10, 1.0, 0.1) == pytest.approx(0.1)


def test_features_that_do_not_fit_are_refused():
    views, classes, centres = features()
    with pytest.raises(PairError, match="expected features"):
        CachedPairs(views[0], classes, centres, np.arange(N_CLASSES))
    with pytest.raises(PairError, match="found none for class 11"):
        CachedPairs(views, classes, centres[:11], np.arange(11))
    with pytest.raises(PairError, match="ascending"):
        CachedPairs(views, classes, centres, np.arange(N_CLASSES)[::-1])


def test_an_epoch_takes_every_class_equally_often_and_its_items_in_turn():
    classes = np.array([7, 3, 7, 7, 5, 3, 7, 7])
    order = epoch_order(classes, 8, True, np.random.default_rng(0))
    assert sorted((classes[order] == c).sum() for c in (3, 5, 7)) == [2, 3, 3]
    assert set(order[classes[order] == 5].tolist()) == {4}
    sevens = order[classes[order] == 7].tolist()
    assert len(set(sevens)) == len(sevens)


def test_the_rate_ends_where_it_is_said_to():
    rates = [
        fit_heads(pairs(), N_BITS, HashObjective(), epochs=2, batch=32, final_rate=final)[0].state_dict()
        for final in (1e-6, 1e-3)
    ]
    assert not torch.equal(rates[0]["bits.weight"], rates[1]["bits.weight"])
