"""Recordings for training: read labels.csv folders, decode once to a cache, split into folds by recording."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from tqdm import tqdm

from edge.errors import FieldcubeError

N_FOLDS = 5  # "one fifth of the recordings of each multi-recording set" is validation
OPEN_LICENCES = {"CC0", "CC BY", "CC BY 3.0", "CC BY 4.0", "BSD-3-CLAUSE"}


class DataError(FieldcubeError):
    """A data folder is missing, or its labels.csv is not what docs/data.md describes."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One labelled audio file."""

    file: Path  # where it is
    dataset: str  # name of the folder that labels.csv lies in
    label: str  # class name as its data set gives it
    species: str  # scientific name, or "" for a sound that is not of one species
    split: str  # the data set's own split: fold1 ... fold4, train, single, unlabelled
    licence: str
    origin: str  # source and note: two files with one origin are one recording

    @property
    def class_key(self) -> str:
        """Name of the class that training uses: the species, so that data sets meet; ESC-10 sounds and backgrounds keep their label."""
        if self.dataset.startswith("esc") or not self.species:
            return self.label.strip().lower()
        return self.species.strip().lower()

    @property
    def origin_key(self) -> str:
        """Xeno-canto number where there is one, else the path: the same recording may lie in several data sets."""
        number = re.search(r"xeno-canto\.org/(\d+)", self.origin)
        if number:
            return f"xc{number[1]}"
        return f"{self.dataset}/{self.file.name}"


def read_labels(folder: Path) -> list[Recording]:
    """Read one data set's labels.csv (columns file, label, scientific_name, split, licence; others are optional).

    Raises:
        DataError: no labels.csv, a missing column, or a row whose file is not there.
    """
    table = folder / "labels.csv"
    if not table.is_file():
        raise DataError(
            f"{table}: expected a labels.csv (docs/data.md says how a set is laid out), found none"
        )
    with table.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = {"file", "label", "scientific_name", "split", "licence"} - set(reader.fieldnames or ())
        if missing:
            raise DataError(f"{table}: expected columns {sorted(missing)}, found {reader.fieldnames}")
        recordings = []
        for line, row in enumerate(reader, start=2):
            file = folder / row["file"]
            if not file.is_file():
                raise DataError(f"{table}:{line}: expected the file {row['file']} in {folder}, found none")
            origin = (
                f"{row.get('note', '')} {row.get('source', '')}" if folder.name != "esc10" else row["file"]
            )
            recordings.append(
                Recording(
                    file,
                    folder.name,
                    row["label"],
                    row["scientific_name"],
                    row["split"],
                    row["licence"],
                    origin,
                )
            )
    return recordings


def validation_folds(recordings: Sequence[Recording]) -> NDArray[np.int64]:
    """Assign each recording to the fold (0..4) in which it is validation; -1 = always training.

    ESC-10: its own fold 4 is validation in every fold here (all others train), so that the figure is one number. Other
    sets: the recordings of a class that has several are dealt over the five folds, with another start for each class so that
    the folds are even. A class with one recording always trains.
    """
    folds = np.full(len(recordings), -1, dtype=np.int64)
    groups: dict[tuple[str, str], list[int]] = {}
    for index, recording in enumerate(recordings):
        if recording.dataset != "esc10":
            groups.setdefault((recording.dataset, recording.class_key), []).append(index)
    for order, (_, members) in enumerate(sorted(groups.items())):
        if len(members) > 1:
            for position, index in enumerate(sorted(members, key=lambda i: recordings[i].file.name)):
                folds[index] = (position + order) % N_FOLDS
    return folds


def split(recordings: Sequence[Recording], fold: int) -> tuple[list[int], list[int]]:
    """Indices of the training and validation recordings of one fold (0..4).

    A training file that is the same original recording as a validation file of another set is left out of both lists.
    """
    folds = validation_folds(recordings)
    is_validation = [f == fold or r.split == "fold4" for r, f in zip(recordings, folds, strict=True)]
    held_out = {r.origin_key for r, held in zip(recordings, is_validation, strict=True) if held}
    validation = [i for i, held in enumerate(is_validation) if held]
    training = [
        i for i, held in enumerate(is_validation) if not held and recordings[i].origin_key not in held_out
    ]
    return training, validation


def is_open(licence: str) -> bool:
    """Whether a licence allows commercial use and relicensing of derived weights: CC0, CC BY, BSD; neither NC nor SA."""
    name = licence.upper().replace("CC-BY", "CC BY").split(" (")[0].strip()
    return name in OPEN_LICENCES


def load_recordings(root: Path, datasets: Iterable[str]) -> list[Recording]:
    """Read the named sets below `root`; a row without a species takes it from another row with its common name."""
    if not root.is_dir():
        raise DataError(
            f"{root}: expected the folder of the data sets (docs/data.md), found none; pass --data FOLDER"
        )
    recordings = [r for name in datasets for r in read_labels(root / name)]
    species = {r.label.strip().lower(): r.species for r in recordings if r.species}
    return [
        r if r.species else replace(r, species=species.get(r.label.strip().lower(), "")) for r in recordings
    ]


@dataclass(frozen=True, slots=True)
class AudioCache:
    """All recordings decoded to mono int16 at one rate, end to end in one memory-mapped file."""

    samples: NDArray[np.int16]  # [total]
    starts: NDArray[np.int64]  # [n_recordings + 1]
    fingerprint: str  # of the list of files and the rate

    def get(self, index: int) -> NDArray[np.int16]:
        """Samples of recording `index`, int16 [n]."""
        return self.samples[self.starts[index] : self.starts[index + 1]]


def decode(file: Path, rate_hz: int) -> NDArray[np.float32]:
    """Decode a file to mono float32 [n] at `rate_hz`."""
    try:
        audio, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"{file}: expected an audio file, found: {error}") from error
    return soxr.resample(audio.mean(axis=1), rate, rate_hz, quality="HQ").astype(np.float32)


def open_cache(recordings: Sequence[Recording], rate_hz: int, folder: Path) -> AudioCache:
    """Decode all recordings into `folder` once, or reuse what an earlier call with the same files left there."""
    fingerprint = hashlib.sha256(
        json.dumps([(str(r.file), r.file.stat().st_size) for r in recordings] + [rate_hz]).encode()
    ).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    audio_file, index_file = folder / f"{fingerprint}.i16", folder / f"{fingerprint}.npy"
    if not index_file.is_file():
        starts = [0]
        with audio_file.open("wb") as stream:  # the index comes last: without it the cache is made anew
            for recording in tqdm(recordings, desc="decode", unit="file", disable=None):
                audio = np.round(np.clip(decode(recording.file, rate_hz), -1.0, 1.0) * 32767).astype("<i2")
                stream.write(audio.tobytes())
                starts.append(starts[-1] + len(audio))
        _save_index(index_file, np.asarray(starts, dtype=np.int64))
    return AudioCache(np.memmap(audio_file, dtype="<i2", mode="r"), np.load(index_file), fingerprint)


@dataclass(frozen=True, slots=True)
class PowerCache:
    """Mel-band powers of all recordings at several playback speeds, in one memory-mapped file."""

    power: NDArray[np.float32]  # [total_frames, n_mels]
    starts: NDArray[np.int64]  # [n_speeds, n_recordings + 1]

    def get(self, index: int, speed: int) -> NDArray[np.float32]:
        """Powers of recording `index` at the `speed`-th speed, float32 [n_frames, n_mels]."""
        return self.power[self.starts[speed, index] : self.starts[speed, index + 1]]


def open_power_cache(
    audio: AudioCache,
    band_power: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    speeds: Sequence[float],
    file: Path,
) -> PowerCache:
    """Compute mel-band powers once into `file`, or reuse them. `band_power` maps float32 [n] to [n_frames, n_mels].

    The name of `file` must tell the recordings and the front end apart. A recording played at speed 1.1 is shorter and higher.
    """
    index_file = file.with_suffix(".npy")
    if not index_file.is_file():
        starts, total = np.zeros((len(speeds), len(audio.starts)), dtype=np.int64), 0
        with file.open("wb") as stream:
            for row, speed in enumerate(speeds):
                for index in tqdm(
                    range(len(audio.starts) - 1), desc=f"mel x{speed}", unit="file", disable=None
                ):
                    samples = audio.get(index).astype(np.float32) / 32767
                    if speed != 1.0:
                        samples = soxr.resample(samples, speed, 1.0, quality="HQ").astype(np.float32)
                    power = np.ascontiguousarray(band_power(samples), dtype="<f4")
                    stream.write(power.tobytes())
                    starts[row, index] = total
                    total += len(power)
                starts[row, -1] = total
        _save_index(index_file, starts)
    starts = np.load(index_file)
    power = np.memmap(file, dtype="<f4", mode="r")
    return PowerCache(power.reshape(int(starts.max()), -1), starts)


def _save_index(file: Path, starts: NDArray[np.int64]) -> None:
    temporary = file.with_suffix(".partial.npy")
    np.save(temporary, starts)
    temporary.replace(file)
