"""Data sets in the formats that they are published in, by a short text: KIND:PATH?option=value&option=value (docs/formats.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from train.datasets.contract import (
    Dataset,
    DatasetError,
    Item,
    Species,
    TextQuery,
    load_audio,
    load_image,
)
from train.datasets.folders import open_fieldcube, open_folder
from train.datasets.inaturalist import open_inat, open_inatsounds
from train.datasets.parquet import open_birdset, open_inquire
from train.datasets.prompts import draw_prompt, prompts_of
from train.datasets.shards import open_shards, pack

__all__ = [
    "Dataset",
    "DatasetError",
    "Item",
    "Species",
    "TextQuery",
    "draw_prompt",
    "load_audio",
    "load_image",
    "open_dataset",
    "pack",
    "prompts_of",
]

OPENERS: dict[str, tuple[Callable[[Path, Mapping[str, str]], Dataset], frozenset[str]]] = {
    "inat21": (open_inat, frozenset({"root"})),
    "inat24": (open_inat, frozenset({"root"})),
    "inatsounds": (open_inatsounds, frozenset({"root", "split", "evaluation"})),
    "birdset": (open_birdset, frozenset({"split", "taxonomy"})),
    "inquire": (open_inquire, frozenset({"split"})),
    "folder": (open_folder, frozenset({"split"})),
    "fieldcube": (open_fieldcube, frozenset({"sets", "split", "fold"})),
}


def open_dataset(spec: str) -> Dataset:
    """Open a data set. Raises DatasetError for an unknown kind or option, and for what is not in its format."""
    kind, _, rest = spec.partition(":")
    path, _, query = rest.partition("?")
    if kind == "webdataset" and path:
        return open_shards(path)
    if kind not in OPENERS or not path:
        kinds = ", ".join([*OPENERS, "webdataset"])
        raise DatasetError(f"data set {spec!r}: expected KIND:PATH with one of {kinds}, found {kind!r}")
    opener, known = OPENERS[kind]
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - known)
    if unknown:
        raise DatasetError(
            f"data set {spec!r}: expected the options {', '.join(sorted(known))}, found {unknown[0]!r}"
        )
    return opener(Path(path), options)
