"""The training loop on synthetic sounds: it learns, it is seeded, and it resumes with the same result."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from edge.errors import ConfigError
from tests.train.synthetic import TINY, tone, tones
from train.augment import AugmentSettings, WindowSampler, keep_part, mask_and_tilt, piece
from train.checkpoint import CheckpointError, CheckpointNotes, load_checkpoint, save_checkpoint
from train.data import DataError
from train.loop import choose_prompts, train
from train.metrics import hamming_table
from train.prepare import TrainingData
from train.run_state import RunStateError
from train.settings import RunSettings, read_preset, settings_from


@pytest.fixture
def data(tmp_path) -> TrainingData:
    return tones(tmp_path)


def state_of(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([v.flatten().float() for v in model.state_dict().values()])


def test_training_makes_sounds_and_their_sentences_share_codes(data, tmp_path):
    model = train(TINY, data, tmp_path / "run")
    window = torch.stack(
        [torch.from_numpy(data.cache.get(i)[:16_384].astype(np.float32) / 32767) for i in (0, 3, 6)]
    )
    with torch.no_grad():
        audio, text = model.audio(window).numpy(), model.text_head(data.prompt_embeddings).numpy()
    sentence_of = [data.vocabulary.own[data.classes[i]][0] for i in (0, 3, 6)]
    table = hamming_table(text[sentence_of], audio)
    assert (table.argmin(axis=0) == np.arange(3)).all()


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(data, tmp_path):
    whole = train(TINY, data, tmp_path / "whole")
    half = dataclasses.replace(TINY, schedule=dataclasses.replace(TINY.schedule))

    class StoppedError(Exception):
        pass

    calls = {"n": 0}
    original = torch.optim.AdamW.step

    def step(self, *arguments, **options):
        calls["n"] += 1
        if calls["n"] == 123:  # in the second phase, between two checkpoints
            raise StoppedError
        return original(self, *arguments, **options)

    torch.optim.AdamW.step = step
    try:
        with pytest.raises(StoppedError):
            train(half, data, tmp_path / "cut")
    finally:
        torch.optim.AdamW.step = original
    resumed = train(half, data, tmp_path / "cut")
    torch.testing.assert_close(state_of(resumed), state_of(whole), rtol=1e-5, atol=1e-6)


def test_a_run_does_not_go_on_from_other_settings_or_recordings(data, tmp_path):
    short = dataclasses.replace(
        TINY, schedule=dataclasses.replace(TINY.schedule, pretrain_steps=1, hash_steps=1)
    )
    train(short, data, tmp_path)
    with pytest.raises(RunStateError, match="expected a run with seed = 2, found 1"):
        train(dataclasses.replace(short, seed=2), data, tmp_path)
    opened = dataclasses.replace(short, data=dataclasses.replace(short.data, licences="open"))
    with pytest.raises(RunStateError, match="expected a run with data = .*open"):
        train(opened, data, tmp_path)
    others = dataclasses.replace(data, cache=dataclasses.replace(data.cache, fingerprint="other"))
    with pytest.raises(RunStateError, match="expected a run on recordings other, found tones"):
        train(short, others, tmp_path)
    (tmp_path / "state.safetensors").write_bytes(b"1" * 100)
    with pytest.raises(RunStateError, match="expected the state of a run"):
        train(short, data, tmp_path)


def test_a_run_may_start_from_the_weights_of_another(data, tmp_path):
    none = dataclasses.replace(
        TINY, schedule=dataclasses.replace(TINY.schedule, pretrain_steps=1, hash_steps=0)
    )
    first = train(none, data, tmp_path / "a")
    rate = dataclasses.replace(none, schedule=dataclasses.replace(none.schedule, pretrain_rate=0.0))
    second = train(rate, data, tmp_path / "b", start=first)
    head = "audio.head.hidden.weight"
    torch.testing.assert_close(second.state_dict()[head], first.state_dict()[head])


def test_a_background_that_is_not_there_is_named(data, tmp_path):
    with pytest.raises(DataError, match="background 'wind', found none"):
        train(
            dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, background="wind")), data, tmp_path
        )


def test_another_seed_gives_other_weights(data, tmp_path):
    short = dataclasses.replace(
        TINY, schedule=dataclasses.replace(TINY.schedule, pretrain_steps=2, hash_steps=1)
    )
    first = train(short, data, tmp_path / "a")
    second = train(dataclasses.replace(short, seed=2), data, tmp_path / "b")
    assert not torch.allclose(state_of(first), state_of(second))


def test_sentences_are_true_of_the_classes_they_are_chosen_for(data):
    chosen, true_of = choose_prompts(data.vocabulary, 0.5, np.random.default_rng(0))
    assert true_of.diagonal().all()
    for column, prompt in enumerate(chosen):
        assert column in data.vocabulary.prompts[prompt].classes


def test_sampler_is_seeded_and_weights_sum_to_one(data):
    sampler = WindowSampler(
        data.power, data.training, data.classes, 0, TINY.audio.n_frames, 62.5, TINY.augment
    )
    first, again = (sampler.batch(32, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.power, again.power)
    np.testing.assert_allclose(first.weights.sum(axis=1), 1.0, atol=1e-6)
    assert (first.weights > 0).sum(axis=1).max() == 2
    assert np.isfinite(first.power).all()
    assert (first.power >= 0).all()


def test_a_short_recording_repeats_and_a_cut_keeps_the_loudest_moment():
    random = np.random.default_rng(0)
    short = np.arange(1.0, 6.0, dtype=np.float32)[:, None].repeat(3, axis=1)  # 5 frames
    window = piece(short, 12, random)
    assert window.shape == (3, 12)
    assert len(np.unique(np.round(window[0] / window[0].min()))) == 5
    loud = np.full((3, 40), 0.01, dtype=np.float32)
    loud[:, 30] = 5.0
    kept = keep_part(loud, 6, random)
    assert (kept.sum(axis=0) > 0).sum() == 6
    assert kept.max() / np.median(kept[kept > 0]) == pytest.approx(500, rel=1e-3)


def test_masks_blank_no_more_than_asked():
    settings = AugmentSettings(tilt=0.0, band_shift=0, time_mask_frames=10, band_mask=4)
    planes = torch.ones(64, 2, 32, 100)
    out = mask_and_tilt(planes, settings, torch.Generator().manual_seed(0))
    blank_frames = (out[:, 0] == 0).all(dim=1).sum(dim=1)
    assert 0 < blank_frames.max() <= 11
    assert (planes == 1).all()


def test_unknown_keys_and_presets_are_refused():
    with pytest.raises(ConfigError, match=r"\[schedule\]: unknown key 'step'"):
        settings_from({"name": "x", "schedule": {"step": 3}}, "x.toml")
    with pytest.raises(ConfigError, match="expected 0..4, found 5"):
        settings_from({"name": "x", "data": {"fold": 5}}, "x.toml")
    with pytest.raises(ConfigError, match="presets here: .*starter"):
        read_preset("nothing")


@pytest.mark.parametrize("name", ["starter", "starter_open", "starter_folds"])
def test_presets_load(name):
    assert isinstance(read_preset(name), RunSettings)


def test_checkpoint_comes_back_and_bad_ones_are_named(data, tmp_path):
    model = train(
        dataclasses.replace(
            TINY, schedule=dataclasses.replace(TINY.schedule, pretrain_steps=2, hash_steps=2)
        ),
        data,
        tmp_path,
    )
    notes = CheckpointNotes("tiny", "CC0", "", ("rain",), ("wind",), None, "tones", "test")
    file = tmp_path / "tiny.safetensors"
    save_checkpoint(file, model.audio, model.text_head, TINY, notes)
    loaded = load_checkpoint(file)
    assert loaded.settings == TINY
    assert loaded.notes == notes
    window = torch.from_numpy(tone(800, 1, 0)[:16_384])[None]
    torch.testing.assert_close(loaded.audio(window), model.audio(window), rtol=0.02, atol=0.02)
    with pytest.raises(CheckpointError, match="found none"):
        load_checkpoint(tmp_path / "gone.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"0" * 64)
    with pytest.raises(CheckpointError, match="expected a safetensors file"):
        load_checkpoint(tmp_path / "bad.safetensors")
