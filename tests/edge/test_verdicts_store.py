"""Verdicts: kept at once, replaced when given again, in a file of their own that no other program's is taken for."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from edge.errors import ObservationError, StoreError
from edge.store_verdicts import VerdictStore, read_verdicts, verdicts_path
from edge.verdict import Verdict

OWL = Verdict("dev", 2**62, 7, "owl", "an owl", "test-0123456789ab", 60, 0.75, "right", 5, "far away")


def test_the_file_lies_beside_the_store(tmp_path: Path) -> None:
    assert verdicts_path(tmp_path / "a.sqlite") == tmp_path / "a-verdicts.sqlite"
    assert verdicts_path(tmp_path) == tmp_path / "observations-verdicts.sqlite"
    assert verdicts_path(None) == Path("fieldcube-verdicts.sqlite")


def test_what_is_kept_is_read_while_the_file_is_open(tmp_path: Path) -> None:
    store = tmp_path / "a.sqlite"
    assert read_verdicts(store) == {}
    with VerdictStore.open(store) as verdicts:
        verdicts.keep([OWL])
        assert read_verdicts(store) == {OWL.identity: OWL}
    assert not store.exists()


@pytest.mark.parametrize("change", [{"device_id": "d2"}, {"epoch": 1}, {"seq": 8}, {"query": "rain"}])
def test_each_part_of_the_identity_counts(tmp_path: Path, change: dict[str, str | int]) -> None:
    other = replace(OWL, answer="wrong", **change)  # type: ignore[arg-type]
    with VerdictStore.open(tmp_path / "a.sqlite") as verdicts:
        verdicts.keep([OWL])
        verdicts.keep([other])
    assert read_verdicts(tmp_path / "a.sqlite") == {OWL.identity: OWL, other.identity: other}


def test_a_new_verdict_replaces_the_old_one(tmp_path: Path) -> None:
    again = replace(OWL, answer="wrong", given_ns=6, note="")
    with VerdictStore.open(tmp_path / "a.sqlite") as verdicts:
        verdicts.keep([OWL])
        verdicts.keep([again])
    assert list(read_verdicts(tmp_path / "a.sqlite").values()) == [again]


def test_all_are_kept_or_none(tmp_path: Path) -> None:
    bad = replace(OWL, seq=8)
    object.__setattr__(bad, "note", None)
    with VerdictStore.open(tmp_path / "a.sqlite") as verdicts:
        with pytest.raises(StoreError, match="NOT NULL"):
            verdicts.keep([OWL, bad])
        assert read_verdicts(tmp_path / "a.sqlite") == {}
        verdicts.keep([OWL])
    assert len(read_verdicts(tmp_path / "a.sqlite")) == 1


def test_the_file_outlives_a_power_cut_and_says_whose_it_is(tmp_path: Path) -> None:
    with VerdictStore.open(tmp_path / "a.sqlite") as verdicts:
        pragma = {
            name: verdicts._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "application_id", "user_version")
        }
    assert pragma == {
        "journal_mode": "wal",
        "synchronous": 2,
        "application_id": 0x66637664,
        "user_version": 1,
    }


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("PRAGMA user_version = 2", "schema version 1 or older, found 2; update fieldcube"),
        ("PRAGMA application_id = 5", "found another SQLite database"),
    ],
)
def test_a_newer_or_foreign_file_is_left_alone(tmp_path: Path, statement: str, message: str) -> None:
    VerdictStore.open(tmp_path / "a.sqlite").close()
    path = tmp_path / "a-verdicts.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=message):
        VerdictStore.open(tmp_path / "a.sqlite")
    with pytest.raises(StoreError, match=message):
        read_verdicts(tmp_path / "a.sqlite")
    assert path.read_bytes() == before


def test_another_programs_file_does_not_become_wal(tmp_path: Path) -> None:
    path = tmp_path / "a-verdicts.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another SQLite database"):
        VerdictStore.open(tmp_path / "a.sqlite")
    assert path.read_bytes() == before


def test_a_file_that_was_cut_off_before_its_table_is_empty_and_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "a-verdicts.sqlite").touch()
    assert read_verdicts(tmp_path / "a.sqlite") == {}
    with VerdictStore.open(tmp_path / "a.sqlite") as verdicts:
        verdicts.keep([OWL])
    assert len(read_verdicts(tmp_path / "a.sqlite")) == 1


def test_damage_and_a_place_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "a-verdicts.sqlite").write_bytes(b"no database " * 500)
    with pytest.raises(
        StoreError, match=r"a-verdicts\.sqlite: expected verdicts .* move a damaged file away"
    ):
        read_verdicts(tmp_path / "a.sqlite")
    with pytest.raises(StoreError, match="unable to open database file"):
        VerdictStore.open(tmp_path / "none" / "a.sqlite")


def test_an_impossible_row_is_damage(tmp_path: Path) -> None:
    with VerdictStore.open(tmp_path / "a.sqlite") as verdicts:
        verdicts.keep([OWL])
        verdicts._connection.execute("UPDATE verdict SET answer = 'perhaps'")
    with pytest.raises(StoreError, match="answer: expected one of right, wrong, unsure, found 'perhaps'"):
        read_verdicts(tmp_path / "a.sqlite")


@pytest.mark.parametrize(
    "change", [{"answer": "yes"}, {"distance": 257}, {"probability": 1.5}, {"text": ""}, {"given_ns": -1}]
)
def test_an_impossible_verdict_is_refused(change: dict[str, str | int]) -> None:
    with pytest.raises(ObservationError, match=f"{next(iter(change))}: expected"):
        replace(OWL, **change)  # type: ignore[arg-type]
