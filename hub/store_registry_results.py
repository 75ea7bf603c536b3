"""Results in the registry: detections with what people said of them, effort, gaps and conflicts."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import astuple, dataclass

from edge.batch import STREAMS, Stream
from edge.verdict import Identity, Verdict
from hub.store_registry_database import Database

_COLUMNS = (
    "id, device, epoch, seq, query, text, distance, probability, false_alarms_per_day, clip, received_ns, uid,"
    " code_space, wall_ns, source, first_sample, n_samples, sample_rate_hz"
)
_VERDICT = "device, epoch, seq, query, text, code_space, distance, probability, answer, given_ns, note"


@dataclass(frozen=True, slots=True)
class KeptDetection:
    """A detection at the hub. device: number; times: UTC in ns; uid .. sample_rate_hz: of its observation.

    uid .. sample_rate_hz are None until the observation has come; wall_ns also where its recorder knew no time.
    """

    id: int
    device: int
    epoch: int
    seq: int
    query: str
    text: str
    distance: int
    probability: float
    false_alarms_per_day: float | None
    clip: str | None
    received_ns: int
    uid: int | None
    code_space: str | None
    wall_ns: int | None
    source: str | None
    first_sample: int | None
    n_samples: int | None
    sample_rate_hz: int | None


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """A gap, a skipped source or a recovery; device: number; the rest as in edge.store_schema.Event."""

    device: int
    epoch: int
    number: int
    kind: str
    before_seq: int
    source: str
    first_sample: int
    n_samples: int
    sample_rate_hz: int
    reason: str
    received_ns: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """n records of a stream from first that came again with another content, n_times; what came first was kept."""

    device: int
    epoch: int
    stream: Stream
    first: int
    n: int
    first_ns: int
    last_ns: int
    n_times: int


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of a device's epoch is here: numbers made as it says, observations kept and dropped."""

    device: int
    epoch: int
    begun_ns: int
    n_made: int
    n_kept: int
    n_dropped: int


class Results:
    """Reads what came in, and keeps the verdicts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def detections(
        self,
        *,
        devices: Collection[int] | None = None,
        query: str | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[KeptDetection]:
        """Return detections, newest first, those without a time last. query: its name or text; None = all of each."""
        terms, values = ["1"], list[object]()
        if devices is not None:
            terms.append(f"device IN ({', '.join('?' * len(devices))})")
            values += sorted(devices)
        for term, value in (("wall_ns >= ?", since_ns), ("wall_ns < ?", until_ns)):
            if value is not None:
                terms.append(term)
                values.append(value)
        if query is not None:
            terms.append("? IN (query, text)")
            values.append(query)
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM detection WHERE {' AND '.join(terms)}"
                " ORDER BY wall_ns DESC, id DESC LIMIT ? OFFSET ?",
                (*values, limit, offset),
            ).fetchall()
        return [KeptDetection(*row) for row in rows]

    def queries(self) -> list[tuple[str, str, int]]:
        """Return (query, text, number of detections), the most frequent first."""
        with self._database.reading() as connection:
            return connection.execute(
                "SELECT query, text, count(*) FROM detection GROUP BY query, text ORDER BY count(*) DESC, query"
            ).fetchall()

    def identity_of(self, uid: int) -> tuple[int, int, int] | None:
        """Return (device, epoch, seq) of an observation, None where there is none of that uid."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT device, epoch, first_seq + ? - first_uid FROM part WHERE first_uid ="
                " (SELECT max(first_uid) FROM part WHERE first_uid <= ?) AND ? < first_uid + n",
                (uid, uid, uid),
            ).fetchone()
        return None if row is None else (int(row[0]), int(row[1]), int(row[2]))

    def uid_of(self, device: int, epoch: int, seq: int) -> int | None:
        """Return the uid of an observation, None where it is not here."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT first_uid + ? - first_seq FROM part WHERE device = ? AND epoch = ? AND first_seq ="
                " (SELECT max(first_seq) FROM part WHERE device = ? AND epoch = ? AND first_seq <= ?)"
                " AND ? < first_seq + n",
                (seq, device, epoch, device, epoch, seq, seq),
            ).fetchone()
        return None if row is None else int(row[0])

    def events(self, device: int, limit: int = 100) -> list[KeptEvent]:
        """Return a device's gaps, skipped sources and recoveries, newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT device, epoch, number, kind, before_seq, source, first_sample, n_samples, sample_rate_hz, reason,"
                " received_ns FROM event WHERE device = ? ORDER BY received_ns DESC, number DESC LIMIT ?",
                (device, limit),
            ).fetchall()
        return [KeptEvent(*row) for row in rows]

    def dropped(self, device: int) -> list[tuple[int, int, int, str]]:
        """Return (epoch, first_seq, n, reason) of the observations that a device has lost."""
        with self._database.reading() as connection:
            return connection.execute(
                "SELECT epoch, first_seq, n, reason FROM dropped WHERE device = ? ORDER BY epoch, first_seq",
                (device,),
            ).fetchall()

    def conflicts(self, device: int | None = None, limit: int = 100) -> list[Conflict]:
        """Return what came twice and differed, the latest first: a cloned card, or an old one that was restored."""
        where, values = _about(device)
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT device, epoch, stream, first, n, first_ns, last_ns, n_times FROM conflict"
                + where
                + " ORDER BY last_ns DESC, first LIMIT ?",
                (*values, limit),
            ).fetchall()
        return [Conflict(device, epoch, STREAMS[i], *rest) for device, epoch, i, *rest in rows]

    def efforts(self, device: int | None = None) -> list[Effort]:
        """Return how much of each epoch is here, of one device or of all."""
        where, values = _about(device)
        with self._database.reading() as connection:
            # what is settled is kept or dropped, never both, and has far fewer rows than what came
            rows = connection.execute(
                "SELECT device, epoch, begun_ns, observations, (SELECT coalesce(sum(n), 0) FROM settled"
                " WHERE settled.device = epoch.device AND settled.epoch = epoch.epoch AND stream = ?), (SELECT coalesce(sum(n), 0)"
                " FROM dropped WHERE dropped.device = epoch.device AND dropped.epoch = epoch.epoch)"
                f" FROM epoch{where} ORDER BY device, begun_ns",
                (STREAMS.index("observations"), *values),
            ).fetchall()
        return [
            Effort(number, epoch, begun_ns, n_made, n_settled - n_dropped, n_dropped)
            for number, epoch, begun_ns, n_made, n_settled, n_dropped in rows
        ]

    def keep_verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Keep verdicts; each replaces the one there was about its detection."""
        with self._database.writing() as connection:
            connection.executemany(
                f"INSERT OR REPLACE INTO verdict ({_VERDICT}) VALUES ({', '.join('?' * 11)})",
                [astuple(verdict) for verdict in verdicts],
            )

    def verdicts(self) -> dict[Identity, Verdict]:
        """Return all verdicts by identity."""
        with self._database.reading() as connection:
            rows = connection.execute(f"SELECT {_VERDICT} FROM verdict").fetchall()
        return {verdict.identity: verdict for verdict in (Verdict(*row) for row in rows)}


def _about(device: int | None) -> tuple[str, tuple[int, ...]]:
    """Return the clause and its values that choose one device, or all."""
    return ("", ()) if device is None else (" WHERE device = ?", (device,))
