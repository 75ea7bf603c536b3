"""What people look at in the registry: detections beside what was said of them, counted by hour, verdict and recorder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

from edge.verdict import Answer, Verdict
from hub.store_registry_database import Database
from hub.store_registry_results import KeptDetection

Said = Literal["right", "wrong", "unsure", "none"]  # none: nobody has said anything
SAID: tuple[Said, ...] = get_args(Said)

CHUNK = 50_000  # detections that are in memory at once while all are walked through
_NO_TIME = 2**63 - 1  # sorts what has no time last
_DETECTION = ", ".join(f"detection.{each.name}" for each in fields(KeptDetection))
_VERDICT = ", ".join(
    f"verdict.{'device' if each.name == 'device_id' else each.name}" for each in fields(Verdict)
)
_FROM = (
    "FROM detection JOIN device ON device.number = detection.device LEFT JOIN verdict ON verdict.device = device.name"
    " AND verdict.epoch = detection.epoch AND verdict.seq = detection.seq AND verdict.query = detection.query"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which detections are asked for; None = all. devices: numbers; query: its name or text; since_ns <= wall_ns < until_ns.

    hours: of the day, 0..23, of the clock that is utc_offset_s ahead of UTC; said: what people said of them.
    """

    devices: frozenset[int] | None = None
    query: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    hours: frozenset[int] | None = None
    utc_offset_s: int = 0
    said: Said | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A detection with what was said of it; verdict: None where nobody said anything."""

    detection: KeptDetection
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Tally:
    """How many detections there are, by what was said of them, and by number of the device."""

    total: int
    by_said: Mapping[Said, int]
    by_device: Mapping[int, int]


class Views:
    """Reads detections together with their verdicts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, asked: Asked, limit: int, offset: int = 0) -> list[Judged]:
        """Return detections, the newest first, those without a time last."""
        where, values = _where(asked)
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT {_DETECTION}, {_VERDICT} {_FROM} WHERE {where}"
                " ORDER BY detection.wall_ns DESC, detection.id DESC LIMIT ? OFFSET ?",
                (*values, limit, offset),
            ).fetchall()
        return [_judged(row) for row in rows]

    def all(self, asked: Asked, chunk: int = CHUNK) -> Iterator[Judged]:
        """Walk through detections, the oldest first, those without a time last, without holding up those who write."""
        where, values = _where(asked)
        after = (-1, -1)
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(
                    f"SELECT {_DETECTION}, {_VERDICT} {_FROM} WHERE {where}"
                    f" AND (coalesce(detection.wall_ns, {_NO_TIME}), detection.id) > (?, ?)"
                    f" ORDER BY coalesce(detection.wall_ns, {_NO_TIME}), detection.id LIMIT ?",
                    (*values, *after, chunk),
                ).fetchall()
            judged = [_judged(row) for row in rows]
            yield from judged
            if len(judged) < chunk:
                return
            last = judged[-1].detection
            after = (_NO_TIME if last.wall_ns is None else last.wall_ns, last.id)

    def of(self, device: int, epoch: int, seq: int, query: str) -> Judged | None:
        """Return the detection of an observation by a query, None where there is none."""
        with self._database.reading() as connection:
            row = connection.execute(
                f"SELECT {_DETECTION}, {_VERDICT} {_FROM} WHERE detection.device = ? AND detection.epoch = ?"
                " AND detection.seq = ? AND detection.query = ? ORDER BY detection.id LIMIT 1",
                (device, epoch, seq, query),
            ).fetchone()
        return None if row is None else _judged(row)

    def answer(self, name: str, epoch: int, seq: int, query: str) -> Answer | None:
        """Return what was said of an observation of the device with a name and a query, None where nothing was."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT answer FROM verdict WHERE device = ? AND epoch = ? AND seq = ? AND query = ?",
                (name, epoch, seq, query),
            ).fetchone()
        return None if row is None else row[0]

    def tally(self, asked: Asked) -> Tally:
        """Count detections."""
        where, values = _where(asked)
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT coalesce(verdict.answer, 'none'), detection.device, count(*) {_FROM} WHERE {where} GROUP BY 1, 2",
                values,
            ).fetchall()
        by_said: dict[Said, int] = {}
        by_device: dict[int, int] = {}
        for said, device, n in rows:
            by_said[said] = by_said.get(said, 0) + n
            by_device[device] = by_device.get(device, 0) + n
        return Tally(sum(by_said.values()), by_said, by_device)

    def hours(self, asked: Asked) -> list[tuple[int, int]]:
        """Return (hour since 1970 of the clock that is asked for, number of detections) in order, empty hours left out."""
        where, values = _where(asked)
        with self._database.reading() as connection:
            return connection.execute(
                f"SELECT (detection.wall_ns / 1000000000 + ?) / 3600, count(*) {_FROM}"
                f" WHERE {where} AND detection.wall_ns IS NOT NULL GROUP BY 1 ORDER BY 1",
                (asked.utc_offset_s, *values),
            ).fetchall()

    def n_detections(self) -> dict[int, int]:
        """Return how many detections there are of each device."""
        with self._database.reading() as connection:
            return dict(
                connection.execute("SELECT device, count(*) FROM detection GROUP BY device").fetchall()
            )


def _where(asked: Asked) -> tuple[str, list[object]]:
    terms, values = ["1"], list[object]()
    if asked.devices is not None:
        terms.append(f"detection.device IN ({', '.join('?' * len(asked.devices))})")
        values += sorted(asked.devices)
    if asked.query is not None:
        terms.append("? IN (detection.query, detection.text)")
        values.append(asked.query)
    for term, value in (
        ("detection.wall_ns >= ?", asked.since_ns),
        ("detection.wall_ns < ?", asked.until_ns),
    ):
        if value is not None:
            terms.append(term)
            values.append(value)
    if asked.hours is not None:
        places = ", ".join("?" * len(asked.hours))
        terms.append(f"((detection.wall_ns / 1000000000 + ?) / 3600) % 24 IN ({places})")
        values += [asked.utc_offset_s, *sorted(asked.hours)]
    if asked.said is not None:
        terms.append("coalesce(verdict.answer, 'none') = ?")
        values.append(asked.said)
    return " AND ".join(terms), values


def _judged(row: tuple[object, ...]) -> Judged:
    n = len(fields(KeptDetection))
    verdict = None if row[n] is None else Verdict(*row[n:])  # type: ignore[arg-type]
    return Judged(KeptDetection(*row[:n]), verdict)  # type: ignore[arg-type]
