"""A damaged store is put aside and recording goes on; what is not ours is left alone."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from edge.errors import StoreError
from edge.observation import Observation
from edge.store import ObservationStore
from edge.store_files import put_aside
from edge.store_reader import StoreReader
from tests.simulate.observations import (
    SPACE,
    code_of,
    detection,
    fill,
    observation,
)


def stored(path: Path) -> list[Observation]:
    with StoreReader.open(path) as reader:
        return list(reader.observations())


def damage_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(4096))


def damage_tail_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 64] = b"\xa5" * 64
    path.write_bytes(content)


def damage_one_tail_page(path: Path) -> None:
    """Spoil the cell pointers of a leaf that holds rows of the tail; counting the rows does not notice."""
    content = bytearray(path.read_bytes())
    code = code_of(98)
    start = content.index(code) // 4096 * 4096
    assert content[start] == 0x0D  # leaf of a table
    content[start + 8 : start + 16] = b"\xff" * 8
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5000)


@pytest.mark.parametrize("damage", [damage_header, damage_tail_pages, damage_one_tail_page, truncate])
def test_a_damaged_database_is_put_aside_and_recording_goes_on(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.sqlite"
    with ObservationStore.open(path, "dev", block_observations=64) as store:
        fill(store, 100)
        epoch = store.epoch
    damage(path)
    damaged = path.read_bytes()
    time = datetime(2026, 5, 4, 3, 2, 1, tzinfo=timezone.utc)
    with ObservationStore.open(path, "dev", now=lambda: time) as store:
        (aside,) = store.put_aside
        assert aside == tmp_path / "a.sqlite.corrupt-20260504T030201Z"
        assert (store.epoch != epoch, store.next_seq) == (True, 0)
        fill(store, 5)
    assert aside.read_bytes() == damaged
    assert len(stored(path)) == 5
    assert "damaged" in caplog.text
    with StoreReader.open(path) as reader:
        (event,) = reader.events()
    assert (event.kind, event.source) == ("recovered", str(aside))


def test_a_store_that_lost_its_identity_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with ObservationStore.open(path, "dev") as store:
        fill(store, 3)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM identity WHERE key = 'epoch'")
    connection.commit()
    connection.close()
    with pytest.raises(
        StoreError, match="a.sqlite: expected a readable store, found table identity: rows are"
    ):
        StoreReader.open(path)
    with ObservationStore.open(path, "dev") as store:
        assert (len(store.put_aside), store.next_seq) == (1, 0)


def test_damage_found_while_recording_keeps_what_was_not_committed(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with ObservationStore.open(path, "dev", block_observations=32) as store:
        fill(store, 200)
    with ObservationStore.open(path, "dev", block_observations=32) as store:
        epoch = store.epoch
        one = observation(store)
        store.add(one, [detection(one)])
        damage_tail_pages(path)
        waiting = [one, *fill(store, 40)]
        store.flush()
        assert len(store.put_aside) == 1
        assert store.epoch != epoch
        assert store.next_seq == 41
        fill(store, 1)
    found = stored(path)
    assert [each.code for each in found[:41]] == [each.code for each in waiting]
    with StoreReader.open(path) as reader:
        ((where, _),) = reader.detections()
    assert (where.seq, where.code) == (0, one.code)


def test_a_damaged_database_takes_its_wal_along_and_never_replaces_an_earlier_one(tmp_path: Path) -> None:
    time = datetime(2026, 5, 4, tzinfo=timezone.utc)
    for content in (b"first", b"second"):
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"a.sqlite{suffix}").write_bytes(content)
        aside = put_aside(tmp_path / "a.sqlite", now=time, may_be_ours=False)
        found = [aside.with_name(aside.name + suffix).read_bytes() for suffix in ("", "-wal", "-shm")]
        assert found == [content] * 3
    assert len(list(tmp_path.iterdir())) == 6
    assert all("corrupt" in each.name for each in tmp_path.iterdir())


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    sound = tmp_path / "dawn.wav"
    sound.write_bytes(b"RIFF" + bytes(5000))
    for _ in range(2):  # the first refusal leaves nothing behind that would make the file look like ours
        with pytest.raises(
            StoreError, match=r"dawn.wav: expected a fieldcube store, found another kind of file"
        ):
            ObservationStore.open(sound)
        assert sound.read_bytes() == b"RIFF" + bytes(5000)
        assert list(tmp_path.iterdir()) == [sound]
    with pytest.raises(
        StoreError, match=r"dawn.wav: expected a readable store, found file is not a database"
    ):
        StoreReader.open(sound)


def test_a_lock_alone_does_not_make_a_file_ours(tmp_path: Path) -> None:
    sound = tmp_path / "dawn.flac"
    sound.write_bytes(b"fLaC" + bytes(5000))
    (tmp_path / "dawn.flac.lock").write_text(
        "123\n", encoding="ascii"
    )  # of a run that was killed while it opened
    with pytest.raises(StoreError, match="found another kind of file"):
        ObservationStore.open(sound)
    assert sound.read_bytes() == b"fLaC" + bytes(5000)


def test_a_store_of_any_name_that_was_opened_once_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "creek.data"
    for _ in range(2):  # the second run keeps the mark
        ObservationStore.open(path).close()
    damage_header(path)
    with ObservationStore.open(path) as store:
        assert len(store.put_aside) == 1


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "photos.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photo (name TEXT)")
    connection.close()
    content = path.read_bytes()
    for open_store in (ObservationStore.open, StoreReader.open):
        with pytest.raises(
            StoreError, match="photos.sqlite: expected a fieldcube store, found another program's"
        ):
            open_store(path)
    assert [each.name for each in tmp_path.glob("*corrupt*")] == []
    assert sqlite3.connect(path).execute("SELECT count(*) FROM photo").fetchone() == (0,)
    assert len(path.read_bytes()) == len(content)


def test_a_damaged_store_is_one_clear_error_for_readers(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with ObservationStore.open(path, block_observations=32) as store:
        fill(store, 320)
    damage_tail_pages(path)
    with (
        pytest.raises(
            StoreError, match="a.sqlite: expected a readable store, found .*malformed; edge-monitor puts"
        ),
        StoreReader.open(path) as reader,
    ):
        reader.top_k(np.zeros(32, np.uint8), SPACE, 5)
