"""Examples: a recording becomes a query, whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge.bundle import Bundle
from edge.codes import pack
from edge.encoder import AudioEncoder, compile_queries, encode_file
from edge.errors import AudioError
from edge.watchlist import Query


def test_an_example_is_the_mean_of_its_windows(
    encoder: AudioEncoder, write_tones: Any, tmp_path: Path
) -> None:
    low, high = (encode_file(encoder, write_tones(tmp_path / f"{hz}.wav", (hz, 1))) for hz in (500, 2500))
    both = encode_file(encoder, write_tones(tmp_path / "both.wav", (500, 1), (2500, 1)))
    np.testing.assert_allclose(
        both, (low + high) / 2, atol=0.5
    )  # the filter of the resampler rings at the seam


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), (b"", "empty: no bytes"), (b"text", "not a sound file")]
)
def test_an_example_that_cannot_be_heard_is_refused(
    content: bytes | None, reason: str, encoder: AudioEncoder, tmp_path: Path
) -> None:
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError, match=f"a.wav: expected a recording that can be encoded, found: {reason}"):
        encode_file(encoder, path)


def test_a_truncated_example_is_refused_also_where_some_of_it_can_be_heard(
    encoder: AudioEncoder, write_tones: Any, tmp_path: Path
) -> None:
    path: Path = write_tones(tmp_path / "a.wav", (500, 3))
    path.write_bytes(path.read_bytes()[:-100_000])
    message = r"a\.wav: expected a recording that can be encoded, found: truncated: expected 264600 bytes"
    with pytest.raises(AudioError, match=message):
        encode_file(encoder, path)


def test_an_example_with_samples_that_are_no_numbers_is_refused(
    encoder: AudioEncoder, tmp_path: Path
) -> None:
    samples = np.full(3 * 8_000, 0.1, np.float32)
    samples[12_000] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 8_000, "FLOAT")
    with pytest.raises(AudioError, match=r"a\.wav: .* found: samples are not finite numbers"):
        encode_file(encoder, tmp_path / "a.wav")


def test_an_example_that_is_too_short_is_refused(
    encoder: AudioEncoder, write_tones: Any, tmp_path: Path
) -> None:
    with pytest.raises(AudioError, match=r"found: shorter than 0\.25 s"):
        encode_file(encoder, write_tones(tmp_path / "a.wav", (500, 0.2)))


def test_examples_are_compiled_without_a_text_encoder(
    encoder: AudioEncoder, tiny: Bundle, write_tones: Any, tmp_path: Path
) -> None:
    path = write_tones(tmp_path / "low.wav", (500, 3))
    held = tuple(e for e in tiny.manifest.encoders if e.modality == "audio")
    bundle = Bundle(tiny.folder, replace(tiny.manifest, encoders=held))
    compiled = compile_queries(bundle, [Query("low", str(path), "sound")], encoder.runtime)
    assert compiled.queries[0].code == pack(encode_file(encoder, path)).tobytes()
    assert (compiled.code_space, compiled.bundle) == (tiny.manifest.code_space, "tiny 1")
