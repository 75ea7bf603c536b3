"""The alarms of a watchlist at a site: its sentences as rows of codes, the rule on them, and what it has learnt, kept over restarts."""

from __future__ import annotations

import hashlib
import io
import logging
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.alarm_course import Course
from edge.alarm_rule import Alarm, AlarmQuery, AlarmRule
from edge.alarm_statistic import Bits, Statistic
from edge.background import LEAST_PER_DAY
from edge.bundle import require_code_space
from edge.codes import distances, to_planes
from edge.durable import write_file
from edge.errors import WatchlistError
from edge.false_alarms import Threshold, passing
from edge.observation import Instant, Observation
from edge.reference import Reference
from edge.watchlist import Query, Watchlist

LOG = logging.getLogger(__name__)

N_NEAREST = 200  # background windows that tell how much of what is let through a decoy takes back
ALARMS_PER_DAY = 2.0  # wanted of a line that says nothing
STATE_VERSION = 3
_ARRAYS = (
    "keys",
    "wanted",
    "counts",
    "correction",
    "passed",
    "heard",
    "n_windows",
    "part_counts",
    "part_queries",
)
_PAUSES = ("lines", "quiet_s", "in_hour", "boot_id", "boottime_ns", "wall_ns")
_UNKNOWN_WALL_NS = -1

_MINUTE_NS = 60_000_000_000

IsActive = Callable[[Query, datetime | None], bool]
Accepts = Callable[[Query, int], bool]  # of a query at a distance in bits


@dataclass(frozen=True, slots=True)
class Heard:
    """A query that a window set off; distance: of its nearest sentence, of `A & B` of the farthest; per_day: expected false alarms at least as near."""

    query: Query
    distance: int
    per_day: float | None


@dataclass(frozen=True, slots=True)
class Limited:
    """A query at its limit of alarms an hour; n_held_back: alarms since the run began that the limit held back."""

    query: Query
    n_held_back: int


def sentences_of(query: Query) -> list[bytes]:
    """Return the codes of the sentences of a compiled query: its parts, or its own."""
    codes = [part.code for part in query.parts] if query.parts else [query.code]
    return [code for code in codes if code is not None]


class Alarms:
    """Decides on observations in the order in which they are made. Not thread-safe.

    is_active: (query, aware UTC time or None where it is not known) -> whether its line asks for that time.
    """

    def __init__(
        self,
        watchlist: Watchlist,
        reference: Reference,
        hop_s: float,
        alarms_per_day: float = ALARMS_PER_DAY,
        is_active: IsActive | None = None,
    ) -> None:
        self.queries = [query for query in watchlist.queries if not query.decoy]
        if not self.queries:
            raise WatchlistError("watchlist: expected at least one query that is no decoy, found none")
        codes: list[bytes] = []
        asked: list[AlarmQuery] = []
        for query in self.queries:
            own = sentences_of(query)
            rows = tuple(range(len(codes), len(codes) + len(own)))
            codes += own
            wanted = alarms_per_day if query.alarms_per_day is None else query.alarms_per_day
            statistic = Statistic(rows, query.combine, query.confirm)
            asked.append(AlarmQuery(statistic, wanted, query.cooldown_s or 0.0))
        self._planes = _planes(codes)
        decoys = [query.code for query in watchlist.queries if query.decoy and query.code is not None]
        self._decoys = _planes(decoys) if decoys else None
        self._code_space, self._bins = watchlist.code_space, watchlist.code_bits + 1
        self._hop_s, self._is_active = hop_s, is_active
        self._course, self._is_damaged = Course(hop_s), False
        self._last_code = b""
        self._active = np.ones(len(self.queries), bool)
        self._active_minute: int | None = -1  # of UTC, for which _active was asked
        self._timed = is_active is not None and any(query.active for query in self.queries)
        background = self.distances(reference.background)
        self.rule = AlarmRule(asked, background, reference.runs, hop_s, self._bins)
        self._open_shares = self._left_by_decoys(background, reference)

    def hear(self, observation: Observation, accepts: Accepts | None = None) -> Heard | None:
        """Return what an observation sets off, or None, and learn from it. Raises CodeSpaceError for another code space.

        accepts: what else is asked of a query before it alarms; one that is rejected starts no cooldown.
        """
        if observation.code_space != self._code_space:
            require_code_space(self._code_space, observation.code_space, "observation", observation.source)
        step = self._course.step(observation)
        if not step.is_continued:
            self.rule.begin_recording()
        code = np.frombuffer(observation.code, np.uint8)
        found = distances(code, self._planes).astype(np.int64)  # [n_rows]
        decoy = self._bins if self._decoys is None else int(distances(code, self._decoys).min())

        def is_accepted(row: int) -> bool:
            return accepts is None or accepts(self.queries[row], self._distance(row, found))

        is_active = self._active_at(observation.instant.wall_ns)
        # digital silence gives one code for ever: a day of it must not become what the site sounds like
        is_repeat, self._last_code = observation.code == self._last_code, observation.code
        alarm = self.rule.decide(found, decoy, is_active, is_accepted, step.passed_s, is_repeat=is_repeat)
        return None if alarm is None else self._heard(alarm, found)

    def take_limited(self) -> list[Limited]:
        """Return the queries to tell of that are at their limit of alarms an hour: each once an hour at most."""
        pauses = self.rule.pauses
        return [Limited(self.queries[row], int(pauses.n_limited[row])) for row in pauses.take_notices()]

    @property
    def n_limited(self) -> int:
        """Return how many alarms the limit an hour has held back."""
        return int(self.rule.pauses.n_limited.sum())

    def learn(self, observations: Iterable[Observation], queries: Sequence[Query]) -> int:
        """Learn `queries` from observations made before at this site, in order; returns how many were of this code space."""
        course, run = Course(self._hop_s), 0
        codes, runs = bytearray(), array("q")
        for each in observations:
            if each.code_space == self._code_space:
                codes += each.code
                run += not course.step(each).is_continued
                runs.append(run)
        if runs:
            names = {query.name for query in queries}
            rows = np.asarray([query.name in names for query in self.queries])
            stored = _Stored(np.frombuffer(codes, np.uint8).reshape(len(runs), -1), self.distances)
            self.rule.learn(stored, np.asarray(runs, np.int64), rows)
        return len(runs)

    def expected_per_day(self, number: int, threshold: Threshold) -> float | None:
        """Return how many false alarms a day a query gives at a threshold, what decoys take left out; None while nothing is known."""
        background = self.rule.background
        tail = background.tail(number)
        if tail is None:
            return None
        expected = passing(tail, threshold) * self._open_shares[number] * background.windows_per_day
        return float(max(expected, LEAST_PER_DAY))

    def state(self) -> bytes:
        """Return what was learnt, as the bytes of a .npz; names, wanted, threshold and expected are for who only reads it."""
        background, stream = self.rule.background, io.BytesIO()
        combined = [n for n, query in enumerate(self.rule.queries) if query.statistic.combine]
        rows = [row for n in combined for row in self.rule.queries[n].statistic.rows]
        expected = [self.expected_per_day(n, each) for n, each in enumerate(self.rule.thresholds)]
        bits = [
            None if known is None else each.distance + each.share
            for known, each in zip(expected, self.rule.thresholds, strict=True)
        ]
        np.savez_compressed(
            stream,
            version=np.asarray(STATE_VERSION),
            code_space=np.asarray(self._code_space),
            hop_s=np.asarray(self._hop_s),
            keys=np.asarray([_key(query) for query in self.queries]),
            names=np.asarray([query.name for query in self.queries]),
            wanted=background.wanted_per_day,
            threshold=np.asarray(bits, np.float64),  # None is NaN
            expected=np.asarray(expected, np.float64),
            counts=background.counts.astype(np.float32),
            correction=background.correction,
            passed=background.passed,
            heard=background.heard,
            n_windows=np.asarray(background.n_windows),
            **self._pauses(),
            part_counts=self.rule.parts.counts[rows].astype(np.float32),
            part_queries=np.asarray(
                [n for n in combined for _ in self.rule.queries[n].statistic.rows], np.int64
            ),
        )
        return stream.getvalue()

    def save(self, path: Path) -> None:
        """Write the state with all that was heard, whole or not at all; a disk that is full costs nothing else, and is told.

        A file that restore found damaged is kept beside it as <name>.corrupt.
        """
        self.rule.settle()
        try:
            if self._is_damaged and path.is_file():
                path.replace(path.with_name(f"{path.name}.corrupt"))
            write_file(path, self.state())
            self._is_damaged = False
        except OSError as error:
            LOG.warning("%s: the learnt background could not be written: %s", path, error)

    def restore(self, path: Path) -> list[Query]:
        """Take the state of a run before; returns the queries that it does not know.

        A state of another code space or hop, or a damaged one, is passed over and told: it is learnt anew.
        """
        if not path.is_file():
            return list(self.queries)
        try:
            content = io.BytesIO(path.read_bytes())  # np.load leaves a damaged file open
            with np.load(content, allow_pickle=False) as file:
                found = (int(file["version"]), str(file["code_space"]), float(file["hop_s"]))
                wanted = (STATE_VERSION, self._code_space, self._hop_s)
                if found != wanted:
                    LOG.warning("%s: learnt with %s, now %s; learning anew", path, found, wanted)
                    return list(self.queries)
                return self._take({name: file[name] for name in (*_ARRAYS, *_PAUSES)})
        except Exception as error:  # of a damaged zip: an unknown method, a password, an allocation ...
            LOG.warning("%s: expected a learnt background, found: %r; learning anew", path, error)
            self._is_damaged = True
            return list(self.queries)

    def _take(self, arrays: Mapping[str, NDArray[Any]]) -> list[Query]:
        """Take the arrays of a state, all of them or none; returns the queries that they do not know. Raises ValueError."""
        n_keys, n_parts = len(arrays["keys"]), len(arrays["part_queries"])
        for name, shape in (
            ("counts", (n_keys, self._bins)),
            ("correction", (n_keys,)),
            ("wanted", (n_keys,)),
            ("passed", (n_keys,)),
            ("heard", (n_keys,)),
            ("quiet_s", (n_keys,)),
            ("in_hour", (n_keys,)),
            ("part_counts", (n_parts, self._bins)),
        ):
            if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
                raise ValueError(f"expected {name} of finite numbers {shape}, found {arrays[name].shape}")
            if name != "correction" and (arrays[name] < 0).any():
                raise ValueError(f"expected {name} of 0 or more, found {arrays[name].min()}")
        places = {str(key): place for place, key in enumerate(arrays["keys"])}
        n_windows, instant = int(arrays["n_windows"]), _instant(arrays)
        lines = {str(line): place for place, line in enumerate(arrays["lines"])}
        quiet_s, in_hour = np.zeros((2, len(self.queries)))
        background, unknown = self.rule.background, []
        counts, correction = background.counts.copy(), background.correction.copy()
        passed, heard = background.passed.copy(), background.heard.copy()
        part_counts = self.rule.parts.counts.copy()
        for number, query in enumerate(self.queries):
            line = lines.get(_line(query))
            if line is not None:
                quiet_s[number], in_hour[number] = arrays["quiet_s"][line], arrays["in_hour"][line]
            place = places.get(_key(query))
            if place is None:
                unknown.append(query)
                continue
            counts[number] = arrays["counts"][place]
            is_same_rate = arrays["wanted"][place] == background.wanted_per_day[number]
            if is_same_rate:  # of another one these say nothing
                correction[number] = arrays["correction"][place]
                passed[number], heard[number] = arrays["passed"][place], arrays["heard"][place]
            statistic = self.rule.queries[number].statistic
            if statistic.combine:
                part_counts[list(statistic.rows)] = arrays["part_counts"][arrays["part_queries"] == place]
        background.counts, background.correction, background.n_windows = counts, correction, n_windows
        background.passed, background.heard = passed, heard
        self.rule.parts.counts = part_counts
        self.rule.pauses.restore(quiet_s, in_hour)
        self._course.instant = instant
        self.rule.refresh()
        return unknown

    def _left_by_decoys(self, background: Bits, reference: Reference) -> list[float]:
        """Return which share of the windows that a query lets through no decoy takes, [n_queries]; background: [n_windows, n_rows]."""
        if self._decoys is None or not len(background):
            return [1.0] * len(self.queries)
        planes = to_planes(np.ascontiguousarray(reference.background))
        decoy = np.full(len(background), self._bins, np.int64)
        for row in range(self._decoys.shape[1]):
            code = np.ascontiguousarray(self._decoys[:, row]).view(np.uint8)
            decoy = np.minimum(decoy, distances(code, planes).astype(np.int64))
        bits, shares = self.rule.bits(background, reference.runs), []
        for number, query in enumerate(self.rule.queries):
            nearest = np.argsort(bits[:, number], kind="stable")[:N_NEAREST]
            own = background[nearest][:, list(query.statistic.rows)].min(axis=1)
            shares.append(float((own < decoy[nearest]).mean()))
        return shares

    def _pauses(self) -> dict[str, Any]:
        """Return the silences of the queries, and when they were so long, as arrays of the state."""
        instant = self._course.instant or Instant("", 0, None, "unset")
        wall_ns = _UNKNOWN_WALL_NS if instant.wall_ns is None else instant.wall_ns
        pauses, lines = self.rule.pauses, [_line(query) for query in self.queries]
        values = lines, pauses.quiet_s, pauses.in_hour, instant.boot_id, instant.boottime_ns, wall_ns
        return {name: np.asarray(value) for name, value in zip(_PAUSES, values, strict=True)}

    def _active_at(self, wall_ns: int | None) -> NDArray[np.bool_]:
        """Return which queries ask for a time, [n_queries]; asked once a minute, for the sun costs more than a window may."""
        minute = None if wall_ns is None else wall_ns // _MINUTE_NS
        if self._timed and minute != self._active_minute:
            assert self._is_active is not None  # _timed says so
            time = None if minute is None else datetime.fromtimestamp(60 * minute, timezone.utc)
            self._active = np.asarray([self._is_active(query, time) for query in self.queries])
            self._active_minute = minute
        return self._active

    def _heard(self, alarm: Alarm, found: Bits) -> Heard:
        return Heard(self.queries[alarm.row], self._distance(alarm.row, found), alarm.per_day)

    def _distance(self, query: int, found: Bits) -> int:
        """Return the distance of a query, of distances [n_rows]: of its nearest sentence; where all are asked for, of the farthest."""
        statistic = self.rule.queries[query].statistic
        own = [int(found[row]) for row in statistic.rows]
        return max(own) if statistic.combine == "and" else min(own)

    def distances(self, codes: NDArray[np.uint8]) -> Bits:
        """Return distances [n_codes, n_rows] of codes [n_codes, n_bytes] to the sentences of the queries, rows as in the rule's statistics."""
        n_rows = self._planes.shape[1]
        if not len(codes):
            return np.zeros((0, n_rows), np.int64)
        planes = to_planes(np.ascontiguousarray(codes))
        rows = [distances(self._row(row), planes) for row in range(n_rows)]
        return np.stack(rows, axis=1).astype(np.int64)

    def _row(self, row: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self._planes[:, row]).view(np.uint8)


@dataclass(frozen=True, slots=True)
class _Stored:
    """Codes [n, n_bytes] that are compared when they are asked for."""

    codes: NDArray[np.uint8]
    distances: Callable[[NDArray[np.uint8]], Bits]

    def __getitem__(self, windows: slice, /) -> Bits:
        return self.distances(self.codes[windows])


def _planes(codes: Sequence[bytes]) -> NDArray[np.uint64]:
    return to_planes(np.stack([np.frombuffer(code, np.uint8) for code in codes]))


def _instant(arrays: Mapping[str, NDArray[Any]]) -> Instant:
    """Return when the last window was heard, of the arrays of a state."""
    wall_ns = int(arrays["wall_ns"])
    known_ns = None if wall_ns == _UNKNOWN_WALL_NS else wall_ns
    return Instant(str(arrays["boot_id"]), int(arrays["boottime_ns"]), known_ns, "unset")


def _line(query: Query) -> str:
    """Return what makes a line that alarms: its statistic and its name, for two lines may ask the same at other times."""
    return f"{_key(query)} {query.name}"


def _key(query: Query) -> str:
    """Return what makes the statistic of a query: its codes and how they are put together."""
    digest = hashlib.sha256(b"".join(sentences_of(query)))
    digest.update(f"{query.combine} {query.confirm}".encode())
    return digest.hexdigest()[:16]
