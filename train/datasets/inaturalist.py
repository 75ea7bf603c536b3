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


def read_json(file: Path, lists: tuple[str, ...]) -> dict[str, Any]:
    """Read a JSON object with the given lists in it. Raises DatasetError."""
    try:
        root = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{file}: expected the JSON of the data set, found {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(f"{file}: expected JSON, found: {error}") from error
    missing = [name for name in lists if not isinstance(root, dict) or not isinstance(root.get(name), list)]
    if missing:
        found = ", ".join(root) if isinstance(root, dict) else type(root).__name__
        raise DatasetError(
            f"{file}: expected the lists {', '.join(lists)}, found no {missing[0]} among {found}"
        )
    return dict(root)


def field(file: Path, where: str, record: Mapping[str, Any], key: str) -> Any:
    """A key of a record that must be there."""
    if key not in record:
        raise DatasetError(
            f"{file}, {where}: expected the key {key}, found {', '.join(map(str, record)) or 'none'}"
        )
    return record[key]


def species_of(file: Path, category: Mapping[str, Any]) -> Species:
    """A category as a species."""
    where = f"category {category.get('id')}"
    name = str(field(file, where, category, "name"))
    taxonomy = tuple(str(category.get(rank) or "") for rank in TAXONOMY)
    return Species(
        key=str(field(file, where, category, "id")),
        scientific=name,
        common=str(category.get("common_name") or ""),
        taxonomy=taxonomy if any(taxonomy) else (),
        group=str(category.get("supercategory") or "all"),
    )


def open_inat(file: Path, options: Mapping[str, str]) -> Dataset:
    """Open a JSON of iNat21 or iNat24; file names are relative to its folder, or to the option `root`."""
    root = read_json(file, ("images", "annotations", "categories"))
    folder = Path(options.get("root", str(file.parent)))
    species = {s.key: s for s in (species_of(file, c) for c in root["categories"])}
    names = {
        field(file, "images", i, "id"): str(field(file, "images", i, "file_name")) for i in root["images"]
    }
    items = []
    for annotation in root["annotations"]:
        where = f"annotation {annotation.get('id')}"
        image, key = (
            field(file, where, annotation, "image_id"),
            str(field(file, where, annotation, "category_id")),
        )
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
    root = read_json(file, ("audio", "annotations", "categories"))
    folder = Path(options.get("root", str(file.parent)))
    only = options.get("evaluation") == "1"
    kept = [
        c
        for c in root["categories"]
        if not only or int(field(file, f"category {c.get('id')}", c, "evaluation")) == 1
    ]
    species = {s.key: s for s in (species_of(file, c) for c in kept)}
    every = {str(c.get("id")) for c in root["categories"]}
    sounds = {field(file, "audio", a, "id"): a for a in root["audio"]}
    found: dict[Any, list[str]] = {}
    for annotation in root["annotations"]:
        where = f"annotation {annotation.get('id')}"
        audio, key = (
            field(file, where, annotation, "audio_id"),
            str(field(file, where, annotation, "category_id")),
        )
        if audio not in sounds or key not in every:
            raise DatasetError(
                f"{file}, {where}: expected a listed recording and category, found {audio} and {key}"
            )
        if key in species:
            found.setdefault(audio, []).append(key)
    items = tuple(
        Item(
            FileContent(folder / str(field(file, f"audio {a}", sounds[a], "file_name"))),
            tuple(dict.fromkeys(keys)),
            species[keys[0]].group,
        )
        for a, keys in found.items()
    )
    return Dataset(f"inatsounds {file.stem}", "audio", items, species)
