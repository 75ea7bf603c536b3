"""The tiny bundle, tones that it knows, and every runtime that is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.bundle import Bundle
from edge.codes import pack
from edge.encoder import AudioEncoder, available_runtimes, open_audio_encoder
from edge.observation import Instant, Observation
from edge.watchlist import Query, Watchlist

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"
RATE_HZ = 44_100  # of the recordings: not the encoder's, so that they are resampled

WriteTones = Callable[..., Path]


@pytest.fixture
def tiny() -> Bundle:
    return Bundle.load(TINY)


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
