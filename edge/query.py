"""Query, and the grammar of watchlist.txt.

watchlist.txt is UTF-8, one query a line; blank lines are skipped, `#` at the start of a
line or after a space begins a comment:

    dog barking
    a raven calling          | name=raven | probability=0.7
    decoy: wind in trees
    sound: phoebe.wav        | name=our phoebe

`decoy:` never alarms and only competes; `sound:` and `image:` are queries by example, a file
whose path is relative to the list.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from edge import require
from edge.errors import WatchlistError
from edge.utf8 import shown

Kind = Literal["text", "sound", "image"]

_OPTIONS = ("name", "probability")
_PREFIXES = ("decoy", "sound", "image")
# A sentence encoder puts "no dog" next to "dog", so a negation would alarm on what it excludes.
_NEGATION = re.compile(r"\b(not|without)\b|\bno\s+\w", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Query:
    """One line of a watchlist.

    name: unique in the list; text: the sentence, or the path of the example file; decoy: only competes.
    min_probability: 0..1, replaces the rule's 0.5 for this query, None where it does not.
    code: packed bits and logits: one float a bit, both None until compiled.
    """

    name: str
    text: str
    kind: Kind = "text"
    decoy: bool = False
    min_probability: float | None = None
    code: bytes | None = None
    logits: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        require.text(WatchlistError, "name", self.name)
        require.text(WatchlistError, "text", self.text if self.kind == "text" else shown(self.text))
        require.one_of(WatchlistError, "kind", self.kind, get_args(Kind))
        require.instance(WatchlistError, "decoy", self.decoy, (bool,))
        if self.min_probability is not None:
            require.number(WatchlistError, "min_probability", self.min_probability, 0.0, 1.0)
        if self.code is not None:
            require.instance(WatchlistError, "code", self.code, (bytes,))
        if self.logits is not None:
            require.instance(WatchlistError, "logits", self.logits, (tuple,))
            for value in self.logits:
                require.number(WatchlistError, "logits", value, -1e9, 1e9)


def parse_lines(content: str, path: Path) -> list[Query]:
    """Return the queries of the lines of a text list."""
    queries: list[Query] = []
    line_of: dict[str, int] = {}
    for number, raw in enumerate(content.split("\n"), start=1):
        line = re.split(r"(?:^|\s)#", raw, maxsplit=1)[0].strip()
        if not line:
            continue
        try:
            query = _parse_line(line, path.parent)
            if query.name in line_of:
                raise WatchlistError(
                    f"expected a name of its own, found {query.name!r} again "
                    f"(first in line {line_of[query.name]}); "
                    "add | name=... to one of them"
                )
        except WatchlistError as error:
            raise WatchlistError(f"{path}:{number}: {error}") from error
        line_of[query.name] = number
        queries.append(query)
    if all(query.decoy for query in queries):
        found = "only decoys" if queries else "none"
        raise WatchlistError(
            f"{path}: expected at least one query, found {found}; write a sentence on a line"
        )
    return queries


def _parse_line(line: str, folder: Path) -> Query:
    """Return the query of one line without its comment; relative example files are looked up in folder."""
    body, *parts = (part.strip() for part in line.split("|"))
    options = _parse_options(parts)
    kind, decoy, body = _split_prefixes(body)
    if not body:
        raise WatchlistError(f"expected a sentence or a file, found an empty text in {line!r}")
    text = body
    if kind == "text":
        negation = _NEGATION.search(body)
        if negation:
            raise WatchlistError(
                "expected a sentence that says what is heard, "
                f"found the negation {negation.group().split()[0]!r}; "
                "encoders ignore negations: name the sound to be ignored in a line `decoy: ...`"
            )
    else:
        text = str(folder / body)
        if not Path(text).is_file():
            raise WatchlistError(
                f"expected a {kind} file, found no file {text}; paths are relative to the watchlist"
            )
    probability = options.get("probability")
    if decoy and probability is not None:
        raise WatchlistError("expected no probability on a decoy (it never alarms), found one; remove it")
    return Query(
        options.get("name", body), text, kind, decoy, None if probability is None else _fraction(probability)
    )


def _split_prefixes(body: str) -> tuple[Kind, bool, str]:
    """Return (kind, decoy, rest) of a line; `decoy: sound: file` is allowed."""
    kind: Kind = "text"
    decoy = False
    while match := re.match(r"(\w+)\s*:", body):
        word = match.group(1).lower()
        if word not in _PREFIXES:
            near = difflib.get_close_matches(word, _PREFIXES, n=1)
            if near:
                raise WatchlistError(
                    f"expected decoy:, sound: or image:, found {match.group()!r}; write {near[0]}:"
                )
            break
        if (decoy and word == "decoy") or kind != "text":
            raise WatchlistError(
                f"expected one decoy: and one sound: or image: at most, found {match.group()!r} again"
            )
        decoy = decoy or word == "decoy"
        kind = kind if word == "decoy" else cast(Kind, word)
        body = body[match.end() :].strip()
    return kind, decoy, body


def _parse_options(parts: Sequence[str]) -> dict[str, str]:
    """Return {option: value} of the `key=value` parts of a line."""
    options: dict[str, str] = {}
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise WatchlistError(f"expected an option key=value after |, found {part!r}")
        if key not in _OPTIONS:
            near = difflib.get_close_matches(key, _OPTIONS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise WatchlistError(f"expected an option of {', '.join(_OPTIONS)}, found {key!r}{hint}")
        if key in options:
            raise WatchlistError(f"expected the option {key} once, found it twice; keep one")
        options[key] = value
    return options


def _fraction(value: str) -> float:
    """Return a probability 0..1."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 1.0:  # NaN fails too
        raise WatchlistError(f"expected a probability from 0 to 1, found {value!r}")
    return number
