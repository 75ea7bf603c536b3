"""Encoders of a bundle: the golden logits, and one clear error for everything that cannot run."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import encoder as encoder_module
from edge import encoder_runtimes
from edge.audio import FileSource
from edge.bundle import Bundle, write_bundle
from edge.check_encoders import golden_samples
from edge.codes import pack
from edge.encoder import (
    AudioEncoder,
    TextEncoder,
    available_runtimes,
    compile_queries,
    encode_file,
    open_audio_encoder,
    open_text_encoder,
)
from edge.errors import BundleError, EncoderError, MissingDependencyError, WatchlistError
from edge.watchlist import Query
from edge.windows import Window, windows


def test_at_least_one_runtime_is_installed() -> None:
    assert available_runtimes()


def test_golden_windows_give_the_golden_logits(tiny: Bundle, encoder: AudioEncoder) -> None:
    golden = tiny.golden("audio")
    assert golden is not None
    found = np.stack([encoder.encode(golden_samples(window)) for window in golden["inputs"]])
    np.testing.assert_allclose(found, golden[f"logits_{encoder.runtime}"], atol=1e-3)
    assert (encoder.code_space, encoder.code_bits) == (tiny.manifest.code_space, 256)
    assert (encoder.sample_rate_hz, encoder.window_samples) == (8_000, 8_000)


def test_logits_are_owned_and_do_not_depend_on_what_was_encoded_before(encoder: AudioEncoder) -> None:
    tone = np.sin(np.arange(8_000) * 0.4).astype(np.float32)
    first = encoder.encode(tone)
    kept = first.copy()
    encoder.encode(np.zeros(8_000, np.float32))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(encoder.encode(tone), kept)


@pytest.mark.parametrize("block_s", [0.01, 0.37, 1.0, 60.0])
def test_codes_are_the_same_for_any_block_size(
    block_s: float, encoder: AudioEncoder, write_tones: Any, tmp_path: Path
) -> None:
    path = write_tones(tmp_path / "a.wav", (500, 1.3), (0, 2.1), (2500, 1.7))

    def codes(block_s: float) -> list[bytes]:
        events = FileSource([path], 8_000, block_s).events()
        found = [w for w in windows(events, 8_000, 4_000, 8_000) if isinstance(w, Window)]
        return [pack(encoder.encode(w.samples)).tobytes() for w in found]

    assert codes(block_s) == codes(0.5)


@pytest.mark.parametrize(
    "samples", [np.zeros(7_999, np.float32), np.zeros((1, 8_000), np.float32), np.zeros(8_000)]
)
def test_samples_of_another_shape_or_type_are_refused(
    samples: np.ndarray[Any, Any], encoder: AudioEncoder
) -> None:
    with pytest.raises(EncoderError, match=r"expected samples float32 \(8000,\), found float"):
        encoder.encode(samples)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    broken = AudioEncoder(
        "s", 4, "onnx", 8, 2, Path("a.onnx"), lambda _: np.array([1, bad, 2, 3], np.float32)
    )
    with pytest.raises(EncoderError, match=r"a\.onnx: expected finite logits, found 1 that are not"):
        broken.encode(np.zeros(2, np.float32))


def test_logits_of_another_width_are_refused() -> None:
    broken = AudioEncoder("s", 256, "onnx", 8, 2, Path("a.onnx"), lambda _: np.zeros(255, np.float32))
    with pytest.raises(EncoderError, match=r"expected logits float32 \(256,\), found float32 \(255,\)"):
        broken.encode(np.zeros(2, np.float32))


def test_auto_takes_onnx_where_it_is_installed(tiny: Bundle) -> None:
    assert open_audio_encoder(tiny).runtime == available_runtimes()[0]


def test_auto_takes_what_the_bundle_has(tiny: Bundle, runtime: str) -> None:
    held = tuple(e for e in tiny.manifest.encoders if e.runtime == runtime)
    only = Bundle(tiny.folder, replace(tiny.manifest, encoders=held))
    assert open_audio_encoder(only).runtime == runtime


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make packages impossible to import."""
    real = importlib.import_module

    def refuse(name: str, package: str | None = None) -> Any:
        if name.partition(".")[0] in packages:
            raise ImportError(f"No module named {name!r}")
        return real(name, package)

    monkeypatch.setattr(encoder_runtimes.importlib, "import_module", refuse)


def test_auto_goes_on_to_tflite(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    if "tflite" not in available_runtimes():
        pytest.skip("tflite is not installed")
    without(monkeypatch, "onnxruntime")
    assert open_audio_encoder(tiny).runtime == "tflite"


def test_a_missing_runtime_is_named_with_the_command_that_installs_it(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "onnxruntime", "ai_edge_litert", "tflite_runtime")
    with pytest.raises(
        MissingDependencyError, match=r"run: pip install onnxruntime or pip install ai-edge-litert$"
    ):
        open_audio_encoder(tiny)
    with pytest.raises(MissingDependencyError, match=r"runtime tflite: .*; run: pip install ai-edge-litert$"):
        open_audio_encoder(tiny, "tflite")
    with pytest.raises(MissingDependencyError, match=r"text encoder: .*; run: pip install onnxruntime$"):
        open_text_encoder(tiny)


def test_a_runtime_that_the_bundle_lacks_is_refused(tiny: Bundle) -> None:
    held = tuple(e for e in tiny.manifest.encoders if e.runtime == "onnx")
    only = Bundle(tiny.folder, replace(tiny.manifest, encoders=held))
    with pytest.raises(BundleError, match="expected a audio/tflite encoder, found audio/onnx, text/onnx"):
        open_audio_encoder(only, "tflite")


def test_a_bundle_without_sound_is_refused(tiny: Bundle) -> None:
    held = tuple(e for e in tiny.manifest.encoders if e.modality == "text")
    with pytest.raises(BundleError, match="expected a audio encoder, found text/onnx"):
        open_audio_encoder(Bundle(tiny.folder, replace(tiny.manifest, encoders=held)))


def test_a_changed_file_never_runs(tiny: Bundle, runtime: str, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny.folder, folder)
    with (folder / f"audio.{runtime}").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=rf"audio\.{runtime}: expected sha256 [0-9a-f]+, found"):
        open_audio_encoder(Bundle.load(folder), runtime)  # type: ignore[arg-type]


def replaced(tiny: Bundle, folder: Path, name: str, content: bytes) -> Bundle:
    """Write a bundle in which one encoder file is another, with its right hash."""
    files: dict[str, bytes | Path] = {
        path.name: path for path in tiny.folder.iterdir() if path.name != "manifest.json"
    }
    files[name] = content
    sha256 = hashlib.sha256(content).hexdigest()
    encoders = tuple(replace(e, sha256=sha256) if e.file == name else e for e in tiny.manifest.encoders)
    return write_bundle(folder, replace(tiny.manifest, encoders=encoders), files)


def test_an_onnx_model_with_other_inputs_is_refused(needs_onnx: None, tiny: Bundle, tmp_path: Path) -> None:
    text = (tiny.folder / "text.onnx").read_bytes()
    with pytest.raises(
        EncoderError, match="expected the inputs samples and the output logits, found input_ids"
    ):
        open_audio_encoder(replaced(tiny, tmp_path / "bundle", "audio.onnx", text), "onnx")


def test_an_onnx_model_with_an_unknown_operator_is_refused(
    needs_onnx: None, tiny: Bundle, tmp_path: Path
) -> None:
    content = (tiny.folder / "audio.onnx").read_bytes().replace(b"Conv", b"Cunv")
    with pytest.raises(EncoderError, match=r"audio\.onnx: expected a model that onnxruntime can run, found"):
        open_audio_encoder(replaced(tiny, tmp_path / "bundle", "audio.onnx", content), "onnx")


def test_tflite_bytes_that_are_no_model_are_refused(tiny: Bundle, tmp_path: Path) -> None:
    if "tflite" not in available_runtimes():
        pytest.skip("tflite is not installed")
    with pytest.raises(EncoderError, match=r"audio\.tflite: expected a model that LiteRT can run, found"):
        open_audio_encoder(replaced(tiny, tmp_path / "bundle", "audio.tflite", b"not a model" * 10), "tflite")


def test_sentences_land_on_the_code_of_their_sound(
    needs_onnx: None, tiny: Bundle, encoder: AudioEncoder, write_tones: Any, tmp_path: Path
) -> None:
    text = open_text_encoder(tiny)
    sounds = [encode_file(encoder, write_tones(tmp_path / f"{hz}.wav", (hz, 3))) for hz in (500, 1000, 2500)]
    sentences = [text.encode(sentence) for sentence in ("a low tone", "the MIDDLE tone", "high whistles")]
    differing = [
        [int((pack(a) != pack(t)).any() and np.sum((a >= 0) != (t >= 0))) for a in sounds] for t in sentences
    ]
    assert np.argmin(differing, axis=1).tolist() == [0, 1, 2]
    assert max(np.diag(differing)) < 20


def test_text_is_cut_at_max_tokens_and_does_not_depend_on_padding(needs_onnx: None, tiny: Bundle) -> None:
    text = open_text_encoder(tiny)
    long = "low " + "noise " * 200
    np.testing.assert_allclose(text.encode(long), text.encode("low noise"), atol=1e-5)
    beyond = "noise " * 50 + "low"
    np.testing.assert_allclose(text.encode(beyond), text.encode("noise"), atol=1e-5)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_sentence_is_refused(text: str) -> None:
    encoder = TextEncoder("s", 4, "onnx", Path("text.onnx"), lambda _: np.zeros(4, np.float32))
    with pytest.raises(EncoderError, match="expected a sentence, found an empty text"):
        encoder.encode(text)


def test_a_bundle_without_text_encoder_says_where_to_compile(tiny: Bundle) -> None:
    held = tuple(e for e in tiny.manifest.encoders if e.modality == "audio")
    with pytest.raises(
        BundleError, match=r"expected a text encoder.* edge-queries watchlist\.txt -o watchlist\.json"
    ):
        open_text_encoder(Bundle(tiny.folder, replace(tiny.manifest, encoders=held)))


def test_a_text_encoder_file_left_off_the_board_says_the_same(tiny: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny.folder, folder)
    (folder / "text.onnx").unlink()
    with pytest.raises(BundleError, match=r"text\.onnx: expected a file of the bundle.* edge-queries"):
        open_text_encoder(Bundle.load(folder))


def test_pictures_cannot_be_compiled_without_an_encoder_for_them(tiny: Bundle) -> None:
    with pytest.raises(WatchlistError, match="this bundle has no image encoder"):
        compile_queries(tiny, [Query("deer", "deer.jpg", "image")])


def test_opening_an_encoder_of_sound_imports_no_tokenizer_and_no_other_runtime(
    tiny: Bundle, runtime: str, tmp_path: Path
) -> None:
    import subprocess

    code = (
        "import sys; from pathlib import Path; from edge.bundle import Bundle; from edge.encoder import open_audio_encoder\n"
        f"open_audio_encoder(Bundle.load(Path({str(tiny.folder)!r})), {runtime!r})\n"
        "print(*(m for m in ('tokenizers', 'onnxruntime', 'ai_edge_litert', 'tflite_runtime', 'soundfile') if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(encoder_module.__file__).parents[1],
        check=True,
    )
    expected = {"onnx": [["onnxruntime"]], "tflite": [["ai_edge_litert"], ["tflite_runtime"]]}
    assert done.stdout.split() in expected[runtime]
