"""How long a recorder was seen running, over all boots, and what was sent by that time: tables of edge-sync's own file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from edge.observation import ClockState, Instant


@dataclass(frozen=True, slots=True)
class Moment:
    """When something was sent.

    running_ns: for how long the recorder was seen running by then, over all boots; wall_ns: UTC, None = unset clock.
    """

    running_ns: int
    wall_ns: int | None
    clock_state: ClockState

    def passed_ns(self, now: Moment) -> int:
        """Return how much time has passed at least: more ran than was counted, and none was counted while it was off.

        The wall clock says more only where the same kind of clock set it both times: setting it makes no time pass.
        """
        passed_ns = max(0, now.running_ns - self.running_ns)
        if self.wall_ns is not None and now.wall_ns is not None and self.clock_state == now.clock_state:
            return max(passed_ns, now.wall_ns - self.wall_ns)
        return passed_ns


@dataclass(frozen=True, slots=True)
class RunningUsage:
    """Bytes of a link since the running time was since_ns; n_unset_bytes: those that boot_id sent while its clock was unset."""

    since_ns: int
    n_bytes: int
    boot_id: str
    n_unset_bytes: int


def add_running(connection: sqlite3.Connection) -> None:
    """Version 4: how long the recorder ran, and what was sent by that. Released: never edited, only followed by another."""
    for statement in (
        "CREATE TABLE running (id INTEGER PRIMARY KEY CHECK (id = 0), running_ns INTEGER NOT NULL, boot TEXT NOT NULL,"
        " boottime_ns INTEGER NOT NULL)",
        "CREATE TABLE running_usage (link TEXT PRIMARY KEY, since_ns INTEGER NOT NULL, bytes INTEGER NOT NULL,"
        " boot TEXT NOT NULL, unset_bytes INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE on_air (id INTEGER PRIMARY KEY, running_ns INTEGER NOT NULL, wall_ns INTEGER, clock TEXT NOT NULL,"
        " ms INTEGER NOT NULL)",
        "CREATE TABLE heartbeat (hub TEXT NOT NULL, link TEXT NOT NULL, running_ns INTEGER NOT NULL, wall_ns INTEGER,"
        " clock TEXT NOT NULL, PRIMARY KEY (hub, link)) WITHOUT ROWID",
    ):
        connection.execute(statement)


class RunningLog:
    """The part of a SyncCursor that counts running time. reading, writing: contexts of its file, which map its errors."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        reading: Callable[[], AbstractContextManager[None]],
        writing: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._connection, self._reading, self._writing = connection, reading, writing

    def moment(self, now: Instant) -> Moment:
        """Count the time that this boot has run since it was last asked; return the present moment."""
        with self._writing():
            row = self._connection.execute("SELECT running_ns, boot, boottime_ns FROM running").fetchone()
            running_ns, boot_id, since_ns = row or (0, now.boot_id, 0)
            is_same = boot_id == now.boot_id and since_ns <= now.boottime_ns
            running_ns += now.boottime_ns - (since_ns if is_same else 0)
            values = (running_ns, now.boot_id, now.boottime_ns)
            self._connection.execute("INSERT OR REPLACE INTO running VALUES (0, ?, ?, ?)", values)
        return Moment(running_ns, now.wall_ns, now.clock_state)

    def usage(self, link: str) -> RunningUsage | None:
        """Return what was last counted by running time, None = nothing yet."""
        with self._reading():
            row = self._connection.execute(
                "SELECT since_ns, bytes, boot, unset_bytes FROM running_usage WHERE link = ?", (link,)
            ).fetchone()
        return None if row is None else RunningUsage(*row)

    def keep_usage(self, link: str, usage: RunningUsage) -> None:
        """Remember what was counted by running time."""
        values = (link, usage.since_ns, usage.n_bytes, usage.boot_id, usage.n_unset_bytes)
        with self._writing():
            self._connection.execute("INSERT OR REPLACE INTO running_usage VALUES (?, ?, ?, ?, ?)", values)

    def on_air(self) -> list[tuple[Moment, int]]:
        """Return when something was sent by radio, and how many ms each took."""
        with self._reading():
            rows = self._connection.execute("SELECT running_ns, wall_ns, clock, ms FROM on_air").fetchall()
        return [(Moment(running_ns, wall_ns, clock), ms) for running_ns, wall_ns, clock, ms in rows]

    def add_on_air(self, at: Moment, n_ms: int, since_ns: int) -> None:
        """Remember ms on the air; those before a running time are forgotten."""
        with self._writing():
            self._connection.execute(
                "INSERT INTO on_air (running_ns, wall_ns, clock, ms) VALUES (?, ?, ?, ?)",
                (at.running_ns, at.wall_ns, at.clock_state, n_ms),
            )
            self._connection.execute("DELETE FROM on_air WHERE running_ns < ?", (since_ns,))

    def heartbeat(self, hub: str, link: str) -> Moment | None:
        """Return when a hub was told last over a link how the recorder is, None = never."""
        with self._reading():
            row = self._connection.execute(
                "SELECT running_ns, wall_ns, clock FROM heartbeat WHERE hub = ? AND link = ?", (hub, link)
            ).fetchone()
        return None if row is None else Moment(*row)

    def keep_heartbeat(self, hub: str, link: str, at: Moment) -> None:
        """Remember when a hub was told how the recorder is."""
        values = (hub, link, at.running_ns, at.wall_ns, at.clock_state)
        with self._writing():
            self._connection.execute("INSERT OR REPLACE INTO heartbeat VALUES (?, ?, ?, ?, ?)", values)
