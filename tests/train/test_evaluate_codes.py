"""Rows of figures of every representation: known answers, groups, files and tables."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace as Fake

import numpy as np
import pytest
from rich.console import Console

from train import questions
from train.datasets import TextQuery
from train.evaluate_codes import Features, binary, continuous, evaluate_pair, measure
from train.metrics import cosine_table, hamming_table
from train.questions import added, both_species, farthest_of_two, questions_of, side_by_side
from train.retrieval import Relevance, zero_shot
from train.rows import (
    POOLED,
    columns_of,
    curves,
    flat,
    knee,
    knees,
    paper_tables,
    plot_bits,
    summary,
    write_csv,
)

N_SPECIES, N_ITEMS, N_FEATURES, N_BITS = 12, 120, 48, 64


def wordings(species) -> tuple[str, ...]:
    return (species.scientific, species.common) if species.common else (species.scientific,)


@pytest.fixture(scope="module")
def world():
    """Species in three groups, items near their species' text, heads that are one random projection."""
    random = np.random.default_rng(0)
    species = {
        f"s{i}": Fake(
            key=f"s{i}",
            scientific=f"Genus s{i}",
            common="" if i == 3 else f"common {i}",
            group=f"group {i % 3}",
        )
        for i in range(N_SPECIES + 1)  # the last one is never shown
    }
    shown = random.integers(N_SPECIES, size=N_ITEMS)
    items = tuple(Fake(species=(f"s{s}",), group=f"group {s % 3}") for s in shown)
    dataset = Fake(name="forest", items=items, species=species, queries=())
    asked = questions_of(dataset, wordings)
    centres = random.normal(size=(N_SPECIES, N_FEATURES))
    texts = centres[asked.query_of_text] + 0.3 * random.normal(size=(len(asked.texts), N_FEATURES))
    seen = centres[shown] + random.normal(size=(N_ITEMS, N_FEATURES))
    features = Features(texts.astype(np.float32), seen.astype(np.float32))
    matrix = random.normal(size=(N_FEATURES, N_BITS)).astype(np.float32)
    return Fake(dataset=dataset, asked=asked, shown=shown, features=features, head=lambda f: f @ matrix)


@pytest.fixture(scope="module")
def rows(world):
    codes = binary(world.asked, world.features, world.head, world.head, (16, 32), n_fetched=30)
    each = [continuous("continuous pretrained", world.asked, world.features), *codes]
    return evaluate_pair("forest", "tiny", world.asked, each, n_orders=4)


def row(rows, representation, group=POOLED):
    return next(r for r in rows if r.representation == representation and r.group == group)


def test_a_query_has_all_wordings_of_a_species_that_is_shown(world):
    assert world.asked.n_queries == N_SPECIES
    assert len(world.asked.texts) == 2 * N_SPECIES - 1
    assert world.asked.texts[:2] == ("Genus s0", "common 0")
    per_text = np.arange(len(world.asked.texts), dtype=np.float32)[:, None]
    assert world.asked.of_queries(per_text)[:5, 0].tolist() == [0.5, 2.5, 4.5, 6.0, 7.5]
    assert (world.asked.relevance.answers[4] == np.flatnonzero(world.shown == 4)).all()


def test_rows_cover_every_representation_and_group(rows):
    widths = ["16 prefix", "32 prefix", "64"]
    expected = {f"{kind} {width}" for kind in ("binary", "asymmetric", "sigmoid") for width in widths}
    expected |= {
        "continuous pretrained",
        "binary 64, top 30 by continuous",
        "binary 64, top 30 by asymmetric",
    }
    assert {r.representation for r in rows} == expected
    assert {r.group for r in rows} == {"group 0", "group 1", "group 2", "Avg", POOLED}
    assert len(rows) == len(expected) * 5
    assert row(rows, "binary 64").gauges is not None
    assert row(rows, "continuous pretrained").gauges is None


def test_figures_rise_with_bits_and_with_a_second_stage(rows):
    maps = {r.representation: r.figures.map_relevant[1000] for r in rows if r.group == POOLED}
    assert (
        maps["binary 16 prefix"]
        < maps["binary 32 prefix"]
        < maps["binary 64"]
        < maps["continuous pretrained"]
    )
    assert maps["binary 64"] < maps["binary 64, top 30 by continuous"]
    assert maps["binary 16 prefix"] < maps["asymmetric 16 prefix"]


def test_the_average_is_over_groups_and_the_pool_has_more_rivals(rows):
    groups = [row(rows, "binary 64", f"group {i}") for i in range(3)]
    average = row(rows, "binary 64", "Avg")
    assert average.figures.map_retrieved[1000] == pytest.approx(
        np.mean([g.figures.map_retrieved[1000] for g in groups])
    )
    assert average.zero_shot == pytest.approx(np.mean([g.zero_shot for g in groups]))
    assert average.figures.n_items == N_ITEMS == row(rows, "binary 64").figures.n_items
    assert row(rows, "binary 64").figures.map_relevant[1000] < average.figures.map_relevant[1000]


def test_zero_shot_accuracy_is_that_of_one_whole_table(world, rows, monkeypatch):
    queries = world.asked.of_queries(world.head(world.features.texts))
    table = hamming_table(queries, world.head(world.features.items))
    whole = zero_shot(table, world.asked.relevance.rows(0, N_SPECIES)).mean()
    assert row(rows, "binary 64").zero_shot == pytest.approx(whole)
    monkeypatch.setattr("train.evaluate_codes.ITEMS_PER_BLOCK", 7)
    codes = next(
        r for r in binary(world.asked, world.features, world.head, world.head, ()) if r.name == "binary 64"
    )
    again = measure("forest", "tiny", codes, world.asked, n_orders=1)
    assert again[-1].zero_shot == pytest.approx(whole)


def test_the_scale_of_a_query_does_not_make_it_the_nearest(world, rows):
    loud = np.where(world.asked.query_of_text == 2, 9.0, 1.0).astype(np.float32)[:, None]
    codes = binary(world.asked, world.features, lambda f: world.head(f) * loud, world.head, ())
    shouted = next(r for r in codes if r.name == "asymmetric 64")
    found = measure("forest", "tiny", shouted, world.asked, n_orders=1)
    assert found[-1].zero_shot == pytest.approx(row(rows, "asymmetric 64").zero_shot)


def test_sentences_ask_every_item_and_are_no_classes(world):
    sentences = (
        TextQuery("a bird in flight", frozenset({5, 2}), "behaviour"),
        TextQuery("a bird on a nest", frozenset({7}), "behaviour"),
        TextQuery("a wet frog", frozenset(), "appearance"),
    )
    asked = questions_of(Fake(items=world.dataset.items, species={}, queries=sentences), wordings)
    assert asked.texts == tuple(s.text for s in sentences)
    assert [a.tolist() for a in asked.relevance.answers] == [[2, 5], [7], []]
    items = world.features.items
    found = measure(
        "inquire", "tiny", continuous("continuous", asked, Features(items[[2, 7, 0]], items)), asked
    )
    behaviour = next(r for r in found if r.group == "behaviour")
    assert behaviour.figures.n_items == N_ITEMS
    assert behaviour.figures.n_queries == 2
    assert behaviour.figures.precision[1] == 1.0
    assert np.isnan(behaviour.zero_shot)


def test_two_species_at_once_are_found_by_added_logits_and_by_the_farther_part():
    random = np.random.default_rng(0)
    queries = random.normal(size=(4, 256)).astype(np.float32)
    heard = [(i, j) for i in range(4) for j in range(i, 4)] * 3  # alone or two together
    logits = np.stack([queries[list({*pair})].sum(axis=0) for pair in heard]) + random.normal(
        size=(len(heard), 256)
    )
    relevance = Relevance.of_species("abcd", [""] * 4, [["abcd"[i] for i in p] for p in heard], [""] * 30)
    asked = questions.Questions(("A", "a", "B", "C", "D"), np.array([0, 0, 1, 2, 3]), relevance)
    found, both = both_species(asked, least=3, most=5)
    assert len(found) == 5
    assert both.texts[0] == "A and B"
    assert both_species(asked, least=4)[0] == ()
    items = logits.astype(np.float32)
    for table in (
        hamming_table(added(found, queries), items),
        farthest_of_two(side_by_side(found, queries), items),
    ):
        nearest = np.argsort(table, axis=1)[:, :3]
        assert (np.sort(nearest, axis=1) == np.stack(both.relevance.answers)).all()


def test_csv_holds_every_row_and_leaves_what_is_unknown_empty(rows, tmp_path):
    write_csv([flat(r) for r in rows], tmp_path / "new" / "out.csv")
    with (tmp_path / "new" / "out.csv").open() as stream:
        read = list(csv.DictReader(stream))
    assert len(read) == len(rows)
    first = read[0]
    assert (first["dataset"], first["group"], first["n_bits"]) == ("forest", "group 0", "0")
    assert float(first["map_1000_retrieved"]) == pytest.approx(rows[0].figures.map_retrieved[1000], abs=1e-6)
    assert {"precision_1", "precision_20", "map_5_relevant", "bit_entropy"} <= set(first)
    assert first["distinct"] == ""
    staged = next(r for r in read if "top 30" in r["representation"])
    assert staged["zero_shot"] == ""


def test_curves_run_over_all_widths_and_leave_second_stages_out(rows):
    by_bits, level = curves(rows, "forest")
    assert {name: sorted(maps) for name, maps in by_bits.items()} == {
        f"tiny, {kind}": [16, 32, 64] for kind in ("binary", "asymmetric", "sigmoid")
    }
    pooled = row(rows, "binary 32 prefix").figures.map_retrieved[1000]
    assert by_bits["tiny, binary"][32] == pytest.approx(100 * pooled)
    assert list(level) == ["tiny, continuous pretrained"]
    assert len(knees(rows)) == 3
    assert knees(rows)[0].startswith("forest, tiny, binary: 64 bits keep 95%")


def test_plot_and_summary_show_what_was_measured(rows, tmp_path):
    plot_bits(rows, tmp_path / "bits.png")
    assert (tmp_path / "bits.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    console = Console(width=200, file=io.StringIO())
    console.print(summary(rows, "forest"))
    text = console.file.getvalue()
    assert "binary 64, top 30 by asymmetric" in text
    assert f"{100 * row(rows, 'binary 64').figures.map_retrieved[1000]:.2f}" in text
    assert "group 1" not in text


def test_rows_meet_the_papers_columns(rows):
    by_group = columns_of(rows, "I")
    assert set(by_group["binary 64"]) == {"group 0", "group 1", "group 2", "Avg"}
    by_dataset = columns_of(rows, "IV")
    assert set(by_dataset["binary 64"]) == {"forest", "Avg"}
    assert by_dataset["binary 64"]["Avg"] == pytest.approx(100 * row(rows, "binary 64").zero_shot)
    assert paper_tables(rows, {"forest": "folder"}, "tiny", "tiny") == []
    assert len(paper_tables(rows, {"forest": "birdset"}, "tiny", "tiny")) == 2
    console = Console(width=250, file=io.StringIO())
    console.print(*paper_tables(rows, {"forest": "inat24"}, "bioclip", "mine"))
    text = console.file.getvalue()
    assert "BioCLIP (paper)" in text
    assert "BioCLIP-2" not in text
    assert "mine" in text


def test_knee_is_the_narrowest_code_that_keeps_most():
    assert knee({16: 40.0, 64: 60.0, 128: 76.1, 256: 80.0}) == 128
    assert knee({16: 40.0, 64: 60.0, 128: 75.9, 256: 80.0}) == 256


def test_continuous_queries_are_means_of_unit_vectors(world):
    made = continuous("c", world.asked, world.features)
    own = world.features.texts[:2] / np.linalg.norm(world.features.texts[:2], axis=1, keepdims=True)
    np.testing.assert_allclose(made.queries[0], own.mean(axis=0), rtol=1e-5)
    some = made.distances(np.array([0, 2]), np.array([1, 5, 9]))
    np.testing.assert_allclose(
        some, cosine_table(made.queries, world.features.items)[[0, 2]][:, [1, 5, 9]], rtol=1e-4
    )
