"""What edge-monitor tells edge-update of its start."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config_installed import pair_of
from edge.run_start import RunStart, read_start, start_path, write_start


def test_a_start_is_read_as_it_was_written_and_differs_from_the_one_before(tmp_path: Path) -> None:
    store = tmp_path / "observations.sqlite"
    assert read_start(store) is None
    write_start(store, 7, 5, 100, lambda: "a")
    assert read_start(store) == RunStart("a", 7, 5, 100)
    runs = set()
    for _ in range(2):
        write_start(store, 7, 5, 100)
        found = read_start(store)
        assert found is not None
        runs.add(found.run)
    assert len(runs) == 2


def test_who_runs_other_files_says_so_only_where_a_pair_ran(tmp_path: Path) -> None:
    store = tmp_path / "observations.sqlite"
    write_start(store, None, 5, 100)
    assert not start_path(store).exists()
    write_start(store, 7, 5, 100)
    write_start(store, None, 5, 200)
    found = read_start(store)
    assert found is not None
    assert (found.pair, found.first_seq) == (None, 200)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        "{",
        '{"run": "a", "pair": "7", "epoch": 1, "first_seq": 0}',
        '{"format_version": 2, "run": "a", "pair": 7, "epoch": 1, "first_seq": 0}',
    ],
)
def test_a_damaged_note_tells_of_no_start(tmp_path: Path, content: str) -> None:
    store = tmp_path / "observations.sqlite"
    start_path(store).write_text(content)
    assert read_start(store) is None


def test_a_full_disk_does_not_keep_a_recorder_from_recording(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_start(tmp_path / "no folder" / "store.sqlite", 7, 5, 100)
    assert "cannot be confirmed" in caplog.text


def test_a_pair_is_known_by_where_both_of_its_parts_are(tmp_path: Path) -> None:
    for number in ("7", "8"):
        (tmp_path / "pairs" / number / "bundle").mkdir(parents=True)
    (tmp_path / "current").symlink_to("pairs/7")
    current, other = tmp_path / "current", tmp_path / "pairs" / "8"
    assert pair_of(current / "bundle", current / "watchlist.json") == 7
    assert pair_of(other / "bundle", other / "watchlist.json") == 8
    assert pair_of(current / "bundle", other / "watchlist.json") is None
    assert pair_of(current / "bundle", tmp_path / "watchlist.txt") is None
    assert pair_of(None, current / "watchlist.json") is None
