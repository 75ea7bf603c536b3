"""The commands evaluate, sweep and overfit from files to files, with tiny towers and a few seconds of noise."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.errors import ConfigError, UsageError
from tests.train.tiny_hashing import N_CLASSES, N_SAMPLES, SETTINGS, tiny_pair
from train.__main__ import main
from train.dataset_examples import DatasetExamples
from train.datasets import Dataset, Item, Species, TextQuery, open_dataset, prompts_of
from train.datasets.contract import FileContent
from train.evaluate_towers import Settings, open_run, rows_of
from train.hashing import train_hash
from train.sweep_command import split
from train.sweep_trials import DEFAULTS, TARGETS, present_targets, varied

OPENERS = (
    "train.towers.open_towers",
    "train.hash_checkpoint.open_towers",
    "train.evaluate_towers.open_towers",
)


@pytest.fixture(autouse=True)
def tiny_towers(monkeypatch):
    for opener in OPENERS:
        monkeypatch.setattr(opener, lambda source: tiny_pair())


def recordings(folder: Path, n: int, seed: int) -> str:
    """Write n clips of each owl, noise around its own noise, with a CSV; returns the data set's spec."""
    folder.mkdir()
    centres = np.random.default_rng(0).normal(size=(N_CLASSES, N_SAMPLES))
    random = np.random.default_rng(seed)
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("file", "label", "scientific_name", "group"))
        for i in range(n * N_CLASSES):
            clip = 0.1 * (centres[i % N_CLASSES] + 0.3 * random.normal(size=N_SAMPLES))
            soundfile.write(folder / f"{i:03}.wav", clip, 1000, subtype="FLOAT")
            owl = f"owl{i % N_CLASSES}"
            writer.writerow((f"{i:03}.wav", owl, f"call of {owl}", f"group {i % 2}"))
    return f"folder:{folder / 'labels.csv'}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two data sets, and a checkpoint that was trained on the first."""
    folder = tmp_path_factory.mktemp("owls")
    near, far = recordings(folder / "near", 8, 1), recordings(folder / "far", 3, 2)
    pair = tiny_pair()
    examples = DatasetExamples(open_dataset(near), pair.input, prompts_of)
    settings = replace(SETTINGS, schedule=replace(SETTINGS.schedule, epochs=15))
    checkpoint = train_hash(settings, pair, examples, folder / "run", folder / "cache")
    return near, far, checkpoint, folder / "cache"


def read(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def test_evaluate_compares_towers_codes_and_baselines_in_and_out_of_domain(run, tmp_path, capsys):
    near, far, checkpoint, cache = run
    files = ["--csv", str(tmp_path / "o.csv"), "--plot", str(tmp_path / "o.png"), "--cache", str(cache)]
    arguments = ["--checkpoint", str(checkpoint), "--dataset", near, "--ood", far, "--baseline", near]
    assert main(["evaluate", *arguments, *files, "--top", "10", "--orders", "2"]) == 0
    rows = read(tmp_path / "o.csv")
    names = {row["representation"] for row in rows}
    assert {"continuous pretrained", "continuous LoRA 16", "binary 16", "asymmetric 16"} <= names
    assert {"ITQ binary 16", "LSH binary 16", "binary 16, top 10 by continuous"} <= names
    assert {row["dataset"] for row in rows} == {"near", "far"}
    assert {row["group"] for row in rows} == {"group 0", "group 1", "Avg", "pooled"}
    pooled = {r["representation"]: r for r in rows if r["dataset"] == "near" and r["group"] == "pooled"}
    assert pooled["binary 16"]["n_items"] == "48"
    assert float(pooled["binary 16"]["zero_shot"]) > 1 / N_CLASSES  # it was trained on these
    before, after = (float(pooled[f"continuous {n}"]["map_1000_relevant"]) for n in ("pretrained", "LoRA 16"))
    assert after > before
    assert (tmp_path / "o.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "binary 16, top 10 by asymmetric" in printed


def test_evaluate_takes_towers_alone_and_words_queries_as_told(run, tmp_path):
    near, _, _, cache = run
    files = ["--csv", str(tmp_path / "o.csv"), "--cache", str(cache)]
    assert main(["evaluate", "--encoder", "tiny", "--dataset", near, "--prompts", "common", *files]) == 0
    rows = read(tmp_path / "o.csv")
    assert {row["representation"] for row in rows} == {"continuous pretrained"}
    assert main(["evaluate", "--encoder", "tiny", "--dataset", near, "--prompts", "latin", *files]) == 2


def test_evaluate_fuses_two_recordings_of_the_same_events(run, tmp_path):
    near, far, checkpoint, cache = run
    prior = tmp_path / "prior.csv"
    lines = [f"{i:03},owl{i % N_CLASSES},1" for i in range(3 * N_CLASSES)]
    prior.write_text("\n".join(["event,species,weight", *lines]) + "\n")
    fuse = ["--fuse-checkpoint", str(checkpoint), "--fuse-dataset", near, "--prior", str(prior)]
    files = ["--csv", str(tmp_path / "o.csv"), "--cache", str(cache)]
    assert main(["evaluate", "--checkpoint", str(checkpoint), "--dataset", far, *fuse, *files]) == 0
    rows = [r for r in read(tmp_path / "o.csv") if r["dataset"] == "far events" and r["group"] == "pooled"]
    names = ("sound", "picture", "sound + picture")
    expected = {f"binary 16, {name}{place}" for name in names for place in ("", " + place")}
    maps = {r["representation"]: float(r["map_1000_relevant"]) for r in rows}
    assert set(maps) == expected
    assert maps["binary 16, sound + place"] > maps["binary 16, sound"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected --data (for a bundle)"),
        (["--encoder", "tiny"], "expected --dataset"),
        (["--encoder", "tiny", "--dataset", "x", "--fuse-dataset", "y"], "--fuse-dataset together"),
        (["--encoder", "tiny", "--dataset", "x", "--orders", "0"], "--orders of 1 or more, found 0"),
        (["--encoder", "tiny", "--dataset", "x", "--top", "0"], "--top of 1 or more, found 0"),
        (["--encoder", "tiny", "--dataset", "x", "--device", "tpu"], "--device: expected one of auto, cpu"),
    ],
)
def test_evaluate_says_which_argument_is_missing(arguments, message, capsys):
    assert main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_fusion_without_heads_is_refused(run, tmp_path, capsys):
    near, far, checkpoint, cache = run
    fuse = ["--fuse-checkpoint", str(checkpoint), "--fuse-dataset", near, "--cache", str(cache)]
    assert main(["evaluate", "--encoder", "tiny", "--dataset", far, *fuse]) == 1
    assert "expected two runs with heads" in capsys.readouterr().err


def test_soundscapes_are_asked_for_two_species_at_once(run):
    near, _, checkpoint, cache = run
    dataset = open_dataset(near)
    items = tuple(replace(item, species=("owl0", f"owl{i % 3}")) for i, item in enumerate(dataset.items))
    rows = rows_of(
        open_run(checkpoint, None), replace(dataset, name="duets", items=items), Settings(cache, n_orders=1)
    )
    both = {r.representation: r for r in rows if r.group == "two species at once"}
    assert set(both) == {
        "continuous, one sentence",
        "continuous, added",
        "binary 16, one sentence",
        "binary 16, added",
        "binary 16, farther of both",
    }
    assert all(r.figures.n_queries == 2 for r in both.values())


def test_the_sentences_of_a_data_set_ask_their_own_candidates(run):
    near, _, checkpoint, cache = run
    opened = open_dataset(near)
    queries = (
        TextQuery("call of owl1", frozenset({1, 7}), "call", frozenset({0, 1, 7})),
        TextQuery("a owl2", frozenset({2}), "call", frozenset({2})),
    )
    dataset = Dataset("sentences", "audio", opened.items, opened.species, queries)
    rows = rows_of(open_run(checkpoint, None), dataset, Settings(cache, n_fetched=2, n_orders=3))
    one = {r.representation: r for r in rows if r.group == "call"}
    for name in ("binary 16", "continuous LoRA 16", "binary 16, top 2 by continuous"):
        # the second query can only find its answer; the first finds both but for one other item
        assert one[name].figures.map_relevant[1000] >= (1 + (1 / 2 + 2 / 3) / 2) / 2
        assert np.isnan(one[name].zero_shot)


@pytest.mark.parametrize(
    ("over", "values"),
    [
        ("lambda", ["0.01", "1"]),
        ("bits", ["16", "64"]),
        ("objective", ["itq", "lsh", "crovca", "contrastive", "crovca as printed"]),
        ("prompts", ["common", "all"]),
        ("rank", ["0", "2"]),
    ],
)
def test_a_sweep_writes_a_row_for_each_value_seed_and_representation(run, tmp_path, capsys, over, values):
    near, far, _, cache = run
    preset = tmp_path / "tiny.toml"
    preset.write_text(
        'name = "tiny"\nencoder = "tiny"\nn_bits = 16\n[schedule]\nbatch = 12\nworkers = 0\nbf16 = false\n'
    )
    files = ["--csv", str(tmp_path / "s.csv"), "--plot", str(tmp_path / "s.png"), "--cache", str(cache)]
    data = ["--preset", str(preset), "--dataset", near, *(["--test", far] if over == "rank" else [])]
    common = ["--epochs", "2", "--seeds", "1", "2", "--out", str(tmp_path / "runs")]
    assert main(["sweep", "--over", over, "--values", *values, *data, *common, *files]) == 0
    rows = read(tmp_path / "s.csv")
    assert len(rows) == len(values) * 2 * 3
    assert [r["value"] for r in rows[::6]] == values
    binary = {
        (r["value"], r["seed"]): r["map_1000_retrieved"] for r in rows if r["representation"] == "binary"
    }
    if over in ("lambda", "objective"):
        assert len(set(binary.values())) > 1
    widths = {r["value"]: r["n_bits"] for r in rows if r["representation"] == "binary"}
    assert over != "bits" or widths == {"16": "16", "64": "64"}
    assert (tmp_path / "s.png").exists()
    assert "2 seeds, mean" in capsys.readouterr().out


def test_a_sweep_tells_a_wrong_value_before_it_trains(run, tmp_path, capsys):
    near, _, _, cache = run
    data = ["--encoder", "tiny", "--dataset", near, "--cache", str(cache), "--out", str(tmp_path)]
    for over, value in (("lambda", "much"), ("objective", "guess"), ("prompts", "latin"), ("targets", "all")):
        assert main(["sweep", "--over", over, "--values", value, *data]) == 2
        assert f"found '{value}'" in capsys.readouterr().err
    assert main(["sweep", "--over", "lambda"]) == 2
    assert "expected --preset or --encoder" in capsys.readouterr().err


def test_prompt_formats_that_word_nothing_differently_are_left_out(run, tmp_path, caplog):
    near, _, _, cache = run
    files = ["--csv", str(tmp_path / "s.csv"), "--cache", str(cache), "--out", str(tmp_path)]
    preset = tmp_path / "tiny.toml"
    preset.write_text('name = "tiny"\nencoder = "tiny"\nn_bits = 16\n')
    data = ["--preset", str(preset), "--dataset", near, "--epochs", "1"]
    assert main(["sweep", "--over", "prompts", *data, *files]) == 0
    values = list(dict.fromkeys(r["value"] for r in read(tmp_path / "s.csv")))
    assert values == ["scientific", "common", "scientific with common name", "all"]
    assert "prompts 'taxonomic': here every species is worded as with 'scientific'" in caplog.text


def test_one_setting_changes_and_all_others_stay():
    base = varied(SETTINGS, "prompts", "all", 3)
    for over, value, changed in (
        ("lambda", "0.5", {"objective"}),
        ("bits", "64", {"n_bits"}),
        ("objective", "contrastive", {"objective"}),
        ("rank", "8", {"lora"}),
        ("rank", "0", {"schedule"}),
        ("targets", "attn", {"lora"}),
        ("prompts", "common", {"prompts"}),
    ):
        found = varied(SETTINGS, over, value, 3)
        names = set(SETTINGS.__dataclass_fields__) - {"name"}
        assert {n for n in names if getattr(found, n) != getattr(base, n)} == changed
    assert varied(SETTINGS, "rank", "8", 3).lora.alpha == 8.0
    assert varied(SETTINGS, "rank", "0", 3).schedule.frozen_epochs == 3
    assert {v for values in DEFAULTS.values() for v in values} >= {"0.01", "0.1", "1", "itq", "lsh", "256"}


def test_targets_are_those_of_layers_that_both_towers_have():
    from torch import nn

    pair = tiny_pair()
    assert present_targets(pair) == ()
    block = nn.ModuleDict({"attn": nn.Linear(2, 2)})
    stack = nn.ModuleDict({"transformer": nn.ModuleDict({"resblocks": nn.ModuleList([block])})})
    clip = replace(pair, observation=nn.ModuleDict({"visual": stack}), text=nn.ModuleDict({"tower": stack}))
    assert present_targets(clip) == ("attn", "attn+mlp")
    assert set(present_targets(clip)) <= set(TARGETS)


def test_a_fifth_of_each_species_is_held_out_and_nothing_twice():
    species = {k: Species(k, k, k, (), "") for k in "abc"}
    keys = ["a"] * 10 + ["b"] * 3 + ["c"]
    items = tuple(Item(FileContent(Path(f"{i}.wav")), (k,), "") for i, k in enumerate(keys))
    training, held_out = split(Dataset("all", "audio", items, species))
    counts = [sum(item.species == (k,) for item in held_out.items) for k in "abc"]
    assert counts == [2, 1, 0]
    assert sorted(i.content.name for i in (*training.items, *held_out.items)) == sorted(
        i.content.name for i in items
    )
    assert split(Dataset("all", "audio", items, species))[1] == held_out


@pytest.mark.parametrize("option", ["--pairs=1", "--bits=0", "--epochs=0"])
def test_overfit_of_nothing_is_refused(option, capsys):
    assert main(["overfit", option]) == 2
    assert f"expected {option.partition('=')[0]} of" in capsys.readouterr().err


@pytest.mark.parametrize(("over", "value"), [("lambda", "nan"), ("bits", "17"), ("rank", "-1")])
def test_a_sweep_refuses_what_no_training_can_take(over, value):
    with pytest.raises((UsageError, ConfigError), match=f"found '?{value}"):
        varied(SETTINGS, over, value, 1)


def test_a_folder_that_is_a_file_is_named(run, tmp_path, capsys):
    near, _, checkpoint, _ = run
    (tmp_path / "file").touch()
    arguments = ["--checkpoint", str(checkpoint), "--dataset", near, "--cache", str(tmp_path / "file")]
    assert main(["evaluate", *arguments]) == 1
    assert f"{tmp_path / 'file'}: expected to read or write it, found: File exists" in capsys.readouterr().err


def test_overfit_passes_with_enough_steps_and_fails_with_few(run, capsys):
    assert main(["overfit", "--pairs", "40", "--bits", "64", "--epochs", "120"]) == 0
    assert "matched pairs differ in 0.00 bits" in capsys.readouterr().out
    assert main(["overfit", "--pairs", "40", "--bits", "64", "--epochs", "2"]) == 1
    near, _, _, cache = run
    own = ["--encoder", "tiny", "--dataset", near, "--bits", "64", "--cache", str(cache)]
    main(["overfit", "--epochs", "2", *own])
    assert f"{N_CLASSES} pairs" in capsys.readouterr().out
    assert main(["overfit", "--encoder", "tiny"]) == 2
