"""Verdicts on claims follow from paired differences of seeds."""

from __future__ import annotations

import pytest

from train.claims_table import CLAIMS, CONTROL, CROVCA, PRETRAINED, render, verdict


@pytest.mark.parametrize(
    ("differences", "wanted", "expected"),
    [
        ([2.0, 3.0, 1.5], "above", "holds"),
        ([2.0, 3.0, -0.1], "above", "cannot be told"),
        ([0.2, 0.3, 0.1], "above", "cannot be told"),  # all of one sign, but within the margin
        ([-2.0, -3.0, -1.5], "above", "does not"),
        ([-2.0, -3.0, -1.5], "below", "holds"),
        ([-0.9, 4.0, 0.0], "matches", "holds"),
        ([-1.1, 4.0, 0.0], "matches", "cannot be told"),
        ([-2.0, -3.0, -1.5], "matches", "does not"),
    ],
)
def test_a_verdict_needs_all_seeds_and_a_margin(differences: list[float], wanted: str, expected: str) -> None:
    assert verdict(differences, wanted) == expected


def test_the_table_pairs_seeds_and_shows_mean_and_spread() -> None:
    rows = []
    for seed, (codes, features) in enumerate([(60.0, 50.0), (64.0, 52.0)], start=1):
        for domain in ("in domain", "out of domain"):
            for scope in ("all classes", "ten sounds"):
                common = {"seed": seed, "domain": domain, "scope": scope}
                rows.append(
                    {
                        **common,
                        "arm": "crovca, LoRA",
                        "trained_bits": 256,
                        "representation": "binary",
                        "percent": codes,
                    }
                )
                rows.append(
                    {
                        **common,
                        "arm": "pretrained",
                        "trained_bits": 0,
                        "representation": "continuous",
                        "percent": features,
                    }
                )
    text = render(rows[::-1], "How.")  # the order of rows does not matter
    assert "+10.0, +12.0 | **holds** |" in text
    assert "| crovca, LoRA | 256 bits | 62.0 (2.8) |" in text
    assert "128 bits drop" not in text  # what was not measured is not judged


def test_every_claim_of_a_gain_is_set_against_a_control_too() -> None:
    """What more training gives is not taken for what hashing gives, in the domain and out of it."""
    for domain in ("in domain", "out of domain"):
        against = {claim.b for claim in CLAIMS if claim.domain == domain and claim.a[0] == CROVCA}
        assert {(PRETRAINED, 0, "continuous"), (CONTROL, 0, "continuous")} <= against
