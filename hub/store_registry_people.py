"""What people leave at the registry: clips they want to hear, and watchlists."""

from __future__ import annotations

from dataclasses import dataclass

from hub.refusal import UnknownError
from hub.store_registry_database import Database


@dataclass(frozen=True, slots=True)
class Clip:
    """Sound around an observation that somebody wants. name, file: None until it came; file: in the folder of clips."""

    device: int
    epoch: int
    seq: int
    wanted_ns: int
    received_ns: int | None
    name: str | None
    file: str | None


@dataclass(frozen=True, slots=True)
class KeptWatchlist:
    """The text of a watchlist, as edge.watchlist reads it; version: 1, 2, ... with each change."""

    name: str
    text: str
    version: int
    changed_ns: int


class People:
    """The tables of clips and of watchlists."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def want_clip(self, device: int, epoch: int, seq: int, now_ns: int) -> Clip:
        """Ask a device for the sound around an observation; asking twice changes nothing."""
        with self._database.writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO clip (device, epoch, seq, wanted_ns) VALUES (?, ?, ?, ?)",
                (device, epoch, seq, now_ns),
            )
        found = self.clip(device, epoch, seq)
        assert found is not None
        return found

    def clip(self, device: int, epoch: int, seq: int) -> Clip | None:
        """Return the clip of an observation, None where nobody has asked for it."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT device, epoch, seq, wanted_ns, received_ns, name, file FROM clip"
                " WHERE device = ? AND epoch = ? AND seq = ?",
                (device, epoch, seq),
            ).fetchone()
        return None if row is None else Clip(*row)

    def keep_clip(self, device: int, epoch: int, seq: int, name: str, file: str, now_ns: int) -> None:
        """Note that a clip has come. Raises UnknownError where nobody wanted it."""
        with self._database.writing() as connection:
            changed = connection.execute(
                "UPDATE clip SET received_ns = ?, name = ?, file = ? WHERE device = ? AND epoch = ? AND seq = ?",
                (now_ns, name, file, device, epoch, seq),
            )
        if not changed.rowcount:
            raise UnknownError(
                f"clip: expected one that somebody asked for, found seq {seq} of epoch {epoch}"
            )

    def watchlists(self) -> list[KeptWatchlist]:
        """Return all watchlists by name."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT name, text, version, changed_ns FROM watchlist ORDER BY name")
            return [KeptWatchlist(*row) for row in rows.fetchall()]

    def watchlist(self, name: str) -> KeptWatchlist:
        """Return the watchlist of a name. Raises UnknownError."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT name, text, version, changed_ns FROM watchlist WHERE name = ?", (name,)
            ).fetchone()
        if row is None:
            raise UnknownError(f"watchlist: expected one that is kept here, found {name!r}")
        return KeptWatchlist(*row)

    def keep_watchlist(self, name: str, text: str, now_ns: int) -> KeptWatchlist:
        """Keep the text of a watchlist, checked by the caller, as its next version."""
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO watchlist VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE SET"
                " text = excluded.text, version = version + 1, changed_ns = excluded.changed_ns",
                (name, text, now_ns),
            )
        return self.watchlist(name)
