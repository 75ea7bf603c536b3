"""What edge-sync remembers, in an own SQLite file beside the observation store: `<stem>-sync.sqlite`.

Nothing in it is needed: the hub's receipts say what it keeps, so a lost or damaged file costs one question and the count of
bytes of the day. That is why commits are not synced one by one.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edge.errors import StoreError
from edge.store_files import WriterLock
from edge.store_running import RunningLog, add_running
from edge.store_schema import store_path, transaction

LOG = logging.getLogger(__name__)

APPLICATION_ID = 0x66637379  # "fcsy"
_BUSY_TIMEOUT_S = 10.0
_DAYS_KEPT = 400
_MARKS_KEPT = 256

Stretch = tuple[
    int, tuple[tuple[int, int], ...]
]  # next, missing (first, n): what the hub keeps of one stream
Mark = Mapping[str, tuple[int, str]]  # by stream: next at a hub, digest of the record before it, "" = none


@dataclass(frozen=True, slots=True)
class Contact:
    """How it stands with one hub.

    public: the key that is enrolled there, b"" = none; n_failures: in a row; not_before_ns: UTC, when to try again;
    last_ns: UTC of the last receipt, 0 = never.
    """

    public: bytes = b""
    n_failures: int = 0
    not_before_ns: int = 0
    last_ns: int = 0


def create_tables(connection: sqlite3.Connection) -> None:
    """Version 1. Released: never edited, only followed by another migration."""
    for statement in (
        "CREATE TABLE contact (hub TEXT PRIMARY KEY, public BLOB NOT NULL, n_failures INTEGER NOT NULL,"
        " not_before_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE progress (hub TEXT NOT NULL, epoch INTEGER NOT NULL, stream TEXT NOT NULL, next INTEGER NOT NULL,"
        " missing TEXT NOT NULL, PRIMARY KEY (hub, epoch, stream)) WITHOUT ROWID",
        "CREATE TABLE refused (hub TEXT NOT NULL, epoch INTEGER NOT NULL, stream TEXT NOT NULL, number INTEGER NOT NULL,"
        " reason TEXT NOT NULL, PRIMARY KEY (hub, epoch, stream, number)) WITHOUT ROWID",
        "CREATE TABLE usage (day INTEGER NOT NULL, link TEXT NOT NULL, bytes INTEGER NOT NULL,"
        " PRIMARY KEY (day, link)) WITHOUT ROWID",
    ):
        connection.execute(statement)


def add_told(connection: sqlite3.Connection) -> None:
    """Version 2: on which day a hub was told last what was learnt, counted from 1970, UTC."""
    connection.execute(
        "CREATE TABLE told (hub TEXT NOT NULL, link TEXT NOT NULL, day INTEGER NOT NULL, PRIMARY KEY (hub, link))"
        " WITHOUT ROWID"
    )


def add_marks(connection: sqlite3.Connection) -> None:
    """Version 3: what the store held when a hub kept all of it. Released: never edited, only followed by another migration."""
    connection.execute(
        "CREATE TABLE mark (number INTEGER PRIMARY KEY, hub TEXT NOT NULL, epoch INTEGER NOT NULL, content TEXT NOT NULL)"
    )


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    create_tables,
    add_told,
    add_marks,
    add_running,
)


def cursor_path(store: Path | str | None) -> Path:
    """Return where edge-sync remembers what it sent of a store."""
    chosen = store_path(store)
    return chosen.with_name(f"{chosen.stem}-sync.sqlite")


class SyncCursor:
    """Remembers how far each hub is. Use it as a context manager or call close(). One process holds it at a time."""

    @classmethod
    def open(cls, store: Path | str | None) -> SyncCursor:
        """Open or create the file beside a store; a damaged one is removed and begun anew.

        Raises StoreError: another edge-sync, a place that cannot be written, another program's file, a newer schema.
        """
        path = cursor_path(store)
        lock = WriterLock(path)
        try:
            try:
                cursor = cls(path, lock)
            except sqlite3.DatabaseError as error:
                if type(error) is not sqlite3.DatabaseError:  # its subclasses are full disks, faults, locks
                    raise
                LOG.warning("%s: damaged (%s); begun anew, the hub says what it keeps", path, error)
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                cursor = cls(path, lock)
            lock.mark()
        except (sqlite3.Error, OSError) as error:
            lock.release()
            raise StoreError(
                f"{path}: expected a place for what edge-sync remembers, found {error}"
            ) from error
        except BaseException:
            lock.release()
            raise
        return cursor

    def __init__(self, path: Path, lock: WriterLock) -> None:
        self.path, self._lock = path, lock
        self._connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            _require_ours(self._connection, path)  # before WAL marks another program's database
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            _migrate(self._connection, path)
            (answer,) = self._connection.execute("PRAGMA quick_check").fetchone()
            if answer != "ok":
                raise sqlite3.DatabaseError(answer)
        except BaseException:
            self._connection.close()
            raise
        self.running = RunningLog(self._connection, self._mapped, self._writing)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        self._lock.release()

    def __enter__(self) -> SyncCursor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def contact(self, hub: str) -> Contact:
        """Return how it stands with a hub."""
        with self._mapped():
            row = self._connection.execute(
                "SELECT public, n_failures, not_before_ns, last_ns FROM contact WHERE hub = ?", (hub,)
            ).fetchone()
        return Contact() if row is None else Contact(*row)

    def keep_contact(self, hub: str, contact: Contact) -> None:
        """Remember how it stands with a hub."""
        values = (hub, contact.public, contact.n_failures, contact.not_before_ns, contact.last_ns)
        with self._writing():
            self._connection.execute("INSERT OR REPLACE INTO contact VALUES (?, ?, ?, ?, ?)", values)

    def progress(self, hub: str, epoch: int) -> dict[str, Stretch]:
        """Return what a hub keeps of each stream of an epoch, {} where nothing is known."""
        with self._mapped():
            rows = self._connection.execute(
                "SELECT stream, next, missing FROM progress WHERE hub = ? AND epoch = ?", (hub, epoch)
            ).fetchall()
        return {stream: (n, tuple((f, m) for f, m in json.loads(missing))) for stream, n, missing in rows}

    def keep_progress(self, hub: str, epoch: int, progress: Mapping[str, Stretch]) -> None:
        """Remember what a hub keeps, as its receipt says."""
        with self._writing():
            self._connection.executemany(
                "INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?, ?)",
                [(hub, epoch, stream, n, json.dumps(missing)) for stream, (n, missing) in progress.items()],
            )

    def marks(self, hub: str, epoch: int) -> list[Mark]:
        """Return what the store held when a hub kept all of it, the newest first."""
        with self._mapped():
            rows = self._connection.execute(
                "SELECT content FROM mark WHERE hub = ? AND epoch = ? ORDER BY number DESC", (hub, epoch)
            ).fetchall()
        return [{stream: (n, digest) for stream, (n, digest) in json.loads(row[0]).items()} for row in rows]

    def keep_mark(self, hub: str, epoch: int, mark: Mark) -> None:
        """Remember what the store holds, now that a hub keeps all of it."""
        with self._writing():
            self._connection.execute(
                "INSERT INTO mark (hub, epoch, content) VALUES (?, ?, ?)", (hub, epoch, json.dumps(mark))
            )
            self._connection.execute(
                "DELETE FROM mark WHERE number <= (SELECT max(number) FROM mark) - ?", (_MARKS_KEPT,)
            )

    def refused(self, hub: str, epoch: int) -> dict[str, frozenset[int]]:
        """Return by stream the numbers that a hub refuses, which are not offered to it again."""
        found: dict[str, set[int]] = {}
        with self._mapped():
            rows = self._connection.execute(
                "SELECT stream, number FROM refused WHERE hub = ? AND epoch = ?", (hub, epoch)
            ).fetchall()
        for stream, number in rows:
            found.setdefault(stream, set()).add(number)
        return {stream: frozenset(numbers) for stream, numbers in found.items()}

    def refuse(self, hub: str, epoch: int, stream: str, number: int, reason: str) -> None:
        """Remember that a hub refuses one record."""
        with self._writing():
            self._connection.execute(
                "INSERT OR REPLACE INTO refused VALUES (?, ?, ?, ?, ?)", (hub, epoch, stream, number, reason)
            )

    def used_bytes(self, day: int, link: str) -> int:
        """Return how many bytes went over a link on a day, counted from 1970, UTC."""
        with self._mapped():
            row = self._connection.execute(
                "SELECT bytes FROM usage WHERE day = ? AND link = ?", (day, link)
            ).fetchone()
        return 0 if row is None else int(row[0])

    def use_bytes(self, day: int, link: str, n_bytes: int) -> None:
        """Count bytes of a link and day; of very many days the first are forgotten, whatever the clock says today is."""
        with self._writing():
            self._connection.execute(
                "INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
                (day, link, n_bytes),
            )
            self._connection.execute(
                "DELETE FROM usage WHERE day < (SELECT day FROM usage ORDER BY day DESC LIMIT 1 OFFSET ?) AND day <> ?",
                (_DAYS_KEPT, day),
            )

    def told_day(self, hub: str, link: str) -> int | None:
        """Return the day, counted from 1970, UTC, on which a hub was told over a link what was learnt; None = never."""
        with self._mapped():
            row = self._connection.execute(
                "SELECT day FROM told WHERE hub = ? AND link = ?", (hub, link)
            ).fetchone()
        return None if row is None else int(row[0])

    def keep_told(self, hub: str, link: str, day: int) -> None:
        """Remember that a hub was told what was learnt."""
        with self._writing():
            self._connection.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?)", (hub, link, day))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._mapped(), transaction(self._connection):
            yield

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn SQLite's errors into StoreError."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path}: expected to remember what was sent, found {error}; free space, or remove the file: "
                "the hub says what it keeps"
            ) from error


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to the newest schema, all missing steps and their record in one transaction."""
    with transaction(connection):
        for migration in MIGRATIONS[_require_ours(connection, path) :]:
            migration(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _require_ours(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema version, 0 for an empty file. Raises StoreError for another program's file or a newer one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or version or n_tables):
        raise StoreError(
            f"{path}: expected edge-sync's own file, found another SQLite database; move it away"
        )
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: expected schema version {len(MIGRATIONS)} or older, found {version}; update fieldcube, "
            "or remove the file: the hub says what it keeps"
        )
    return int(version)
