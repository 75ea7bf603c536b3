"""Data sets in the formats that they are published in: each file is made here as its page describes it."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from PIL import Image

from train.__main__ import main
from train.data import DataError
from train.datasets import DatasetError, Species, load_audio, load_image, open_dataset, pack, prompts_of
from train.datasets.prompts import draw_prompt

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


@pytest.mark.parametrize("kind", ["inat21", "inat24"])
def test_inat_pictures(tmp_path, kind):
    data = open_dataset(f"{kind}:{inat21(tmp_path)}")
    assert (data.name, data.modality, len(data.items)) == ("train_mini", "image", 3)
    assert [item.species for item in data.items] == [("0",), ("1",), ("0",)]
    assert [item.group for item in data.items] == ["Birds", "Plants", "Birds"]
    taxonomy = ("Animalia", "Chordata", "Aves", "Strigiformes", "Strigidae", "Strix", "aluco")
    assert data.species["0"] == Species("0", "Strix aluco", "Tawny Owl", taxonomy, "Birds")
    picture = load_image(data.items[1])
    assert (picture.mode, picture.size) == ("RGB", (12, 8))
    assert picture.getpixel((3, 3))[1] > 200


def test_inat_pictures_elsewhere(tmp_path):
    file = inat21(tmp_path)
    moved = tmp_path / "notes" / "x.json"
    moved.parent.mkdir()
    file.rename(moved)
    assert load_image(open_dataset(f"inat21:{moved}?root={tmp_path}").items[0]).size == (12, 8)
    with pytest.raises(DatasetError, match=r"notes/train_mini/.*0\.jpg: expected a file of the data set"):
        load_image(open_dataset(f"inat21:{moved}").items[0])


def test_inat_files_that_are_wrong(tmp_path):
    file = inat21(tmp_path)
    good = json.loads(file.read_text())

    def refused(message: str, **parts: object) -> None:
        file.write_text(json.dumps({**good, **parts}))
        with pytest.raises(DatasetError, match=message):
            open_dataset(f"inat21:{file}")

    refused("annotation 10: expected a listed image .*, found 99 and 0", annotations=[
        {"id": 10, "image_id": 99, "category_id": 0}
    ])  # fmt: skip
    refused("annotation 3: expected the key category_id, found id, image_id", annotations=[
        {"id": 3, "image_id": 10}
    ])  # fmt: skip
    refused("category 0: expected the key name, found id", categories=[{"id": 0}])
    refused("expected the lists images, .*, found no images among info", images=7)
    refused("expected items, found none", annotations=[])
    del good["annotations"]  # as the test set is published
    refused("found no annotations among info, licenses, images, categories")
    file.write_text("{")
    with pytest.raises(DatasetError, match=r"train_mini\.json: expected JSON, found"):
        open_dataset(f"inat21:{file}")
    with pytest.raises(DatasetError, match="expected the JSON of the data set, found No such file"):
        open_dataset(f"inat21:{tmp_path}/none.json")


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


def test_inatsounds(tmp_path):
    inatsounds(tmp_path)
    data = open_dataset(f"inatsounds:{tmp_path}?split=val")
    assert (data.modality, [i.species for i in data.items]) == ("audio", [("0",), ("7",)])
    assert [i.group for i in data.items] == ["Aves", "Amphibia"]
    assert open_dataset(f"inatsounds:{tmp_path}/val.json").items == data.items
    samples = load_audio(data.items[0], 48_000)
    assert (samples.dtype, len(samples)) == (np.float32, 48_000)
    queried = open_dataset(f"inatsounds:{tmp_path}?split=val&evaluation=1")
    assert list(queried.species) == ["0"]
    assert [i.species for i in queried.items] == [("0",)]
    with pytest.raises(DatasetError, match=r"train\.json: expected the JSON"):
        open_dataset(f"inatsounds:{tmp_path}")
    found = json.loads((tmp_path / "val.json").read_text())
    del found["categories"][1]["evaluation"]
    (tmp_path / "val.json").write_text(json.dumps(found))
    with pytest.raises(DatasetError, match="category 7: expected the key evaluation"):
        open_dataset(f"inatsounds:{tmp_path}?split=val&evaluation=1")
    found["annotations"][0]["audio_id"] = 1
    (tmp_path / "val.json").write_text(json.dumps(found))
    with pytest.raises(DatasetError, match="annotation 0: expected a listed recording .*, found 1 and 0"):
        open_dataset(f"inatsounds:{tmp_path}?split=val")


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


@pytest.mark.parametrize(
    "feature",
    [{"feature": CLASSES, "_type": "Sequence"}, {"feature": CLASSES, "_type": "List"}, [CLASSES]],
)
def test_birdset_with_audio_inside(tmp_path, feature):
    birdset_with_audio(tmp_path, feature)
    data = open_dataset(f"birdset:{tmp_path}/HSN")
    assert [i.species for i in data.items] == [("gcrfin", "amepip"), (), ("whcspa",)]
    assert set(data.species) == set(CODES)
    assert data.species["amepip"].scientific == "amepip"
    assert (data.modality, {i.group for i in data.items}) == ("audio", {"Aves"})
    assert [len(load_audio(i, 32_000)) for i in data.items] == [32_000] * 3  # files are windows already
    assert data.items[2].content.name.endswith("row group 1, row 0")


def test_birdset_splits_are_told_apart(tmp_path):
    feature = {"feature": CLASSES, "_type": "Sequence"}
    birdset_with_audio(tmp_path, feature)
    birdset_with_audio(tmp_path, feature, "test", labels=((1,), (1,), (2,)))
    assert open_dataset(f"birdset:{tmp_path}/HSN").items[0].species == ("gcrfin", "amepip")
    events = open_dataset(f"birdset:{tmp_path}/HSN?split=test").items
    assert [i.species for i in events] == [("whcspa",), ("whcspa",), ("amepip",)]
    assert (events[2].start_s, events[2].duration_s) == (0.25, 0.5)
    assert len(load_audio(events[2], 16_000)) == 8_000
    with pytest.raises(DatasetError, match="the split train .*, found test-00000-of-00001.parquet, test_5s"):
        open_dataset(f"birdset:{tmp_path}/HSN?split=train")


def test_birdset_as_it_is_published(tmp_path):
    """Metadata with eBird codes; the recordings beside it, unpacked."""
    name = "HSN_001_20150708_061805_000_005.ogg"
    table = pyarrow.table({"ebird_code_multilabel": [["gcrfin"], []], "filepath": [name, f"x/{name}"]})
    pyarrow.parquet.write_table(table, tmp_path / "HSN_metadata_test_5s.parquet")
    pyarrow.parquet.write_table(table, tmp_path / "HSN_metadata_test.parquet")
    with pytest.raises(
        DatasetError, match=rf"expected the recording {name} in .*; unpack the \*_test5s_shard"
    ):
        open_dataset(f"birdset:{tmp_path}")
    (tmp_path / "test5s").mkdir()
    (tmp_path / "test5s" / name).write_bytes(sound_bytes())
    data = open_dataset(f"birdset:{tmp_path}")
    assert [i.species for i in data.items] == [("gcrfin",), ()]
    assert len(load_audio(data.items[1], 8_000)) == 8_000


EBIRD = {
    "2021": "TAXON_ORDER,CATEGORY,SPECIES_CODE,PRIMARY_COM_NAME,SCI_NAME,ORDER1,FAMILY,SPECIES_GROUP,REPORT_AS",
    "2024": "TAXON_ORDER,CATEGORY,SPECIES_CODE,TAXON_CONCEPT_ID,PRIMARY_COM_NAME,SCI_NAME,ORDER,FAMILY,SPECIES_GROUP",
    "api": "SCIENTIFIC_NAME,COMMON_NAME,SPECIES_CODE,CATEGORY,TAXON_ORDER",
}
PIPIT = {
    "SPECIES_CODE": "amepip",
    "PRIMARY_COM_NAME": "American Pipit",
    "COMMON_NAME": "American Pipit",
    "SCI_NAME": "Anthus rubescens",
    "SCIENTIFIC_NAME": "Anthus rubescens",
    "ORDER": "Passeriformes",
    "ORDER1": "Passeriformes",
    "FAMILY": "Motacillidae (Wagtails and Pipits)",
}


def write_ebird(file: Path, year: str, *codes: str) -> None:
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, EBIRD[year].split(","), extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**PIPIT, "SPECIES_CODE": code} for code in codes)


@pytest.mark.parametrize("year", EBIRD)
def test_ebird_names_birds(tmp_path, year):
    birdset_with_audio(tmp_path, {"feature": CLASSES, "_type": "Sequence"})
    taxonomy = tmp_path / "ebird.csv"
    write_ebird(taxonomy, year, *CODES)
    pipit = open_dataset(f"birdset:{tmp_path}/HSN?taxonomy={taxonomy}").species["amepip"]
    assert (pipit.scientific, pipit.common) == ("Anthus rubescens", "American Pipit")
    ranks = ("Animalia", "Chordata", "Aves", "Passeriformes", "Motacillidae", "Anthus", "rubescens")
    assert pipit.taxonomy == (() if year == "api" else ranks)
    write_ebird(taxonomy, year, *CODES[:2])
    with pytest.raises(DatasetError, match=r"ebird\.csv: expected the eBird code amepip, found none; .*2021"):
        open_dataset(f"birdset:{tmp_path}/HSN?taxonomy={taxonomy}")
    taxonomy.write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="expected the columns SPECIES_CODE, .*, found a, b"):
        open_dataset(f"birdset:{tmp_path}/HSN?taxonomy={taxonomy}")
    with pytest.raises(DatasetError, match="expected a taxonomy in CSV"):
        open_dataset(f"birdset:{tmp_path}/HSN?taxonomy={tmp_path}/none.csv")


def test_birdset_files_that_are_wrong(tmp_path):
    with pytest.raises(DatasetError, match=r"split test_5s \(test_5s-\*\.parquet\), found none"):
        open_dataset(f"birdset:{tmp_path}/HSN")
    file = birdset_with_audio(tmp_path, None)
    with pytest.raises(DatasetError, match="expected eBird codes or numbers with names .*, found 0"):
        open_dataset(f"birdset:{file}")
    file = birdset_with_audio(tmp_path, [{"names": ["gcrfin"]}])
    with pytest.raises(DatasetError, match="names in the schema, found 2"):
        open_dataset(f"birdset:{file}")
    file.write_bytes(b"no parquet")
    with pytest.raises(DatasetError, match="expected a parquet file, found"):
        open_dataset(f"birdset:{file}")
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), file)
    with pytest.raises(DatasetError, match=r"found no ebird_code_multilabel among x"):
        open_dataset(f"birdset:{file}")


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


def test_inquire_rerank(tmp_path):
    inquire_rerank(tmp_path, "test", ("an owl eating a mouse", "a bird with a ring"))
    inquire_rerank(tmp_path, "validation", ("a nest",))
    data = open_dataset(f"inquire:{tmp_path}")
    assert [q.text for q in data.queries] == ["an owl eating a mouse", "a bird with a ring"]
    assert len(data.items) == 3  # the same pictures under both
    assert data.queries[0].relevant == {1}
    assert data.queries[1].candidates == {0, 1, 2}
    assert (data.modality, data.queries[0].group, data.items[0].species) == ("image", "Birds", ())
    assert abs(load_image(data.items[2]).getpixel((2, 2))[0] - 160) < 4
    assert [q.text for q in open_dataset(f"inquire:{tmp_path}?split=validation").queries] == ["a nest"]
    pyarrow.parquet.write_table(pyarrow.table({"query": ["x"]}), tmp_path / "bad.parquet")
    with pytest.raises(DatasetError, match="found no relevant among query"):
        open_dataset(f"inquire:{tmp_path}/bad.parquet")


def folder_csv(folder: Path, *rows: str, header: str = "file,label,scientific_name,group,split") -> Path:
    for name in ("a.wav", "b.flac"):
        (folder / name).write_bytes(sound_bytes(2.0, 8000, {"a.wav": "WAV", "b.flac": "FLAC"}[name]))
    file = folder / "labels.csv"
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8-sig")
    return file


def test_a_folder_with_a_csv(tmp_path):
    rows = ("a.wav,Tawny Owl,Strix aluco,Birds,train", "b.flac,,,,train", "b.flac,rain,,weather,test")
    file = folder_csv(tmp_path, *rows)
    data = open_dataset(f"folder:{file}")
    assert [i.species for i in data.items] == [("Tawny Owl",), (), ("rain",)]
    assert [i.group for i in data.items] == ["Birds", "all", "weather"]
    assert data.species["Tawny Owl"] == Species("Tawny Owl", "Strix aluco", "Tawny Owl", (), "Birds")
    assert [i.species for i in open_dataset(f"folder:{file}?split=test").items] == [("rain",)]
    assert len(load_audio(data.items[1], 16_000)) == 32_000


def test_parts_of_recordings(tmp_path):
    file = folder_csv(
        tmp_path, "a.wav,x,0.5,1", "a.wav,x,1.5,9", "a.wav,x,3,1", header="file,label,start_s,duration_s"
    )
    parts = open_dataset(f"folder:{file}").items
    assert len(load_audio(parts[0], 8000)) == 8000
    assert len(load_audio(parts[1], 8000)) == 4000  # to the end
    whole = load_audio(open_dataset(f"folder:{folder_csv(tmp_path, 'a.wav,x,,,')}").items[0], 8000)
    file = folder_csv(tmp_path, "a.wav,x,0.5,1", header="file,label,start_s,duration_s")
    np.testing.assert_array_equal(
        load_audio(open_dataset(f"folder:{file}").items[0], 8000), whole[4000:12000]
    )
    with pytest.raises(DatasetError, match=r"a\.wav: expected sound, found none from 3\.0 s on"):
        load_audio(parts[2], 8000)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ((), "file,label", r"labels\.csv: expected a CSV with the columns file and label, found no rows"),
        (("a.wav,x",), "path,label", "found path, label"),
        (("a.wav,x", "c.jpg,x"), "file,label", "found both; make a CSV of each"),
        (
            ("a.wav,x", "notes.txt,x"),
            "file,label",
            r"labels\.csv:3: expected a recording .*, found notes\.txt",
        ),
        (("a.wav,x,soon",), "file,label,start_s", r"csv:2: expected seconds in start_s, found 'soon'"),
        (("a.wav,x,-1",), "file,label,start_s", "expected seconds in start_s, found '-1'"),
        (("a.wav,x,nan",), "file,label,duration_s", "expected seconds in duration_s, found 'nan'"),
    ],
)
def test_a_csv_that_is_wrong(tmp_path, rows, header, message):
    file = folder_csv(tmp_path, *rows, header=header)
    with pytest.raises(DatasetError, match=message):
        open_dataset(f"folder:{file}")


def test_lines_are_counted_in_the_file_and_splits_are_told(tmp_path):
    file = folder_csv(tmp_path, "a.wav,x,train", "notes.txt,x,test", header="file,label,split")
    with pytest.raises(DatasetError, match=r"labels\.csv:3: expected a recording"):
        open_dataset(f"folder:{file}?split=test")
    with pytest.raises(DatasetError, match="expected rows of split val, found the splits test, train"):
        open_dataset(f"folder:{file}?split=val")


def test_what_is_no_sound_and_no_picture(tmp_path):
    file = folder_csv(tmp_path, "a.wav,x,,,")
    (tmp_path / "a.wav").write_text("nothing")
    with pytest.raises(DatasetError, match=r"a\.wav: expected sound, found"):
        load_audio(open_dataset(f"folder:{file}").items[0], 8000)
    file = folder_csv(tmp_path, "a.jpg,x,,,")
    (tmp_path / "a.jpg").write_bytes(picture_bytes((1, 2, 3))[:300])
    with pytest.raises(DatasetError, match=r"a\.jpg: expected a picture, found"):
        load_image(open_dataset(f"folder:{file}").items[0])


def test_the_projects_own_recordings(tmp_path):
    folder = tmp_path / "esc10"
    folder.mkdir()
    rows = [f"{n}.wav,rain,,fold{1 + n % 4},,,,CC0" for n in range(8)]
    (folder / "labels.csv").write_text(
        "\n".join(["file,label,scientific_name,split,source,author,note,licence", *rows]) + "\n"
    )
    for n in range(8):
        (folder / f"{n}.wav").write_bytes(sound_bytes(0.1, 8000, "WAV"))
    train = open_dataset(f"fieldcube:{tmp_path}")
    validation = open_dataset(f"fieldcube:{tmp_path}?sets=esc10&split=validation&fold=1")
    assert (len(train.items), len(validation.items)) == (6, 2)  # ESC-10's fold 4 never trains
    assert next(iter(train.species.values())).common == "rain"
    for options, message in (("split=test", "found 'test'"), ("fold=5", "fold=0 to fold=4, found '5'")):
        with pytest.raises(DatasetError, match=message):
            open_dataset(f"fieldcube:{tmp_path}?{options}")
    with pytest.raises(DataError, match="expected the folder of the data sets"):
        open_dataset(f"fieldcube:{tmp_path}/none")


def test_shards_hold_the_same_as_the_data_set(tmp_path):
    data = open_dataset(f"inat21:{inat21(tmp_path)}")
    shards = pack(data, tmp_path / "out", per_shard=2)
    assert [s.name for s in shards] == ["shards-000000.tar", "shards-000001.tar"]
    again = open_dataset(f"webdataset:{tmp_path}/out/shards-{{000000..000001}}.tar")
    assert again.species == data.species
    assert [(i.species, i.group) for i in again.items] == [(i.species, i.group) for i in data.items]
    assert [i.content.read() for i in again.items] == [i.content.read() for i in data.items]
    before = shards[0].read_bytes()
    shards[1].unlink()
    pack(data, tmp_path / "out", per_shard=2)  # goes on
    assert shards[0].read_bytes() == before
    assert len(open_dataset(f"webdataset:{shards[1]}").items) == 1
    pack(data, tmp_path / "other", per_shard=2)
    assert (tmp_path / "other" / shards[0].name).read_bytes() == before  # no time of day in them


def test_shards_are_read_by_the_webdataset_library(tmp_path):
    from webdataset.tariterators import group_by_keys, tar_file_expander

    inatsounds(tmp_path)
    data = open_dataset(f"inatsounds:{tmp_path}?split=val")
    shards = pack(data, tmp_path / "out")
    with shards[0].open("rb") as stream:
        found = list(group_by_keys(tar_file_expander([{"url": str(shards[0]), "stream": stream}])))
    assert [each["__key__"] for each in found] == ["000000000", "000000001"]
    assert json.loads(found[1]["json"])["species"] == ["7"]
    assert [each["wav"] for each in found] == [item.content.read() for item in data.items]


def test_parts_keep_their_times_in_shards(tmp_path):
    file = folder_csv(tmp_path, "b.flac,x,0.5,1", header="file,label,start_s,duration_s")
    (shard,) = pack(open_dataset(f"folder:{file}"), tmp_path / "out")
    (item,) = open_dataset(f"webdataset:{shard}").items
    assert (item.start_s, item.duration_s) == (0.5, 1.0)
    assert item.content.name.endswith(".flac")


def test_packing_refuses_what_shards_cannot_hold(tmp_path):
    inquire_rerank(tmp_path, "test", ("a nest",))
    with pytest.raises(DatasetError, match="found queries, which shards cannot carry"):
        pack(open_dataset(f"inquire:{tmp_path}"), tmp_path / "out")
    data = open_dataset(f"inat21:{inat21(tmp_path)}")
    pack(data, tmp_path / "out", per_shard=2)
    with pytest.raises(DatasetError, match="3 items, 3 in each, found those of train_mini, 3 items, 2 in"):
        pack(data, tmp_path / "out", per_shard=3)
    (tmp_path / "out" / "pack.json").unlink()
    with pytest.raises(DatasetError, match=r"found shards without pack\.json"):
        pack(data, tmp_path / "out", per_shard=2)


@pytest.mark.parametrize(
    ("kind", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif"), ("BMP", "bmp")]
)
def test_a_packed_picture_is_named_after_what_it_is(tmp_path, kind, suffix):
    (tmp_path / "x.jpg").write_bytes(picture_bytes((9, 9, 9), kind))
    (shard,) = pack(open_dataset(f"folder:{folder_csv(tmp_path, 'x.jpg,x,,,')}"), tmp_path / "out")
    data = open_dataset(f"webdataset:{shard}")
    assert data.modality == "image"
    assert data.items[0].content.name.endswith(f".{suffix}")
    assert load_image(data.items[0]).size == (12, 8)


def write_tar(file: Path, **members: bytes) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name.replace("__", "."))
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file


def test_shards_that_are_wrong(tmp_path):
    picture, shard = picture_bytes((1, 1, 1)), tmp_path / "x.tar"

    def refused(message: str) -> None:
        with pytest.raises(DatasetError, match=message):
            open_dataset(f"webdataset:{shard}")

    refused(r"x\.tar: expected a tar of a webdataset, found: .*No such file")
    shard.write_bytes(b"no tar" * 200)
    refused("expected a tar of a webdataset")
    write_tar(shard, k__jpg=picture)
    refused(r"expected k\.json and one recording or picture, found jpg")
    write_tar(shard, k__json=b"{}")
    refused("one recording or picture, found neither")
    write_tar(shard, k__jpg=picture, k__json=b"{")
    refused(r"x\.tar:k\.json: expected JSON, found")
    for note in (b"[]", b"{}", b'{"species": [], "names": [1]}'):
        write_tar(shard, k__jpg=picture, k__json=note)
        refused(r"x\.tar:k\.json: expected the lists species and names")
    write_tar(shard, k__jpg=picture, k__json=b'{"species": ["a"], "names": []}')
    refused("expected a species for every item, found none for 'a'")
    good = b'{"species": [], "names": []}'
    write_tar(shard, k__jpg=picture, k__json=good, s__wav=sound_bytes(kind="WAV"), s__json=good)
    refused("expected recordings or pictures, found both")


def test_keys_in_folders_with_dots_and_a_shard_that_was_cut(tmp_path):
    shard, note = tmp_path / "x.tar", b'{"species": [], "names": []}'
    write_tar(
        shard,
        **{"v1__2/a__json": note, "v1__2/a__JPG": picture_bytes((1, 1, 1)), "v1__2/b__json": note}
        | {"v1__2/b__jpg": picture_bytes((2, 2, 2))},
    )
    data = open_dataset(f"webdataset:{shard}")
    assert [i.content.name.rsplit(":", 1)[1] for i in data.items] == ["v1.2/a.JPG", "v1.2/b.jpg"]
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(DatasetError, match="bytes, found .*; the file was cut"):
        load_image(data.items[1])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("inat22:/x", "expected KIND:PATH with one of inat21, .*, webdataset, found 'inat22'"),
        ("inat21:", "expected KIND:PATH"),
        ("birdset:/x?fold=1", "expected the options split, taxonomy, found 'fold'"),
    ],
)
def test_a_spec_that_is_wrong(spec, message):
    with pytest.raises(DatasetError, match=message):
        open_dataset(spec)


def test_sentences_of_a_species():
    owl = Species("0", "Strix aluco", "Tawny Owl", ("Animalia", "", "Aves", "Strix", "aluco"), "Birds")
    assert prompts_of(owl) == (
        "Strix aluco",
        "Tawny Owl",
        "Animalia Aves Strix aluco",
        "Strix aluco with common name Tawny Owl",
        "Animalia Aves Strix aluco with common name Tawny Owl",
    )
    assert prompts_of(owl, ("common",)) == ("Tawny Owl",)
    assert prompts_of(Species("rain", "", "rain", (), "all")) == ("rain",)
    assert prompts_of(Species("gcrfin", "", "", (), "Aves")) == ("gcrfin",)
    random = np.random.default_rng(0)
    assert {draw_prompt(owl, random) for _ in range(60)} == set(prompts_of(owl))


def test_the_command_packs_and_says_what_opens_it(tmp_path, capsys):
    source = f"inat21:{inat21(tmp_path)}"
    out = tmp_path / "shards"
    assert main(["pack", "--dataset", source, "--out", str(out), "--per-shard", "2"]) == 0
    spec = capsys.readouterr().out.splitlines()[-1]
    assert len(open_dataset(spec).items) == 3
    assert main(["pack", "--dataset", source, "--out", str(out), "--per-shard", "0"]) == 2
    assert main(["pack", "--dataset", "inat22:/x", "--out", str(out)]) == 1
    assert "expected KIND:PATH" in capsys.readouterr().err
