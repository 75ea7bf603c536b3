"""Parquet files of the Hugging Face hub: BirdSet's five-second test windows, INQUIRE-Rerank's queries with their pictures.

BirdSet (huggingface.co/datasets/DBD-research-group/BirdSet, configs such as HSN, split test_5s): audio {bytes, path} at 32 kHz,
ebird_code_multilabel: numbers, whose names (eBird codes) are in the schema's metadata under "huggingface". INQUIRE-Rerank
(huggingface.co/datasets/evendrow/INQUIRE-Rerank): query, image {bytes, path}, relevant, iconic_group, inat24_image_id.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from train.datasets.contract import Dataset, DatasetError, Item, ParquetContent, Species, TextQuery


def files_of(path: Path, pattern: str) -> list[Path]:
    """Parquet files of a folder whose name fits, or the file itself."""
    files = [path] if path.is_file() else sorted(path.rglob(pattern))
    if not files:
        raise DatasetError(f"{path}: expected parquet files {pattern}, found none")
    return files


def _rows(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield (row group, row, values of the columns)."""
    import pyarrow
    import pyarrow.parquet

    try:
        parquet = pyarrow.parquet.ParquetFile(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f"{file}: expected a parquet file, found: {error}") from error
    missing = [name for name in columns if name not in parquet.schema_arrow.names]
    if missing:
        raise DatasetError(
            f"{file}: expected the columns {', '.join(columns)}, found no {missing[0]} among {', '.join(parquet.schema_arrow.names)}"
        )
    for group in range(parquet.num_row_groups):
        for row, values in enumerate(parquet.read_row_group(group, columns=list(columns)).to_pylist()):
            yield group, row, values


def class_names(file: Path, column: str) -> list[str] | None:
    """Names of the class numbers of a column, from the hub's metadata in the schema; None where it has none."""
    import pyarrow.parquet

    metadata = pyarrow.parquet.ParquetFile(file).schema_arrow.metadata or {}
    feature = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {}).get(column)
    while isinstance(feature, Mapping) and "names" not in feature:
        feature = feature.get("feature")
    return None if feature is None else [str(name) for name in feature["names"]]


def read_ebird(file: Path) -> dict[str, tuple[str, str]]:
    """Read (scientific, common) names by eBird code from a CSV.

    Columns: eBird's own (SPECIES_CODE, SCI_NAME, PRIMARY_COM_NAME), or
    ebird_code, scientific_name, common_name.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: expected a taxonomy in CSV, found {error}") from error
    for names in (
        ("SPECIES_CODE", "SCI_NAME", "PRIMARY_COM_NAME"),
        ("ebird_code", "scientific_name", "common_name"),
    ):
        if rows and all(name in rows[0] for name in names):
            return {row[names[0]]: (row[names[1]], row[names[2]]) for row in rows if row[names[0]]}
    found = ", ".join(rows[0]) if rows else "no rows"
    raise DatasetError(f"{file}: expected columns SPECIES_CODE, SCI_NAME, PRIMARY_COM_NAME, found {found}")


def open_birdset(path: Path, options: Mapping[str, str]) -> Dataset:
    """Open a config of BirdSet: a folder with parquet files of the split `test_5s` (option `split`), or one file.

    Option `taxonomy`: CSV that names eBird codes; without it a code is its own name, which no tower has learnt.
    """
    files = files_of(path, f"{options.get('split', 'test_5s')}*.parquet")
    names = class_names(files[0], "ebird_code_multilabel")
    known = read_ebird(Path(options["taxonomy"])) if "taxonomy" in options else {}
    items, codes = [], set()
    for file in files:
        for group, row, values in _rows(file, ("ebird_code_multilabel",)):
            labels = values["ebird_code_multilabel"] or []
            keys = tuple(_code(file, label, names) for label in labels)
            codes |= set(keys)
            items.append(Item(ParquetContent(file, group, row, "audio"), keys, "Aves"))
    codes |= set(names or ())
    species = {}
    for code in sorted(codes):
        scientific, common = known.get(code, (code, ""))
        species[code] = Species(code, scientific, common, (), "Aves")
    return Dataset(f"birdset {path.stem}", "audio", tuple(items), species)


def _code(file: Path, label: object, names: list[str] | None) -> str:
    if isinstance(label, str):
        return label
    if names is None or not isinstance(label, int) or not 0 <= label < len(names):
        raise DatasetError(
            f"{file}: expected eBird codes or numbers with names in the schema, found {label!r}"
        )
    return names[label]


def open_inquire(path: Path, options: Mapping[str, str]) -> Dataset:
    """Open INQUIRE-Rerank: each query with the pictures that are listed for it, and those of them that answer it."""
    files = files_of(path, f"{options.get('split', '')}*.parquet")
    places: dict[Any, int] = {}
    items: list[Item] = []
    relevant: dict[str, set[int]] = {}
    listed: dict[str, set[int]] = {}
    groups: dict[str, str] = {}
    for file in files:
        for group, row, values in _rows(file, ("query", "relevant", "iconic_group", "inat24_image_id")):
            image = values["inat24_image_id"]
            if image not in places:  # the same picture is listed under several queries
                places[image] = len(items)
                items.append(Item(ParquetContent(file, group, row, "image"), (), str(values["iconic_group"])))
            query = str(values["query"])
            groups.setdefault(query, str(values["iconic_group"]))
            answers = relevant.setdefault(query, set())
            listed.setdefault(query, set()).add(places[image])
            if int(values["relevant"]) == 1:
                answers.add(places[image])
    queries = tuple(
        TextQuery(text, frozenset(found), groups[text], frozenset(listed[text]))
        for text, found in relevant.items()
    )
    return Dataset(f"inquire {path.stem}", "image", tuple(items), {}, queries)
