"""The file that a hashing run leaves, and what opens from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.train.tiny_hashing import N_BITS, N_FEATURES, SETTINGS, Noise, tiny_pair, tiny_run
from train import hash_checkpoint
from train.checkpoint import CheckpointError
from train.hash_checkpoint import (
    HashNotes,
    is_hash_checkpoint,
    load_hash_checkpoint,
    save_hash_checkpoint,
    with_patch,
)
from train.model import HashCoder
from train.run_state import RunStateError, load_state, save_state


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return tiny_run(folder, folder / "cache", rate=0.02)


@pytest.fixture(autouse=True)
def _towers(monkeypatch):
    monkeypatch.setattr(hash_checkpoint, "open_towers", lambda source: tiny_pair())


def test_towers_open_merged_with_their_heads(run):
    found = load_hash_checkpoint(run)
    assert is_hash_checkpoint(run)
    assert found.merge_difference <= 1e-5
    assert found.settings.n_bits == N_BITS
    assert "40 items, 6 classes" in found.notes.data
    assert not any("lora" in name for name in found.pair.observation.state_dict())
    items = torch.stack([Noise().load(i, None) for i in range(6)])
    original = tiny_pair()
    assert not torch.allclose(found.pair.observation(items), original.observation(items), atol=1e-3)
    assert found.observation_head(found.pair.observation(items)).shape == (6, N_BITS)
    assert not found.observation_head.training


def test_patching_goes_from_the_pretrained_to_the_merged_weights(run, tmp_path):
    items = torch.stack([Noise().load(i, None) for i in range(6)])
    outputs = {}
    for alpha in (0.0, 0.5, 1.0):
        with_patch(run, alpha, tmp_path / "patched.safetensors")
        patched = load_hash_checkpoint(tmp_path / "patched.safetensors")
        assert patched.notes.patch_alpha == alpha
        outputs[alpha] = patched.pair.observation.blocks[0].linear.weight
    torch.testing.assert_close(outputs[0.0], tiny_pair().observation.blocks[0].linear.weight)
    torch.testing.assert_close(outputs[0.5], (outputs[0.0] + outputs[1.0]) / 2)
    assert not torch.allclose(
        tiny_pair().observation(items), load_hash_checkpoint(run).pair.observation(items)
    )


def test_frozen_towers_open_as_they_were(tmp_path):
    path = tiny_run(tmp_path, tmp_path / "cache", epochs=0)
    found = load_hash_checkpoint(path)
    items = torch.stack([Noise().load(i, None) for i in range(6)])
    torch.testing.assert_close(found.pair.observation(items), tiny_pair().observation(items), rtol=0, atol=0)
    assert found.merge_difference == 0


def test_what_is_no_checkpoint_is_refused(run, tmp_path):
    with pytest.raises(CheckpointError, match="found none"):
        load_hash_checkpoint(tmp_path / "nothing.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors at all")
    with pytest.raises(CheckpointError, match="expected a safetensors file"):
        load_hash_checkpoint(tmp_path / "text.safetensors")
    assert not is_hash_checkpoint(tmp_path / "text.safetensors")
    save_file(load_file(run), tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="expected a hashing checkpoint of format 1, found kind None"):
        load_hash_checkpoint(tmp_path / "bare.safetensors")


def test_adapters_of_other_towers_are_refused(run, monkeypatch):
    def smaller(source):
        pair = tiny_pair()
        del pair.observation.blocks[1]
        return pair

    monkeypatch.setattr(hash_checkpoint, "open_towers", smaller)
    monkeypatch.setattr(hash_checkpoint, "towers_digest", lambda _: load_hash_notes(run).towers)
    with pytest.raises(CheckpointError, match="expected tensors that fit none"):
        load_hash_checkpoint(run)


def test_towers_of_other_weights_are_refused(run, monkeypatch):
    def tuned(source):
        pair = tiny_pair()
        with torch.no_grad():
            pair.text.blocks[1].linear.bias += 0.01
        return pair

    monkeypatch.setattr(hash_checkpoint, "open_towers", tuned)
    with pytest.raises(
        CheckpointError, match=r"expected the towers that it was trained on .* in none .*; give --encoder"
    ):
        load_hash_checkpoint(run)


def test_a_file_has_the_same_bytes_every_time(run, tmp_path):
    paths = [tmp_path / f"{i}.safetensors" for i in range(6)]  # the library shuffles metadata
    for path in paths:
        with_patch(run, 1.0, path)
    assert {path.read_bytes() for path in paths} == {run.read_bytes()}
    assert load_file(paths[0]).keys() == load_file(run).keys()
    with_patch(run, 0.5, paths[0])
    assert paths[0].read_bytes() != run.read_bytes()


def test_weights_that_are_no_numbers_are_not_written(tmp_path):
    pair = tiny_pair()
    heads = [HashCoder(N_FEATURES, N_BITS) for _ in range(2)]
    with torch.no_grad():
        heads[1].bits.weight[0, 0] = torch.nan
    with pytest.raises(
        RunStateError,
        match=r"expected finite weights, found others in text_head\.bits\.weight; lower the rate",
    ):
        save_hash_checkpoint(tmp_path / "x", tuple(heads), None, SETTINGS, HashNotes("", "", "", ""))
    adapters = hash_checkpoint.with_adapters(pair, SETTINGS)[0].state()
    save_state(tmp_path / "state", adapters, SETTINGS, "id", 3)
    next(iter(adapters.values()))[0] = torch.inf
    with pytest.raises(RunStateError, match="step 4: expected finite weights"):
        save_state(tmp_path / "state", adapters, SETTINGS, "id", 4)
    assert load_state(tmp_path / "state", SETTINGS, "id", "cpu")[1] == 3


def load_hash_notes(path: Path) -> HashNotes:
    with safe_open(path, "pt") as stream:
        return HashNotes(**json.loads(stream.metadata()["notes"]))


def test_the_run_says_where_the_towers_are_now(run, monkeypatch):
    opened = []
    monkeypatch.setattr(hash_checkpoint, "open_towers", lambda s: opened.append(s) or tiny_pair())
    load_hash_checkpoint(run, "clap:/elsewhere")
    assert opened == ["clap:/elsewhere"]
    assert HashNotes("x", "y", "z", "w").patch_alpha == 1.0
