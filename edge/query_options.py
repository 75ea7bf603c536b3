"""The options of a line of watchlist.txt, `key=value` after `|`: read, checked, and given as fields of Query.

edge.query_grammar names them all; docs/watchlist.md says what each does.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, get_args

from edge.errors import WatchlistError
from edge.query import (
    MAX_ALARMS_PER_DAY,
    MAX_CONFIRM,
    MAX_COOLDOWN_S,
    MIN_ALARMS_PER_DAY,
    TIMES_OF_DAY,
    Priority,
    is_time_of_day,
)

_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0}


def parse_options(parts: Sequence[str], decoy: bool) -> dict[str, Any]:
    """Return {field of Query: value} of the `key=value` parts of a line; a decoy may have a name only.

    Raises WatchlistError "expected ..., found ...; what to do".
    """
    options: dict[str, Any] = {}
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise WatchlistError(
                f"expected an option key=value after |, found {part!r}; write for example name=owl, or remove the |"
            )
        if key not in _OPTIONS:
            near = difflib.get_close_matches(key, _OPTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            raise WatchlistError(f"expected an option of {', '.join(_OPTIONS)}, found {key!r}; {hint}")
        field, read = _OPTIONS[key]
        if field in options:
            raise WatchlistError(f"expected the option {key} once, found it twice; keep one")
        if decoy and key != "name":
            raise WatchlistError(f"expected no {key} on a decoy (it never alarms), found {part!r}; remove it")
        options[field] = read(value)
    return options


def _probability(value: str) -> float:
    number = _number(value)
    if not 0.0 <= number <= 1.0:
        raise WatchlistError(
            f"expected a probability from 0 to 1, found {value!r}; write for example probability=0.7"
        )
    return number


def _alarms_per_day(value: str) -> float:
    number = _number(value)
    if not MIN_ALARMS_PER_DAY <= number <= MAX_ALARMS_PER_DAY:
        raise WatchlistError(
            f"expected alarms_per_day from {MIN_ALARMS_PER_DAY:g} to {MAX_ALARMS_PER_DAY:g}, found {value!r}; "
            "write for example alarms_per_day=2"
        )
    return number


def _confirm(value: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,3})/([0-9]{1,3})", value)
    n, m = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= n <= m <= MAX_CONFIRM:
        raise WatchlistError(
            f"expected confirm=n/m, n of the last m windows, 1 <= n <= m <= {MAX_CONFIRM}, found {value!r}; "
            "write for example confirm=2/3"
        )
    return n, m


def _cooldown_s(value: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|min|h)", value)
    seconds = float(match[1]) * _UNITS_S[match[2]] if match else -1.0
    if not 0 <= seconds <= MAX_COOLDOWN_S:
        raise WatchlistError(
            f"expected a cooldown of up to 7 days (168h) in s, min or h, found {value!r}; write for example cooldown=10min"
        )
    return seconds


def _priority(value: str) -> str:
    if value not in get_args(Priority):
        raise WatchlistError(
            f"expected priority {', '.join(get_args(Priority))}, found {value!r}; write one of them, in small letters"
        )
    return value


def _active(value: str) -> str:
    if not is_time_of_day(value):
        raise WatchlistError(
            f"expected active {TIMES_OF_DAY}, found {value!r}; write for example active=21:30-05:00, or leave it out for always"
        )
    return value


def _number(value: str) -> float:
    """Return the number in a text; NaN, which no range holds, where it is none."""
    try:
        return float(value)
    except ValueError:
        return math.nan


_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "name": ("name", str),
    "probability": ("min_probability", _probability),
    "alarms_per_day": ("alarms_per_day", _alarms_per_day),
    "confirm": ("confirm", _confirm),
    "cooldown": ("cooldown_s", _cooldown_s),
    "priority": ("priority", _priority),
    "active": ("active", _active),
    "group": ("group", str),
}
