"""What came by downlink, in whatever order: the last word for each name, over the list that was published. FORMAT_VERSION = 2.

A query that came by radio stays until a later message says otherwise, or a list is published in which the line of its name is
another one than when it came: then that list is the newer word.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge import require
from edge.durable import write_file
from edge.errors import CodeSpaceError, StoreError, WatchlistError, WireError
from edge.query import Query
from edge.watchlist import Watchlist

if TYPE_CHECKING:
    from edge.downlink import Downlink

FORMAT_VERSION = 2
RADIO_GROUP = "radio"  # group of the queries that came by downlink
WINDOW_S = 30 * 86_400  # a message that a satellite held back may be so much older than the newest
MAX_TAKEN = 1000  # numbers that are remembered; with more in a window it is shorter


@dataclass(frozen=True, slots=True)
class RadioQuery:
    """The last word for a name: code, None = removed; over: digest of the list's own line when it came, "" = none."""

    at_s: int
    code: str | None
    alarms_per_day: float | None
    over: str


@dataclass(frozen=True, slots=True)
class DownlinkMemory:
    """Numbers of messages, which are UTC in s: the newest; floor, none up to it is taken; taken, those above it.

    replaced_at_s: all queries of messages before it go; code_space: of the queries.
    """

    code_space: str = ""
    newest_at_s: int = 0
    floor_s: int = 0
    taken: tuple[int, ...] = ()
    replaced_at_s: int = 0
    queries: Mapping[str, RadioQuery] = field(default_factory=dict)

    def is_new(self, at_s: int) -> bool:
        """Return whether a message was not taken yet, and is not too old."""
        return at_s > self.floor_s and at_s not in self.taken

    def with_number(self, at_s: int) -> DownlinkMemory:
        """Return the memory after a message, whatever it said."""
        newest = max(self.newest_at_s, at_s)
        floor = max(self.floor_s, newest - WINDOW_S)
        taken = sorted(each for each in {*self.taken, at_s} if each > floor)
        if len(taken) > MAX_TAKEN:
            floor, taken = taken[-MAX_TAKEN - 1], taken[-MAX_TAKEN:]
        return replace(self, newest_at_s=newest, floor_s=floor, taken=tuple(taken))

    def with_downlink(self, downlink: Downlink, published: Watchlist) -> DownlinkMemory:
        """Return the memory after a message, for the code space of the published list; nothing newer is undone."""
        is_same = self.code_space == published.code_space
        queries = dict(self.queries) if is_same else {}
        replaced = self.replaced_at_s if is_same else 0
        lines = {each.name: each for each in published.queries}
        for each in downlink.queries:
            known = queries.get(each.name)
            if known is None or known.at_s <= downlink.at_s:
                code = None if each.code is None else each.code.hex()
                over = _digest(lines.get(each.name))
                queries[each.name] = RadioQuery(downlink.at_s, code, each.alarms_per_day, over)
        if downlink.replaces:
            replaced = max(replaced, downlink.at_s)
        return replace(
            self.with_number(downlink.at_s),
            code_space=published.code_space,
            replaced_at_s=replaced,
            queries=queries,
        )

    def applied_to(self, published: Watchlist) -> Watchlist:
        """Return a published list with what came by radio. Raises WireError where the list would not be one."""
        if self.code_space != published.code_space:
            return published
        kept = {each.name: each for each in published.queries}
        for name, said in sorted(self.queries.items(), key=lambda item: item[1].at_s):
            if _digest(kept.get(name)) != said.over:
                continue
            if said.code is None or said.at_s < self.replaced_at_s:
                kept.pop(name, None)
            else:
                code = bytes.fromhex(said.code)
                rate = said.alarms_per_day
                kept[name] = Query(name, name, code=code, alarms_per_day=rate, group=RADIO_GROUP)
        try:
            return replace(published, queries=tuple(kept.values()))
        except (WatchlistError, CodeSpaceError) as error:
            raise WireError(f"downlink: {error}") from error


def read_memory(path: Path) -> DownlinkMemory:
    """Return what came before, nothing where there is no file. Raises StoreError for a damaged one."""
    try:
        table: Any = json.loads(path.read_bytes())
        if set(table) == {"last_at_s"}:  # of version 1
            return DownlinkMemory(newest_at_s=int(table["last_at_s"]), floor_s=int(table["last_at_s"]))
        require.version(StoreError, str(path), table, FORMAT_VERSION, "update fieldcube")
        values = {each.name: table[each.name] for each in fields(DownlinkMemory)}
        values["taken"] = tuple(values["taken"])
        values["queries"] = {name: RadioQuery(**each) for name, each in values["queries"].items()}
        return DownlinkMemory(**values)
    except FileNotFoundError:
        return DownlinkMemory()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"{path}: expected when the last messages came, found {error!r}; remove it only where no old message "
            "may come again"
        ) from error


def write_memory(path: Path, memory: DownlinkMemory) -> None:
    """Remember. Raises StoreError on a full disk."""
    table = {"format_version": FORMAT_VERSION, **asdict(memory)}
    try:
        write_file(path, (json.dumps(table) + "\n").encode())
    except OSError as error:
        raise StoreError(f"{path}: expected room for a few bytes, found {error}") from error


def _digest(line: Query | None) -> str:
    """Return what tells lines of a list apart; a line that was compiled again stays the same."""
    if line is None:
        return ""
    same = replace(
        line, code=None, logits=None, parts=tuple(replace(p, code=None, logits=None) for p in line.parts)
    )
    return hashlib.sha256(repr(asdict(same)).encode()).hexdigest()
