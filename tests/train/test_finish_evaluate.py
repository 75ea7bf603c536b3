"""From trained weights to a checkpoint with its alarm probability, and the figures of an encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.train.synthetic import TINY, ToneTower, tones
from train import evaluate, finish
from train.__main__ import main
from train.checkpoint import load_checkpoint
from train.loop import train
from train.prepare import select
from train.settings import DataSettings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tones")
    data = tones(folder)
    return data, train(TINY, data, folder / "run")


def test_finish_writes_a_checkpoint_that_says_how_it_was_made(trained, tmp_path, monkeypatch):
    data, model = trained
    monkeypatch.setattr(finish, "SentenceTower", lambda source: ToneTower(data))
    monkeypatch.setattr("train.calibrate.WATCHLIST_SIZES", (2, 3))
    monkeypatch.setattr(finish, "MIX_SNR_DB", (-40.0, 10.0))  # some tones drown: their nearest query is wrong
    monkeypatch.setattr(
        finish, "read_sounds", lambda: {"decoys": ["wind"]}
    )  # two dozen would win over 64 bits
    finish.finish(TINY, data, model, tmp_path / "tiny.safetensors")
    notes = load_checkpoint(tmp_path / "tiny.safetensors").notes
    assert notes.calibration is not None
    assert notes.calibration["coefficient"] < 0
    assert notes.calibration["n_pairs"] > 0
    assert notes.licence == "CC BY-NC-SA 4.0"
    assert notes.data.startswith("12 recordings, 18 s: esc10 (12 recordings, 18 s)")
    assert "100 + 60 steps of 16" in notes.train_run
    assert notes.queries == data.vocabulary.queries


def test_figures_of_an_encoder_that_knows_three_of_its_four_sounds(trained, monkeypatch):
    data, _ = trained
    sounds = {r.file: data.cache.get(i).astype(np.float32) / 32767 for i, r in enumerate(data.recordings)}
    monkeypatch.setattr(evaluate, "decode", lambda file, rate: sounds[file])
    n_classes = len(data.vocabulary.class_keys)
    codes = np.random.default_rng(0).normal(size=(n_classes, 256)).astype(np.float32)
    of_text = {text: codes[i] for i, text in enumerate(data.vocabulary.queries)}
    of_text |= {text: codes[i] for text, i in data.vocabulary.heldout}
    heard = iter(
        [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    )  # three windows each; the last sound is taken for the third
    order = [data.classes[i] for i in data.validation]
    wrong = int(order[3])

    def encode_audio(samples: np.ndarray) -> np.ndarray:
        return codes[int(order[next(heard)])]

    encoded = evaluate.encode_validation(
        data.recordings, data.validation, 32_000, 16_384, encode_audio, of_text.__getitem__
    )
    assert encoded.audio.shape == (12, 256)
    assert evaluate.nearest_text(encoded, "esc10").tolist() == [True, True, True, False]
    expected = [c != wrong for _, c in data.vocabulary.heldout]
    hits = evaluate.heldout_hits(encoded)
    assert hits[np.array(expected)].sum() >= sum(
        c not in (wrong, int(order[2])) for _, c in data.vocabulary.heldout
    )
    figures = evaluate.figures_of(encoded)
    assert figures["ESC-10 fold 4, nearest of 10 text codes"].startswith("75.0 %")
    assert figures["text-to-audio mAP, ESC-10 fold 4"]["256-bit Hamming"] < 100
    assert set(figures["text-to-audio mAP, all held-out windows"]) == {
        name for name, _, _ in evaluate.METHODS
    }


def test_a_trained_model_is_encoded_by_its_own_parts(trained, monkeypatch):
    data, model = trained
    sounds = {r.file: data.cache.get(i).astype(np.float32) / 32767 for i, r in enumerate(data.recordings)}
    monkeypatch.setattr(evaluate, "SentenceTower", lambda source: ToneTower(data))
    monkeypatch.setattr(evaluate, "decode", lambda file, rate: sounds[file])
    encoded = evaluate.encode_model(model, TINY, data)
    window = torch.from_numpy(sounds[data.recordings[data.validation[0]].file][None, :16_384])
    with torch.no_grad():
        np.testing.assert_allclose(encoded.audio[0], model.audio(window)[0].numpy(), atol=1e-5)
    assert encoded.queries.shape == (4, 64)


def test_selection_keeps_the_fold_of_a_recording_whatever_trains(tmp_path):
    import csv

    for dataset, licences in (("birds", ["CC0", "CC BY-NC"]), ("ponds", ["CC BY-NC", "CC0"])):
        (tmp_path / dataset).mkdir()
        with (tmp_path / dataset / "labels.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("file", "label", "scientific_name", "split", "licence"))
            for i in range(20):
                (tmp_path / dataset / f"{i:02}.wav").touch()
                writer.writerow((f"{i:02}.wav", f"c{i % 2}", f"s{i % 2}", "train", licences[i % 2]))
    sets = ("birds", "ponds")
    full, _, held = select(DataSettings(datasets=sets, fold=1), tmp_path)
    part, training, open_held = select(DataSettings(datasets=sets, fold=1, licences="open"), tmp_path)
    held_files = {full[i].file for i in held}
    assert {part[i].file for i in open_held} <= held_files
    assert not {part[i].file for i in training} & held_files
    assert len(training) + len(open_held) == len(part) == 20
    without, _, _ = select(DataSettings(datasets=sets, leave_out=("birds",)), tmp_path)
    assert {r.dataset for r in without} == {"ponds"}


def test_commands_explain_what_is_wrong(tmp_path, capsys):
    assert main(["run", "--preset", "nothing", "--data", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "expected a preset, found none" in capsys.readouterr().err
    assert main(["evaluate", "--bundle", str(tmp_path), "--data", str(tmp_path)]) == 1
    assert "expected a bundle folder" in capsys.readouterr().err
    assert main(["run", "--data", str(tmp_path / "no"), "--out", str(tmp_path / "o")]) == 1
    assert "expected the folder of the data sets" in capsys.readouterr().err
