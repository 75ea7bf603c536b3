"""Tiny data sets in the formats that they are published in, as their pages describe them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import soundfile
from PIL import Image

OWL = {
    "id": 0,
    "name": "Strix aluco",
    "common_name": "Tawny Owl",
    "supercategory": "Birds",
    "kingdom": "Animalia",
    "phylum": "Chordata",
    "class": "Aves",
    "order": "Strigiformes",
    "family": "Strigidae",
    "genus": "Strix",
    "specific_epithet": "aluco",
    "image_dir_name": "00000_Animalia_Chordata_Aves_Strigiformes_Strigidae_Strix_aluco",
}
TREE = {**OWL, "id": 1, "name": "Quercus robur", "common_name": "English Oak", "supercategory": "Plants"}
TREE |= {"kingdom": "Plantae", "phylum": "Tracheophyta", "class": "Magnoliopsida", "order": "Fagales"}
TREE |= {"family": "Fagaceae", "genus": "Quercus", "specific_epithet": "robur"}
INFO = {"year": 2021, "version": "1", "description": "", "contributor": "", "url": "", "date_created": ""}


def sound_bytes(seconds: float = 1.0, rate_hz: int = 32_000, kind: str = "OGG") -> bytes:
    stream = io.BytesIO()
    samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate_hz)) / rate_hz)
    soundfile.write(stream, samples, rate_hz, format=kind)
    return stream.getvalue()


def picture_bytes(colour: tuple[int, int, int], kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (12, 8), colour).save(stream, kind)
    return stream.getvalue()


def write_json(file: Path, **parts: object) -> Path:
    file.write_text(json.dumps({"info": INFO, "licenses": [{"id": 0, "name": "CC", "url": ""}], **parts}))
    return file


def inat21(folder: Path) -> Path:
    place = {"license": 0, "rights_holder": "a", "date": "2020-01-01 12:00:00+00:00"}
    place |= {"latitude": 1.5, "longitude": float("nan"), "location_uncertainty": None}
    images = [
        {"id": 10 + n, "width": 12, "height": 8, "file_name": f"train_mini/{c['image_dir_name']}/{n}.jpg"}
        | place
        for n, c in enumerate((OWL, TREE, OWL))
    ]
    for image, colour in zip(images, [(250, 0, 0), (0, 250, 0), (0, 0, 250)], strict=True):
        file = folder / image["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture_bytes(colour))
    annotations = [{"id": 10 + n, "image_id": 10 + n, "category_id": c} for n, c in enumerate((0, 1, 0))]
    return write_json(
        folder / "train_mini.json", images=images, annotations=annotations, categories=[OWL, TREE]
    )


def inatsounds(folder: Path) -> None:
    frog = {**OWL, "id": 7, "name": "Hyla arborea", "common_name": "European Tree Frog"}
    categories = [
        {**OWL, "supercategory": "Aves", "audio_dir_name": "0_owl", "evaluation": 1},
        {**frog, "supercategory": "Amphibia", "audio_dir_name": "7_frog", "evaluation": 0},
    ]
    for category in categories:
        del category["image_dir_name"]
    audio = [
        {"id": 5 + n, "duration": 1.0, "file_name": f"val/{c['audio_dir_name']}/{n}.wav", "license": 0}
        | {"rights_holder": "a", "date": "2020", "latitude": 1.0, "longitude": 2.0}
        | {"location_uncertainty": float("nan")}
        for n, c in enumerate(categories)
    ]
    for each in audio:
        (folder / each["file_name"]).parent.mkdir(parents=True)
        (folder / each["file_name"]).write_bytes(sound_bytes(rate_hz=22_050, kind="WAV"))
    annotations = [{"id": n, "audio_id": 5 + n, "category_id": c} for n, c in enumerate((0, 7))]
    write_json(folder / "val.json", audio=audio, categories=categories, annotations=annotations)


CODES = ["gcrfin", "whcspa", "amepip"]
MEDIA = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def birdset_with_audio(folder: Path, feature: object, split: str = "test_5s", labels=((0, 2), (), (1,))):
    """As the hub's library writes a copy (mteb/BirdSet): audio inside, numbers with names in the schema."""
    columns = {
        "audio": pyarrow.array([{"bytes": sound_bytes(), "path": f"{n}.ogg"} for n in range(3)], MEDIA),
        "filepath": [f"HSN_001_20150708_061805_{5 * n:03}_{5 * n + 5:03}.ogg" for n in range(3)],
        "start_time": [0.0, 0.0, 0.25],
        "end_time": [1.0, 1.0, 0.75],
        "ebird_code": pyarrow.array([None, None, None], pyarrow.int64()),
        "ebird_code_multilabel": pyarrow.array(
            [list(each) for each in labels], pyarrow.list_(pyarrow.int64())
        ),
    }
    table = pyarrow.table(columns)
    if feature is not None:
        features = {"audio": {"sampling_rate": 32000, "_type": "Audio"}, "ebird_code_multilabel": feature}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file = folder / "HSN" / f"{split}-00000-of-00001.parquet"
    file.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(table, file, row_group_size=2)
    return file


CLASSES = {"names": CODES, "_type": "ClassLabel"}


def inquire_rerank(folder: Path, split: str, queries: tuple[str, ...]) -> None:
    rows = [(q, n, n % 2) for q in queries for n in range(3)]
    table = pyarrow.table(
        {
            "image": pyarrow.array(
                [{"bytes": picture_bytes((80 * n, 0, 0)), "path": f"{n}.jpg"} for _, n, _ in rows], MEDIA
            ),
            "query": [q for q, _, _ in rows],
            "relevant": [r for _, _, r in rows],
            "clip_score": [0.3] * len(rows),
            "inat24_image_id": [1000 + n for _, n, _ in rows],
            "inat24_file_name": [f"train/{n}.jpg" for _, n, _ in rows],
            "supercategory": ["Behavior"] * len(rows),
            "category": ["Feeding"] * len(rows),
            "iconic_group": ["Birds"] * len(rows),
            "inat24_species_id": [4] * len(rows),
            "inat24_species_name": ["Strix aluco"] * len(rows),
        }
    )
    (folder / "data").mkdir(exist_ok=True)
    pyarrow.parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet", row_group_size=4)


def folder_csv(folder: Path, *rows: str, header: str = "file,label,scientific_name,group,split") -> Path:
    for name in ("a.wav", "b.flac"):
        (folder / name).write_bytes(sound_bytes(2.0, 8000, {"a.wav": "WAV", "b.flac": "FLAC"}[name]))
    file = folder / "labels.csv"
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8-sig")
    return file
