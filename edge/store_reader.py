"""The observation store's reader: search, observations, detections and events, also while a writer records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import CodeSpaceError, StoreError
from edge.observation import CLOCK_STATES, Detection, Instant, Observation
from edge.store_blocks import UNKNOWN_WALL_NS, unpack_codes, unpack_columns
from edge.store_connection import CHUNK, SELECT_DETECTION, StoreConnection
from edge.store_period import Period
from edge.store_ranking import SELECT_TAIL, Hit, Ranking, asymmetric_ranking, hamming_ranking, rank
from edge.store_schema import Event

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ALWAYS", "Event", "Found", "Hit", "Period", "StoreReader"]

ALWAYS = Period()
Found = tuple[Observation, Detection]


class StoreReader(StoreConnection):
    """Read one store, mode=ro. Use it as a context manager or call close().

    Every method raises StoreError when the file turns out to be damaged.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._names: dict[tuple[str, int], str] = {}

    def top_k(
        self, code: NDArray[np.uint8], code_space: str, k: int, period: Period = ALWAYS
    ) -> Iterator[Hit]:
        """Return the k observations nearest to code uint8 [n_bytes], exact, ties in the order of recording.

        k = 0 returns all. The scan is over when this returns; the hits are made as they are consumed.
        Raises CodeSpaceError when the store has observations, but none of this code space and width.
        """
        return self._rank(hamming_ranking(code, k), code_space, code.size, period)

    def asymmetric_top_k(
        self, logits: NDArray[np.float32], code_space: str, k: int, period: Period = ALWAYS
    ) -> Iterator[Hit]:
        """As top_k, by the query's logits float32 [n_bits]; see store_ranking.asymmetric_ranking."""
        return self._rank(asymmetric_ranking(logits, k), code_space, logits.size // 8, period)

    def counts(self) -> dict[str, int]:
        """Return how many observations there are of each code space."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT name, coalesce((SELECT sum(n) FROM block WHERE code_space = id), 0)"
                " + (SELECT count(*) FROM tail WHERE code_space = id) FROM code_space ORDER BY id"
            ).fetchall()
        return dict(rows)

    def n_without_time(self) -> int:
        """Return how many observations have no wall clock: no period contains them."""
        with self._reading():
            (n,) = self._connection.execute(
                "SELECT coalesce((SELECT sum(n - n_wall) FROM block), 0)"
                " + (SELECT count(*) FROM tail WHERE wall_ns IS NULL)"
            ).fetchone()
        return int(n)

    def observations(self, first_seq: int = 0) -> Iterator[Observation]:
        """Walk through the observations from first_seq on, in the order of seq, also those added meanwhile."""
        while True:
            with self._reading():
                found = self._block_at(first_seq) or self._tail_from(first_seq)
            if not found:
                return
            yield from (each for each in found if each.seq >= first_seq)
            first_seq = found[-1].seq + 1

    def detections(
        self, period: Period = ALWAYS, query: str | None = None, source: str | None = None
    ) -> Iterator[Found]:
        """Walk through the detections in the order of recording, each with its observation.

        query: only of the query with this name or text; source: only of this source.
        """
        last_id, known = -1, dict[int, Observation]()
        where = " WHERE d.id > ?" + (" AND ? IN (q.name, q.text)" if query is not None else "")
        while True:
            with self._reading():
                values = (last_id,) if query is None else (last_id, query)
                rows = self._connection.execute(
                    SELECT_DETECTION + where + " ORDER BY d.id LIMIT ?", (*values, CHUNK)
                ).fetchall()
                found = []
                for _, seq, *fields in rows:
                    if seq not in known:
                        near = self._block_at(seq) or self._tail_from(seq)
                        known = {each.seq: each for each in near}
                    found.append(
                        (self._required(known, seq), Detection(self.device_id, self.epoch, seq, *fields))
                    )
            if not rows:
                return
            last_id = rows[-1][0]
            for observation, detection in found:
                if period.contains(observation.instant.wall_ns) and source in (None, observation.source):
                    yield observation, detection

    def events(self) -> list[Event]:
        """Return the gaps, skipped sources and recoveries in the order they happened."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT number, kind, before_seq, source.name, first_sample, n_samples, sample_rate_hz, reason"
                " FROM event JOIN source ON source.id = event.source ORDER BY number"
            ).fetchall()
        return [Event(*row) for row in rows]

    def dropped(self) -> list[tuple[int, int, str]]:
        """Return (first_seq, n, reason) of the observations that could not be written."""
        with self._reading():
            return self._connection.execute(
                "SELECT first_seq, n, reason FROM dropped ORDER BY first_seq"
            ).fetchall()

    def _rank(self, ranking: Ranking, code_space: str, n_bytes: int, period: Period) -> Iterator[Hit]:
        with self._reading():
            spaces = dict(self._connection.execute("SELECT name, id FROM code_space").fetchall())
            if code_space not in spaces:
                if not spaces:
                    return iter(())
                raise CodeSpaceError(
                    f"{self.path}: expected observations of code space {code_space}, found {', '.join(spaces)}; "
                    "search with the bundle that made them (--bundle)"
                )
            try:
                return rank(self._connection, spaces[code_space], n_bytes, ranking, period)
            except CodeSpaceError as error:
                raise CodeSpaceError(f"{self.path}: {error}") from error

    def _block_at(self, seq: int) -> list[Observation]:
        """Return the observations of the first block that ends after seq."""
        row = self._connection.execute(
            "SELECT first_seq, n, code_space, columns, codes FROM block WHERE first_seq + n > ?"
            " AND first_seq >= coalesce((SELECT max(first_seq) FROM block WHERE first_seq <= ?), 0)"
            " ORDER BY first_seq LIMIT 1",
            (seq, seq),
        ).fetchone()
        if row is None:
            return []
        first_seq, n, code_space, packed, codes = row
        columns = unpack_columns(packed, n)
        table = zip(
            columns.source.tolist(),
            columns.first_sample.tolist(),
            columns.n_samples.tolist(),
            columns.sample_rate_hz.tolist(),
            columns.boot.tolist(),
            columns.boottime_ns.tolist(),
            columns.wall_ns.tolist(),
            columns.clock_state.tolist(),
            range(first_seq, first_seq + n),
            unpack_codes(codes, n),
            strict=True,
        )
        return [self._observation(fields, code_space) for fields in table]

    def _tail_from(self, seq: int) -> list[Observation]:
        rows = self._connection.execute(
            SELECT_TAIL.replace(" FROM tail", ", code_space FROM tail WHERE seq >= ? ORDER BY seq LIMIT ?"),
            (seq, CHUNK),
        ).fetchall()
        return [self._observation(fields, code_space) for *fields, code_space in rows]

    def _observation(self, fields: Any, code_space: int) -> Observation:
        """Build an observation from SELECT_TAIL's columns."""
        source, first_sample, n_samples, rate_hz, boot, boottime_ns, wall_ns, clock_state, seq, code = fields
        known_wall_ns = None if wall_ns == UNKNOWN_WALL_NS else wall_ns
        return Observation(
            device_id=self.device_id,
            epoch=self.epoch,
            seq=seq,
            code=code,
            code_space=self._name("code_space", code_space),
            source=self._name("source", source),
            first_sample=first_sample,
            sample_rate_hz=rate_hz,
            n_samples=n_samples,
            instant=Instant(self._name("boot", boot), boottime_ns, known_wall_ns, CLOCK_STATES[clock_state]),
        )

    def _name(self, table: str, number: int) -> str:
        if (table, number) not in self._names:
            (name,) = self._connection.execute(f"SELECT name FROM {table} WHERE id = ?", (number,)).fetchone()
            self._names[table, number] = name
        return self._names[table, number]

    def _required(self, known: dict[int, Observation], seq: int) -> Observation:
        if seq not in known:
            raise StoreError(
                f"{self.path}: expected observation {seq} of a detection, found none; the store is damaged"
            )
        return known[seq]
