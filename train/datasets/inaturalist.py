"""iNat21 and iNat24 pictures, iNatSounds 2024 recordings: COCO-style JSON as their competition pages publish it.

iNat21/24 (github.com/visipedia/inat_comp): images {id, file_name}, annotations {image_id, category_id}, categories {id, name, common_name,
supercategory, kingdom ... genus, specific_epithet}. iNatSounds 2024 (github.com/visipedia/inat_sounds): audio {id, file_name, duration},
annotations {audio_id, category_id}, categories the same, with evaluation = 1 for those that are queried.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.datasets.contract import Dataset, DatasetError, FileContent, Item, Species

TAXONOMY = ("kingdom", "phylum", "class", "order", "family", "genus", "specific_epithet")
AGAIN = "fetch the file again, or repair it"


def read_lists(file: Path, names: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """Read the lists of records that a JSON object must have. Raises DatasetError."""
    try:
        root = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{file}: expected the JSON of the data set, found {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file}: expected JSON, found: {error}; {AGAIN}") from error
    missing = [name for name in names if not isinstance(root, dict) or not isinstance(root.get(name), list)]
    if missing:
        found = ", ".join(root) if isinstance(root, dict) else type(root).__name__
        raise DatasetError(
            f"{file}: expected the lists {', '.join(names)}, found no {missing[0]} among {found}"
        )
    for name in names:
        for place, record in enumerate(root[name]):
            if not isinstance(record, dict):
                raise DatasetError(
                    f"{file}, {name}[{place}]: expected an object, found {_shown(record)}; {AGAIN}"
                )
    return {name: root[name] for name in names}


def field(file: Path, where: str, record: Mapping[str, Any], key: str) -> Any:
    """A key of a record that must be there."""
    if key not in record:
        raise DatasetError(f"{file}, {where}: expected the key {key}, found {', '.join(record) or 'none'}")
    return record[key]


def number_of(file: Path, where: str, record: Mapping[str, Any], key: str) -> int | str:
    """An id, or another whole number: as published, or as text."""
    value = field(file, where, record, key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DatasetError(
            f"{file}, {where}: expected a whole number in {key}, found {_shown(value)}; {AGAIN}"
        )
    return value


def text_of(file: Path, where: str, record: Mapping[str, Any], key: str) -> str:
    """A name that must be there."""
    value = field(file, where, record, key)
    if not isinstance(value, str) or not value:
        raise DatasetError(f"{file}, {where}: expected a text in {key}, found {_shown(value)}; {AGAIN}")
    return value


def _shown(value: object) -> str:
    return repr(value)[:60]


def species_of(file: Path, category: Mapping[str, Any]) -> Species:
    """A category as a species."""
    where = f"category {category.get('id')}"
    taxonomy = tuple(str(category.get(rank) or "") for rank in TAXONOMY)
    return Species(
        key=str(number_of(file, where, category, "id")),
        scientific=text_of(file, where, category, "name"),
        common=str(category.get("common_name") or ""),
        taxonomy=taxonomy if any(taxonomy) else (),
        group=str(category.get("supercategory") or "all"),
    )


def files_of(file: Path, name: str, records: list[dict[str, Any]]) -> dict[int | str, str]:
    """File names of pictures or recordings by their ids."""
    found = {}
    for place, record in enumerate(records):
        where = f"{name}[{place}]"
        found[number_of(file, where, record, "id")] = text_of(file, where, record, "file_name")
    return found


def open_inat(file: Path, options: Mapping[str, str]) -> Dataset:
    """Open a JSON of iNat21 or iNat24; file names are relative to its folder, or to the option `root`."""
    root = read_lists(file, ("images", "annotations", "categories"))
    folder = Path(options.get("root", str(file.parent)))
    species = {s.key: s for s in (species_of(file, c) for c in root["categories"])}
    names = files_of(file, "images", root["images"])
    items = []
    for annotation in root["annotations"]:
        where = f"annotation {annotation.get('id')}"
        image = number_of(file, where, annotation, "image_id")
        key = str(number_of(file, where, annotation, "category_id"))
        if image not in names or key not in species:
            raise DatasetError(
                f"{file}, {where}: expected a listed image and category, found {image} and {key}"
            )
        items.append(Item(FileContent(folder / names[image]), (key,), species[key].group))
    return Dataset(file.stem, "image", tuple(items), species)


def open_inatsounds(path: Path, options: Mapping[str, str]) -> Dataset:
    """Open iNatSounds: a JSON, or its folder and the option `split` (train, val, test).

    The option `evaluation=1` keeps categories that are queried, as the paper does; recordings of the others go with them.
    """
    file = path if path.is_file() else path / f"{options.get('split', 'train')}.json"
    root = read_lists(file, ("audio", "annotations", "categories"))
    folder = Path(options.get("root", str(file.parent)))
    only = options.get("evaluation") == "1"
    kept = [c for c in root["categories"] if not only or _is_queried(file, c)]
    species = {s.key: s for s in (species_of(file, c) for c in kept)}
    every = {str(c.get("id")) for c in root["categories"]}
    names = files_of(file, "audio", root["audio"])
    found: dict[int | str, list[str]] = {}
    for annotation in root["annotations"]:
        where = f"annotation {annotation.get('id')}"
        audio = number_of(file, where, annotation, "audio_id")
        key = str(number_of(file, where, annotation, "category_id"))
        if audio not in names or key not in every:
            raise DatasetError(
                f"{file}, {where}: expected a listed recording and category, found {audio} and {key}"
            )
        if key in species:
            found.setdefault(audio, []).append(key)
    items = tuple(
        Item(FileContent(folder / names[audio]), tuple(dict.fromkeys(keys)), species[keys[0]].group)
        for audio, keys in found.items()
    )
    return Dataset(f"inatsounds {file.stem}", "audio", items, species)


def _is_queried(file: Path, category: Mapping[str, Any]) -> bool:
    where = f"category {category.get('id')}"
    value = field(file, where, category, "evaluation")
    if value not in (0, 1):
        raise DatasetError(f"{file}, {where}: expected 0 or 1 in evaluation, found {_shown(value)}; {AGAIN}")
    return bool(value)
