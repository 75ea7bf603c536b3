"""edge-check says no wherever edge-monitor would, and leaves what it looks at as it was."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge import check, check_board, monitor
from edge.bundle import Bundle
from edge.check_board import Check, check_clips
from edge.config import Monitor
from edge.store import ObservationStore
from edge.watchlist import Watchlist, write_watchlist

Refuse = Callable[..., str]


@pytest.fixture
def arguments(
    tiny: Bundle, watchlist: Watchlist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Return what edge-monitor and edge-check are given; the folder is that of the test, with room enough."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check_board, "_free_bytes", lambda _: 10**10)
    monkeypatch.setattr(check, "check_memory", lambda: Check("memory", True, None))
    write_watchlist(tmp_path / "w.json", watchlist)
    return ["--bundle", str(tiny.folder), "--queries", "w.json"]


@pytest.fixture
def refuse(arguments: list[str], write_tones: Any, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Return refuse(name, *arguments): the hint of the only check that fails; edge-monitor fails as well."""

    def run(name: str, *more: str) -> str:
        assert check.main([*arguments, *more, "--json"]) == 1
        failed = [each for each in map(json.loads, capsys.readouterr().out.splitlines()) if not each["ok"]]
        assert [each["name"] for each in failed] == [name]
        assert monitor.main([*arguments, *more, "--input", str(write_tones(Path("a.wav"), (500, 1)))]) != 0
        capsys.readouterr()
        return str(failed[0]["hint"])

    return run


def test_a_hop_longer_than_a_window(refuse: Refuse) -> None:
    assert "at most a window (1 s), found 2" in refuse("hop", "--hop", "2")


def test_a_list_of_nothing_but_decoys(refuse: Refuse, watchlist: Watchlist) -> None:
    decoys = tuple(replace(query, decoy=True) for query in watchlist.queries)
    write_watchlist(Path("d.json"), replace(watchlist, queries=decoys))
    assert "at least one query that is no decoy" in refuse("queries", "--queries", "d.json")


def test_the_database_of_another_program(
    refuse: Refuse, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect("s.sqlite")) as connection:
        connection.execute("CREATE TABLE t (x)")
    before = Path("s.sqlite").read_bytes()
    assert check.main([*arguments, "--store", "s.sqlite"]) == 1
    assert Path("s.sqlite").read_bytes() == before
    capsys.readouterr()
    assert "another program's SQLite database" in refuse("store", "--store", "s.sqlite")


def test_the_store_of_another_device(refuse: Refuse) -> None:
    ObservationStore.open("s.sqlite", "creek").close()
    hint = refuse("store", "--store", "s.sqlite", "--device-id", "pond")
    assert "expected observations of device 'pond', found those of 'creek'" in hint


def test_a_store_of_a_newer_fieldcube(refuse: Refuse) -> None:
    ObservationStore.open("s.sqlite").close()
    with closing(sqlite3.connect("s.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "found 99; update fieldcube" in refuse("store", "--store", "s.sqlite")


def test_a_store_where_no_file_can_be_made(refuse: Refuse) -> None:
    Path("file").write_bytes(b"")
    assert "cannot be written" in refuse("disk", "--store", "file/s.sqlite")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write every file")
def test_a_store_that_may_not_be_written(refuse: Refuse) -> None:
    ObservationStore.open("s.sqlite").close()
    Path("s.sqlite").chmod(0o444)
    assert "cannot be written" in refuse("store", "--store", "s.sqlite")


def test_a_store_of_this_device_passes_while_it_is_written(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with ObservationStore.open("s.sqlite", "creek"):
        assert check.main([*arguments, "--store", "s.sqlite", "--device-id", "creek", "--json"]) == 0
    found = {each["name"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (found["store"]["value"], found["store"]["unit"]) == (0, "observations")


def test_clips_where_no_file_can_be_made(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_bytes(b"")
    assert check.main([*arguments, "--clips", "file/clips"]) == 1
    assert "FAIL  clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("free_bytes", "held_bytes", "ok", "hint"),
    [
        (100e6, 0, False, "make room"),
        (600e6, 0, True, "lower clip_quota_bytes"),
        (499e6, 2_000_000, True, "lower clip_quota_bytes"),  # the clips that are there can go
        (9e9, 0, True, None),
    ],
)
def test_a_full_volume_of_clips_fails(
    free_bytes: float, held_bytes: int, ok: bool, hint: str | None, tmp_path: Path
) -> None:
    (tmp_path / "a.clip.flac").write_bytes(bytes(held_bytes))
    found = check_clips(Monitor(clips_dir=tmp_path), lambda _: int(free_bytes))
    assert found.ok is ok
    assert (hint is None) == (found.hint is None)
    assert (hint or "") in (found.hint or "")
    assert [path.name for path in tmp_path.iterdir()] == ["a.clip.flac"]
