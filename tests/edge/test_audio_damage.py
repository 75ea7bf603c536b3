"""Damaged, truncated and empty recordings: what can be heard is heard, the rest is reported."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from edge import audio
from edge.audio import AudioEvent, Block, End, FileSource, Gap, Skipped
from edge.riff import read_wav_header


def noise(n: int, seed: int = 0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(n) * 0.1).astype(np.float32)


def heard(paths: Sequence[Path]) -> list[AudioEvent]:
    return list(FileSource(paths, 32_000).events())


def sound_of(events: Sequence[AudioEvent]) -> NDArray[np.float32]:
    return np.concatenate([event.samples for event in events if isinstance(event, Block)])


def skipped(events: Sequence[AudioEvent]) -> list[Skipped]:
    return [event for event in events if isinstance(event, Skipped)]


def test_a_file_that_says_something_impossible_does_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, noise(32_000), 32_000)
    monkeypatch.setattr(audio, "recording_start_ns", lambda name, *_: 2**70 if name == "a.wav" else None)
    events = heard([tmp_path])
    assert [(Path(each.source).name, each.reason[:7]) for each in skipped(events)] == [("a.wav", "wall_ns")]
    assert events[-1] == End(str(tmp_path / "b.wav"))


def test_a_truncated_wav_is_heard_and_reported(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(64_000), 32_000)
    whole = sound_of(heard([tmp_path / "a.wav"]))
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[: 44 + 2 * 40_000 + 1])
    events = heard([tmp_path / "a.wav"])
    np.testing.assert_array_equal(sound_of(events), whole[:40_000])
    assert skipped(events)[0].reason == "truncated: expected 128000 bytes of sound, found 80001"
    assert isinstance(events[-1], End)


def test_a_wav_whose_writer_never_knew_its_length_is_heard(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(40_000), 32_000)
    wav = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(wav[:40] + struct.pack("<I", 0xFFFFFFFF) + wav[44:])
    events = heard([tmp_path / "a.wav"])
    assert len(sound_of(events)) == 40_000
    assert not skipped(events)


def test_a_wav_whose_writer_was_cut_off_is_told_from_an_empty_one(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(40_000), 32_000)
    wav = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(wav[:40] + struct.pack("<I", 0) + wav[44:])
    assert "0 bytes of sound and 80000 follow" in skipped(heard([tmp_path / "a.wav"]))[0].reason


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_a_damaged_file_is_heard_up_to_the_damage(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(96_000), 32_000)
    whole = soundfile.read(path, dtype="float32")[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    events = heard([path])
    part = sound_of(events)
    assert 30_000 < len(part) < 60_000
    np.testing.assert_allclose(part[:30_000], whole[:30_000], atol=1e-6)
    assert skipped(events)[0].reason.startswith(("damaged after 1.", "truncated: expected 3.00 s"))
    assert isinstance(events[-1], End)


def test_samples_that_are_no_numbers_become_a_gap(tmp_path: Path) -> None:
    samples = noise(48_000)
    samples[20_000] = np.nan
    samples[21_000] = np.inf
    soundfile.write(tmp_path / "a.wav", samples, 16_000, "FLOAT")
    events = heard([tmp_path / "a.wav"])
    gap = next(event for event in events if isinstance(event, Gap))
    assert (gap.first_sample, gap.n_samples) == (2 * 19_456, 2 * 2 * 1024)
    assert gap.reason == "samples are not finite numbers"
    assert np.isfinite(sound_of(events)).all()
    assert len(sound_of(events)) + gap.n_samples == 96_000
    after = events[events.index(gap) + 1]
    assert isinstance(after, Block)
    assert after.first_sample == gap.first_sample + gap.n_samples


def test_files_without_samples_are_skipped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(0), 32_000)
    assert heard([tmp_path / "a.wav"]) == [Skipped(str(tmp_path / "a.wav"), "empty: no samples")]


def test_a_damaged_header_does_not_send_the_walk_round(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF\0\0\0\0WAVE" + bytes(8) * 5000)
    with (tmp_path / "a.wav").open("rb") as file:
        header = read_wav_header(file)
    assert header is not None
    assert header.promised_bytes is None
