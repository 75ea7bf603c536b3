"""Parquet files of the Hugging Face hub: BirdSet's windows of soundscapes, INQUIRE-Rerank's queries with their pictures.

BirdSet (huggingface.co/datasets/DBD-research-group/BirdSet, a folder for each config such as HSN) is published as
HSN_metadata_test_5s.parquet with filepath and ebird_code_multilabel (eBird codes), beside tar files of the recordings, which must be
unpacked; copies of it (mteb/BirdSet) are parquet files with the audio inside, {bytes, path} at 32 kHz, and ebird_code_multilabel as
numbers, whose names are in the schema's metadata under "huggingface". Both are read. INQUIRE-Rerank
(huggingface.co/datasets/evendrow/INQUIRE-Rerank): query, image {bytes, path}, relevant, iconic_group, inat24_image_id.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.datasets.contract import (
    Content,
    Dataset,
    DatasetError,
    FileContent,
    Item,
    ParquetContent,
    Species,
    TextQuery,
)

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

LABELS = "ebird_code_multilabel"
WINDOWS = "test_5s"  # the split whose files are windows already
# (code, scientific name, common name): eBird's download, eBird's API, and a plain one
TAXONOMIES = (
    ("SPECIES_CODE", "SCI_NAME", "PRIMARY_COM_NAME"),
    ("SPECIES_CODE", "SCIENTIFIC_NAME", "COMMON_NAME"),
    ("ebird_code", "scientific_name", "common_name"),
)


def files_of(path: Path, split: str) -> list[Path]:
    """Parquet files of a split in a folder, as the hub names them, or the file itself."""
    if path.is_file():
        return [path]
    found = sorted(path.rglob("*.parquet"))
    files = [
        file
        for file in found
        if file.stem == split
        or file.stem.startswith(f"{split}-")
        or file.stem.endswith(f"_metadata_{split}")
        or file.parent.name == split  # as the hub converts them: HSN/test_5s/0000.parquet
    ]
    if not files:
        names = ", ".join(file.name for file in found[:5]) or "none"
        raise DatasetError(
            f"{path}: expected parquet files of the split {split} ({split}-*.parquet), found {names}"
        )
    return files


def _opened(file: Path, columns: tuple[str, ...]) -> ParquetFile:
    """A parquet file that has the columns."""
    import pyarrow
    import pyarrow.parquet

    try:
        parquet = pyarrow.parquet.ParquetFile(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f"{file}: expected a parquet file, found: {error}") from error
    found = parquet.schema_arrow.names
    missing = [name for name in columns if name not in found]
    if missing:
        raise DatasetError(
            f"{file}: expected the columns {', '.join(columns)}, found no {missing[0]} among {', '.join(found)}"
        )
    return parquet


def _rows(
    file: Path, parquet: ParquetFile, columns: tuple[str, ...]
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield (row group, row, values of the columns; None for one that is not there). Raises DatasetError for rows that cannot be read."""
    import pyarrow

    there = [name for name in columns if name in parquet.schema_arrow.names]
    empty = dict.fromkeys(columns)
    for group in range(parquet.num_row_groups):
        try:
            found = parquet.read_row_group(group, columns=there).to_pylist()
        except (OSError, ValueError, pyarrow.ArrowException) as error:  # ValueError: text that is no UTF-8
            raise DatasetError(
                f"{file}, row group {group}: expected rows of parquet, found: {' '.join(str(error).split())}; fetch the file again"
            ) from error
        for row, values in enumerate(found):
            yield group, row, {**empty, **values}


def class_names(file: Path, parquet: ParquetFile, column: str) -> list[str] | None:
    """Names of the class numbers of a column, from the hub's metadata in the schema; None where it has none. Raises DatasetError."""
    metadata = parquet.schema_arrow.metadata or {}
    try:
        found = json.loads(metadata.get(b"huggingface", b"{}"))
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{file}: expected JSON in the schema's metadata under huggingface, found: {error}; fetch the file again"
        ) from error
    for key in ("info", "features", column):
        found = found.get(key) if isinstance(found, dict) else None
    while found:  # a list of classes is written in several ways
        if isinstance(found, list):
            found = found[0]
        elif not isinstance(found, dict):
            return None
        elif isinstance(found.get("names"), list):
            return [str(name) for name in found["names"]]
        else:
            found = found.get("feature")
    return None


def read_ebird(file: Path) -> dict[str, Species]:
    """Read the birds of eBird's taxonomy in CSV by their code. Raises DatasetError."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file}: expected a taxonomy in CSV, found {error}") from error
    for names in TAXONOMIES:
        if rows and all(name in rows[0] for name in names):
            birds = (_bird(row, *(str(row[name] or "").strip() for name in names)) for row in rows)
            return {bird.key: bird for bird in birds if bird.key}
    found = ", ".join(rows[0]) if rows else "no rows"
    raise DatasetError(f"{file}: expected the columns {', '.join(TAXONOMIES[0])}, found {found}")


def _bird(row: Mapping[str, Any], code: str, scientific: str, common: str) -> Species:
    # the download has FAMILY, "Strigidae (Owls)"; the API FAMILY_SCI_NAME, "Strigidae"
    order = str(row.get("ORDER1") or row.get("ORDER") or "").strip()  # ORDER since 2024
    family = str(row.get("FAMILY_SCI_NAME") or row.get("FAMILY") or "").partition("(")[0].strip()
    parts = scientific.split()
    taxonomy: tuple[str, ...] = ()
    if order and len(parts) == 2:
        taxonomy = ("Animalia", "Chordata", "Aves", order, family, *parts)
    return Species(code, scientific, common, taxonomy, "Aves")


def open_birdset(path: Path, options: Mapping[str, str]) -> Dataset:
    """Open a config of BirdSet: a folder with the parquet files of the split `test_5s` (option `split`), or one file.

    Option `taxonomy`: CSV that names eBird codes; without it a code is its own name, which no tower has learnt. In the split `test` an
    item is the part of a recording between start_time and end_time.
    """
    wanted = options.get("split", WINDOWS)
    files = files_of(path, wanted)
    known = read_ebird(Path(options["taxonomy"])) if "taxonomy" in options else None
    items: list[Item] = []
    codes: set[str] = set()
    recordings = _Recordings(path if path.is_dir() else path.parent)
    for file in files:
        parquet = _opened(file, (LABELS,))
        names = class_names(file, parquet, LABELS)
        codes |= set(names or ())
        inside = "audio" in parquet.schema_arrow.names
        columns = (LABELS, "ebird_code", "filepath", "start_time", "end_time")
        for group, row, values in _rows(file, parquet, columns):
            where = f"{file}, row group {group}, row {row}"
            labels = values[LABELS] or ([] if values["ebird_code"] is None else [values["ebird_code"]])
            if not isinstance(labels, list):
                raise DatasetError(
                    f"{where}: expected a list in {LABELS}, found {labels!r:.60}; fetch the file again"
                )
            keys = tuple(dict.fromkeys(_code(file, label, names) for label in labels))
            codes |= set(keys)
            content: Content = (
                ParquetContent(file, group, row, "audio")
                if inside
                else recordings.find(file, values["filepath"])
            )
            times = (None, None) if wanted == WINDOWS else _times(where, values)
            items.append(Item(content, keys, "Aves", *times))
    species = {}
    for code in sorted(codes):
        if known is not None and code not in known:
            raise DatasetError(
                f"{options['taxonomy']}: expected the eBird code {code}, found none; BirdSet has the codes of eBird's taxonomy of 2021"
            )
        species[code] = Species(code, code, "", (), "Aves") if known is None else known[code]
    return Dataset(f"birdset {path.stem}", "audio", tuple(items), species)


class _Recordings:
    """Recordings that lie beside a metadata file, wherever their tar files were unpacked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Path] | None = None

    def find(self, file: Path, name: object) -> FileContent:
        """Return a recording by its name. Raises DatasetError where it is not there."""
        if self.files is None:
            self.files = {each.name: each for each in sorted(self.folder.rglob("*.ogg"))}
        found = self.files.get(Path(name).name) if isinstance(name, str) else None
        if found is None:
            raise DatasetError(
                f"{file}: expected the recording {name or '(no filepath)'} in {self.folder}, found none; "
                "unpack the *_test5s_shard_*.tar.gz there"
            )
        return FileContent(found)


def _times(where: str, values: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Start and duration in seconds of a part of a recording; a row without both, or with no time between them, is all of it."""
    start, end = values["start_time"], values["end_time"]
    if start is None or end is None:
        return None, None
    for value in (start, end):
        if not isinstance(value, int | float):
            raise DatasetError(
                f"{where}: expected seconds in start_time and end_time, found {value!r:.60}; fetch the file again"
            )
    if not math.isfinite(start) or not start < end < math.inf:
        return None, None
    return float(start), float(end - start)


def _code(file: Path, label: object, names: list[str] | None) -> str:
    if isinstance(label, str):
        return label
    if names is None or not isinstance(label, int) or not 0 <= label < len(names):
        raise DatasetError(
            f"{file}: expected eBird codes or numbers with names in the schema, found {label!r}"
        )
    return names[label]


def open_inquire(path: Path, options: Mapping[str, str]) -> Dataset:
    """Open INQUIRE-Rerank, split `test` or `validation`: each query with the pictures that are listed for it, and those that answer it."""
    wanted = options.get("split", "test")
    columns = ("query", "relevant", "iconic_group", "inat24_image_id")
    places: dict[int | str, int] = {}
    items: list[Item] = []
    relevant: dict[str, set[int]] = {}
    listed: dict[str, set[int]] = {}
    groups: dict[str, str] = {}
    for file in files_of(path, wanted):
        for group, row, values in _rows(file, _opened(file, (*columns, "image")), columns):
            image, text = _listed(f"{file}, row group {group}, row {row}", values)
            if image not in places:  # the same picture is listed under several queries
                places[image] = len(items)
                items.append(Item(ParquetContent(file, group, row, "image"), (), str(values["iconic_group"])))
            groups.setdefault(text, str(values["iconic_group"]))
            answers = relevant.setdefault(text, set())
            listed.setdefault(text, set()).add(places[image])
            if values["relevant"] == 1:
                answers.add(places[image])
    queries = tuple(
        TextQuery(text, frozenset(found), groups[text], frozenset(listed[text]))
        for text, found in relevant.items()
    )
    return Dataset(f"inquire {wanted}", "image", tuple(items), {}, queries)


def _listed(where: str, values: Mapping[str, Any]) -> tuple[int | str, str]:
    """The picture and the query of a row. Raises DatasetError for values that are none."""
    image, text, relevant = (values[name] for name in ("inat24_image_id", "query", "relevant"))
    for name, value, what, is_one in (
        ("query", text, "a sentence", isinstance(text, str) and text.strip()),
        ("relevant", relevant, "0 or 1", relevant in (0, 1)),
        ("inat24_image_id", image, "the id of a picture", isinstance(image, int | str)),
    ):
        if not is_one:
            raise DatasetError(
                f"{where}: expected {what} in {name}, found {value!r:.60}; fetch the file again"
            )
    return image, text
