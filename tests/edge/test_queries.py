"""edge-queries: a list that compiles, is listed, or is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge import queries
from edge.bundle import Bundle
from edge.codes import pack
from edge.encoder import open_text_encoder
from edge.watchlist import Watchlist, read_watchlist, write_watchlist

TEXT = "# my list\na low tone | name=low | probability=0.7\ndecoy: noise\n"


def write(folder: Path, content: str) -> str:
    path = folder / "watchlist.txt"
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_a_list_is_shown_without_any_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert queries.main([write(tmp_path, TEXT), "--bundle", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == "a low tone | name=low | probability=0.7\ndecoy: noise\n"


def test_a_list_is_shown_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert queries.main([write(tmp_path, TEXT), "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    expected = {"type": "query", "name": "low", "text": "a low tone", "kind": "text", "decoy": False}
    rule = {
        "alarms_per_day": None,
        "confirm": [1, 1],
        "cooldown_s": None,
        "priority": "normal",
        "active": None,
    }
    rule |= {"group": None, "combine": None, "parts": []}
    assert first == {**expected, **rule, "min_probability": 0.7, "code": None}
    assert (second["name"], second["decoy"]) == ("noise", True)


def test_what_is_shown_is_a_line_that_asks_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = """\
frog chorus | name=frogs | alarms_per_day=0.123456789 | confirm=2/3 | cooldown=600s | priority=high | active=night | group=ponds
a low tone & rain | probability=0.7 | priority=low | active=22:00-04:30
a chainsaw OR a truck | confirm=1/3 | cooldown=604799.5s
decoy: noise
"""
    path = write(tmp_path, lines)
    assert queries.main([path]) == 0
    assert capsys.readouterr().out == lines
    assert queries.main([path, "--json"]) == 0
    frogs, tone, chainsaw, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert (frogs["alarms_per_day"], frogs["confirm"], frogs["cooldown_s"]) == (0.123456789, [2, 3], 600.0)
    assert (frogs["priority"], frogs["active"], frogs["group"]) == ("high", "night", "ponds")
    assert (tone["combine"], tone["parts"]) == ("and", ["a low tone", "rain"])
    assert (chainsaw["combine"], chainsaw["parts"]) == ("or", ["a chainsaw", "a truck"])


def test_sentences_are_compiled(
    needs_onnx: None, tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "watchlist.json"
    arguments = [write(tmp_path, TEXT), "-o", str(output), "--bundle", str(tiny.folder), "--json"]
    assert queries.main(arguments) == 0
    compiled = read_watchlist(output, tiny.manifest.code_space, 256)
    assert [query.code for query in compiled.queries] == [
        pack(open_text_encoder(tiny).encode(text)).tobytes() for text in ("a low tone", "noise")
    ]
    shown = [json.loads(line)["code"] for line in capsys.readouterr().out.splitlines()]
    assert shown == [query.code.hex() for query in compiled.queries if query.code]


def test_examples_are_compiled_with_any_runtime(
    runtime: str, tiny: Bundle, write_tones: Any, watchlist: Watchlist, tmp_path: Path
) -> None:
    write_tones(tmp_path / "low.wav", (500, 2))
    output = tmp_path / "watchlist.json"
    text = write(tmp_path, "sound: low.wav | name=low\n")
    assert queries.main([text, "-o", str(output), "--bundle", str(tiny.folder), "--runtime", runtime]) == 0
    (query,) = read_watchlist(output).queries
    sentence = watchlist.queries[0].code
    assert query.code is not None
    assert sentence is not None
    differing = int.from_bytes(query.code, "little") ^ int.from_bytes(sentence, "little")
    assert bin(differing).count("1") < 20


def test_a_compiled_list_of_another_code_space_is_refused(
    tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.json"
    write_watchlist(path, Watchlist("other-space", 256, "", ()))
    assert queries.main([str(path), "-o", str(tmp_path / "new.json"), "--bundle", str(tiny.folder)]) == 1
    error = capsys.readouterr().err
    assert f"{path}: watchlist: expected code space {tiny.manifest.code_space}, found other-space" in error
    assert not (tmp_path / "new.json").exists()


@pytest.mark.parametrize("output", ["watchlist.txt", "link.txt", "phoebe.wav", "other.json", "folder"])
def test_nothing_but_a_compiled_list_is_replaced(
    output: str, tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = write(tmp_path, TEXT)
    (tmp_path / "link.txt").hardlink_to(text)
    (tmp_path / "phoebe.wav").write_bytes(b"RIFF\xff")
    (tmp_path / "other.json").write_text('{"name": "not ours"}', encoding="utf-8")
    (tmp_path / "folder").mkdir()
    path = tmp_path / output
    before = path.read_bytes() if path.is_file() else None
    assert queries.main([text, "-o", str(path), "--bundle", str(tiny.folder)]) == 2
    assert f"-o {path}: expected " in capsys.readouterr().err
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_compiled_list_is_replaced(watchlist: Watchlist, tiny: Bundle, tmp_path: Path) -> None:
    write_watchlist(tmp_path / "in.json", watchlist)
    write_watchlist(tmp_path / "out.json", Watchlist("other-space", 256, "", ()))
    arguments = [str(tmp_path / "in.json"), "-o", str(tmp_path / "out.json"), "--bundle", str(tiny.folder)]
    assert queries.main(arguments) == 0
    assert read_watchlist(tmp_path / "out.json") == watchlist


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a dog\nnot a cat\n", ":2: expected a sentence that says what is heard, found the negation 'not'"),
        ("a dog\na dog\n", ":2: expected a name of its own, found 'a dog' again"),
        ("sound: gone.wav\n", ":1: expected a sound file, found no file"),
        (
            "a dog | volume=3\n",
            ":1: expected an option of name, probability, alarms_per_day, confirm, cooldown, priority, active, group, found 'volume'",
        ),
        ("", ": expected at least one query, found none"),
    ],
)
def test_a_bad_line_is_named(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, content)
    assert queries.main([path]) == 2
    assert capsys.readouterr().err.startswith(f"edge-queries: error: {path}{message}")


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        queries.main(["--help"])
    assert ended.value.code == 0
    assert "edge-queries watchlist.txt -o watchlist.json" in capsys.readouterr().out
