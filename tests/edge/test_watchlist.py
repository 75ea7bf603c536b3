from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edge.codes import pack
from edge.errors import CodeSpaceError, WatchlistError
from edge.watchlist import (
    FORMAT_VERSION,
    Kind,
    Query,
    QueryPart,
    Watchlist,
    compile_watchlist,
    load_watchlist,
    parse_text,
    read_watchlist,
    write_watchlist,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
GOLDEN_TEXT = GOLDEN / f"watchlist-v{FORMAT_VERSION}.txt"
GOLDEN_COMPILED = GOLDEN / f"watchlist-v{FORMAT_VERSION}.json"
SPACE = "starter-0123456789ab"


def encode(text: str) -> NDArray[np.float32]:
    """Return 64 logits that depend on the text by a plain formula."""
    bits = np.arange(64)
    return ((bits * 7 + sum(text.encode())) % 11 - 5).astype(np.float32) / np.float32(3)


def encode_sound(path: Path) -> NDArray[np.float32]:
    return encode(path.name)


def parsed(tmp_path: Path, content: str | bytes) -> list[Query]:
    path = tmp_path / "list.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return parse_text(path)


def compiled() -> Watchlist:
    both = Query("both", "owl & rain", combine="and", parts=(QueryPart("owl"), QueryPart("rain")))
    return compile_watchlist(
        [Query("dog", "a dog"), Query("wind", "wind", decoy=True), both], encode, None, SPACE, 64
    )


def test_the_golden_list_compiles_to_the_golden_bytes(tmp_path: Path) -> None:
    queries = [
        replace(query, text=Path(query.text).name) if query.kind == "sound" else query
        for query in parse_text(GOLDEN_TEXT)
    ]
    assert [query.combine for query in queries[-2:]] == ["and", "or"]
    assert queries[-3].cooldown_s == 600.0
    watchlist = compile_watchlist(queries, encode, encode_sound, SPACE, 64, "starter 0.1.0")
    write_watchlist(tmp_path / "watchlist.json", watchlist)
    assert (tmp_path / "watchlist.json").read_bytes() == GOLDEN_COMPILED.read_bytes()
    assert read_watchlist(GOLDEN_COMPILED, SPACE, 64) == watchlist
    assert [path.name for path in tmp_path.iterdir()] == ["watchlist.json"]


def test_bytes_that_are_not_utf_8_are_refused_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(
        WatchlistError, match=r"list\.txt:2: expected UTF-8, found byte 0xe9; save the file as UTF-8"
    ):
        parsed(tmp_path, b"dog\ncaf\xe9\n")


@pytest.mark.parametrize(
    ("content", "found"), [("", "none"), ("# only\n\n", "none"), ("decoy: wind", "only decoys")]
)
def test_a_list_that_can_never_alarm_is_refused(tmp_path: Path, content: str, found: str) -> None:
    with pytest.raises(
        WatchlistError, match=rf"list\.txt: expected at least one query, found {found}; write a"
    ):
        parsed(tmp_path, content)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    for read in (parse_text, read_watchlist, load_watchlist):
        with pytest.raises(WatchlistError, match=r"none\.txt: expected a watchlist, found No such file"):
            read(tmp_path / "none.txt")


def test_compiling_gives_codes_and_rounded_logits() -> None:
    query = compiled().queries[0]
    assert query.code == pack(encode("a dog")).tobytes()
    assert query.logits == tuple(round(float(value), 4) for value in encode("a dog"))
    assert compiled().queries[1].decoy


def test_each_sentence_of_a_combined_query_is_compiled_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def remember(text: str) -> NDArray[np.float32]:
        asked.append(text)
        return encode(text)

    (query,) = compile_watchlist(
        parsed(tmp_path, "an owl & rain | confirm=2/3"), remember, None, SPACE, 64
    ).queries
    assert asked == ["an owl", "rain"]
    assert (query.text, query.combine, query.confirm) == ("an owl & rain", "and", (2, 3))
    assert [part.code for part in query.parts] == [pack(encode(text)).tobytes() for text in asked]
    assert query.parts[1].logits == tuple(round(float(value), 4) for value in encode("rain"))
    assert (query.code, query.logits) == (query.parts[0].code, query.parts[0].logits)


def test_an_example_in_a_folder_of_any_bytes_is_compiled(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"K\xe4uzchen")
    folder.mkdir()
    (folder / "a.wav").write_bytes(b"")
    queries = parsed(folder, "sound: a.wav\n")
    asked: list[Path] = []

    def remember(path: Path) -> NDArray[np.float32]:
        asked.append(path)
        return encode_sound(path)

    watchlist = compile_watchlist(queries, encode, remember, SPACE, 64)
    assert asked == [folder / "a.wav"]  # the file itself
    assert watchlist.queries[0].text == f"{tmp_path}/K\\xe4uzchen/a.wav"  # what can be stored
    write_watchlist(tmp_path / "list.json", watchlist)
    assert read_watchlist(tmp_path / "list.json") == watchlist


@pytest.mark.parametrize("key", ["name", "text"])
@pytest.mark.parametrize("kind", ["text", "sound"])
def test_text_that_no_file_can_hold_is_refused(tmp_path: Path, key: str, kind: str) -> None:
    write_watchlist(tmp_path / "list.json", compiled())
    root = json.loads((tmp_path / "list.json").read_text(encoding="utf-8"))
    root["queries"][0] |= {"kind": kind, key: "\ud800"}
    (tmp_path / "list.json").write_text(json.dumps(root), encoding="utf-8")
    with pytest.raises(WatchlistError, match=rf"queries\[0\]\.{key}: expected text in UTF-8, found "):
        read_watchlist(tmp_path / "list.json")


def test_an_example_without_an_encoder_is_refused() -> None:
    kinds: tuple[Kind, ...] = ("sound", "image")
    for kind in kinds:
        query = Query("own", "own.wav", kind)
        with pytest.raises(WatchlistError, match=f"query 'own': expected a sentence, found {kind}: own.wav"):
            compile_watchlist([query], encode, None, SPACE, 64)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros(128), r"expected 64 logits, found shape \(128,\)"),
        (np.zeros((1, 64)), r"expected 64 logits, found shape \(1, 64\)"),
        (np.full(64, np.nan), "expected finite numbers"),
    ],
)
def test_nonsense_of_an_encoder_is_refused(logits: Any, message: str) -> None:
    with pytest.raises(CodeSpaceError, match=f"query 'dog': .*{message}"):
        compile_watchlist([Query("dog", "dog")], lambda text: logits, None, SPACE, 64)


def test_load_tells_text_from_compiled_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "list"
    write_watchlist(path, compiled())
    assert load_watchlist(path, SPACE, 64) == compiled()
    path.write_text("dog\n")
    assert load_watchlist(path) == [Query("dog", "dog")]


def test_a_compiled_list_of_another_code_space_or_width_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    write_watchlist(path, compiled())
    with pytest.raises(
        CodeSpaceError, match=rf"list\.json: watchlist: expected code space other-1, found {SPACE}"
    ):
        load_watchlist(path, "other-1")
    with pytest.raises(
        CodeSpaceError, match=r"list\.json: expected codes of 256 bits, found 64; compile it again"
    ):
        read_watchlist(path, SPACE, 256)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (
            ("format_version",),
            1,
            "expected format_version 2, found 1; compile it again from its watchlist.txt",
        ),
        (("code_bits",), 128, "queries[0].code: expected 128 bits, found 64 bits"),
        (("code_bits",), 65, "code_bits: expected one of 64, 128, 192, 256, found 65"),
        (("queries",), {}, "queries: expected list, found {}"),
        (("queries", 0, "code"), "0g", "queries[0].code: expected hexadecimal digits, found '0g'"),
        (("queries", 0, "code"), "00", "queries[0].code: expected 64 bits, found 8 bits"),
        (("queries", 0, "code"), None, "queries[0].code: expected hexadecimal digits, found None"),
        (("queries", 0, "logits"), [1.0], "queries[0].logits: expected 64 numbers, found 1 numbers"),
        (("queries", 0, "logits"), ["a"] * 64, "queries[0].logits: expected a number"),
        (
            ("queries", 0, "kind"),
            "smell",
            "queries[0].kind: expected one of text, sound, image, found 'smell'",
        ),
        (
            ("queries", 0, "min_probability"),
            2,
            "queries[0].min_probability: expected a number from 0.0 to 1.0",
        ),
        (("queries", 0, "decoy"), "no", "queries[0].decoy: expected bool, found 'no'"),
        (("queries", 1, "name"), "dog", "queries[1].name: expected a name of its own, found 'dog' twice"),
        (("queries", 0), "dog", "queries[0]: expected a mapping, found str"),
        (
            ("queries", 0, "alarms_per_day"),
            0,
            "queries[0].alarms_per_day: expected a number from 0.001 to 1000",
        ),
        (("queries", 0, "confirm"), [3, 2], "queries[0].confirm: expected 1 <= n <= m <= 20, found (3, 2)"),
        (("queries", 0, "cooldown_s"), "10min", "queries[0].cooldown_s: expected a number"),
        (
            ("queries", 0, "priority"),
            None,
            "queries[0].priority: expected one of low, normal, high, found None",
        ),
        (("queries", 0, "active"), "noon", "queries[0].active: expected night, day"),
        (("queries", 1, "group"), "a", "queries[1].group: expected none on a decoy, found 'a'"),
        (("queries", 2, "parts"), {}, "queries[2].parts: expected list, found {}"),
        (("queries", 2, "parts"), [], "queries[2].parts: expected two or more with combine"),
        (
            ("queries", 2, "combine"),
            None,
            "queries[2].parts: expected two or more with combine, none without",
        ),
        (("queries", 2, "parts", 1), "rain", "queries[2].parts[1]: expected a mapping, found str"),
        (("queries", 2, "parts", 1, "text"), "", "queries[2].parts[1].text: expected non-empty text"),
        (("queries", 2, "parts", 1, "code"), None, "queries[2].parts[1].code: expected hexadecimal digits"),
        (
            ("queries", 2, "parts", 1, "code"),
            "00",
            "queries[2].parts[1].code: expected 64 bits, found 8 bits",
        ),
        (("queries", 2, "parts", 1, "logits"), [1.0], "queries[2].parts[1].logits: expected 64 numbers"),
        (("queries", 2, "code"), "00" * 8, "queries[2].code: expected that of its first part, found another"),
    ],
)
def test_a_wrong_value_in_a_compiled_list_is_refused(
    tmp_path: Path, keys: tuple[Any, ...], value: Any, message: str
) -> None:
    path = tmp_path / "list.json"
    write_watchlist(path, compiled())
    root = json.loads(path.read_text("utf-8"))
    place = root
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(root), "utf-8")
    with pytest.raises(WatchlistError) as caught:
        read_watchlist(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_json_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('{"a":' * 100_000, encoding="utf-8")
    with pytest.raises(WatchlistError, match=r"list\.json: expected a compiled watchlist in JSON, found "):
        load_watchlist(tmp_path / "list.json")


def test_missing_and_unknown_keys_of_a_compiled_list(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    write_watchlist(path, compiled())
    root = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**root, "later": 1}), "utf-8")
    assert read_watchlist(path) == compiled()
    del root["queries"][2]["parts"][0]["logits"]
    path.write_text(json.dumps(root), "utf-8")
    with pytest.raises(
        WatchlistError, match=r"queries\[2\]\.parts\[0\]: expected the keys .*; missing logits"
    ):
        read_watchlist(path)
    del root["queries"][1]["text"]
    path.write_text(json.dumps(root), "utf-8")
    with pytest.raises(WatchlistError, match=r"list\.json: queries\[1\]: expected the keys .*; missing text"):
        read_watchlist(path)
    path.write_text('{"format_version": 2}', "utf-8")
    with pytest.raises(WatchlistError, match="missing code_space, code_bits, bundle, queries"):
        read_watchlist(path)
    path.write_text("{", "utf-8")
    with pytest.raises(WatchlistError, match=r"list\.json: expected a compiled watchlist in JSON, found"):
        load_watchlist(path)


def test_a_list_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        WatchlistError, match=r"list\.json: expected a file that can be written, found No such file"
    ):
        write_watchlist(tmp_path / "nowhere" / "list.json", compiled())
