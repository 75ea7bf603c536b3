"""The hashing loop: goes on after a kill as if nothing had happened, whole-batch losses in parts, several processes as one."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edge.bundle import AudioInput
from edge.errors import ConfigError
from tests.train.test_distributed import run_processes
from tests.train.tiny_hashing import (
    N_ITEMS,
    N_SAMPLES,
    ONE_STEP,
    SETTINGS,
    Noise,
    Observation,
    tiny_pair,
    tiny_run,
)
from train import hashing
from train.data import DataError
from train.distributed import n_processes
from train.examples import fingerprint
from train.features import CacheSettings, cached_pairs, weights_digest
from train.hash_model import HashModel
from train.hash_settings import HashRunSettings
from train.run_state import RunStateError
from train.tower_passes import checkpoint_blocks, in_parts, keep_front_end_exact, precision_on

STEPS = 10  # two epochs of 40 // 8


class Killed(BaseException):
    """Ends a run between two steps, as a signal would."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return load_file(tiny_run(folder / "run", folder / "cache")), folder / "cache"


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], **tolerance: float) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, **(tolerance or {"rtol": 0, "atol": 0}), msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("killed_at", range(STEPS))
def test_a_run_killed_at_any_step_ends_as_an_unbroken_one(tmp_path, monkeypatch, whole, killed_at):
    expected, cache = whole
    real, steps = hashing.gradients_of, iter(range(STEPS))

    def until_killed(*arguments):
        if next(steps) == killed_at:
            raise Killed
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(hashing, "gradients_of", until_killed)
        with pytest.raises(Killed):
            tiny_run(tmp_path, cache)
    assert not (tmp_path / "hash.safetensors").exists()
    same(load_file(tiny_run(tmp_path, cache)), expected)


def test_a_run_killed_while_it_caches_goes_on_at_the_next_block(tmp_path, monkeypatch, whole):
    monkeypatch.setattr("train.features.BLOCK", 16)
    examples, settings = Noise(), CacheSettings(2, 3)
    first = []

    def killed(index, random, load=examples.load):
        if examples.n_loaded == 50:
            raise Killed
        return load(index, random)

    examples.load = killed
    with pytest.raises(Killed):
        cached_pairs(tiny_pair(), examples, settings, tmp_path, "cpu")
    first = examples.n_loaded
    again = Noise()
    pairs = cached_pairs(tiny_pair(), again, settings, tmp_path, "cpu")
    assert (
        again.n_loaded == 2 * N_ITEMS - 40 < 2 * N_ITEMS - first + 16
    )  # blocks of 16, 16, 8: three were done
    file = next(whole[1].glob("*.npy"))
    np.testing.assert_allclose(pairs.observation, np.load(file), rtol=1e-5, atol=1e-6)
    assert [each.suffix for each in tmp_path.iterdir()] == [".npy"]  # the blocks are gone


def test_what_is_left_of_a_cache_is_shared_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr("train.features.BLOCK", 16)
    cached_pairs(tiny_pair(), Noise(), CacheSettings(1, 3), tmp_path / "whole", "cpu")
    whole = np.load(next((tmp_path / "whole").iterdir()))
    name = next((tmp_path / "whole").iterdir()).name.removesuffix("-1views.npy")
    left = tmp_path / "left"
    left.mkdir()
    for first in (0, 16, 32):  # the first of two views was done when the run was killed
        np.save(left / f"{name}-view0-{first}.npy", whole[0, first : first + 16])
    monkeypatch.setattr("train.features.n_processes", lambda: 2)
    monkeypatch.setattr("train.features.rank", lambda: 1)
    examples = Noise()
    with pytest.raises(FileNotFoundError):  # the first process, which lays the blocks together, is not there
        cached_pairs(tiny_pair(), examples, CacheSettings(2, 3), left, "cpu")
    assert examples.n_loaded == 16  # the second of the three blocks that are left


def test_a_finished_cache_is_read_and_other_weights_have_another(tmp_path):
    settings, pair = CacheSettings(1, 3), tiny_pair()
    cached_pairs(pair, Noise(), settings, tmp_path, "cpu")
    again = Noise()
    cached_pairs(pair, again, settings, tmp_path, "cpu")
    assert again.n_loaded == 0
    with torch.no_grad():
        pair.observation.blocks[0].linear.bias += 1
    pairs = cached_pairs(pair, again, settings, tmp_path, "cpu")
    assert again.n_loaded == N_ITEMS
    expected = pair.observation(torch.stack([again.load(i, None) for i in range(N_ITEMS)]))
    cached_pairs(replace(pair, input=AudioInput(2000, N_SAMPLES)), again, settings, tmp_path, "cpu")
    assert again.n_loaded == 3 * N_ITEMS  # one of these was `expected`
    np.testing.assert_allclose(pairs.observation[0], expected.detach(), rtol=1e-5, atol=1e-6)


def test_a_digest_follows_weights_and_data():
    pair, examples = tiny_pair(), Noise()
    assert weights_digest(pair.observation) == weights_digest(tiny_pair().observation)
    assert weights_digest(pair.observation) != weights_digest(pair.text)
    before = fingerprint(examples)
    examples.classes = examples.classes[::-1].copy()
    assert fingerprint(examples) != before


def gradients(settings: HashRunSettings) -> dict[str, torch.Tensor]:
    pair = tiny_pair()
    model = HashModel(pair, settings.n_bits)
    for head in (model.observation_head, model.text_head):
        torch.nn.init.normal_(head.hidden.weight)
        torch.nn.init.normal_(head.bits.weight)
    hashing.gradients_of(
        model.eval(), hashing._Steps(pair, Noise(), settings)[0], settings, 0, nullcontext, "cpu"
    )
    return {name: p.grad for name, p in model.named_parameters()}


def test_gradients_of_a_batch_in_parts_are_those_of_the_whole():
    expected = gradients(SETTINGS)
    assert expected["observation.blocks.0.linear.weight"].abs().max() > 1e-3
    assert expected["text.words.weight"].abs().max() > 1e-3
    parts = gradients(replace(SETTINGS, schedule=replace(SETTINGS.schedule, part=3)))
    same(parts, expected, rtol=1e-4, atol=1e-6)


def test_a_run_in_parts_ends(tmp_path, whole):
    found = load_file(tiny_run(tmp_path, whole[1], part=3))
    assert set(found) == set(whole[0])


def test_a_part_has_the_same_dropout_in_both_passes():
    tower = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
    rows = torch.randn(10, 4)
    features, pull = in_parts(tower, (rows,), 4, 7, partial(precision_on, "cpu", False))
    features.square().sum().backward()
    pull()
    in_pieces = tower[0].weight.grad.clone()
    tower.zero_grad()
    for first in (0, 4, 8):
        torch.manual_seed(7 + first)
        tower(rows[first : first + 4]).square().sum().backward()
    torch.testing.assert_close(in_pieces, tower[0].weight.grad)


def test_checkpointed_blocks_train_alike(tmp_path, whole):
    expected, cache = whole
    same(load_file(tiny_run(tmp_path, cache, gradient_checkpointing=True)), expected, rtol=1e-4, atol=1e-6)


def test_checkpointed_blocks_run_again_in_the_backward_pass():
    tower = Observation().eval()
    calls = []
    tower.blocks[0].linear.register_forward_hook(lambda *_: calls.append(1))
    checkpoint_blocks(tower)
    tower(torch.randn(4, 24)).sum().backward()
    assert len(calls) == 2


def test_a_tower_without_blocks_cannot_be_checkpointed():
    with pytest.raises(ConfigError, match="expected a tower of blocks"):
        checkpoint_blocks(torch.nn.Linear(2, 2))


def test_the_front_end_stays_in_float32_under_autocast():
    tower, rows = Observation().eval(), torch.randn(4, 24)
    exact = tower.front_end(rows)
    with precision_on("cpu", True):
        assert not torch.equal(tower.front_end(rows), exact)
    keep_front_end_exact(tower, "cpu")
    with precision_on("cpu", True):
        torch.testing.assert_close(tower.front_end(rows), exact, rtol=0, atol=0)
        assert tower(rows).dtype == torch.float32
        assert tower.blocks[0].linear(rows[:, :16]).dtype == torch.bfloat16


def test_bfloat16_ends_near_float32(tmp_path, whole):
    expected, cache = whole
    found = load_file(tiny_run(tmp_path, cache, bf16=True))
    differences = [(found[k] - v).abs().max() for k, v in expected.items() if "hidden" in k]
    assert 0 < max(differences) < 0.02


def test_training_moves_adapters_and_heads_and_lowers_the_loss(tmp_path, whole):
    expected, _ = whole
    moved = [name for name, value in expected.items() if "lora_B" in name and value.abs().max() > 0]
    assert any(name.startswith("observation.") for name in moved)
    assert any(name.startswith("text.") for name in moved)
    batch = hashing._Steps(tiny_pair(), Noise(), SETTINGS)[0]
    ended = []
    for epochs in (1, 12):
        model = HashModel(tiny_pair(), SETTINGS.n_bits)
        state = load_file(
            tiny_run(tmp_path / str(epochs), tmp_path / "cache", frozen_epochs=epochs, epochs=0)
        )
        for name in ("observation_head", "text_head"):
            own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
            getattr(model, name).load_state_dict(own)
        precision = partial(precision_on, "cpu", False)
        terms = hashing.gradients_of(model.eval(), batch, SETTINGS, 0, precision, "cpu")
        ended.append(float(terms["alignment"].detach()))
    assert ended[1] < ended[0]


def test_the_rate_falls_over_both_phases_as_over_one(tmp_path, monkeypatch, whole):
    asked = []

    def recorded(step, n_steps, peak, final):
        asked.append((step, n_steps))
        return peak

    monkeypatch.setattr(hashing, "cosine_rate", recorded)
    monkeypatch.setattr("train.head_fitting.cosine_rate", recorded)
    tiny_run(tmp_path, whole[1])
    assert asked == [(step, 15) for step in range(15)]


def test_statistics_of_the_towers_stay(whole):
    pair, cache = tiny_pair(), whole[1]
    before = pair.observation.norm.running_mean.clone()
    settings = replace(SETTINGS, schedule=replace(SETTINGS.schedule, epochs=1))
    hashing.train_hash(settings, pair, Noise(), cache.parent / "stays", cache)
    torch.testing.assert_close(pair.observation.norm.running_mean, before, rtol=0, atol=0)


def test_another_run_in_the_folder_is_refused(tmp_path, whole):
    tiny_run(tmp_path, whole[1])
    with pytest.raises(RunStateError, match="expected a run with schedule"):
        tiny_run(tmp_path, whole[1], batch=4)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path, monkeypatch):
    assert n_processes() == 1
    monkeypatch.setattr(hashing, "n_processes", lambda: 3)
    with pytest.raises(ConfigError, match="multiple of the 3 processes, found 8"):
        tiny_run(tmp_path, tmp_path)


def test_one_item_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Noise, "classes", np.zeros(1, dtype=np.int64))
    with pytest.raises(DataError, match="expected two items or more for each process, found 1"):
        tiny_run(tmp_path, tmp_path)


def test_two_processes_train_as_one(tmp_path):
    run_processes("tests.train.tiny_hashing", str(tmp_path / "two"))
    tiny_run(tmp_path / "one" / "run", tmp_path / "one" / "cache", **ONE_STEP)
    one, two = (load_file(tmp_path / name / "run" / "state.safetensors") for name in ("one", "two"))
    compared = [name for name in one if name.endswith(("exp_avg", "running_var"))]
    assert max(float(one[name].abs().max()) for name in compared if "exp_avg" in name) > 1e-3
    same({name: two[name] for name in compared}, {name: one[name] for name in compared}, rtol=1e-3, atol=1e-6)
