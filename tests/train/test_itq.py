"""Heads without training: what ITQ gains over a random projection, and that near pairs stay near."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.itq import ProjectionError, fit_itq, fit_lsh


def pairs(n: int = 400, rank: int = 16, gap: float = 1.0):
    """Texts and observations of the same things, float32 [n, 32]: near in a subspace, apart by a constant gap."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(32, 32)))[0][:, :rank]
    meaning = random.normal(size=(n, rank)) * np.linspace(2, 0.5, rank)
    text = meaning + 0.15 * random.normal(size=(n, rank))
    observation = meaning + 0.15 * random.normal(size=(n, rank))
    apart = gap * random.normal(size=rank) * 3
    return ((text + apart) @ basis.T).astype(np.float32), ((observation - apart) @ basis.T).astype(np.float32)


def logits(head, features) -> np.ndarray:
    with torch.no_grad():
        return head(torch.from_numpy(features)).numpy()


def quantisation_error(head, features) -> float:
    """Mean square distance of a logit to its sign, at the scale that suits it best."""
    found = logits(head, features)
    scale = np.abs(found).mean() / (found**2).mean()
    return float(((np.where(found >= 0, 1, -1) - scale * found) ** 2).mean())


def bits(fit, n_bits=16, **data) -> tuple[np.ndarray, np.ndarray]:
    text, observation = pairs(**data)
    heads = fit(text, observation, n_bits, 0)
    return logits(heads[0], text) >= 0, logits(heads[1], observation) >= 0


def test_itq_loses_less_to_the_sign_than_a_random_projection():
    text, observation = pairs()
    itq, lsh = (fit(text, observation, 16, 0) for fit in (fit_itq, fit_lsh))
    for side, features in enumerate((text, observation)):
        assert quantisation_error(itq[side], features) < 0.95 * quantisation_error(lsh[side], features)


@pytest.mark.parametrize("fit", [fit_itq, fit_lsh])
def test_a_pair_differs_in_few_bits_and_others_in_half(fit):
    text, observation = bits(fit)
    own = (text != observation).mean()
    others = (text != np.roll(observation, 1, axis=0)).mean()
    assert own < 0.15
    assert 0.42 < others < 0.58


@pytest.mark.parametrize("fit", [fit_itq, fit_lsh])
def test_the_gap_between_modalities_is_removed(fit):
    """With the gap left in, a bit is the modality's, not the thing's."""
    text, observation = bits(fit, gap=1.0)
    assert np.abs(text.mean(axis=0) - 0.5).max() < 0.2
    assert np.abs(observation.mean(axis=0) - 0.5).max() < 0.2
    without = bits(fit, gap=0.0)
    assert abs((text != observation).mean() - (without[0] != without[1]).mean()) < 0.08


@pytest.mark.parametrize("fit", [fit_itq, fit_lsh])
def test_more_bits_than_directions(fit):
    text, observation = bits(fit, n_bits=64)
    assert text.shape == (400, 64)
    assert (text != observation).mean() < 0.15
    assert text.mean(axis=0).min() > 0.2  # no bit is dead: zero logits would be one sign
    assert text.mean(axis=0).max() < 0.8
    assert len(np.unique(text, axis=1).T) == 64  # nor one twice


@pytest.mark.parametrize("fit", [fit_itq, fit_lsh])
def test_what_was_not_named_can_be_asked_for_later(fit):
    """Heads of four things: others lie in directions that these do not span."""
    text, observation = pairs(n=100, rank=32)
    heads = fit(text[:4], observation[:4], 256, 0)
    found = [logits(head, each[4:]) >= 0 for head, each in zip(heads, (text, observation), strict=True)]
    distance = (found[0][:, None] != found[1][None]).mean(axis=2)
    assert (distance.argmin(axis=1) == np.arange(len(distance))).mean() > 0.9


@pytest.mark.parametrize("fit", [fit_itq, fit_lsh])
def test_logits_have_unit_spread_and_the_seed_decides(fit):
    text, observation = pairs()
    heads = [fit(text, observation, 24, seed) for seed in (1, 1, 2)]
    both = np.concatenate([logits(heads[0][0], text), logits(heads[0][1], observation)])
    assert 0.95 < both.std() < 1.05
    assert torch.equal(heads[0][0].bits.weight, heads[1][0].bits.weight)
    assert not torch.equal(heads[0][0].bits.weight, heads[2][0].bits.weight)
    assert torch.equal(heads[0][0].bits.weight, heads[0][1].bits.weight)  # one matrix for both
    assert heads[0][0].folded() is heads[0][0]


@pytest.mark.parametrize("fit", [fit_itq, fit_lsh])
def test_texts_alone_are_enough(fit):
    text, _ = pairs()
    heads = fit(text, np.zeros((0, 32), np.float32), 16, 0)
    assert 0.3 < (logits(heads[0], text) >= 0).mean() < 0.7
    assert not heads[1].bits.bias.any()


@pytest.mark.parametrize("fit", [fit_itq, fit_lsh])
def test_the_scale_of_features_does_not_count(fit):
    text, observation = pairs(n=60)
    plain, louder = fit(text, observation, 16, 0), fit(5 * text, observation, 16, 0)
    np.testing.assert_allclose(logits(plain[0], text), logits(louder[0], 5 * text), atol=1e-4)


@pytest.mark.parametrize("fit", [fit_itq, fit_lsh])
def test_one_thing_alone_is_refused(fit):
    one = np.ones((3, 8), np.float32)
    with pytest.raises(ProjectionError, match="found all the same; give more texts or observations"):
        fit(one, one, 4, 0)
