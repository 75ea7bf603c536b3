"""Events that were heard and seen: pairing, priors, and what adding brings."""

from __future__ import annotations

from types import SimpleNamespace as Fake

import numpy as np
import pytest

from train.evaluate_codes import evaluate_pair
from train.evaluate_fusion import FusionError, fusion, paired_items, read_prior
from train.questions import Questions
from train.retrieval import Relevance
from train.rows import POOLED


def dataset(name: str, files: dict[str, str]):
    items = tuple(Fake(content=Fake(name=file), species=(species,)) for file, species in files.items())
    return Fake(name=name, items=items)


def test_items_of_one_event_have_the_same_stem():
    sounds = dataset("sounds", {"a/3.wav": "owl", "a/1.wav": "frog", "a/7.wav": "owl"})
    pictures = dataset("pictures", {"b/1.jpg": "frog", "b/2.jpg": "owl", "b/3.jpg": "owl"})
    assert paired_items(sounds, pictures) == ([0, 1], [2, 0], ("3", "1"))


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ({"b/2.jpg": "owl"}, "expected files of the same stem, found none"),
        ({"b/1.jpg": "owl"}, "expected the same species in both"),
        ({"b/1.jpg": "frog", "c/1.jpg": "frog"}, "found two of '1'"),
    ],
)
def test_events_that_do_not_pair_are_refused(pictures, message):
    with pytest.raises(FusionError, match=message):
        paired_items(dataset("sounds", {"a/1.wav": "frog"}), dataset("pictures", pictures))


def test_a_prior_is_read_for_the_events_and_species_that_are_asked(tmp_path):
    file = tmp_path / "prior.csv"
    file.write_text("species,event,weight\nowl,3,0.25\nfrog,3,0\nowl,9,1\nboar,3,1\nfrog,1,2\n")
    prior = read_prior(file, ["3", "1", "5"], ["frog", "owl"])
    assert prior.tolist() == [[0.0, 0.25], [2.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "found no file"),
        ("event,species\n", "found event, species"),
        ("", "found none"),
        ("event,species,weight\n3,owl,-1\n", "prior.csv:2: expected a weight of 0 or more, found '-1'"),
        ("event,species,weight\n3,owl\n", "found None"),
        ("event,species,weight\n3,owl,nan\n", "found 'nan'"),
    ],
)
def test_a_prior_that_cannot_be_used_is_refused(tmp_path, text, message):
    file = tmp_path / "prior.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(FusionError, match=message):
        read_prior(file, ["3"], ["owl"])


def test_both_modalities_find_more_than_one_and_the_place_helps():
    random = np.random.default_rng(0)
    queries = random.normal(size=(15, 64)).astype(np.float32)
    truth = random.integers(15, size=150)
    sound, picture = ((queries[truth] + 3 * random.normal(size=(150, 64))).astype(np.float32) for _ in "ab")
    prior = np.full((150, 15), 0.02, dtype=np.float32)
    prior[np.arange(150), truth] = 0.5
    keys = [str(i) for i in range(15)]
    relevance = Relevance.of_species(keys, [""] * 15, [[str(t)] for t in truth], [""] * 150)
    asked = Questions(tuple(keys), np.arange(15), relevance)
    rows = evaluate_pair("events", "tiny", asked, fusion(queries, sound, picture, prior), n_orders=2)
    maps = {r.representation.split(", ")[1]: r.figures.map_relevant[1000] for r in rows if r.group == POOLED}
    assert set(maps) == {
        f"{name}{place}" for name in ("sound", "picture", "sound + picture") for place in ("", " + place")
    }
    assert maps["sound + picture"] > max(maps["sound"], maps["picture"]) + 0.05
    assert maps["sound + place"] > maps["sound"]
    assert maps["sound + picture + place"] > maps["sound + picture"]
