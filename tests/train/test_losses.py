"""Objectives of train/losses.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from train.losses import (
    alignment,
    diversity,
    log_determinant,
    multi_positive_cross_entropy,
    soft_sign,
)


def test_alignment_is_small_where_both_views_have_the_same_bits():
    logits = torch.tensor([[9.0, -9.0, 9.0]])
    assert alignment(logits, logits) < 1e-3
    assert alignment(logits, -logits) > 8


def test_alignment_targets_carry_no_gradient():
    text = torch.randn(4, 8, requires_grad=True)
    audio = torch.randn(4, 8)
    alignment(text, audio).backward()
    bits = (audio >= 0).float()
    expected = 0.5 * (torch.sigmoid(text.detach()) - bits) / bits.numel()  # only the text -> audio-bits half
    torch.testing.assert_close(text.grad, expected)


def test_code_form_tells_collapse_from_spread_and_paper_form_hardly_does():
    torch.manual_seed(0)
    spread, collapsed = torch.linalg.qr(torch.randn(256, 256))[0], torch.ones(256, 256)
    moves = {form: float(diversity(collapsed, form) - diversity(spread, form)) for form in ("code", "paper")}
    assert moves["code"] == pytest.approx(3.0, abs=0.1)
    assert moves["paper"] == pytest.approx(0.152, abs=0.005)


def test_log_determinant_is_that_of_torch_with_its_gradient():
    torch.manual_seed(0)
    rows = torch.randn(20, 8, dtype=torch.float64)
    ours = (torch.eye(8) + rows.T @ rows).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    for matrix, function in ((ours, log_determinant), (theirs, torch.logdet)):
        (3 * function(matrix)).backward()
    torch.testing.assert_close(log_determinant(ours), torch.logdet(theirs))
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_diversity_is_float32_under_autocast():
    rows = torch.randn(16, 8).bfloat16()
    assert diversity(rows).dtype == torch.float32


def test_soft_sign_is_hard_forward_and_smooth_backward():
    logits = torch.tensor([-0.3, 0.0, 2.0], requires_grad=True)
    signs = soft_sign(logits)
    assert signs.tolist() == [-1.0, 1.0, 1.0]
    signs.sum().backward()
    torch.testing.assert_close(logits.grad, 1 - torch.tanh(logits.detach()) ** 2)


def test_one_positive_is_plain_cross_entropy():
    torch.manual_seed(0)
    similarity, target = torch.randn(5, 7), torch.tensor([0, 3, 6, 2, 2])
    weight = F.one_hot(target, 7).float()
    found = multi_positive_cross_entropy(similarity, weight, weight == 0)
    torch.testing.assert_close(found, F.cross_entropy(similarity, target))


def test_a_text_that_is_neither_positive_nor_negative_is_left_out():
    similarity = torch.tensor([[1.0, 50.0, 0.0]])
    weight = torch.tensor([[1.0, 0.0, 0.0]])
    found = multi_positive_cross_entropy(similarity, weight, torch.tensor([[False, False, True]]))
    torch.testing.assert_close(found, F.cross_entropy(torch.tensor([[1.0, 0.0]]), torch.tensor([0])))
