"""The grammar of watchlist.txt. docs/watchlist.md is the same for those who write lists.

file      UTF-8, a byte order mark is allowed; one line a query; at least one that is no decoy
line      [what] [# comment]            a blank line is skipped; `#` counts at the start of a line or after a space
what      body {| option}               no `|` in a body
body      sentence                      text -> code; says what is heard, never what is not
        | sentence & sentence {& ...}   AND: all in one window; `AND`, in capitals, is the same
        | sentence OR sentence {OR ...} any of them; OR in capitals. Not both in one line
        | sound: file | image: file     by example; the path is relative to the list
        | decoy: sentence | decoy: sound: file | decoy: image: file     never alarms, only competes; no & or OR
option    name=text                     default the body; unique in the list
        | probability=0..1              the rule's own limit on the bundle's probability
        | alarms_per_day=0.001..1000    false alarms a day; default the recorder's
        | confirm=n/m                   heard in n of the last m windows, 1 <= n <= m <= 20; default 1/1
        | cooldown=number unit          silence after an alarm, unit s, min or h, at most 7 days; default none
        | priority=low|normal|high      default normal
        | active=night|day|dawn|dusk, or HH:MM-HH:MM in UTC, which may cross midnight; default always
        | group=text                    default none
A decoy takes name only. Prefixes may be written in any case, options in small letters; each option once.

dog barking
frog chorus              | name=frogs | alarms_per_day=2 | confirm=2/3 | cooldown=10min | priority=high | active=night
tawny owl & rain         | group=owls
chainsaw OR logging truck
decoy: wind in trees
sound: phoebe.wav        | name=our phoebe
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import cast

from edge.errors import WatchlistError
from edge.query import Combine, Kind, Query, QueryPart
from edge.query_options import parse_options

_PREFIXES = ("decoy", "sound", "image")
# A sentence encoder puts "no dog" next to "dog", so a negation would alarm on what it excludes.
_NEGATION = re.compile(r"\b(not|without|never|except|excluding|\w+n['\u2019]t)\b|\bno(?=\s|$)", re.IGNORECASE)
_SIGNS: dict[str, Combine] = {"&": "and", "AND": "and", "OR": "or"}


def parse_lines(content: str, path: Path) -> list[Query]:
    """Return the queries of the lines of a text list.

    Raises WatchlistError "file:line: expected ..., found ...; what to do".
    """
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
    body, *options = (part.strip() for part in line.split("|"))
    kind, decoy, body = _split_prefixes(body)
    if not body:
        raise WatchlistError(
            f"expected a sentence or a file, found an empty text in {line!r}; write what is heard, or remove the line"
        )
    given = parse_options(options, decoy)
    name = given.pop("name", body)
    if kind != "text":
        return Query(name, _example(body, kind, folder), kind, decoy, **given)
    negation = _NEGATION.search(body)
    if negation:
        raise WatchlistError(
            "expected a sentence that says what is heard, "
            f"found the negation {negation.group()!r}; "
            "encoders ignore negations: name the sound to be ignored in a line `decoy: ...`"
        )
    combine, parts = _split_sentences(body)
    if combine is not None and decoy:
        raise WatchlistError(
            f"expected one sentence on a decoy, found several in {body!r}; write a line `decoy: ...` for each"
        )
    return Query(name, body, kind, decoy, combine=combine, parts=parts, **given)


def _example(body: str, kind: Kind, folder: Path) -> str:
    """Return the path of an example; a sign is part of a file's name or nothing."""
    path = folder / body
    if path.is_file():
        return str(path)
    if any(word in _SIGNS for word in body.split()):
        raise WatchlistError(
            f"expected one {kind} file, found several in {body!r}; & and OR are for sentences: write a line for each file"
        )
    raise WatchlistError(f"expected a {kind} file, found no file {path}; paths are relative to the watchlist")


def _split_sentences(body: str) -> tuple[Combine | None, tuple[QueryPart, ...]]:
    """Return how the sentences of a line are combined, and them; (None, ()) for one sentence."""
    words = body.split()
    glued = next((word for word in words if "&" in word and word != "&"), None)
    if glued is not None:
        raise WatchlistError(
            f"expected spaces around &, found {glued!r}; write `owl & rain` for both in one window, or the word and"
        )
    combines = {_SIGNS[word] for word in words if word in _SIGNS}
    if not combines:
        return None, ()
    if len(combines) > 1:
        raise WatchlistError(
            f"expected either & or OR in a line, found both in {body!r}; write a line for each alternative"
        )
    texts = [text.strip() for text in re.split(r"(?:^|(?<=\s))(?:&|AND|OR)(?=\s|$)", body)]
    if not all(texts):
        raise WatchlistError(
            f"expected a sentence on both sides of & and OR, found {body!r}; write the other sentence, or remove the sign"
        )
    for text in texts[1:]:
        if _split_prefixes(text)[:2] != ("text", False):
            raise WatchlistError(
                f"expected sentences around & and OR, found {text!r}; write it on a line of its own"
            )
    return combines.pop(), tuple(QueryPart(text) for text in texts)


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
                f"expected one decoy: and one sound: or image: at most, found {match.group()!r} again; keep one"
            )
        decoy = decoy or word == "decoy"
        kind = kind if word == "decoy" else cast(Kind, word)
        body = body[match.end() :].strip()
    return kind, decoy, body
