"""Webdataset shards: tar files whose members share a stem: KEY.wav or KEY.jpg with KEY.json.

The JSON: {"species": [key, ...], "group", "start_s", "duration_s", "names": [{"key", "scientific", "common", "taxonomy", "group"}, ...]}, with
a name for each species. Read at random through the offsets of their members, so a shard must lie on a disk, not compressed. Written by
`python -m train pack` through the webdataset library, and readable by every loader of that format.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from edge.durable import write_file
from train.datasets.contract import Dataset, DatasetError, Item, PieceContent, Species
from train.datasets.folders import AUDIO, IMAGE

PER_SHARD = 1000


def expand(pattern: str) -> list[Path]:
    """Paths of `shards-{000..010}.tar`, or one path."""
    match = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", pattern)
    if match is None:
        return [Path(pattern)]
    head, first, last, tail = match.groups()
    return [Path(f"{head}{n:0{len(first)}d}{tail}") for n in range(int(first), int(last) + 1)]


def open_shards(pattern: str) -> Dataset:
    """Open shards; members are listed, nothing is decoded."""
    species: dict[str, Species] = {}
    items, kinds = [], set()
    for path in expand(pattern):
        for key, members in _members(path).items():
            note = members.pop("json", None)
            media = [member for suffix, member in members.items() if f".{suffix}" in AUDIO | IMAGE]
            if note is None or len(media) != 1:
                raise DatasetError(
                    f"{path}: expected {key}.json and one recording or picture, found {', '.join(members) or 'neither'}"
                )
            record = _record(note)
            keys = tuple(str(each) for each in record["species"])
            for each in record["names"]:
                species[str(each["key"])] = _species(each)
            kinds.add("audio" if f".{media[0].member.rsplit('.', 1)[-1].lower()}" in AUDIO else "image")
            items.append(
                Item(
                    media[0],
                    keys,
                    str(record.get("group", "all")),
                    record.get("start_s"),
                    record.get("duration_s"),
                )
            )
    if len(kinds) > 1:
        raise DatasetError(f"{pattern}: expected recordings or pictures, found both")
    modality: Literal["audio", "image"] = "image" if kinds == {"image"} else "audio"
    return Dataset(f"shards {Path(pattern).name}", modality, tuple(items), species)


def _record(note: PieceContent) -> dict[str, Any]:
    """The JSON of an item, its lists and times checked."""
    try:
        record = json.loads(note.read())
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{note.name}: expected JSON, found: {error}") from error
    lists = [record.get(key) for key in ("species", "names")] if isinstance(record, dict) else [None]
    if not all(isinstance(each, list) for each in lists) or not all(map(_is_name, record["names"])):
        raise DatasetError(
            f"{note.name}: expected the lists species and names, each name with a key, its taxonomy a list, found {str(record)[:80]}"
        )
    for key in ("start_s", "duration_s"):
        if not _is_time(record.get(key)):
            raise DatasetError(f"{note.name}: expected seconds or null in {key}, found {record[key]!r:.60}")
    return dict(record)


def _is_name(name: object) -> bool:
    return isinstance(name, dict) and "key" in name and isinstance(name.get("taxonomy", []), list)


def _is_time(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and 0 <= value < math.inf)


def _species(name: Mapping[str, Any]) -> Species:
    texts = {key: str(name.get(key, "")) for key in ("scientific", "common")}
    ranks = tuple(str(rank) for rank in name.get("taxonomy", ()))
    return Species(str(name["key"]), **texts, taxonomy=ranks, group=str(name.get("group", "all")))


def _members(path: Path) -> dict[str, dict[str, PieceContent]]:
    """Members of a tar by key and suffix."""
    found: dict[str, dict[str, PieceContent]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                folder, slash, last = member.name.rpartition("/")
                stem, _, suffix = last.partition(".")
                key = folder + slash + stem
                if member.isfile():
                    piece = PieceContent(path, member.name, member.offset_data, member.size)
                    found.setdefault(key, {})[suffix.lower()] = piece
    except (OSError, tarfile.TarError) as error:
        raise DatasetError(f"{path}: expected a tar of a webdataset, found: {error}") from error
    return found


def pack(dataset: Dataset, folder: Path, per_shard: int = PER_SHARD) -> list[Path]:
    """Write a data set as shards of `per_shard` items; shards that are there already are kept, so that a run can go on.

    Raises DatasetError for a folder with shards of another data set, for queries (shards have none), and for what cannot be read.
    """
    import webdataset

    if dataset.queries:
        raise DatasetError(
            f"pack {dataset.name}: expected items of species, found queries, which shards cannot carry"
        )
    folder.mkdir(parents=True, exist_ok=True)
    _require_same(dataset, folder, per_shard)
    written = []
    n_shards = -(-len(dataset.items) // per_shard)
    with tqdm(total=len(dataset.items), desc="pack", unit="item", disable=None) as bar:
        for shard in range(n_shards):
            path = folder / f"shards-{shard:06d}.tar"
            items = dataset.items[shard * per_shard : (shard + 1) * per_shard]
            if not path.is_file():
                temporary = path.with_suffix(".partial")
                with webdataset.TarWriter(str(temporary), encoder=False, mtime=0.0) as writer:
                    for place, item in enumerate(items):
                        writer.write(_sample(dataset, item, shard * per_shard + place))
                with temporary.open("rb") as stream:
                    os.fsync(stream.fileno())
                temporary.replace(path)
            written.append(path)
            bar.update(len(items))
    return written


def _require_same(dataset: Dataset, folder: Path, per_shard: int) -> None:
    """Write down of what the shards are, or compare it with what is written down."""
    digest = hashlib.sha256()
    for item in dataset.items:
        digest.update(f"{item.content.name}\t{item.species}\t{item.start_s}\t{item.duration_s}\n".encode())
    told = {"name": dataset.name, "n_items": len(dataset.items), "per_shard": per_shard}
    told["items_sha256"] = digest.hexdigest()
    file = folder / "pack.json"
    if not file.is_file():
        if any(folder.glob("shards-*.tar")):
            raise DatasetError(f"{folder}: expected an empty folder, found shards without pack.json")
        write_file(file, (json.dumps(told, indent=2) + "\n").encode())
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"a {type(found).__name__}")
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{file}: expected the JSON object that says what the shards beside it are of, found: {error}; "
            "remove it together with the shards, or give another folder"
        ) from error
    if found != told:
        raise DatasetError(
            f"{file}: expected shards of {dataset.name}, {told['n_items']} items, {per_shard} in each, found those of "
            f"{found.get('name')}, {found.get('n_items')} items, {found.get('per_shard')} in each; give another folder"
        )


def _sample(dataset: Dataset, item: Item, number: int) -> dict[str, Any]:
    content = item.content.read()
    note: dict[str, Any] = {"species": list(item.species), "group": item.group}
    note |= {"start_s": item.start_s, "duration_s": item.duration_s}
    note["names"] = [
        {
            "key": s.key,
            "scientific": s.scientific,
            "common": s.common,
            "taxonomy": list(s.taxonomy),
            "group": s.group,
        }
        for s in (dataset.species[key] for key in item.species)
    ]
    return {
        "__key__": f"{number:09d}",
        _suffix(content, dataset.modality): content,
        "json": json.dumps(note).encode(),
    }


def _suffix(content: bytes, modality: str) -> str:
    """File type by the first bytes; what is not known is named after the commonest type, readers look at the bytes anyway."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    known: Mapping[bytes, str] = {
        b"RIFF": "wav",
        b"fLaC": "flac",
        b"OggS": "ogg",
        b"\xff\xd8\xff": "jpg",
        b"\x89PNG": "png",
        b"BM": "bmp",
        b"II*": "tif",
        b"MM\0*": "tif",
        b"FORM": "aiff",
    }
    for start, suffix in known.items():
        if content.startswith(start):
            return suffix
    return "mp3" if modality == "audio" else "jpg"
