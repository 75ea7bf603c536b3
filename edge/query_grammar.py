"""The grammar of watchlist.txt: UTF-8, one query a line; blank lines are skipped, `#` at the start of a line or after a space begins a comment.

    dog barking
    a raven calling          | name=raven | probability=0.7
    frog chorus              | alarms_per_day=2 | confirm=2/3 | cooldown=10min | priority=high | active=night | group=frogs
    tawny owl & rain                          (both in one window)
    chainsaw OR logging truck                 (either)
    decoy: wind in trees
    sound: phoebe.wav        | name=our phoebe

`decoy:` never alarms and only competes; `sound:` and `image:` are queries by example, a file whose path is relative to the list.
Options after `|` (docs/watchlist.md): name, probability, alarms_per_day, confirm, cooldown, priority, active, group.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from edge.errors import WatchlistError
from edge.query import (
    HOURS,
    MAX_ALARMS_PER_DAY,
    MAX_CONFIRM,
    MAX_COOLDOWN_S,
    SUN_WORDS,
    Combine,
    Kind,
    Query,
    QueryPart,
)

_ALARM_OPTIONS = ("alarms_per_day", "confirm", "cooldown", "priority", "active", "group")
_OPTIONS = ("name", "probability", *_ALARM_OPTIONS)
_PREFIXES = ("decoy", "sound", "image")
# A sentence encoder puts "no dog" next to "dog", so a negation would alarm on what it excludes.
_NEGATION = re.compile(r"\b(not|without)\b|\bno\s+\w", re.IGNORECASE)
_AND, _OR = re.compile(r"\s+(?:&|AND)\s+"), re.compile(r"\s+OR\s+")
_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0}


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
    idle = [key for key in ("probability", *_ALARM_OPTIONS) if decoy and key in options]
    if idle:
        raise WatchlistError(f"expected no {idle[0]} on a decoy (it never alarms), found one; remove it")
    combine, sentences = _split_sentences(body, kind, decoy)
    return Query(
        options.get("name", body), text, kind, decoy, combine=combine, parts=sentences, **_rule(options)
    )


def _split_sentences(body: str, kind: Kind, decoy: bool) -> tuple[Combine | None, tuple[QueryPart, ...]]:
    """Return how the sentences of a line are combined, and them; (None, ()) for one sentence."""
    found = [(name, sign.split(body)) for name, sign in (("and", _AND), ("or", _OR)) if sign.search(body)]
    if kind != "text" or not found:
        return None, ()
    if decoy:
        raise WatchlistError("expected one sentence on a decoy, found several; write a line decoy: for each")
    if len(found) > 1:
        raise WatchlistError(
            "expected either & or OR in a line, found both; write a line for each alternative"
        )
    combine, texts = found[0]
    if not all(text.strip() for text in texts):
        raise WatchlistError(f"expected a sentence on both sides of & or OR, found {body!r}")
    return cast(Combine, combine), tuple(QueryPart(text.strip()) for text in texts)


def _rule(options: dict[str, str]) -> dict[str, Any]:
    """Return the options of a line about when it alarms as arguments of Query."""
    found: dict[str, Any] = {}
    if "probability" in options:
        found["min_probability"] = _fraction(options["probability"])
    if "alarms_per_day" in options:
        expected = f"alarms_per_day above 0, at most {MAX_ALARMS_PER_DAY:g}"
        found["alarms_per_day"] = _number(options["alarms_per_day"], 1e-3, MAX_ALARMS_PER_DAY, expected)
    if "confirm" in options:
        match = re.fullmatch(r"(\d+)/(\d+)", options["confirm"])
        n, m = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= n <= m <= MAX_CONFIRM:
            raise WatchlistError(
                f"expected confirm=n/m, n of the last m windows, m at most {MAX_CONFIRM}, found {options['confirm']!r}; "
                "for example confirm=2/3"
            )
        found["confirm"] = (n, m)
    if "cooldown" in options:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", options["cooldown"])
        seconds = float(match[1]) * _UNITS_S[match[2]] if match else -1.0
        if not 0 <= seconds <= MAX_COOLDOWN_S:
            raise WatchlistError(
                f"expected a cooldown of up to 7 days in s, min or h, found {options['cooldown']!r}; for example cooldown=10min"
            )
        found["cooldown_s"] = seconds
    if "priority" in options:
        if options["priority"] not in ("low", "normal", "high"):
            raise WatchlistError(f"expected priority low, normal or high, found {options['priority']!r}")
        found["priority"] = options["priority"]
    if "active" in options:
        if options["active"] not in SUN_WORDS and not HOURS.fullmatch(options["active"]):
            raise WatchlistError(
                f"expected active={', '.join(SUN_WORDS)} or HH:MM-HH:MM in UTC, found {options['active']!r}"
            )
        found["active"] = options["active"]
    if "group" in options:
        found["group"] = options["group"]
    return found


def _number(value: str, low: float, high: float, expected: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:  # NaN fails too
        raise WatchlistError(f"expected {expected}, found {value!r}")
    return number


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
