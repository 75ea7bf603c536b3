"""Tiny pretrained towers of the true architectures, from a checkpoint or a list of texts to bundles that a recorder opens."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from rich.console import Console
from torch import nn

from edge.bundle import Bundle
from edge.encoder import open_audio_encoder, open_image_encoder, open_text_encoder
from edge.images import pixels_of
from export import full_size, measure, parity, to_onnx, to_tflite, tower_export
from export.tower_command import add_arguments, examples_of, tower_source, with_calibration
from export.tower_export import (
    Files,
    Job,
    export_float,
    observation_job,
    open_files,
    quantize,
    run,
    text_job,
)
from export.tower_graphs import (
    DeployedSentence,
    GraphError,
    TooLargeError,
    first_bits,
    last_linear,
    require_one_file,
    tower_to_onnx,
)
from export.tower_quantize import QuantizeError, log_mel_nodes, quantize_tables, shift_bias
from export.tower_source import from_towers
from tests.train.tiny_towers import SHALLOW_AUDIO, tiny_clap, tiny_open_clip
from train.hash_checkpoint import HashNotes, load_hash_checkpoint, save_hash_checkpoint
from train.hash_settings import HashRunSettings
from train.itq import fit_itq
from train.metrics import centred_agreement
from train.model import HashCoder
from train.towers import open_towers

RUNTIMES = ("onnx", "tflite")
ANIMALS = ("fox", "owl", "deer", "hare")


@pytest.fixture(scope="module", autouse=True)
def _limits():
    """Towers of 16 features leave less room below the limits of a release than real ones."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MIN_RAW_AGREEMENT", "MIN_CENTRED_AGREEMENT", "MIN_TEXT_CENTRED_AGREEMENT"):
            patch.setattr(parity, name, 0.9)
        patch.setattr(parity, "MAX_MAP_LOSS", 0.2)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Sentences, pictures of four colours, and tiny towers as they are published."""
    folder = tmp_path_factory.mktemp("towers")
    (folder / "texts.txt").write_text("# asked for\na fox\nan owl at night\n\na deer with two calves\n")
    random = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label"])
        for number in range(32):
            kind = number % len(ANIMALS)
            pixels = random.integers(0, 90, (40, 50, 3))
            pixels[..., kind % 3] += 60 + 60 * (kind // 3)
            name = f"{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            rows.writerow([name, ANIMALS[kind]])
    tiny_open_clip(folder / "clip", layers=1)
    tiny_clap(folder / "clap", text_layers=1, **SHALLOW_AUDIO)
    return folder


def pictures(folder: Path) -> list[str]:
    return ["--dataset", f"folder:{folder / 'labels.csv'}", "--texts", str(folder / "texts.txt")]


@pytest.fixture(scope="module")
def image_bundle(folder) -> Bundle:
    """Both exporters in turn, a head without training; the TFLite one in two files."""
    command = ["--encoder", f"open_clip:local-dir:{folder / 'clip'}", "--head", "itq", *pictures(folder)]
    out = folder / "image"
    assert to_onnx.main([*command, "--out", str(out)]) == 0
    assert to_tflite.main([*command, "--out", str(out), "--split-head"]) == 0
    return Bundle.load(out)


@pytest.fixture(scope="module")
def checkpoint(folder) -> Path:
    """What a run with frozen towers leaves: heads of 192 bits."""
    torch.manual_seed(1)
    heads = HashCoder(16, 192), HashCoder(16, 192)
    for head in heads:
        head.train()
        head(3 + torch.randn(64, 16))  # statistics of their own
    settings = HashRunSettings(name="tiny", encoder=f"clap:{folder / 'clap'}", n_bits=192)
    notes = HashNotes("tiny_run", "CC0-1.0", "noise", "test")
    save_hash_checkpoint(folder / "hash.safetensors", heads, None, settings, notes)
    return folder / "hash.safetensors"


def source_of(folder: Path):
    pair = open_towers(f"open_clip:local-dir:{folder / 'clip'}")
    return from_towers(pair, "lsh", ("a fox", "an owl"), examples_of(pictures(folder)[1], pair), None)


def test_one_bundle_of_pictures_and_sentences_in_both_runtimes(image_bundle):
    image_bundle.verify()
    entries = {(e.modality, e.runtime): e for e in image_bundle.manifest.encoders}
    assert set(entries) == {(m, r) for m in ("image", "text") for r in RUNTIMES}
    assert entries["image", "onnx"].head is None
    assert entries["image", "onnx"].input.resize == "squash-bicubic"
    assert image_bundle.manifest.code_space.startswith("clip-itq-")
    assert image_bundle.manifest.provenance["classes"] == [
        "a fox",
        "an owl at night",
        "a deer with two calves",
    ]
    card = (image_bundle.folder / "MODEL_CARD.md").read_text()
    assert "Sentences and pictures -> 256-bit codes" in card
    assert "no training" in card


@pytest.mark.parametrize(
    ("encoder", "head", "n"), [("open_clip:local-dir:{}/clip", "lsh", 21), ("clap:{}/clap", "itq", 20)]
)
def test_a_list_of_sentences_alone_is_enough(folder, encoder, head, n):
    """Heads are centred on the pictures and clips of examples/, which also serve to compare and as golden examples."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    texts = ["--texts", str(folder / "texts.txt"), "--bits", "128"]
    arguments = parser.parse_args(["--encoder", encoder.format(folder), "--head", head, *texts])
    source = tower_source(argparse.Namespace(**vars(arguments), checkpoint=folder / "none.safetensors"))
    assert source.release.provenance["data"].startswith(f"{n} observations of ")
    assert source.release.calibration is None
    assert (len(source.parity.samples), len(source.golden)) == ((n - 2) // 2, 2)
    logits = observation_job(source).logits([*source.parity.samples, *source.correction])
    assert logits.shape[1] == 128
    assert np.abs(logits.mean(axis=0)).mean() < 0.35 * logits.std()  # 1 where they are centred on nothing


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_recorder_computes_the_golden_codes(image_bundle, runtime):
    encoder = open_image_encoder(image_bundle, runtime)
    golden = image_bundle.golden("image")
    takes = image_bundle.encoder_entry("image", runtime).input
    for picture, logits in zip(golden["inputs"], golden[f"logits_{runtime}"], strict=True):
        np.testing.assert_allclose(encoder.encode(pixels_of(picture, takes)), logits, atol=1e-3)
    sentences, encode = image_bundle.golden("text"), open_text_encoder(image_bundle, runtime=runtime).encode
    for text, logits in zip(sentences["texts"], sentences[f"logits_{runtime}"], strict=True):
        np.testing.assert_allclose(encode(str(text)), logits, atol=1e-3)


def test_runtimes_agree_on_sentences_of_any_length(image_bundle):
    onnx_encoder, tflite_encoder = (open_text_encoder(image_bundle, runtime=runtime) for runtime in RUNTIMES)
    for text in ("owl", "a fox " * 8, "a very long sentence " * 40):
        a, b = onnx_encoder.encode(text), tflite_encoder.encode(text)
        assert np.corrcoef(a, b)[0, 1] > 0.97
        assert not np.allclose(a, onnx_encoder.encode("a hare"), atol=0.05)


def test_a_head_of_its_own_is_small(image_bundle):
    for modality in ("image", "text"):
        entry = image_bundle.encoder_entry(modality, "tflite")
        assert entry.head is not None
        assert entry.head.n_features == 24
        assert (image_bundle.folder / entry.head.file).stat().st_size < 1e6
    assert image_bundle.manifest.format_version == 2


def test_a_new_head_leaves_the_tower_as_it_was(folder, tmp_path):
    """Only the small file travels to boards that have the tower."""
    source = source_of(folder)
    digests = []
    for number, head in enumerate((source.observation_head, source.text_head)):
        place = tmp_path / str(number)
        place.mkdir()
        job = replace(observation_job(source), head=head)
        files = quantize(job, "onnx", "int8", export_float(job, "onnx", True, place), place)
        digests.append([hashlib.sha256(each.read_bytes()).hexdigest() for each in (files.tower, files.head)])
        found = run(open_files(job, "onnx", files), job.compared)
        assert centred_agreement(job.logits(job.compared), found) > 0.9
    assert digests[0][0] == digests[1][0]
    assert digests[0][1] != digests[1][1]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_checkpoint_of_sound_becomes_a_bundle_of_its_first_bits(folder, checkpoint, runtime, capsys):
    out = folder / f"audio_{runtime}"
    export = {"onnx": to_onnx, "tflite": to_tflite}[runtime].main
    command = ["--checkpoint", str(checkpoint), "--texts", str(folder / "texts.txt"), "--bits", "128"]
    assert export([*command, "--out", str(out)]) == 0
    assert "edge-monitor refuses it; give a --dataset of 102" in " ".join(capsys.readouterr().out.split())
    bundle = Bundle.load(out)
    bundle.verify()
    assert bundle.manifest.calibration is None  # 20 clips make no probability
    assert bundle.manifest.code_bits == 128
    assert bundle.manifest.code_space.startswith("tiny-run-128-")
    assert bundle.manifest.licence == "CC0-1.0"
    golden, encoder = bundle.golden("audio"), open_audio_encoder(bundle, runtime)
    assert (encoder.sample_rate_hz, encoder.window_samples) == (48_000, 480_000)
    opened = load_hash_checkpoint(checkpoint)
    for window, logits in zip(golden["inputs"], golden[f"logits_{runtime}"], strict=True):
        samples = window.astype(np.float32) / np.float32(32767)
        np.testing.assert_allclose(encoder.encode(samples), logits, atol=1e-3)
        with torch.no_grad():
            whole = opened.observation_head(opened.pair.observation(torch.from_numpy(samples[None])))[0]
        assert np.mean((logits >= 0) == (whole[:128].numpy() >= 0)) > 0.9


def test_the_front_end_of_sound_stays_float(folder):
    model = onnx.load(folder / "audio_onnx" / "audio.onnx")
    names = log_mel_nodes(model)
    kinds = {node.op_type for node in model.graph.node if node.name in names}
    assert {"Log", "MatMul", "Conv"} <= kinds
    assert "DynamicQuantizeLinear" not in kinds
    assert any(node.op_type in ("DynamicQuantizeLinear", "MatMulNBits") for node in model.graph.node)
    pictures = onnx.load(folder / "image" / "image.onnx")
    with pytest.raises(QuantizeError, match="expected a logarithm and then a normalisation"):
        log_mel_nodes(pictures)


@pytest.fixture(scope="module")
def floats(folder) -> tuple[Job, dict[str, Files]]:
    """The picture encoder as float graphs."""
    job, place = observation_job(source_of(folder)), folder / "floats"
    place.mkdir()
    return job, {runtime: export_float(job, runtime, False, place) for runtime in RUNTIMES}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_logits_are_right_on_average(floats, tmp_path, runtime):
    job, files = floats
    wanted = job.logits(job.correcting)
    moved = {}
    for inputs in ([], job.correcting):
        each = replace(job, correcting=inputs)
        small = quantize(each, runtime, "int8", files[runtime], tmp_path)
        found = run(open_files(job, runtime, small), job.correcting)
        moved[len(inputs)] = float(np.abs((found - wanted).mean(axis=0)).max())
    assert moved[0] > 1e-3
    assert moved[len(job.correcting)] < 1e-5


def test_int8_weights_alone_are_small_and_near(floats, tmp_path):
    job, files = floats
    reference = tower_export.run(tower_export.open_files(job, "onnx", files["onnx"]), job.compared)
    error, n_bytes = {}, {}
    for precision in ("int8", "int8 weights"):
        (tmp_path / precision).mkdir()
        small = tower_export.quantize(job, "onnx", precision, files["onnx"], tmp_path / precision)
        logits = tower_export.run(tower_export.open_files(job, "onnx", small), job.compared)
        error[precision], n_bytes[precision] = np.abs(logits - reference).mean(), small.size_bytes
    assert n_bytes["int8 weights"] < 0.7 * files["onnx"].size_bytes  # a tiny tower is half graph
    assert 0 < error["int8 weights"] < error["int8"]


def test_a_bias_that_is_not_there_cannot_be_shifted(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"no model")
    with pytest.raises(QuantizeError, match="found it 0 times"):
        shift_bias(tmp_path / "a.tflite", np.ones(4, np.float32), np.ones(4, np.float32))


def test_large_tables_have_a_scale_for_each_row(tmp_path):
    random = np.random.default_rng(0)
    table = (random.normal(size=(300, 8)) * 10.0 ** random.uniform(-3, 3, (300, 1))).astype(np.float32)
    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"], "look_up")]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 8])
    graph = helper.make_graph(nodes, "g", [ids], [rows], [numpy_helper.from_array(table, "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    quantize_tables(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "g.onnx")
    assert (tmp_path / "g.onnx").stat().st_size < 0.5 * table.nbytes
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "g.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"ids": np.arange(300)})
    error = np.abs(found - table).max(axis=1)
    assert (error <= np.abs(table).max(axis=1) / 127 * 0.51).all()
    assert error.max() > 0


def test_the_first_bits_of_a_head_are_a_prefix():
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    coder = HashCoder(24, 256).train()
    coder(torch.randn(50, 24))
    features = torch.randn(5, 24)
    for head in (
        coder.eval(),
        fit_itq(random.normal(size=(60, 24)).astype("f4"), np.zeros((0, 24), "f4"), 256, 0)[0],
    ):
        cut = first_bits(head, 128)
        torch.testing.assert_close(cut(features), head(features)[:, :128], rtol=1e-4, atol=1e-5)
        assert last_linear(cut).out_features == 128
        assert last_linear(head).out_features == 256  # the head itself is as it was


def test_a_graph_that_no_file_can_hold_is_refused_before_it_is_made():
    vit_h_weights = nn.Linear(
        632_076_800 // 1024, 1024, bias=False, device="meta"
    )  # BioCLIP-2.5's picture tower
    with pytest.raises(TooLargeError, match=r"bioclip-2\.5 image: .* found 2\.5 GB; .* no external data"):
        require_one_file(vit_h_weights, "bioclip-2.5 image")
    require_one_file(nn.Linear(304_000, 1000, bias=False, device="meta"), "bioclip-2 image")  # 1.2 GB


def test_a_tower_of_fixed_length_is_noticed(folder, tmp_path):
    class Fixed(nn.Module):
        def forward(self, input_ids, attention_mask):
            return nn.functional.one_hot(input_ids.argmax(dim=1), input_ids.shape[1]).float() * attention_mask

    pair = open_towers(f"open_clip:local-dir:{folder / 'clip'}")
    with pytest.raises(GraphError, match="expected an input input_ids of any length"):
        tower_to_onnx(DeployedSentence(Fixed(), None), pair, "text", tmp_path / "t.onnx", "features")


def test_what_comes_too_far_from_float_is_tried_nearer(floats, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "MIN_CENTRED_AGREEMENT", 1.01)
    tried = []

    def quantized(job, runtime, precision, files, folder):
        tried.append(precision)
        return files

    monkeypatch.setattr(tower_export, "quantize", quantized)
    monkeypatch.setattr(tower_export, "export_float", lambda job, runtime, *_: floats[1][runtime])
    console = Console(quiet=True)
    for runtime, nearer in (("onnx", "int8 in blocks"), ("tflite", "int8 weights")):
        ways = tower_export.precisions_of("image", runtime)
        assert ways[:2] == ("int8", nearer)
        tried.clear()
        found = tower_export.export_encoder(floats[0], runtime, tmp_path, console)
        assert tuple(tried) == ways
        assert found.precision == ways[-1]
        assert found.largest_float_difference() <= 1e-4
        assert tower_export.precisions_of("text", runtime) == (nearer,)


def test_sentences_to_correct_by_are_not_those_that_are_compared(folder):
    source = source_of(folder)
    job = text_job(source)
    assert job.compared[: len(source.parity.queries)] == list(source.parity.queries)
    assert not set(job.compared) & set(job.correcting)


def test_enough_labelled_observations_give_a_probability(folder):
    random = np.random.default_rng(0)
    source = source_of(folder)
    classes = np.arange(96) % len(source.parity.queries)
    sentences = random.normal(size=(len(source.parity.queries), 256)).astype(np.float32)
    observations = sentences[classes] + 2 * random.normal(size=(96, 256)).astype(np.float32)
    many = replace(source, parity=replace(source.parity, classes=classes))
    release = with_calibration(many, observations, sentences, lambda _: -sentences[0])
    assert release.calibration is not None
    assert release.calibration["source"].startswith(f"96 observations of {folder.name}-")
    few = replace(source, parity=replace(source.parity, classes=classes[:20]))
    assert with_calibration(few, observations[:20], sentences, lambda _: sentences[0]).calibration is None


def test_arguments_that_make_no_bundle_are_refused(folder, checkpoint, tmp_path, capsys):
    texts, clip = str(folder / "texts.txt"), f"open_clip:local-dir:{folder / 'clip'}"
    (tmp_path / "one.txt").write_text("a fox\n")
    for arguments, message in (
        (["--encoder", clip], "--texts: expected a file of sentences"),
        (["--encoder", clip, "--texts", str(tmp_path / "one.txt")], "expected at least 2 sentences, found 1"),
        (
            ["--checkpoint", str(checkpoint), "--texts", texts, "--head", "itq"],
            "--head: expected none with a checkpoint",
        ),
        (
            ["--checkpoint", str(checkpoint), "--texts", texts, "--bits", "256"],
            "--bits 256: expected at most the 192",
        ),
    ):
        assert to_onnx.main([*arguments, "--out", str(tmp_path / "out")]) != 0
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_know_their_size(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"1234")
    assert Files(tmp_path / "a").size_bytes == 4
    assert Files(tmp_path / "a", tmp_path / "b").size_bytes == 8


def test_the_table_of_true_sizes_is_put_between_its_marks(tmp_path, capsys):
    row = full_size.Measured(
        "vit",
        "image",
        "onnx",
        "int8",
        89_300_000,
        0.012,
        3,
        0.9967,
        0.9931,
        -0.004,
        62.4,
        35.1,
        2.1e8,
        7.6,
        96,
    )
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([asdict(row)]))
    document = tmp_path / "models.md"
    document.write_text(f"before\n{full_size.START}\nold\n{full_size.END}\nafter\n")
    for _ in range(2):
        assert full_size.main(["--json", str(rows), "--table", str(document)]) == 0
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert (
        text.count(
            "| vit image | onnx | int8 | 89.3 | 1.2e-02 | 3 | 0.9967 | 0.9931 | -0.40 | 62 | 35 | 210 | 8 |"
        )
        == 1
    )
    document.write_text("no marks")
    assert full_size.main(["--json", str(rows), "--table", str(document)]) == 1
    assert "expected the marks" in capsys.readouterr().err


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_encoder_is_measured_in_a_process_of_its_own(floats, tmp_path, capsys, runtime):
    job, files = floats
    ms, peak = full_size.measured_alone(job, runtime, files[runtime], 1)
    assert 0 < ms < 1000
    assert 1e7 < peak < 1e9
    np.savez(tmp_path / "i.npz", job.compared[0][None])
    assert measure.main([str(files[runtime].tower), "--inputs", str(tmp_path / "i.npz")]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"ms", "peak_bytes"}
