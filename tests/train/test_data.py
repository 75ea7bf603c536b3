"""Reading data sets, folds, licences and caches."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from train.data import (
    DataError,
    Recording,
    decode,
    is_open,
    load_recordings,
    open_cache,
    read_labels,
    split,
    validation_folds,
)


def recording(
    dataset: str, label: str, file: str, split_name: str = "train", origin: str = "", species: str = "x"
) -> Recording:
    return Recording(Path(file), dataset, label, species, split_name, "CC0", origin)


def write_set(folder: Path, rows: list[dict[str, str]], columns: tuple[str, ...] | None = None) -> None:
    folder.mkdir(parents=True)
    columns = columns or ("file", "label", "scientific_name", "split", "source", "licence", "author", "note")
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)


def test_missing_labels_column_and_file_are_named(tmp_path):
    with pytest.raises(DataError, match=r"labels\.csv.*found none"):
        read_labels(tmp_path)
    write_set(tmp_path / "a", [], ("file", "label"))
    with pytest.raises(DataError, match=r"expected columns \['licence', 'scientific_name', 'split'\]"):
        read_labels(tmp_path / "a")
    write_set(tmp_path / "b", [{"file": "gone.wav", "label": "owl", "licence": "CC0"}])
    with pytest.raises(DataError, match=r"labels\.csv:2: expected the file gone\.wav"):
        read_labels(tmp_path / "b")
    with pytest.raises(DataError, match="pass --data"):
        load_recordings(tmp_path / "nowhere", ["a"])


def test_each_recording_of_a_class_is_validation_in_exactly_one_fold():
    recordings = [recording("birds", f"b{i % 4}", f"{i}.ogg", species=f"s{i % 4}") for i in range(32)]
    seen = np.zeros(32, dtype=int)
    for fold in range(5):
        training, validation = split(recordings, fold)
        assert not set(training) & set(validation)
        seen[validation] += 1
    assert (seen == 1).all()
    sizes = np.bincount(validation_folds(recordings), minlength=5)
    assert sizes.max() - sizes.min() <= 2


def test_a_class_with_one_recording_always_trains_and_esc10_fold4_never_does():
    recordings = [
        recording("birds", "lonely", "1.ogg"),
        recording("esc10", "rain", "a.ogg", "fold4", species=""),
        recording("esc10", "rain", "b.ogg", "fold1", species=""),
    ]
    for fold in range(5):
        assert split(recordings, fold) == ([0, 2], [1])


def test_the_same_original_in_another_set_does_not_train_while_it_validates():
    twin = "https://xeno-canto.org/123456"
    recordings = [
        recording("a", "owl", "1.ogg", origin=twin),
        recording("a", "owl", "2.ogg"),
        recording("b", "owl", "other.ogg", "single", origin=f"{twin} (copy)"),
    ]
    fold = int(validation_folds(recordings)[0])
    training, validation = split(recordings, fold)
    assert 0 in validation
    assert 2 not in training


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("CC0", True),
        ("CC-BY", True),
        ("CC BY 4.0", True),
        ("BSD-3-Clause (repository licence)", True),
        ("CC BY-NC", False),
        ("CC BY-NC-SA 4.0", False),
        ("CC BY-SA 3.0", False),
        ("CC BY SA 4.0", False),
        ("CC-BY-ND", False),
        ("CC-Sampling+", False),
        ("", False),
    ],
)
def test_open_licences(licence, expected):
    assert is_open(licence) is expected


def test_decode_gives_mono_at_the_wanted_rate_and_names_a_bad_file(tmp_path):
    tone = np.sin(np.arange(44_100) / 10)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, tone * 0.5], axis=1) * 0.5, 44_100)
    audio = decode(tmp_path / "a.wav", 32_000)
    assert audio.dtype == np.float32
    assert abs(len(audio) - 32_000) <= 1
    assert np.abs(audio).max() == pytest.approx(0.375, abs=0.02)
    (tmp_path / "b.wav").write_text("no sound")
    with pytest.raises(DataError, match=r"b\.wav: expected an audio file"):
        decode(tmp_path / "b.wav", 32_000)


def test_cache_holds_every_recording_and_is_reused(tmp_path):
    write_set(tmp_path / "set", [])
    files = []
    for i, n in enumerate((3200, 6400)):
        file = tmp_path / f"{i}.wav"
        soundfile.write(file, np.full(n, 0.25 * (i + 1)), 32_000)
        files.append(recording("set", "x", str(file)))
    first = open_cache(files, 32_000, tmp_path / "cache")
    assert [len(first.get(i)) for i in range(2)] == [3200, 6400]
    assert first.get(1)[3000] == pytest.approx(0.5 * 32767, abs=3)
    marker = next((tmp_path / "cache").glob("*.i16"))
    before = marker.stat().st_mtime_ns
    assert open_cache(files, 32_000, tmp_path / "cache").fingerprint == first.fingerprint
    assert marker.stat().st_mtime_ns == before
