"""Retrieval figures, gauges and calibration: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from edge.codes import hamming, pack
from train.calibrate import Logistic, Pairs, cross_fitted, fit_logistic, simulate
from train.gauges import bit_gauges
from train.metrics import (
    asymmetric_table,
    average_precision,
    centred_agreement,
    cosine_table,
    hamming_table,
    mean_average_precision,
    proportion,
    raw_agreement,
)


def test_average_precision_of_a_known_ranking():
    relevant = np.array([True, False, True, False])
    assert average_precision(np.arange(4.0), relevant) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.arange(4.0), relevant, k=2) == pytest.approx(1.0)
    assert average_precision(np.arange(4.0), relevant, k=2, normaliser="relevant") == pytest.approx(0.5)


def test_ties_do_not_leak_the_order_of_the_database():
    first = np.arange(100) < 10
    tied = average_precision(np.zeros(100), first)
    assert tied == pytest.approx(average_precision(np.zeros(100), first[::-1].copy()), abs=0.1)
    assert tied < 0.4


def test_map_skips_queries_without_an_answer():
    table = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert mean_average_precision(table, np.array([5, 9]), np.array([5, 6])) == 1.0


def test_tables_agree_with_the_recorders_codes():
    random = np.random.default_rng(0)
    queries, items = (
        random.normal(size=(3, 256)).astype(np.float32),
        random.normal(size=(7, 256)).astype(np.float32),
    )
    table = hamming_table(queries, items)
    for row, query in zip(table, queries, strict=True):
        assert (row == hamming(pack(query), pack(items))).all()
    assert hamming_table(queries, items, 64).max() <= 64
    signs = np.where(queries >= 0, 1.0, -1.0).astype(np.float32)
    np.testing.assert_allclose(asymmetric_table(signs, items), table, atol=1e-3)
    np.testing.assert_allclose(cosine_table(queries, queries).diagonal(), 0, atol=1e-6)


def test_centred_agreement_is_not_flattered_by_bits_that_never_change():
    random = np.random.default_rng(0)
    a = random.normal(size=(200, 64)) + 10
    b = random.normal(size=(200, 64)) + 10
    assert raw_agreement(a, b) == 1.0
    assert centred_agreement(a, b) == pytest.approx(0.5, abs=0.03)
    assert centred_agreement(a, a) == 1.0
    odd = a[:5]  # the median of an odd number is one of them: rounding must not decide its bit
    assert centred_agreement(odd, odd - 1e-9) == 1.0


def test_gauges_of_collapsed_and_of_random_codes():
    random = np.random.default_rng(0)
    good, bad = bit_gauges(random.normal(size=(500, 64))), bit_gauges(np.ones((500, 64)))
    assert good.distinct == 1.0
    assert good.effective_rank > 60
    assert good.bit_entropy > 0.98
    assert bad.distinct == 1 / 500
    assert bad.bit_correlation == 1.0
    assert bad.effective_rank == pytest.approx(1.0)
    assert bad.bit_entropy < 0.01


def test_proportion_interval_holds_the_mean():
    interval = proportion(np.arange(100) < 80)
    assert interval.mean == 0.8
    assert (interval.low, interval.high) == pytest.approx((0.711, 0.867), abs=0.001)
    assert proportion(np.ones(16, dtype=bool)).low == pytest.approx(0.806, abs=0.001)
    assert interval.low > 0.7


def test_logistic_fit_finds_the_line_that_made_the_data():
    random = np.random.default_rng(0)
    truth = Logistic(-0.1, 8.0)
    distances = random.uniform(20, 140, 50_000)
    fitted = fit_logistic(distances, random.random(50_000) < truth(distances))
    assert fitted.coefficient == pytest.approx(-0.1, rel=0.05)
    assert fitted.intercept == pytest.approx(8.0, rel=0.05)


def test_stated_probabilities_come_true_on_recordings_left_out():
    random = np.random.default_rng(0)
    distances = random.uniform(20, 140, 20_000)
    correct = random.random(20_000) < Logistic(-0.1, 8.0)(distances)
    found = cross_fitted(Pairs(distances, correct, random.integers(50, size=20_000), 20_000))
    assert found.calibration_error < 0.02
    assert found.precision > 0.8


def test_simulated_watchlists_find_the_nearest_query_unless_a_decoy_is_nearer():
    random = np.random.default_rng(0)
    queries = random.normal(size=(40, 256)).astype(np.float32)
    audio = queries[:20] + 0.1 * random.normal(size=(20, 256)).astype(np.float32)
    classes, owners = np.arange(20), np.arange(20)
    far = random.normal(size=(3, 256)).astype(np.float32)
    pairs = simulate(audio, classes, owners, queries, far, background_class=39)
    near = pairs.distances < 40
    assert near.any()
    assert pairs.correct[near].all()
    assert not pairs.correct[pairs.distances > 90].any()
    rivals = audio + 0.5 * random.normal(size=(20, 256)).astype(
        np.float32
    )  # nearer than any wrong query, not the same sentence
    beaten = simulate(audio, classes, owners, queries, rivals, background_class=39)
    assert beaten.correct.mean() > pairs.correct.mean()
