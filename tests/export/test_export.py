"""Export of the starter as its user runs it, and the parts that it is made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tokenizers import Tokenizer

from edge.bundle import Bundle
from edge.encoder import open_audio_encoder, open_text_encoder
from export import assemble, parity, to_onnx, to_tflite
from export.graphs import DeployedAudio, audio_to_onnx, fold_batch_norms
from export.quantize import front_end_nodes
from export.text_vocabulary import compact
from train.checkpoint import DEFAULT, load_checkpoint
from train.model import AudioEncoder, AudioSettings
from train.text_tower import SentenceTower, TextTowerError, locate
from train.torchvision_ops import make_torchvision_importable

TINY = AudioSettings(window_samples=16_384, n_mels=32, channels=(16, 16, 32, 32), stem_width=8)


def stirred_encoder() -> AudioEncoder:
    """A tiny encoder whose BatchNorms have statistics of their own."""
    torch.manual_seed(0)
    encoder = AudioEncoder(TINY, 64).train()
    for _ in range(5):
        encoder(torch.randn(8, 16_384))
    return encoder.eval()


def test_folding_keeps_the_numbers_and_leaves_no_batch_norm():
    encoder = stirred_encoder()
    deployed = DeployedAudio(encoder)
    assert not any(isinstance(m, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d) for m in deployed.modules())
    samples = torch.randn(2, 16_384, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(deployed(samples), encoder(samples), rtol=1e-4, atol=1e-4)


def test_a_batch_norm_without_a_convolution_is_an_error():
    with pytest.raises(ValueError, match="no convolution before it"):
        fold_batch_norms(torch.nn.Sequential(torch.nn.BatchNorm2d(3)))


def test_silence_and_faint_sound_survive_the_export(tmp_path):
    """The exporter drops `+ 1e-12` as if it were zero; the front end must not rely on it."""
    from export.runtimes import onnx_observation

    deployed = DeployedAudio(stirred_encoder())
    audio_to_onnx(deployed, TINY.window_samples, tmp_path / "a.onnx")
    encode = onnx_observation(tmp_path / "a.onnx")
    for samples in (np.zeros(16_384), np.sin(np.arange(16_384)) * 1e-5):
        window = samples.astype(np.float32)
        with torch.no_grad():
            expected = deployed(torch.from_numpy(window)[None])[0].numpy()
        np.testing.assert_allclose(encode(window), expected, atol=1e-3)
    names = front_end_nodes(onnx.load(tmp_path / "a.onnx"))
    kinds = {n.op_type for n in onnx.load(tmp_path / "a.onnx").graph.node if n.name in names}
    assert "Log" in kinds
    assert "Conv" not in kinds


def test_smaller_vocabulary_gives_the_same_embeddings():
    sentences = ["a tawny owl hoots", "Strix aluco", "chainsaw!"]
    tower = SentenceTower()
    expected = tower.embed(sentences)
    small = compact(tower)
    tokenizer = Tokenizer.from_str(small.tokenizer_json.decode())
    assert 20_000 < small.n_kept < 30_522
    for sentence, wanted in zip(sentences, expected, strict=True):
        ids = torch.tensor([tokenizer.encode(sentence).ids])
        with torch.no_grad():
            torch.testing.assert_close(small.tower(ids, torch.ones_like(ids))[0], wanted, rtol=0, atol=1e-5)


def test_sentence_tower_sources(tmp_path):
    assert locate("hf-hub:some/model") == "some/model"
    with pytest.raises(TextTowerError, match=r"expected a folder with model\.safetensors"):
        locate(str(tmp_path))


def test_torchvision_can_be_imported_or_is_absent():
    make_torchvision_importable()
    make_torchvision_importable()  # again: must not register twice
    from timm.models.resnet import ResNet

    assert ResNet is not None


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Both exporters run in turn as a user does, without arguments but for the folder."""
    out = tmp_path_factory.mktemp("export") / "bundle"
    assert to_onnx.main(["--out", str(out)]) == 0
    assert to_tflite.main(["--out", str(out)]) == 0
    return out


def test_exporters_without_arguments_write_one_bundle_with_both_runtimes(exported):
    bundle = Bundle.load(exported)
    bundle.verify()
    kinds = {(e.modality, e.runtime): e for e in bundle.manifest.encoders}
    assert set(kinds) == {("audio", "onnx"), ("audio", "tflite"), ("text", "onnx")}
    assert kinds["audio", "onnx"].size_bytes <= 5e6
    assert kinds["audio", "tflite"].size_bytes <= 5e6
    assert kinds["text", "onnx"].size_bytes <= 15e6
    assert sum(f.stat().st_size for f in exported.iterdir()) <= 30e6
    assert bundle.manifest.calibration is not None
    assert bundle.manifest.licence in (exported / "MODEL_CARD.md").read_text()
    assert bundle.manifest.code_space == assemble.release_of(load_checkpoint()).code_space


def test_nothing_of_the_machine_that_exported_travels(exported):
    here = str(Path(__file__).resolve().parents[2]).encode()
    for file in exported.iterdir():
        content = file.read_bytes()
        assert here not in content, file.name
        assert b"site-packages" not in content, file.name


def test_golden_outputs_are_what_the_recorder_computes(exported):
    bundle = Bundle.load(exported)
    golden = bundle.golden("audio")
    assert golden is not None
    for runtime in ("onnx", "tflite"):
        encoder = open_audio_encoder(bundle, runtime)
        for window, logits in zip(golden["inputs"], golden[f"logits_{runtime}"], strict=True):
            found = encoder.encode(window.astype(np.float32) / np.float32(32767))
            np.testing.assert_allclose(found, logits, atol=1e-3)
    text = open_text_encoder(bundle)
    sentences = bundle.golden("text")
    assert sentences is not None
    for sentence, logits in zip(sentences["texts"], sentences["logits_onnx"], strict=True):
        np.testing.assert_allclose(text.encode(str(sentence)), logits, atol=1e-3)


def test_the_committed_starter_is_of_the_committed_checkpoint():
    from edge.bundle import default_bundle

    assert (
        Bundle.load(default_bundle()).manifest.code_space == assemble.release_of(load_checkpoint()).code_space
    )
    assert DEFAULT.stat().st_size <= 8e6


def test_a_bundle_below_the_limits_is_not_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parity, "MIN_RAW_AGREEMENT", 1.01)
    assert to_onnx.main(["--out", str(tmp_path / "bundle")]) == 1
    assert not (tmp_path / "bundle").exists()
    assert "no bundle written: text float: equal bits 1.0000, limit 1.01" in capsys.readouterr().err


def test_a_missing_checkpoint_is_one_line(tmp_path, capsys):
    assert to_onnx.main(["--checkpoint", str(tmp_path / "no.safetensors"), "--out", str(tmp_path / "b")]) == 1
    assert capsys.readouterr().err.startswith("to_onnx: error:")


@pytest.mark.parametrize("command", [to_onnx, to_tflite])
@pytest.mark.parametrize(
    "option", [["--bits", "128"], ["--split-head"], ["--texts", "x.txt"], ["--head", "lsh"]]
)
def test_options_of_towers_are_refused_for_the_starter(command, option, tmp_path, capsys):
    assert command.main([*option, "--out", str(tmp_path / "out")]) == 2
    assert f"{option[0]}: expected --encoder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def row(graph: str = "g", centred: float = 1.0, change: float = 0.0, **values: object) -> parity.ParityRow:
    kept = {"is_float": True, "n_windows": 100, "relative": 1e-5, "n_wrong": 0, "raw": 1.0} | values
    return parity.ParityRow(graph, 1, 0.5, kept.pop("raw"), centred, 0.5, change, **kept)


def test_each_limit_is_named():
    poor = row(centred=0.8, change=-0.2, raw=0.9, relative=2e-4, n_wrong=3)
    assert len(poor.failures()) == 5
    with pytest.raises(parity.ParityError, match=r"mAP change -20.00 points, limit -2.0"):
        parity.require_parity([poor])
    parity.require_parity([row(change=-0.019)])
    assert "0.0002 of the largest logit, limit 0.0001" in row(relative=2e-4).failures()[0]
    assert "3 other bits where |logit| is above 0.001" in row(n_wrong=3).failures()[0]
    assert (
        row(is_float=False, relative=0.5, n_wrong=9).failures() == []
    )  # int8 is judged by its bits as a whole
    assert row("text x", 0.96, is_float=False).failures() == []
    assert len(row("audio x", 0.96, is_float=False).failures()) == 1


def test_a_float_graph_is_compared_relative_to_the_largest_logit(tmp_path):
    (tmp_path / "g").touch()
    reference = np.asarray([[20.0, 0.5, -0.0005], [-4.0, 0.002, 3.0]], np.float32)
    found = reference + np.asarray([[0.002, 0, 0.001], [0, -0.0025, 0]], np.float32)
    compared = parity.compare("g", tmp_path / "g", reference, found, 1.0, 1.0, True, 2)
    assert compared.relative == pytest.approx(0.0025 / 20, rel=1e-3)
    assert compared.n_wrong == 1  # 0.002; -0.0005 is not sure


def test_figures_land_in_manifest_and_card(exported, tmp_path):
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(exported, copy)
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps({"onnx": {"ESC-10": "91.2 %"}}))
    assert assemble.main(["--bundle", str(copy), "--figures", str(figures)]) == 0
    assert Bundle.load(copy).manifest.figures["onnx"]["ESC-10"] == "91.2 %"
    assert "| onnx: ESC-10 | 91.2 % |" in (copy / "MODEL_CARD.md").read_text()
    Bundle.load(copy).verify()
