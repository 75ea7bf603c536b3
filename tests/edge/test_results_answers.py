"""Answers from a script or a table: each is about one detection of this store, or none is kept."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edge.observation import Detection, Instant, Observation
from edge.results import main
from edge.store import ObservationStore
from edge.store_verdicts import read_verdicts

SPACE = "test-0123456789ab"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a store of six windows: an owl in each, rain too in those of seq 2 and 4."""
    path = tmp_path / "a.sqlite"
    with ObservationStore.open(path, "dev", block_observations=4) as writer:
        for seq in range(6):
            instant = Instant("boot", seq, None, "unset")
            one = Observation("dev", writer.epoch, seq, bytes(32), SPACE, "n.wav", seq * 10, 10, 10, instant)
            names = ("owl", "rain") if seq in (2, 4) else ("owl",)
            found = [
                Detection("dev", writer.epoch, seq, name, f"an {name}", 60 + seq, 0.5, None, None)
                for name in names
            ]
            writer.add(one, found)
    return path


@pytest.fixture
def told(store: Path) -> Callable[[], dict[tuple[int, str], tuple[str, str]]]:
    """Return told(): answer and note of each verdict by seq and query."""
    return lambda: {
        (each.seq, each.query): (each.answer, each.note) for each in read_verdicts(store).values()
    }


Told = Callable[[], dict[tuple[int, str], tuple[str, str]]]


def verify(store: Path, *arguments: str) -> int:
    return main(["verify", "--store", str(store), *arguments])


def exported(store: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    """Return the rows that edge-results exports."""
    capsys.readouterr()
    assert main(["--store", str(store)]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def write_table(path: Path, *rows: Mapping[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def refusal(store: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line of a refusal, of which nothing is kept."""
    assert verify(store, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert read_verdicts(store) == {}
    return captured.err


def test_verdicts_of_a_script_are_kept(store: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(store, "--set", "0=right", "--set", "3=WRONG", "--set", "5= unsure") == 0
    assert told() == {(0, "owl"): ("right", ""), (3, "owl"): ("wrong", ""), (5, "owl"): ("unsure", "")}
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"edge-results: kept 3 verdicts in {store.with_name('a-verdicts.sqlite')}\n"


def test_a_verdict_holds_what_a_fit_needs(store: Path) -> None:
    verify(store, "--set", "3=right")
    (kept,) = read_verdicts(store).values()
    assert (kept.device_id, kept.text, kept.code_space) == ("dev", "an owl", SPACE)
    assert (kept.distance, kept.probability) == (63, 0.5)
    assert kept.given_ns > 1_700_000_000 * 10**9


def test_what_is_given_last_counts(store: Path, told: Told, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", {"seq": "1", "verdict": "unsure"})
    assert (
        verify(store, "--set", "0=right", "--set", "0=wrong", "--set", "1=right", "--import", str(table)) == 0
    )
    assert told() == {(0, "owl"): ("wrong", ""), (1, "owl"): ("unsure", "")}
    assert verify(store, "--set", "0=right") == 0
    assert told()[0, "owl"] == ("right", "")


@pytest.mark.parametrize("name", ["rain", "an rain"])
def test_a_query_says_which_of_several_is_meant(store: Path, told: Told, name: str) -> None:
    assert verify(store, "--set", "2=wrong", "--query", name) == 0
    assert told() == {(2, "rain"): ("wrong", "")}


def test_a_table_that_was_exported_and_filled_in_is_kept(
    store: Path, told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = exported(store, capsys)
    assert len(rows) == 8
    for row in rows:
        if row["query"] == "rain":
            row["verdict"], row["note"] = "wrong", "a truck,\r\nbraking"
    assert verify(store, "--import", str(write_table(tmp_path / "t.csv", *rows))) == 0
    expected = {(2, "rain"): ("wrong", "a truck,\r\nbraking"), (4, "rain"): ("wrong", "a truck,\r\nbraking")}
    assert told() == expected
    again = exported(store, capsys)
    assert [row["verdict"] for row in again] == [row["verdict"] for row in rows]
    assert verify(store, "--import", str(write_table(tmp_path / "t.csv", *again))) == 0
    assert told() == expected


def test_a_table_of_a_spreadsheet_needs_two_columns(store: Path, told: Told, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("\ufeffverdict,remark,seq\r\nRight,é,3\r\n,,4\r\n".encode())
    assert verify(store, "--import", str(tmp_path / "t.csv")) == 0
    assert told() == {(3, "owl"): ("right", "")}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "9=right",
            "--set 9=right: expected a detection of seq 9 in {store}, found none; edge-results lists",
        ),
        (
            "2=right",
            "--set 2=right: expected a detection of seq 2 in {store}, found several: owl, rain; give --qu",
        ),
        ("1=maybe", "--set 1=maybe: expected a verdict of right, wrong, unsure, found 'maybe'"),
        ("1", "--set 1: expected a verdict of right, wrong, unsure, found ''"),
        ("one=right", "--set: expected a seq as edge-results --format csv gives it, found 'one'"),
        ("\u0663=right", "--set: expected a seq as edge-results --format csv gives it, found"),
        ("-1=right", "--set: expected a seq as edge-results --format csv gives it, found '-1'"),
        ("\udcff=right", r"expected a seq as edge-results --format csv gives it, found '\\xff'"),
    ],
)
def test_a_setting_of_no_one_detection_is_refused_with_all_others(
    store: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    found = refusal(store, capsys, "--set", "0=right", f"--set={setting}")
    assert message.format(store=store) in found


def test_a_query_that_has_no_detection_there_is_refused(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = refusal(store, capsys, "--set", "1=right", "--query", "rain")
    assert f"expected a detection of seq 1 in {store}, found none" in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"source": "other.wav"},
            "expected source n.wav as in {store}, found other.wav; give the --store that",
        ),
        ({"distance": "99"}, "expected distance 62 as in {store}, found 99; give the --store that"),
        ({"query": "wolf"}, "expected a detection of seq 2 and query wolf in {store}, found none"),
        ({"query": ""}, "found several: owl, rain; give --query"),
        ({"seq": "77"}, "expected a detection of seq 77 and query rain in {store}, found none"),
        ({"seq": ""}, "expected a seq as edge-results --format csv gives it, found ''"),
        ({"verdict": "yes"}, "expected a verdict of right, wrong, unsure, found 'yes'"),
    ],
)
def test_a_row_that_does_not_fit_the_store_is_refused_with_all_others(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], message: str
) -> None:
    row = next(row for row in exported(store, capsys) if row["query"] == "rain")
    good = {**row, "query": "owl", "verdict": "right"}
    table = write_table(tmp_path / "t.csv", good, {**row, "verdict": "wrong", **change})
    found = refusal(store, capsys, "--import", str(table))
    assert found.startswith(f"edge-results: error: {table}:3: ")
    assert message.format(store=store) in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seq;verdict\r\n1;right\r\n", "found no seq and no verdict among seq;verdict"),
        (b"seq,query\r\n1,owl\r\n", "found no verdict among seq, query"),
        (b"", "found no seq and no verdict among none"),
        (b"seq,verdict,note\r\n1,right,\xff\r\n", "expected a CSV table in UTF-8, found 'utf-8' codec can't"),
        (b'seq,verdict\r\n1,"right\r\n', "expected a CSV table in UTF-8, found unexpected end of data"),
        (None, "expected a CSV table in UTF-8, found [Errno 2]"),
    ],
)
def test_what_is_no_such_table_is_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    assert message in refusal(store, capsys, "--import", str(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    "option", [("--source", "n.wav"), ("--since", "2026-05-04"), ("--until", "2026-05-04"), ("--play",)]
)
def test_options_that_choose_or_play_are_refused_beside_answers(
    store: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, ...]
) -> None:
    found = refusal(store, capsys, "--set", "1=right", *option)
    assert f"{option[0]}: expected none beside --set and --import" in found
