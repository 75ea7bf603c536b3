"""Shards: what was packed is read again, here and by the webdataset library; what is wrong is told."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.train.published import folder_csv, inat21, inatsounds, inquire_rerank, picture_bytes, sound_bytes
from train.__main__ import main
from train.datasets import DatasetError, load_image, open_dataset, pack


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
    for damaged, found in (
        (b'{"name": "tra', "Unterminated string"),
        (b"\xff", "can't decode"),
        (b"[]", "a list"),
    ):
        (tmp_path / "out" / "pack.json").write_bytes(damaged)
        with pytest.raises(
            DatasetError,
            match=rf"pack\.json: expected the JSON object .*, found: .*{found}.*; remove it toge",
        ):
            pack(data, tmp_path / "out", per_shard=2)
    (tmp_path / "out" / "pack.json").unlink()
    with pytest.raises(DatasetError, match=r"found shards without pack\.json"):
        pack(data, tmp_path / "out", per_shard=2)


def test_a_cut_while_pack_json_is_written_leaves_none(tmp_path, monkeypatch):
    """A half written one would refuse every later run."""

    def cut(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    data = open_dataset(f"inat21:{inat21(tmp_path)}")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", cut)
        with pytest.raises(OSError, match="No space left"):
            pack(data, tmp_path / "out", per_shard=2)
    assert not list((tmp_path / "out").iterdir())
    assert len(pack(data, tmp_path / "out", per_shard=2)) == 2


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
    for note in (
        b"[]",
        b"{}",
        b'{"species": [], "names": [1]}',
        b'{"species": ["a"], "names": [{"key": "a", "taxonomy": 5}]}',
    ):
        write_tar(shard, k__jpg=picture, k__json=note)
        refused(r"x\.tar:k\.json: expected the lists species and names")
    for time in (b'"soon"', b"[]", b"-1", b"NaN"):
        write_tar(shard, k__jpg=picture, k__json=b'{"species": [], "names": [], "start_s": %s}' % time)
        refused(r"x\.tar:k\.json: expected seconds or null in start_s, found")
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


def test_the_command_packs_and_says_what_opens_it(tmp_path, capsys):
    source = f"inat21:{inat21(tmp_path)}"
    out = tmp_path / "shards"
    assert main(["pack", "--dataset", source, "--out", str(out), "--per-shard", "2"]) == 0
    spec = capsys.readouterr().out.splitlines()[-1]
    assert len(open_dataset(spec).items) == 3
    assert main(["pack", "--dataset", source, "--out", str(out), "--per-shard", "0"]) == 2
    assert main(["pack", "--dataset", "inat22:/x", "--out", str(out)]) == 1
    assert "expected KIND:PATH" in capsys.readouterr().err
