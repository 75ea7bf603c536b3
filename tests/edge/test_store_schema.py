"""The schema is the released one; migrations are applied with their record, other versions refused."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest

from edge import store_schema, store_tables
from edge.errors import StoreError
from edge.store import ObservationStore
from edge.store_reader import StoreReader
from tests.simulate.observations import (
    fill,
)

REPOSITORY = Path(__file__).parents[2]
SCHEMA_FILE = REPOSITORY / "tests/data/store_schema_1.sql"


def schema_of(path: Path) -> str:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return f"-- user_version {version}\n" + "".join(f"{re.sub(r' +', ' ', sql)};\n" for (sql,) in rows)


def test_schema_is_the_golden_one(tmp_path: Path) -> None:
    ObservationStore.open(tmp_path / "a.sqlite").close()
    assert schema_of(tmp_path / "a.sqlite") == SCHEMA_FILE.read_text(encoding="utf-8")


def test_a_migration_is_applied_once_with_its_record(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite") as store:
        added = fill(store, 3)
    connection = store_schema.connect_writer(tmp_path / "a.sqlite")

    def add_note(open_connection: sqlite3.Connection) -> None:
        open_connection.execute("ALTER TABLE tail ADD COLUMN note TEXT")

    def fail(open_connection: sqlite3.Connection) -> None:
        open_connection.execute("DROP TABLE tail")
        raise sqlite3.OperationalError("disk I/O error")

    path = tmp_path / "a.sqlite"
    for _ in range(2):  # the second time there is nothing to do
        store_schema.migrate(connection, path, [store_schema.create_tables, add_note])
    with pytest.raises(sqlite3.OperationalError):
        store_schema.migrate(connection, path, [store_schema.create_tables, add_note, fail])
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert connection.execute("SELECT count(*), max(note) FROM tail").fetchone() == (len(added), None)
    connection.close()
    for open_store in (ObservationStore.open, StoreReader.open):  # this program knows only version 1
        with pytest.raises(
            StoreError, match="expected a store of schema version 1 or older, found 2; update"
        ):
            open_store(path)


def test_a_new_store_gets_its_tables_and_its_identity_in_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.sqlite"
    monkeypatch.setattr(store_tables, "_CHECKED_TABLES", ("no such table",))
    with pytest.raises(StoreError):  # as if it were killed between its first transaction and the next
        ObservationStore.open(path, "dev", new_epoch=lambda: 7)
    with StoreReader.open(path) as reader:
        assert (reader.device_id, reader.epoch) == ("dev", 7)


def test_a_store_argument_that_ends_in_a_slash_is_a_folder(tmp_path: Path) -> None:
    new = f"{tmp_path}/new"
    assert store_schema.store_path(f"{new}/") == Path(new, "observations.sqlite")
    assert store_schema.store_path(new) == store_schema.store_path(Path(new)) == Path(new)
    assert store_schema.store_path(tmp_path) == tmp_path / "observations.sqlite"
    assert store_schema.store_path(store_schema.store_path(f"{new}/")) == Path(new, "observations.sqlite")


def test_an_older_schema_is_not_read_before_it_is_migrated(tmp_path: Path) -> None:
    connection = store_schema.connect_writer(tmp_path / "a.sqlite")
    connection.close()
    with pytest.raises(StoreError, match="of schema version 1, found an empty database; run edge-monitor"):
        StoreReader.open(tmp_path / "a.sqlite")


def test_another_programs_database_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "photos.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE photo (name TEXT)")
        other.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's SQLite database"):
        store_schema.connect_writer(path)
    assert path.read_bytes() == before
