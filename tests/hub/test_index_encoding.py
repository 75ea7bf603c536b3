"""A file becomes pieces that count from 0, long ones several, with their gaps at the right places."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge.batch import decode_batch
from edge.bundle import Bundle
from edge.errors import BundleError
from hub import index_encoding
from hub.index_encoding import EncodingSettings, FileEncoder, renumbered, suffixes_of

DATA = Path(__file__).parents[1] / "data"
SETTINGS = EncodingSettings("cards", 5)


@pytest.fixture
def tiny() -> Bundle:
    return Bundle.load(DATA / "tiny_bundle")


def write(path: Path, seconds: float, *silences: float) -> Path:
    """Write noise in which the samples at these seconds are no numbers."""
    samples = np.random.default_rng(2).normal(0, 0.1, int(8_000 * seconds)).astype(np.float32)
    for at_s in silences:
        samples[int(at_s * 8_000)] = np.nan
    soundfile.write(path, samples, 8_000, subtype="FLOAT")
    return path


def test_a_long_file_is_several_pieces_with_its_gaps_in_place(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "long.wav", 12.0, 3.0, 8.0)
    encoder = FileEncoder(tiny, SETTINGS)
    (whole,) = map(decode_batch, encoder.encode(path, "long.wav").pieces)
    assert whole.next[0] == sum(run.n for run in whole.runs) > 15
    assert [each.kind for each in whole.events] == ["gap", "gap"]
    monkeypatch.setattr(index_encoding, "MAX_RUN", 6)
    pieces = [decode_batch(each) for each in encoder.encode(path, "long.wav").pieces]
    assert [each.next[0] for each in pieces[:-1]] == [6] * (len(pieces) - 1)
    assert len(pieces) > 2
    joined = renumbered(pieces, 0, 0)
    assert joined.events == whole.events
    assert list(joined.runs[0].observations("cards", 5)) == list(whole.runs[0].observations("cards", 5))


def test_a_file_without_an_observation_tells_why(tiny: Bundle, tmp_path: Path) -> None:
    short = FileEncoder(tiny, SETTINGS).encode(write(tmp_path / "short.wav", 0.1), "short.wav")
    assert (short.n_observations, short.problem) == (0, "shorter than 0.25 s")
    (piece,) = map(decode_batch, short.pieces)
    assert (piece.next, piece.events[0].kind, piece.events[0].before_seq) == ((0, 0, 1), "skipped", 0)


def test_known_bytes_are_not_encoded_again(tiny: Bundle, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 2.0)
    encoder = FileEncoder(tiny, SETTINGS)
    first = encoder.encode(path, "a.wav")
    again = encoder.encode(path, "a.wav", frozenset({first.digest}))
    assert (again.is_known, again.pieces, again.digest) == (True, (), first.digest)
    shutil.copy(path, tmp_path / "b.wav")
    assert encoder.encode(tmp_path / "b.wav", "b.wav").digest == first.digest


def test_the_hop_decides_how_many_windows_there_are(tiny: Bundle, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 4.0)
    n_by_hop = {
        hop_s: FileEncoder(tiny, replace(SETTINGS, hop_s=hop_s)).encode(path, "a.wav").n_observations
        for hop_s in (None, 1.0, 0.25)
    }
    assert n_by_hop == {None: 7, 1.0: 4, 0.25: 13}


def test_a_bundle_that_encodes_neither_sound_nor_pictures_is_refused(tiny: Bundle) -> None:
    assert ".wav" in suffixes_of(tiny)
    assert ".jpg" not in suffixes_of(tiny)
    only_text = tuple(each for each in tiny.manifest.encoders if each.modality == "text")
    with pytest.raises(BundleError, match="neither"):
        suffixes_of(replace(tiny, manifest=replace(tiny.manifest, encoders=only_text)))
