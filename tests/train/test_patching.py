"""The point between pretrained and trained towers, chosen on held-out items; the commands hash and patch from end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.train.tiny_hashing import N_CLASSES, N_SAMPLES, Noise, tiny_pair, tiny_run
from train import hash_checkpoint, patching
from train.__main__ import main
from train.hash_checkpoint import load_hash_checkpoint, with_patch
from train.lora import LoraError
from train.patching import choose_patch, code_accuracy


@pytest.fixture(autouse=True)
def _towers(monkeypatch):
    for module in ("train.hash_checkpoint", "train.patching", "train.towers"):
        monkeypatch.setattr(f"{module}.open_towers", lambda source: tiny_pair())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return tiny_run(folder, folder / "cache", rate=0.02, epochs=6)


def test_the_best_alpha_is_chosen_and_the_larger_of_equals(run, monkeypatch):
    wanted = {0.0: 0.2, 0.25: 0.9, 0.5: 0.9, 0.75: 0.3, 1.0: 0.1}
    given = iter(wanted.values())
    monkeypatch.setattr(patching, "code_accuracy", lambda *_: next(given))
    assert choose_patch(run, Noise()) == (0.5, wanted)


def test_the_accuracy_at_each_alpha_is_that_of_the_patched_checkpoint(run, tmp_path):
    _, table = choose_patch(run, Noise())
    rows = np.arange(len(Noise().classes))
    for alpha in (0.0, 0.5, 1.0):
        with_patch(run, alpha, tmp_path / "patched.safetensors")
        patched = load_hash_checkpoint(tmp_path / "patched.safetensors")
        assert code_accuracy(patched, Noise(), rows, "cpu") == pytest.approx(table[alpha])
    assert table[1.0] > 2 / N_CLASSES  # it learnt something


def test_frozen_or_patched_towers_are_not_patched(run, tmp_path):
    frozen = tiny_run(tmp_path, tmp_path / "cache", epochs=0)
    with pytest.raises(LoraError, match="found frozen ones"):
        choose_patch(frozen, Noise())
    with_patch(run, 0.5, tmp_path / "patched.safetensors")
    with pytest.raises(LoraError, match=r"found one patched at 0\.5"):
        choose_patch(tmp_path / "patched.safetensors", Noise())


def test_the_commands_train_and_patch_from_a_folder(tmp_path, capsys):
    random = np.random.default_rng(0)
    lines = ["file,label,scientific_name,split,licence"]
    for i in range(24):
        tone = np.sin(np.arange(4 * N_SAMPLES) * (1 + i % 3) / 2) * 0.4 + 0.01 * random.normal(
            size=4 * N_SAMPLES
        )
        soundfile.write(tmp_path / f"{i}.wav", tone, 1000)
        lines.append(f"{i}.wav,owl{i % 3},Strix {'abc'[i % 3]},train,CC0")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "tiny.toml").write_text(
        'name = "tiny"\nencoder = "none"\nn_bits = 16\nprompts = ["scientific", "common"]\n[lora]\nrank = 2\n'
        "[schedule]\nbatch = 8\nepochs = 1\nworkers = 0\nbf16 = false\n"
    )
    data = ["--dataset", f"folder:{tmp_path / 'labels.csv'}", "--device", "cpu"]
    trained = ["hash", "--preset", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "run")]
    assert main([*trained, "--cache", str(tmp_path / "cache"), *data]) == 0
    checkpoint = tmp_path / "run" / "hash.safetensors"
    assert "24 items, 3 classes" in load_hash_checkpoint(checkpoint).notes.data
    out = tmp_path / "patched.safetensors"
    assert main(["patch", "--checkpoint", str(checkpoint), "--out", str(out), *data]) == 0
    assert capsys.readouterr().out.count("zero-shot accuracy of codes") == 5
    assert hash_checkpoint.is_hash_checkpoint(out)
