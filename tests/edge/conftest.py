"""The tiny bundle, tones that it knows, and every runtime that is installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge.bundle import Bundle, write_bundle
from edge.codes import pack
from edge.encoder import AudioEncoder, available_runtimes, open_audio_encoder
from edge.observation import Instant, Observation
from edge.watchlist import Query, Watchlist

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"
TINY_IMAGE = Path(__file__).parents[1] / "data" / "tiny_image_bundle"
RATE_HZ = 44_100  # of the recordings: not the encoder's, so that they are resampled

WriteTones = Callable[..., Path]
Paint = Callable[..., Path]


@pytest.fixture
def tiny() -> Bundle:
    return Bundle.load(TINY)


@pytest.fixture
def tiny_image() -> Bundle:
    return Bundle.load(TINY_IMAGE)


@pytest.fixture
def both(tiny: Bundle, tiny_image: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle of sound and pictures in one code space."""
    sound = tuple(entry for entry in tiny.manifest.encoders if entry.modality == "audio")
    heard = tuple(entry for entry in tiny.manifest.golden if entry.modality == "audio")
    manifest = replace(
        tiny_image.manifest,
        encoders=(*sound, *tiny_image.manifest.encoders),
        golden=(*heard, *tiny_image.manifest.golden),
    )
    files: dict[str, bytes | Path] = {
        path.name: path
        for bundle in (tiny, tiny_image)
        for path in bundle.folder.iterdir()
        if path.name != "manifest.json"
    }
    return write_bundle(tmp_path_factory.mktemp("bundle") / "both", manifest, files)


@pytest.fixture
def colours(tiny_image: Bundle) -> Watchlist:
    """Red, green and blue as queries, compiled when the bundle was made: needs no text encoder."""
    golden = tiny_image.golden("text")
    assert golden is not None
    logits = dict(zip(golden["texts"].tolist(), golden["logits_onnx"], strict=True))
    queries = [
        Query(name, text, code=pack(logits[text]).tobytes(), logits=tuple(map(float, logits[text])))
        for name, text in (("red", "a red sound"), ("green", "green"), ("blue", "the blue one"))
    ]
    return Watchlist(tiny_image.manifest.code_space, 256, "tiny-image 1", tuple(queries))


@pytest.fixture
def paint() -> Paint:
    """Return paint(path, rgb, size, **options of PIL's save): a picture of one colour with a little noise."""
    from PIL import Image

    def write(
        path: Path,
        rgb: tuple[int, int, int] = (200, 90, 90),
        size: tuple[int, int] = (40, 24),
        **options: Any,
    ) -> Path:
        noise = np.random.default_rng(4).integers(-8, 9, (size[1], size[0], 3))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.asarray(rgb) + noise).clip(0, 255).astype(np.uint8)).save(path, **options)
        return path

    return write


@pytest.fixture(params=["onnx", "tflite"])
def runtime(request: pytest.FixtureRequest) -> str:
    if request.param not in available_runtimes():
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def encoder(tiny: Bundle, runtime: str) -> AudioEncoder:
    return open_audio_encoder(tiny, runtime)  # type: ignore[arg-type]


@pytest.fixture
def needs_onnx() -> None:
    if "onnx" not in available_runtimes():
        pytest.skip("onnxruntime is not installed: sentences cannot be compiled")


@pytest.fixture
def watchlist(tiny: Bundle) -> Watchlist:
    """Low and high as queries, compiled when the bundle was made: needs no text encoder."""
    golden = tiny.golden("text")
    assert golden is not None
    logits = dict(zip(golden["texts"].tolist(), golden["logits_onnx"], strict=True))
    queries = [
        Query(name, text, code=pack(logits[text]).tobytes(), logits=tuple(map(float, logits[text])))
        for name, text in (("low", "a low tone"), ("high", "a high tone"))
    ]
    return Watchlist(tiny.manifest.code_space, 256, "tiny 1", tuple(queries))


@pytest.fixture
def write_tones() -> WriteTones:
    """Return write(path, (hz, seconds), ...): 0 Hz is faint noise."""

    def write(path: Path, *parts: tuple[float, float]) -> Path:
        random = np.random.default_rng(3)
        pieces = []
        for hz, seconds in parts:
            t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
            pieces.append(0.3 * np.sin(2 * np.pi * hz * t) if hz else random.normal(0, 0.01, t.size))
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.concatenate(pieces).astype(np.float32), RATE_HZ, subtype="PCM_16")
        return path

    return write


@pytest.fixture
def observe(tiny: Bundle) -> Callable[..., Observation]:
    """Return observe(code, seq=0, space=...): an observation of this code."""

    def build(code: bytes, seq: int = 0, space: str = tiny.manifest.code_space) -> Observation:
        instant = Instant("boot", 0, None, "unset")
        return Observation("dev", 1, seq, code, space, "a.wav", 0, 8_000, 8_000, instant)

    return build
