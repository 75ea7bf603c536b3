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
    return compile_watchlist(
        [Query("dog", "a dog"), Query("wind", "wind", decoy=True)], encode, None, SPACE, 64
    )


def test_the_golden_list_compiles_to_the_golden_bytes(tmp_path: Path) -> None:
    queries = [
        replace(query, text=Path(query.text).name) if query.kind == "sound" else query
        for query in parse_text(GOLDEN_TEXT)
    ]
    watchlist = compile_watchlist(queries, encode, encode_sound, SPACE, 64, "starter 0.1.0")
    write_watchlist(tmp_path / "watchlist.json", watchlist)
    assert (tmp_path / "watchlist.json").read_bytes() == GOLDEN_COMPILED.read_bytes()
    assert read_watchlist(GOLDEN_COMPILED, SPACE, 64) == watchlist
    assert [path.name for path in tmp_path.iterdir()] == ["watchlist.json"]


def test_the_grammar_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "phoebe #2.wav").write_bytes(b"")
    (tmp_path / "our.wav").write_bytes(b"")
    (tmp_path / "owl.jpg").write_bytes(b"")
    content = """\ufeff# what we listen for

    a dog barking   # the neighbour's
    a raven: calling|name = raven |probability=0.7\r
    Decoy: wind in trees
    sound: our.wav | name=our phoebe | probability=1
    decoy: sound:our.wav | name=other bird
    image: owl.jpg
    F#minor chord
    a knot of toads, nothing else
    """
    sound, image = str(tmp_path / "our.wav"), str(tmp_path / "owl.jpg")
    assert parsed(tmp_path, content) == [
        Query("a dog barking", "a dog barking"),
        Query("raven", "a raven: calling", min_probability=0.7),
        Query("wind in trees", "wind in trees", decoy=True),
        Query("our phoebe", sound, "sound", min_probability=1.0),
        Query("other bird", sound, "sound", decoy=True),
        Query("owl.jpg", image, "image"),
        Query("F#minor chord", "F#minor chord"),
        Query("a knot of toads, nothing else", "a knot of toads, nothing else"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dog | loud=1", "expected an option of name, probability, alarms_per_day, confirm, cooldown, priority, active, group, found 'loud'"),
        ("dog | probabilty=0.5", "found 'probabilty'; did you mean probability?"),
        ("dog | name", "expected an option key=value after |, found 'name'"),
        ("dog | name=", "expected an option key=value after |, found 'name='"),
        ("dog |", "expected an option key=value after |, found ''"),
        ("dog | name=a | name=b", "expected the option name once, found it twice; keep one"),
        ("dog | probability=1.5", "expected a probability from 0 to 1, found '1.5'"),
        ("dog | probability=nan", "expected a probability from 0 to 1, found 'nan'"),
        ("dog | probability=high", "expected a probability from 0 to 1, found 'high'"),
        ("decoy: dog | probability=0.5", "expected no probability on a decoy"),
        ("first", "expected a name of its own, found 'first' again (first in line 1); add | name=..."),
        ("dog | name=first", "expected a name of its own, found 'first' again"),
        ("decoy:", "expected a sentence or a file, found an empty text in 'decoy:'"),
        ("| name=x", "expected a sentence or a file, found an empty text"),
        ("not a dog", "found the negation 'not'; encoders ignore negations"),
        ("No dogs", "found the negation 'No'; encoders ignore negations: name the sound to be ignored in"),
        ("No dogs", "in a line `decoy: ...`"),
        ("a forest without birds", "found the negation 'without'"),
        ("decoy: no rain", "found the negation 'no'"),
        ("sound: missing.wav", "expected a sound file, found no file"),
        ("image: missing.jpg", "expected a image file, found no file"),
        ("decoys: wind", "expected decoy:, sound: or image:, found 'decoys:'; write decoy:"),
        ("sond: a.wav", "found 'sond:'; write sound:"),
        ("decoy: decoy: wind", "expected one decoy: and one sound: or image: at most, found 'decoy:' again"),
        ("sound: image: a", "expected one decoy: and one sound: or image: at most, found 'image:' again"),
    ],
)
def test_a_wrong_line_is_refused_with_file_line_expected_and_found(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(WatchlistError) as caught:
        parsed(tmp_path, f"first\n# comment\n\n{line}\n")
    assert str(caught.value).startswith(f"{tmp_path / 'list.txt'}:4: expected ")
    assert message in str(caught.value)


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
