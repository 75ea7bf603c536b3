"""A bundle is completed runtime by runtime: what a later export does not make is kept, what is of another code space is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle
from export.assemble import Release, assemble
from export.encoder_part import Part

TINY = Path(__file__).resolve().parents[1] / "data" / "tiny_bundle"
CALIBRATION = {"coefficient": -0.1, "intercept": 9.0, "n_pairs": 100, "source": "reference codes"}


def part_of(modality: str, runtime: str) -> Part:
    """An encoder of the tiny bundle."""
    bundle = Bundle.load(TINY)
    entry, golden = bundle.encoder_entry(modality, runtime), bundle.golden(modality)
    return Part(
        modality,
        runtime,
        entry.precision,
        entry.file,
        bundle.read(entry),
        entry.input,
        bundle.read_tokenizer(entry) if modality == "text" else None,
        golden["texts" if modality == "text" else "inputs"],
        golden[f"logits_{runtime}"],
        0.1 if runtime == "onnx" else 0.2,
    )


@pytest.fixture
def release() -> Release:
    manifest = Bundle.load(TINY).manifest
    provenance = {"train_run": "none", "data": "none", "classes": ["rain"]}
    return Release(
        "tiny",
        "tiny-000000000000",
        manifest.code_bits,
        "CC0-1.0",
        "",
        None,
        ("wind",),
        provenance,
        ("by hand",),
        "None.",
    )


def write(folder: Path, release: Release, *parts: Part, **figures: object) -> Bundle:
    logits = np.random.default_rng(0).normal(size=release.n_bits).astype(np.float32)
    bundle = assemble(folder, release, parts, lambda _: logits, dict(figures))
    bundle.verify()
    return bundle


def test_a_second_runtime_completes_the_bundle(tmp_path, release):
    out = tmp_path / "bundle"
    first = replace(release, calibration=CALIBRATION)
    write(out, first, part_of("audio", "onnx"), part_of("text", "onnx"), one=1)
    bundle = write(out, release, part_of("audio", "tflite"), two=2)
    found = [(entry.modality, entry.runtime) for entry in bundle.manifest.encoders]
    assert found == [("audio", "onnx"), ("audio", "tflite"), ("text", "onnx")]
    assert {"inputs", "logits_onnx", "codes_tflite"} <= set(bundle.golden("audio"))
    assert {each.modality: each.tolerance for each in bundle.manifest.golden} == {"audio": 0.2, "text": 0.1}
    assert bundle.manifest.figures == {"one": 1, "two": 2}
    assert bundle.manifest.calibration.source == "reference codes"  # the later export brought none
    assert bundle.manifest.decoys[0].text == "wind"
    assert "by hand" in (out / "MODEL_CARD.md").read_text()


def test_an_export_that_brings_a_calibration_replaces_the_one_before(tmp_path, release):
    for source in ("first", "second"):
        calibration = {**CALIBRATION, "source": source}
        bundle = write(tmp_path / "b", replace(release, calibration=calibration), part_of("audio", "onnx"))
        assert bundle.manifest.calibration.source == source


def test_a_bundle_of_another_code_space_is_replaced(tmp_path, release):
    out = tmp_path / "bundle"
    write(out, replace(release, calibration=CALIBRATION), part_of("audio", "onnx"), part_of("text", "onnx"))
    bundle = write(out, replace(release, code_space="tiny-111111111111"), part_of("audio", "tflite"))
    assert [(entry.modality, entry.runtime) for entry in bundle.manifest.encoders] == [("audio", "tflite")]
    assert bundle.manifest.calibration is None
    assert not (out / "text.onnx").exists()
