"""The grammar of watchlist.txt: what each option and sign means, and what a wrong line is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from edge import query_grammar
from edge.errors import WatchlistError
from edge.query import Query, QueryPart
from edge.query_grammar import parse_lines
from edge.watchlist import parse_text

DOCS = Path(__file__).parents[2] / "docs" / "watchlist.md"
OPTIONS = ("name", "probability", "alarms_per_day", "confirm", "cooldown", "priority", "active", "group")


def parse(line: str, folder: Path = Path()) -> Query:
    """Return the query of one line."""
    (query, *_) = parse_lines(f"{line}\na line that is a query\n", folder / "list.txt")
    return query


def refusal(line: str, folder: Path = Path()) -> str:
    """Return what a wrong line is told, after file and line; it has a found, and says what to do after a semicolon."""
    with pytest.raises(WatchlistError) as caught:
        parse_lines(f"a first line\n\n{line}\n", folder / "list.txt")
    place, message = str(caught.value).split(": ", 1)
    assert place == f"{folder / 'list.txt'}:3"
    assert re.fullmatch(r"expected .*, found .*; .+", message), message
    return message


def test_the_grammar_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
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
    path.write_text(content, encoding="utf-8")
    assert parse_text(path) == [
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
        (
            "dog | loud=1",
            "expected an option of name, probability, alarms_per_day, confirm, cooldown, priority, active, group, found 'loud'",
        ),
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
        parse_lines(f"first\n# comment\n\n{line}\n", tmp_path / "list.txt")
    assert str(caught.value).startswith(f"{tmp_path / 'list.txt'}:4: expected ")
    assert message in str(caught.value)


def test_options_go_together_in_any_order_also_on_examples_and_combined_lines(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    rule: dict[str, Any] = {"alarms_per_day": 3.0, "cooldown_s": 60.0}
    assert parse("sound: a.wav | cooldown=1min | name=a | alarms_per_day=3", tmp_path) == Query(
        "a", str(tmp_path / "a.wav"), "sound", **rule
    )
    parts = (QueryPart("owl"), QueryPart("rain"))
    assert parse("owl & rain | alarms_per_day=3 | name=a | cooldown=60s") == Query(
        "a", "owl & rain", combine="and", parts=parts, **rule
    )


@pytest.mark.parametrize(
    ("line", "combine", "texts"),
    [
        ("owl & rain", "and", ["owl", "rain"]),
        ("an owl  AND\theavy rain", "and", ["an owl", "heavy rain"]),
        ("owl & rain AND wind", "and", ["owl", "rain", "wind"]),
        ("chainsaw OR a truck OR an axe", "or", ["chainsaw", "a truck", "an axe"]),
        ("call: an owl & reply: an owl", "and", ["call: an owl", "reply: an owl"]),
    ],
)
def test_sentences_are_combined(line: str, combine: Any, texts: list[str]) -> None:
    parts = tuple(QueryPart(text) for text in texts)
    assert parse(line) == Query(line, line, combine=combine, parts=parts)


@pytest.mark.parametrize(
    "line", ["owls and rain", "an owl or a crow", "an ORIOLE", "ANDEAN condor", "a NOR or bANDs"]
)
def test_words_of_a_sentence_do_not_combine(line: str) -> None:
    assert parse(line) == Query(line, line)


@pytest.mark.parametrize("line", ["owl & rain OR wind", "owl OR rain AND wind"])
def test_both_signs_in_a_line_are_refused(line: str) -> None:
    assert refusal(line) == (
        f"expected either & or OR in a line, found both in {line!r}; write a line for each alternative"
    )


@pytest.mark.parametrize(
    "line",
    ["owl &", "& owl", "owl OR", "OR owl", "owl & & rain", "owl AND & rain", "owl OR OR rain", "&", "AND"],
)
def test_a_sign_has_a_sentence_on_both_sides(line: str) -> None:
    assert refusal(line).startswith(
        f"expected a sentence on both sides of & and OR, found {line!r}; write the other"
    )


@pytest.mark.parametrize(
    ("line", "word"), [("owl&rain", "owl&rain"), ("owl &rain", "&rain"), ("a && b", "&&")]
)
def test_a_sign_has_spaces_around_it(line: str, word: str) -> None:
    assert refusal(line).startswith(f"expected spaces around &, found {word!r}; write `owl & rain`")


@pytest.mark.parametrize("sign", ["&", "AND", "OR"])
def test_decoys_and_examples_are_not_combined(sign: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "b.wav").write_bytes(b"")
    assert refusal(f"decoy: owl {sign} rain").startswith(
        "expected one sentence on a decoy, found several in 'owl "
    )
    for kind in ("sound", "image"):
        message = refusal(f"{kind}: a.wav {sign} b.wav", tmp_path)
        assert message.startswith(
            f"expected one {kind} file, found several in 'a.wav {sign} b.wav'; & and OR are for"
        )
    for other in ("sound: a.wav", "decoy: wind", "Image: a.jpg"):
        message = refusal(f"owl {sign} {other}", tmp_path)
        assert (
            message == f"expected sentences around & and OR, found {other!r}; write it on a line of its own"
        )


def test_a_sign_in_the_name_of_an_example_is_a_part_of_the_name(tmp_path: Path) -> None:
    (tmp_path / "owl & rain.wav").write_bytes(b"")
    query = parse("sound: owl & rain.wav", tmp_path)
    assert query == Query("owl & rain.wav", str(tmp_path / "owl & rain.wav"), "sound")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("owl & no rain", "no"),
        ("no rain OR owl", "no"),
        ("owl AND NOT rain", "NOT"),
        ("owl OR wind without rain", "without"),
        ("decoy: not rain", "not"),
        ("owl & no", "no"),
        ("a bird that never sings", "never"),
        ("all birds except owls", "except"),
        ("birds that don't sing", "don't"),
        ("birds that don\u2019t sing", "don\u2019t"),
    ],
)
def test_a_negation_in_any_sentence_is_refused_with_a_hint_to_a_decoy(line: str, word: str) -> None:
    message = refusal(line)
    assert f"found the negation {word!r}; encoders ignore negations" in message
    assert "name the sound to be ignored in a line `decoy: ...`" in message


@pytest.mark.parametrize(
    "line", ["a knot of toads", "a no-name bird", "a nocturnal bird", "a note", "exceptional wind"]
)
def test_words_like_a_negation_are_none(line: str) -> None:
    assert parse(line).text == line


@pytest.mark.parametrize(
    "line",
    [
        "dog |",
        "dog | name",
        "dog | name=",
        "decoy:",
        "| name=x",
        "a first line",
        "sound: gone.wav",
        "decoys: x",
        "sound: image: x",
    ],
)
def test_every_other_wrong_line_says_what_to_do(line: str) -> None:
    assert refusal(line)


def test_the_examples_of_docs_and_docstring_are_as_they_are_told(tmp_path: Path) -> None:
    (tmp_path / "phoebe.wav").write_bytes(b"")
    text = DOCS.read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
    frogs, *others = parse_lines(blocks[0], tmp_path / "list.txt")
    assert frogs == Query(
        "frogs",
        "frog chorus",
        alarms_per_day=2.0,
        confirm=(2, 3),
        cooldown_s=600.0,
        priority="high",
        active="night",
    )
    assert [query.combine for query in others] == [None, "and", "or", None]
    own = (query_grammar.__doc__ or "").rpartition("\n\n")[2]
    assert [query.name for query in parse_lines(own, tmp_path / "list.txt")][1] == "frogs"


def test_docs_and_docstring_name_every_option_and_their_examples_are_taken() -> None:
    rows = dict(
        re.findall(
            r"^\| `(\w+)` \|.*?\| `(\w+=[^`]+)` \|[^|]*\|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    assert set(rows) == set(OPTIONS)
    for option, example in rows.items():
        assert example.startswith(f"{option}=")
        assert parse(f"a frog | {example}") != Query("a frog", "a frog")
        assert f"{option}=" in (query_grammar.__doc__ or "")
    wrong = re.search(r"watchlist\.txt:4: (.*)", DOCS.read_text(encoding="utf-8"))
    assert wrong is not None
    assert refusal("frogs | cooldwn=1h") == wrong[1]
