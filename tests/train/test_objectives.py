"""Objectives of train/objectives.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from edge.errors import ConfigError
from train import losses
from train.objectives import HashObjective, code_contrast, first_of_each, hash_terms


def batch(n_rows: int = 12, n_bits: int = 16, n_classes: int = 5) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    classes = torch.arange(n_rows) % n_classes
    return torch.randn(n_rows, n_bits), torch.randn(n_rows, n_bits), classes


def test_crovca_is_alignment_and_half_the_spread_of_each_modality():
    text, observation, classes = batch()
    terms = hash_terms(text, observation, classes, HashObjective(diversity=0.4))
    torch.testing.assert_close(terms["alignment"], losses.alignment(text, observation))
    spread = losses.diversity(text[:5], "code") + losses.diversity(observation, "code")
    torch.testing.assert_close(terms["diversity"], 0.2 * spread)


def test_the_form_is_a_switch():
    text, observation, classes = batch()
    terms = hash_terms(text, observation, classes, HashObjective(form="paper", diversity=1.0))
    spread = losses.diversity(text[:5], "paper") + losses.diversity(observation, "paper")
    torch.testing.assert_close(terms["diversity"], 0.5 * spread)


def test_repeated_species_do_not_move_the_text_spread():
    text, observation, classes = batch()
    repeated = text[classes]  # row i is the sentence of class i % 5
    once = hash_terms(repeated, observation, classes, HashObjective())
    torch.testing.assert_close(
        once["diversity"],
        0.1 * (losses.diversity(repeated[:5], "code") + losses.diversity(observation, "code")),
    )


def test_first_of_each_is_the_first_row_of_every_class():
    assert first_of_each(torch.tensor([7, 3, 7, 3, 9])).sort().values.tolist() == [0, 1, 4]


def test_prefixes_are_codes_of_their_own():
    text, observation, classes = batch()
    nested = hash_terms(text, observation, classes, HashObjective(prefixes=(4, 8)))
    parts = [hash_terms(text[:, :n], observation[:, :n], classes, HashObjective()) for n in (4, 8, 16)]
    for name, term in nested.items():
        torch.testing.assert_close(term, torch.stack([part[name] for part in parts]).mean())


def test_contrast_is_info_nce_of_signs_where_all_classes_differ():
    torch.manual_seed(0)
    text, observation = torch.randn(6, 8).sign(), torch.randn(6, 8).sign()
    similarity = text @ observation.T / 8 / 0.1
    target = torch.arange(6)
    expected = 0.5 * (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target))
    torch.testing.assert_close(code_contrast(text, observation, target, 0.1), expected)


def test_an_item_of_the_same_class_is_no_negative():
    signs = torch.ones(2, 8)
    assert code_contrast(signs, signs, torch.tensor([4, 4]), 0.07) == 0
    assert code_contrast(signs, signs, torch.tensor([4, 5]), 0.07) > 0.6


def test_contrastive_terms_pull_where_they_should():
    classes = torch.arange(4)
    balanced = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    lopsided = torch.ones(4, 2)
    o = HashObjective(kind="contrastive")
    good, bad = (hash_terms(rows, rows, classes, o) for rows in (balanced, lopsided))
    assert good["balance"] == 0
    assert bad["balance"] == pytest.approx(o.balance)
    assert good["quantisation"] == 0
    assert hash_terms(3 * balanced, 3 * balanced, classes, o)["quantisation"] == pytest.approx(
        2 * o.quantisation
    )


@pytest.mark.parametrize("kind", ["crovca", "contrastive"])
def test_both_kinds_train_both_sides(kind):
    text, observation, classes = batch()
    text.requires_grad_()
    observation.requires_grad_()
    terms = hash_terms(text, observation, classes, HashObjective(kind=kind))
    torch.stack(list(terms.values())).sum().backward()
    assert text.grad.abs().sum() > 0
    assert observation.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "triplet"}, "expected crovca or contrastive, found 'triplet'"),
        ({"form": "own"}, "expected code or paper, found 'own'"),
        ({"diversity": -1.0}, "diversity: expected 0 or more"),
        ({"temperature": 0.0}, "temperature: expected more than 0"),
        ({"prefixes": (0,)}, "prefixes: expected numbers of bits"),
    ],
)
def test_a_wrong_objective_is_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        HashObjective(**values)
