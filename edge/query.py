"""Query: what one line of a watchlist asks for, and when it alarms. The grammar of watchlist.txt is in edge.query_grammar."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Literal, get_args

from edge import require
from edge.errors import WatchlistError
from edge.utf8 import shown

Kind = Literal["text", "sound", "image"]
Priority = Literal["low", "normal", "high"]
Combine = Literal["and", "or"]

MIN_ALARMS_PER_DAY = 0.001  # one in three years
MAX_ALARMS_PER_DAY = 1000.0
MAX_CONFIRM = 20  # windows that a confirmation may look back
MAX_COOLDOWN_S = 7 * 86_400.0
SUN_WORDS = ("night", "day", "dawn", "dusk")
_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
TIMES_OF_DAY = f"{', '.join(SUN_WORDS)} or HH:MM-HH:MM in UTC with two different times"
_RULE_FIELDS = ("min_probability", "alarms_per_day", "confirm", "cooldown_s", "priority", "active", "group")


@dataclass(frozen=True, slots=True)
class QueryPart:
    """One sentence of a combined query; code and logits as in Query."""

    text: str
    code: bytes | None = None
    logits: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        require.text(WatchlistError, "text", self.text)
        _require_code(self.code, self.logits)


@dataclass(frozen=True, slots=True)
class Query:
    """One line of a watchlist.

    name: unique in the list; text: the sentence, or the path of the example file; decoy: only competes.
    min_probability: 0..1, replaces the rule's 0.5 for this query, None where it does not.
    code: packed bits and logits: one float a bit, both None until compiled; of a combined query those of its first part.
    alarms_per_day: false alarms a day that it may give, None = the recorder's default; confirm: (n, m), the sound is to
    be in n of the last m windows; cooldown_s: silence after an alarm, None = none; active: when it is asked for (night,
    day, dawn, dusk, or HH:MM-HH:MM in UTC), None = always; priority and group: for who is told.
    combine: how the parts are put together, None for one sentence, which has no parts. Decoys and examples have none,
    and a decoy none of the fields about its alarms.
    """

    name: str
    text: str
    kind: Kind = "text"
    decoy: bool = False
    min_probability: float | None = None
    code: bytes | None = None
    logits: tuple[float, ...] | None = None
    alarms_per_day: float | None = None
    confirm: tuple[int, int] = (1, 1)
    cooldown_s: float | None = None
    priority: Priority = "normal"
    active: str | None = None
    group: str | None = None
    combine: Combine | None = None
    parts: tuple[QueryPart, ...] = ()

    def __post_init__(self) -> None:
        require.text(WatchlistError, "name", self.name)
        require.text(WatchlistError, "text", self.text if self.kind == "text" else shown(self.text))
        require.one_of(WatchlistError, "kind", self.kind, get_args(Kind))
        require.instance(WatchlistError, "decoy", self.decoy, (bool,))
        if self.min_probability is not None:
            require.number(WatchlistError, "min_probability", self.min_probability, 0.0, 1.0)
        _require_code(self.code, self.logits)
        self._require_rule()
        self._require_parts()
        if self.decoy:
            plain = {each.name: each.default for each in fields(self)}
            for name in _RULE_FIELDS:
                if getattr(self, name) != plain[name]:
                    raise require.wrong(WatchlistError, name, "none on a decoy", getattr(self, name))

    def _require_rule(self) -> None:
        """Check when and how often it alarms."""
        if self.alarms_per_day is not None:
            low, high = MIN_ALARMS_PER_DAY, MAX_ALARMS_PER_DAY
            require.number(WatchlistError, "alarms_per_day", self.alarms_per_day, low, high)
        require.instance(WatchlistError, "confirm", self.confirm, (tuple,))
        if len(self.confirm) != 2 or not all(type(n) is int for n in self.confirm):
            raise require.wrong(WatchlistError, "confirm", "two whole numbers", self.confirm)
        if not 1 <= self.confirm[0] <= self.confirm[1] <= MAX_CONFIRM:
            raise require.wrong(WatchlistError, "confirm", f"1 <= n <= m <= {MAX_CONFIRM}", self.confirm)
        if self.cooldown_s is not None:
            require.number(WatchlistError, "cooldown_s", self.cooldown_s, 0.0, MAX_COOLDOWN_S)
        require.one_of(WatchlistError, "priority", self.priority, get_args(Priority))
        if self.active is not None and not is_time_of_day(self.active):
            raise require.wrong(WatchlistError, "active", TIMES_OF_DAY, self.active)
        if self.group is not None:
            require.text(WatchlistError, "group", self.group)

    def _require_parts(self) -> None:
        """Check the sentences of a combined query."""
        require.one_of(WatchlistError, "combine", self.combine, (None, *get_args(Combine)))
        require.instance(WatchlistError, "parts", self.parts, (tuple,))
        for part in self.parts:
            require.instance(WatchlistError, "parts", part, (QueryPart,))
        if self.combine is not None and (self.decoy or self.kind != "text"):
            raise require.wrong(WatchlistError, "combine", "none on a decoy or an example", self.combine)
        if len(self.parts) == 1 or bool(self.parts) != (self.combine is not None):
            raise WatchlistError(
                f"parts: expected two or more with combine, none without, found {len(self.parts)}"
            )


def is_time_of_day(value: object) -> bool:
    """Return whether `active` may be this; equal times would leave no minute of the day."""
    if not isinstance(value, str):
        return False
    if value in SUN_WORDS:
        return True
    hours = hours_of(value)
    return hours is not None and hours[0] != hours[1]


def hours_of(active: str) -> tuple[int, int] | None:
    """Return from which minute of the day (UTC) on, and before which, `HH:MM-HH:MM` asks; None where it is another text."""
    found = _HOURS.fullmatch(active)
    if found is None:
        return None
    first_h, first_min, last_h, last_min = (int(each) for each in found.groups())
    return 60 * first_h + first_min, 60 * last_h + last_min


def _require_code(code: bytes | None, logits: tuple[float, ...] | None) -> None:
    """Check a code and logits where they are there; their width is the watchlist's matter."""
    if code is not None:
        require.instance(WatchlistError, "code", code, (bytes,))
    if logits is not None:
        require.instance(WatchlistError, "logits", logits, (tuple,))
        for value in logits:
            require.number(WatchlistError, "logits", value, -1e9, 1e9)
