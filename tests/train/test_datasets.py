"""Data sets of iNaturalist, folders and the project's own recordings, and the sentences of their species."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.train.published import folder_csv, inat21, inatsounds, picture_bytes, sound_bytes
from train.data import DataError
from train.datasets import DatasetError, Species, load_audio, load_image, open_dataset, prompts_of
from train.datasets.prompts import draw_prompt


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
    file.write_text("[" * 100_000)
    with pytest.raises(DatasetError, match=r"train_mini\.json: expected JSON, found.*; fetch the file again"):
        open_dataset(f"inat21:{file}")
    with pytest.raises(DatasetError, match="expected the JSON of the data set, found No such file"):
        open_dataset(f"inat21:{tmp_path}/none.json")


@pytest.mark.parametrize(
    ("kind", "part", "key", "value", "message"),
    [
        ("inat21", "images", None, 5, r"train_mini\.json, images\[0\]: expected an object, found 5"),
        ("inat21", "annotations", None, None, r"annotations\[0\]: expected an object, found None"),
        ("inat21", "categories", None, "owl", r"categories\[0\]: expected an object, found 'owl'"),
        ("inat21", "images", "id", [10], r"images\[0\]: expected a whole number in id, found \[10\]"),
        ("inat21", "images", "file_name", None, r"images\[0\]: expected a text in file_name, found None"),
        ("inat21", "annotations", "image_id", {}, r"annotation 10: expected a whole number in image_id"),
        ("inat21", "annotations", "category_id", 0.5, "a whole number in category_id, found 0.5; fetch the"),
        ("inat21", "categories", "id", True, "category True: expected a whole number in id, found True"),
        ("inat21", "categories", "name", 3, "category 0: expected a text in name, found 3"),
        ("inatsounds", "audio", None, [], r"val\.json, audio\[0\]: expected an object, found \[\]"),
        ("inatsounds", "audio", "id", {"a": 1}, r"audio\[0\]: expected a whole number in id"),
        ("inatsounds", "audio", "file_name", 7, r"audio\[0\]: expected a text in file_name, found 7"),
        ("inatsounds", "annotations", "audio_id", [5], "annotation 0: expected a whole number in audio_id"),
        ("inatsounds", "categories", "evaluation", "no", "category 0: expected 0 or 1 in evaluation, found 'no'"),
        ("inatsounds", "categories", "evaluation", None, "expected 0 or 1 in evaluation, found None; fetch the"),
    ],
)  # fmt: skip
def test_damaged_values_of_inaturalist_are_told(tmp_path, kind, part, key, value, message):
    inatsounds(tmp_path)
    file = inat21(tmp_path) if kind == "inat21" else tmp_path / "val.json"
    root = json.loads(file.read_text())
    if key is None:
        root[part][0] = value
    else:
        root[part][0][key] = value
    file.write_text(json.dumps(root))
    with pytest.raises(DatasetError, match=message):
        open_dataset(f"inat21:{file}" if kind == "inat21" else f"inatsounds:{file}?evaluation=1")


def test_a_name_that_no_file_can_have(tmp_path):
    file = inat21(tmp_path)
    root = json.loads(file.read_text())
    root["images"][0]["file_name"] = "a\0.jpg"
    file.write_text(json.dumps(root))
    with pytest.raises(DatasetError, match="expected a file of the data set, found embedded null byte"):
        load_image(open_dataset(f"inat21:{file}").items[0])


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
