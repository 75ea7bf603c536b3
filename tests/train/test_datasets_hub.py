"""Parquet files of the hub: BirdSet in its three layouts, with eBird's names, and INQUIRE-Rerank."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tests.train.published import CLASSES, CODES, birdset_with_audio, inquire_rerank, sound_bytes
from train.datasets import DatasetError, load_audio, load_image, open_dataset


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
    "api": "SCIENTIFIC_NAME,COMMON_NAME,SPECIES_CODE,CATEGORY,TAXON_ORDER,COM_NAME_CODES,SCI_NAME_CODES,BANDING_CODES,ORDER,FAMILY_COM_NAME,FAMILY_SCI_NAME",
    "names alone": "SCIENTIFIC_NAME,COMMON_NAME,SPECIES_CODE",
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
    "FAMILY_COM_NAME": "Wagtails and Pipits",
    "FAMILY_SCI_NAME": "Motacillidae",
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
    assert pipit.taxonomy == (() if year == "names alone" else ranks)
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


def test_damaged_metadata_of_the_hub(tmp_path):
    file = birdset_with_audio(tmp_path, {"feature": CLASSES})
    table = pyarrow.parquet.read_table(file)
    for note, message in (
        (b"{", "expected JSON in the schema's metadata under huggingface, found"),
        (b"[1]", "expected eBird codes or numbers with names in the schema, found 0"),
        (b'{"info": {"features": []}}', "numbers with names in the schema, found 0"),
        (b'{"info": {"features": {"ebird_code_multilabel": [[5]]}}}', "numbers with names in the schema"),
        (b'{"info": {"features": {"ebird_code_multilabel": {"names": 5}}}}', "numbers with names in the sch"),
    ):
        pyarrow.parquet.write_table(table.replace_schema_metadata({b"huggingface": note}), file)
        with pytest.raises(DatasetError, match=rf"test_5s-00000-of-00001\.parquet: .*{message}"):
            open_dataset(f"birdset:{file}")


def test_damaged_values_of_birdset(tmp_path):
    file = tmp_path / "test-0.parquet"
    good = {"ebird_code_multilabel": [["a"]], "filepath": ["x.ogg"], "start_time": [0.0], "end_time": [1.0]}
    (tmp_path / "x.ogg").write_bytes(sound_bytes())
    for column, value, message in (
        ("ebird_code_multilabel", "a", "row 0: expected a list in ebird_code_multilabel, found 'a'"),
        ("filepath", 5, "expected the recording 5 in"),
        ("filepath", None, r"expected the recording \(no filepath\) in"),
        ("start_time", "soon", "row 0: expected seconds in start_time and end_time, found 'soon'"),
    ):
        pyarrow.parquet.write_table(pyarrow.table({**good, column: [value]}), file)
        with pytest.raises(DatasetError, match=message):
            open_dataset(f"birdset:{file}?split=test")
    pyarrow.parquet.write_table(pyarrow.table(good), file)
    assert open_dataset(f"birdset:{file}?split=test").items[0].duration_s == 1.0


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("query", None, "row group 0, row 0: expected a sentence in query, found None; fetch the file"),
        ("query", " ", "expected a sentence in query, found ' '"),
        ("relevant", "yes", "row 0: expected 0 or 1 in relevant, found 'yes'"),
        ("relevant", None, "expected 0 or 1 in relevant, found None"),
        ("inat24_image_id", [3], r"row 0: expected the id of a picture in inat24_image_id, found \[3\]"),
        ("inat24_image_id", None, "the id of a picture in inat24_image_id, found None"),
    ],
)
def test_damaged_values_of_inquire(tmp_path, column, value, message):
    inquire_rerank(tmp_path, "test", ("a nest",))
    file = tmp_path / "data" / "test-00000-of-00001.parquet"
    table = pyarrow.parquet.read_table(file).slice(0, 1)
    at = table.schema.get_field_index(column)
    pyarrow.parquet.write_table(table.set_column(at, column, pyarrow.array([value])), file)
    with pytest.raises(DatasetError, match=message):
        open_dataset(f"inquire:{tmp_path}")


def test_rows_of_parquet_that_were_overwritten(tmp_path):
    inquire_rerank(tmp_path, "test", ("a nest",))
    file = tmp_path / "data" / "test-00000-of-00001.parquet"
    content = bytearray(file.read_bytes())
    start = pyarrow.parquet.ParquetFile(file).metadata.row_group(0).column(2).dictionary_page_offset
    content[start : start + 40] = b"\xff" * 40
    file.write_bytes(content)
    with pytest.raises(
        DatasetError, match="row group 0: expected rows of parquet, found: .*; fetch the file"
    ):
        open_dataset(f"inquire:{tmp_path}")
