"""What a store holds, by number: runs of observations as columns and planes, detections, events; for sending them on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import StoreError
from edge.observation import Detection
from edge.store_blocks import Columns, pack_codes, planes_of, unpack_columns
from edge.store_connection import CHUNK, SELECT_DETECTION, StoreConnection
from edge.store_schema import Event

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAMES = tuple(field.name for field in fields(Columns))


@dataclass(frozen=True, slots=True)
class StoredRun:
    """Observations with contiguous seq, of one code space and width.

    columns: source and boot are indices in `sources` and `boots`; planes: uint64 [n_planes, n], edge.codes.to_planes.
    """

    first_seq: int
    code_space: str
    sources: tuple[str, ...]
    boots: tuple[str, ...]
    columns: Columns
    planes: NDArray[np.uint64]

    @property
    def n(self) -> int:
        """Return how many observations it holds."""
        return int(self.planes.shape[1])


class StoreRuns(StoreConnection):
    """Read one store by number, mode=ro, also while a writer records. Use it as a context manager or call close().

    Numbers count from 0 in an epoch: seq of observations, the order of detections, number of events.
    Every method raises StoreError when the file turns out to be damaged.
    """

    def made(self) -> tuple[int, int, int]:
        """Return how many observations (also dropped ones), detections and events there have been."""
        with self._reading():
            row = self._connection.execute(
                "SELECT max(coalesce((SELECT max(seq) + 1 FROM tail), 0),"
                " coalesce((SELECT first_seq + n FROM block ORDER BY first_seq DESC LIMIT 1), 0),"
                " coalesce((SELECT first_seq + n FROM dropped ORDER BY first_seq DESC LIMIT 1), 0)),"
                " (SELECT coalesce(max(id), 0) FROM detection),"
                " (SELECT coalesce(max(number) + 1, 0) FROM event)"
            ).fetchone()
        return int(row[0]), int(row[1]), int(row[2])

    def runs(self, first_seq: int, n: int) -> Iterator[StoredRun]:
        """Give what there is of n observations from first_seq on, in order; a run ends where a block does."""
        end = first_seq + n
        while first_seq < end:
            with self._reading():
                run = self._block_at(first_seq) or self._tail_at(first_seq, min(end - first_seq, CHUNK))
            if run is None or run.first_seq >= end:
                return
            cut = _part(run, max(0, first_seq - run.first_seq), min(run.n, end - run.first_seq))
            yield cut
            first_seq = cut.first_seq + cut.n

    def detections(self, first: int, n: int) -> Iterator[tuple[int, Detection]]:
        """Give n detections from the first on, each with its number."""
        end = first + n
        while first < end:
            with self._reading():
                rows = self._connection.execute(
                    f"{SELECT_DETECTION} WHERE d.id > ? AND d.id <= ? ORDER BY d.id LIMIT ?",
                    (first, end, CHUNK),
                ).fetchall()
            if not rows:
                return
            for number, *values in rows:
                yield number - 1, Detection(self.device_id, self.epoch, *values)
            first = rows[-1][0]

    def events(self, first: int, n: int) -> list[Event]:
        """Return what there is of n events from the first on."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT number, kind, before_seq, source.name, first_sample, n_samples, sample_rate_hz, reason"
                " FROM event JOIN source ON source.id = event.source WHERE number >= ? AND number < ? ORDER BY number",
                (first, first + n),
            ).fetchall()
        return [Event(*row) for row in rows]

    def dropped(self) -> list[tuple[int, int, str]]:
        """Return (first_seq, n, reason) of the observations that no longer exist."""
        with self._reading():
            return self._connection.execute(
                "SELECT first_seq, n, reason FROM dropped ORDER BY first_seq"
            ).fetchall()

    def clips(self, seq: int) -> list[str]:
        """Return the paths of the sound kept around an observation, as edge-monitor wrote them."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT DISTINCT clip FROM detection WHERE seq = ? AND clip IS NOT NULL", (seq,)
            ).fetchall()
        return [row[0] for row in rows]

    def _block_at(self, seq: int) -> StoredRun | None:
        """Return the first block that ends after seq."""
        row = self._connection.execute(
            "SELECT first_seq, n, code_space, columns, codes FROM block WHERE first_seq + n > ?"
            " AND first_seq >= coalesce((SELECT max(first_seq) FROM block WHERE first_seq <= ?), 0)"
            " ORDER BY first_seq LIMIT 1",
            (seq, seq),
        ).fetchone()
        if row is None:
            return None
        first_seq, n, code_space, packed, codes = row
        return self._run(first_seq, code_space, unpack_columns(packed, n), planes_of(codes, n).copy())

    def _tail_at(self, seq: int, n: int) -> StoredRun | None:
        """Return the run of at most n observations that begins at seq or first thereafter."""
        rows = self._connection.execute(
            "SELECT seq, code_space, length(code), code, source, first_sample, n_samples, sample_rate_hz, boot,"
            " boottime_ns, wall_ns, clock_state FROM tail WHERE seq >= ? ORDER BY seq LIMIT ?",
            (seq, n),
        ).fetchall()
        if not rows:
            return None
        first_seq, *kind = rows[0][:3]
        breaks = (i for i, row in enumerate(rows) if row[0] != first_seq + i or list(row[1:3]) != kind)
        run = rows[: next(breaks, len(rows))]
        planes = planes_of(pack_codes([row[3] for row in run]), len(run))
        return self._run(first_seq, kind[0], Columns.of_rows([row[4:] for row in run]), planes)

    def _run(
        self, first_seq: int, code_space: int, columns: Columns, planes: NDArray[np.uint64]
    ) -> StoredRun:
        """Build a run; its names are those of the whole block until _part leaves out the rest."""
        (space,) = self._named("code_space", [code_space])
        sources, source = np.unique(columns.source, return_inverse=True)
        boots, boot = np.unique(columns.boot, return_inverse=True)
        indexed = {name: getattr(columns, name) for name in _NAMES} | {"source": source, "boot": boot}
        return StoredRun(
            first_seq,
            space,
            self._named("source", sources.tolist()),
            self._named("boot", boots.tolist()),
            Columns(**indexed),
            planes,
        )

    def _named(self, table: str, ids: Sequence[int]) -> tuple[str, ...]:
        names = []
        for number in ids:
            row = self._connection.execute(f"SELECT name FROM {table} WHERE id = ?", (number,)).fetchone()
            if row is None:
                raise StoreError(f"{self.path}: table {table}: expected number {number}, found none")
            names.append(row[0])
        return tuple(names)


def _part(run: StoredRun, start: int, stop: int) -> StoredRun:
    """Return its observations [start, stop), counted from its first, with only the names that they need."""
    if (start, stop) == (0, run.n):
        return run
    cut = {name: getattr(run.columns, name)[start:stop].copy() for name in _NAMES}
    kept = {}
    for name, names in (("source", run.sources), ("boot", run.boots)):
        used, cut[name] = np.unique(cut[name], return_inverse=True)
        kept[name] = tuple(names[i] for i in used)
    planes = run.planes[:, start:stop].copy()
    return StoredRun(
        run.first_seq + start, run.code_space, kept["source"], kept["boot"], Columns(**cut), planes
    )
