"""A folder with a CSV, and the project's own recordings."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from train.data import load_recordings, split
from train.datasets.contract import Dataset, DatasetError, FileContent, Item, Species

AUDIO = {".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"}
IMAGE = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"}


def open_folder(file: Path, options: Mapping[str, str]) -> Dataset:
    """Open a CSV with the columns file and label, and as far as known scientific_name, group, split, start_s, duration_s.

    Files are relative to the CSV's folder; the option `split` keeps the rows of one split. A row without a label shows none of the species.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{file}: expected a CSV with the columns file and label, found {error}"
        ) from error
    if not rows or not {"file", "label"} <= set(rows[0]):
        found = ", ".join(rows[0]) if rows else "no rows"
        raise DatasetError(f"{file}: expected a CSV with the columns file and label, found {found}")
    wanted = options.get("split")
    chosen = [(n, row) for n, row in enumerate(rows, start=2) if wanted is None or row.get("split") == wanted]
    if not chosen:
        known = ", ".join(sorted({row.get("split") or "" for row in rows} - {""})) or "none"
        raise DatasetError(f"{file}: expected rows of split {wanted}, found the splits {known}")
    species, items, kinds = {}, [], set()
    for number, row in chosen:
        label = (row["label"] or "").strip()
        if label:
            group = (row.get("group") or "").strip() or "all"
            species[label] = Species(label, (row.get("scientific_name") or "").strip(), label, (), group)
        path = file.parent / (row["file"] or "")
        kinds.add(_modality(path, file, number))
        times = [_seconds(row.get(name), file, number, name) for name in ("start_s", "duration_s")]
        keys = (label,) if label else ()
        items.append(
            Item(FileContent(path), keys, species[label].group if label else "all", times[0], times[1])
        )
    if len(kinds) > 1:
        raise DatasetError(f"{file}: expected recordings or pictures, found both; make a CSV of each")
    return Dataset(file.parent.name, kinds.pop(), tuple(items), species)


def _modality(path: Path, file: Path, line: int) -> Literal["audio", "image"]:
    suffix = path.suffix.lower()
    if suffix in AUDIO:
        return "audio"
    if suffix in IMAGE:
        return "image"
    raise DatasetError(f"{file}:{line}: expected a recording or a picture, found {path.name}")


def _seconds(value: str | None, file: Path, line: int, name: str) -> float | None:
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise DatasetError(f"{file}:{line}: expected seconds in {name}, found {value!r}")
    return seconds


def open_fieldcube(path: Path, options: Mapping[str, str]) -> Dataset:
    """Open the project's own recordings (docs/data.md). Options: sets=esc10,phoebe_audio; split=train|validation; fold=0..4."""
    names = tuple(options.get("sets", "esc10").split(","))
    fold = options.get("fold", "0")
    if fold not in ("0", "1", "2", "3", "4"):
        raise DatasetError(f"fieldcube:{path}: expected fold=0 to fold=4, found {fold!r}")
    recordings = load_recordings(path, names)
    training, validation = split(recordings, int(fold))
    chosen = {"train": training, "validation": validation}.get(options.get("split", "train"))
    if chosen is None:
        raise DatasetError(
            f"fieldcube:{path}: expected split=train or split=validation, found {options['split']!r}"
        )
    species, items = {}, []
    for index in chosen:
        each = recordings[index]
        species[each.class_key] = Species(each.class_key, each.species, each.label, (), each.dataset)
        items.append(Item(FileContent(each.file), (each.class_key,), each.dataset))
    return Dataset(
        f"fieldcube {','.join(names)} {options.get('split', 'train')}", "audio", tuple(items), species
    )
