"""Sweeps over settings, the overfit test, and what their tables and plots say."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from train.evaluate_codes import Features
from train.overfit import Overfit, overfit, pairs_of, random_pairs
from train.questions import Questions
from train.retrieval import Relevance
from train.sweep import Trial, mean_and_spread, plot_sweep, sweep, table_of

N_CLASSES, N_ITEMS = 8, 60


def trial(value: str, seed: int) -> Trial:
    """A made-up training: the higher the value, the less noise; heads pass the first features on."""
    random = np.random.default_rng(seed)
    classes = random.integers(N_CLASSES, size=N_ITEMS)
    centres = random.normal(size=(N_CLASSES, 64))
    noise = {"0.01": 8.0, "0.1": 2.0, "1": 0.0}[value]
    items = centres[classes] + noise * random.normal(size=(N_ITEMS, 64))
    keys = [str(i) for i in range(N_CLASSES)]
    relevance = Relevance.of_species(keys, [""] * N_CLASSES, [[str(c)] for c in classes], [""] * N_ITEMS)
    questions = Questions(tuple(keys), np.arange(N_CLASSES), relevance)
    features = Features(centres.astype(np.float32), items.astype(np.float32))
    return Trial(questions, features, lambda f: f[:, :32], lambda f: f[:, :32])


@pytest.fixture(scope="module")
def outcomes():
    return sweep("lambda", ("0.01", "0.1", "1"), (0, 1, 2), trial)


def test_every_value_and_seed_is_trained_once_and_judged_three_ways(outcomes):
    assert len(outcomes) == 3 * 3 * 3
    assert {(o.value, o.seed) for o in outcomes} == {(v, s) for v in ("0.01", "0.1", "1") for s in range(3)}
    assert {o.representation for o in outcomes} == {"binary", "asymmetric", "continuous"}
    assert {o.n_bits for o in outcomes} == {0, 32}
    exact = [o for o in outcomes if o.value == "1"]
    assert all(o.map_1000_relevant == pytest.approx(1.0) and o.zero_shot == 1.0 for o in exact)
    noisy = [o.map_1000_relevant for o in outcomes if o.value == "0.01"]
    assert max(noisy) < 0.6


def test_the_table_shows_mean_and_spread_over_seeds(outcomes):
    own = [o.map_1000_retrieved for o in outcomes if (o.value, o.representation) == ("0.1", "binary")]
    mean, spread = 100 * np.mean(own), 100 * np.std(own, ddof=1)
    console = Console(width=200, file=io.StringIO())
    console.print(table_of(outcomes))
    text = console.file.getvalue()
    assert f"{mean:.2f} ± {spread:.2f}" in text
    assert "3 seeds, mean ± standard deviation" in text
    console.print(table_of([o for o in outcomes if o.seed == 0]))
    alone = console.file.getvalue().removeprefix(text)
    assert "1 seed: its spread is not known" in alone
    assert "±" not in alone
    assert mean_and_spread([0.5]) == (0.5, 0.0)


@pytest.mark.parametrize("over", ["lambda", "bits"])
def test_plot_of_a_sweep(outcomes, tmp_path, over):
    names = {"0.01": "16", "0.1": "64", "1": "256"} if over == "bits" else {}
    renamed = [replace(o, over=over, value=names.get(o.value, o.value)) for o in outcomes]
    plot_sweep(renamed, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_crovca_learns_a_hundred_pairs_by_heart():
    found = overfit(random_pairs(), epochs=120)
    assert found.matched < 1
    assert found.other > 120
    assert found.nearest == 1.0
    assert found.ok


def test_overfit_fails_without_enough_steps_and_when_codes_collapse():
    short = overfit(random_pairs(), epochs=1)
    assert not short.ok
    assert short.matched > 50
    assert not Overfit(100, 256, matched=0.0, other=10.0, nearest=0.0).ok  # collapsed codes match as well
    assert "0.00 bits" in str(Overfit(100, 256, 0.0, 128.0, 1.0))


def test_overfit_distances_are_those_of_the_heads(monkeypatch):
    class Sign(torch.nn.Module):
        def __init__(self, flip: int) -> None:
            super().__init__()
            self.flip = flip

        def forward(self, features):
            turned = features.clone()
            turned[:, : self.flip] *= -1
            return turned

    monkeypatch.setattr("train.overfit.fit_heads", lambda *_, **__: (Sign(3), Sign(0)))
    vectors = np.random.default_rng(0).normal(size=(10, 32)).astype(np.float32)
    found = overfit(pairs_of(vectors, vectors), 32)
    signs = vectors >= 0
    flipped = signs.copy()
    flipped[:, :3] = ~signs[:, :3]
    others = [(signs[i] != flipped[j]).sum() for i in range(10) for j in range(10) if i != j]
    assert found.matched == 3.0
    assert found.other == pytest.approx(np.mean(others))
