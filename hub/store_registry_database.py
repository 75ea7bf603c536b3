"""The registry's connections: one that writes and some that read, each used by one thread at a time.

Commands may write beside a hub that runs: a lock file lets one process write or checkpoint at a time, since SQLite before
3.51.3 can damage a WAL that two processes write and reset in the same moment.
"""

from __future__ import annotations

import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from edge.errors import HubError
from edge.store_schema import transaction
from hub.refusal import NoRoomError
from hub.store_registry_schema import migrate, version

_BUSY_TIMEOUT_S = 10.0
_N_READERS = 4  # a slow question of a person must not hold up recorders


class Database:
    """The registry's file. What a writing() block did is on the disk when the block has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._write_lock = threading.Lock()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._is_doubtful = False
        with self._mapped():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(path.with_name(path.name + "-lock"), os.O_RDWR | os.O_CREAT, 0o600)
            self._writer = self._connect()
        try:
            with self._mapped(), self._alone():
                version(self._writer, path)  # before WAL marks another program's database
                self._writer.execute("PRAGMA journal_mode = WAL")
                migrate(self._writer, path)
                self._prepare()
        except BaseException:
            self._writer.close()
            os.close(self._lock_file)
            raise

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run the block in one transaction. Raises NoRoomError where the disk is full, HubError for all else of SQLite.

        After an error of the disk SQLite may let the next commit succeed over what the error has lost: both connections
        are opened anew then, which reads what the disk really has.
        """
        with self._write_lock:
            if self._is_doubtful:
                self._reopen()
            with self._mapped(), self._alone(), transaction(self._writer):
                yield self._writer

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Run the block on one state of the database. Raises HubError."""
        reader = self._readers.get()
        try:
            with self._mapped(), transaction(reader, "DEFERRED"):
                yield reader
        finally:
            self._readers.put(reader)

    def lock_ingest(self) -> int:
        """Return a descriptor that keeps other processes from taking in batches here until it is closed. Raises HubError."""
        return lock_ingest(self.path)

    def limit_pages(self, n: int) -> None:
        """Let the file have no more than n pages, as a full disk would."""
        with self._write_lock, self._mapped():
            self._writer.execute(f"PRAGMA max_page_count = {n}").fetchone()

    def backup(self, path: Path) -> None:
        """Write a copy of the whole registry to a new file while the hub runs. Raises HubError."""
        with self._mapped(), closing(sqlite3.connect(path)) as copy, closing(self._connect()) as source:
            source.backup(copy)

    def close(self) -> None:
        """Close the file; waits for a transaction that runs. Closing twice is as closing once."""
        with self._write_lock:
            if self._lock_file < 0:
                return
            with self._alone():
                self._close_readers()
                self._writer.close()
            os.close(self._lock_file)
            self._lock_file = -1

    def _prepare(self) -> None:
        """Set up the writer, and open the readers."""
        self._writer.execute("PRAGMA synchronous = FULL")  # NORMAL loses acknowledged rows
        self._writer.execute("PRAGMA journal_size_limit = 67108864")
        for _ in range(_N_READERS):
            reader = self._connect()
            self._readers.put(reader)
            reader.execute("PRAGMA query_only = ON")

    def _close_readers(self) -> None:
        """Close the readers, each when its transaction has ended."""
        for _ in range(_N_READERS):
            self._readers.get().close()

    def _reopen(self) -> None:
        with self._mapped(), self._alone():
            self._close_readers()
            self._writer.close()
            self._writer = self._connect()
            self._prepare()
            self._is_doubtful = False

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Run the block while no other process writes to the file."""
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn SQLite's errors into the hub's."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if "disk is full" in str(error):
                raise NoRoomError(f"{self.path}: expected room for more, found {error}; make room") from error
            self._is_doubtful = True
            raise HubError(
                f"{self.path}: expected a registry that can be read and written, found {error}"
            ) from error


def lock_ingest(path: Path) -> int:
    """Return a descriptor that keeps other processes from taking in batches of the registry at path. Raises HubError."""
    lock = path.with_name(path.name + "-ingest")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise HubError(f"{lock}: expected a place for a lock, found {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise HubError(
            f"{lock}: expected no other hub on this folder, found one that runs; stop it"
        ) from error
    return descriptor
