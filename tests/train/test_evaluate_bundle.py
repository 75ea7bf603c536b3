"""A bundle measured on any data set: the codes of its own files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.bundle import AudioInput, Bundle
from edge.encoder import open_audio_encoder, open_text_encoder
from train.__main__ import main
from train.metrics import hamming_table, mean_average_precision

BUNDLES = Path(__file__).resolve().parents[1] / "data"
TINY, PICTURES = BUNDLES / "tiny_bundle", BUNDLES / "tiny_image_bundle"
LABELS = ("rain", "owl", "frog")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> tuple[str, list[np.ndarray]]:
    """A folder of clips in its own format, and their windows."""
    folder, random = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    takes = Bundle.load(TINY).encoder_entry("audio").input
    assert isinstance(takes, AudioInput)
    windows, lines = [], ["file,label"]
    for i in range(12):
        tone = np.sin(np.arange(takes.window_samples) * (0.02 + 0.1 * (i % 3))) * 0.3
        window = (tone + 0.02 * random.normal(size=takes.window_samples)).astype(np.float32)
        soundfile.write(folder / f"{i}.wav", window, takes.sample_rate_hz, subtype="FLOAT")
        windows.append(window)
        lines.append(f"{i}.wav,{LABELS[i % 3]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return f"folder:{folder / 'labels.csv'}", windows


def test_the_figures_are_those_of_the_deployed_codes(clips, tmp_path, capsys):
    spec, windows = clips
    assert main(["evaluate", "--bundle", str(TINY), "--dataset", spec, "--csv", str(tmp_path / "o.csv")]) == 0
    with (tmp_path / "o.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["group"] == "pooled"]
    bundle = Bundle.load(TINY)
    present = {e.runtime: e.precision for e in bundle.manifest.encoders if e.modality == "audio"}
    n_bits, text = bundle.manifest.code_bits, open_text_encoder(bundle)
    queries = np.stack([text.encode(label) for label in LABELS])
    for runtime, precision in present.items():
        encode = open_audio_encoder(bundle, runtime).encode
        table = hamming_table(queries, np.stack([encode(window) for window in windows]))
        expected = mean_average_precision(table, np.arange(3), np.arange(12) % 3)
        own = [r for r in rows if r["representation"] == f"binary {n_bits} deployed {runtime} {precision}"]
        assert float(own[0]["map_1000_retrieved"]) == pytest.approx(
            expected, abs=0.02
        )  # other shuffles of ties
        assert own[0]["n_items"] == "12"
    assert {r["n_bits"] for r in rows} == {str(n_bits)}
    assert len(rows) == 2 * len(present)
    assert f"asymmetric {n_bits} deployed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", str(PICTURES), "--dataset", "CLIPS"], "expected an encoder of audio for"),
        (["--bundle", str(PICTURES), "--data", "."], "give --dataset in place of --data"),
        (["--bundle", str(TINY), "--csv", "x.csv"], "expected --csv with --dataset only"),
        (["--bundle", str(TINY), "--dataset", "CLIPS", "--json", "x.json"], "expected --json with a bundle and no"),
        (["--bundle", str(TINY), "--dataset", "CLIPS", "--baseline", "CLIPS"], "--encoder beside --baseline"),
        (["--encoder", "starter", "--dataset", "CLIPS", "--prior", "p.csv"], "beside --prior, found none"),
        (["--encoder", "starter", "--dataset", "CLIPS", "--runtime", "onnx"], "beside --runtime, found none"),
        (["--dataset", "CLIPS"], "expected --checkpoint, --encoder or --bundle"),
        (["--bundle", "nothing", "--dataset", "CLIPS"], "expected a bundle folder with manifest.json"),
    ],
)  # fmt: skip
def test_what_a_bundle_cannot_be_asked_is_told(clips, arguments, message, capsys):
    given = [clips[0] if argument == "CLIPS" else argument for argument in arguments]
    assert main(["evaluate", *given]) != 0
    assert message in capsys.readouterr().err
