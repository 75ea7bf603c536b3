"""The store's files on disk: the writer's lock, and putting a damaged database aside."""

from __future__ import annotations

import fcntl
import os
from datetime import datetime, timezone
from pathlib import Path

from edge.durable import sync_folder
from edge.errors import StoreError

_OUR_SUFFIXES = (".sqlite", ".sqlite3", ".db")
_MARK = "fieldcube"


class WriterLock:
    """Hold <store>.lock while one process writes; the kernel frees it however the process ends.

    Raises StoreError when another process holds it, or the folder cannot be written.
    is_ours: a fieldcube has opened this store before; the lock file says so since then.
    """

    def __init__(self, store: Path) -> None:
        self._path = store.with_name(store.name + ".lock")
        self._is_new = not self._path.exists()
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                f"{store}: expected a place that can be written, found {error.strerror}; give another --store"
            ) from error
        holder, *marks = os.pread(self._file, 64, 0).decode("ascii", "replace").splitlines() or [""]
        try:
            # a POSIX record lock, not flock: a forked capture child that outlives us must not keep it
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._file).st_nlink == 0:
                raise BlockingIOError("removed by the process that made it")
        except OSError as error:
            os.close(self._file)
            raise StoreError(
                f"{store}: expected to be the only writer, found another one (process {holder or 'unknown'}); "
                "stop it, or give another --store"
            ) from error
        self.is_ours = _MARK in marks
        self._write()

    def mark(self) -> None:
        """Note in the lock file that the store is ours; only once it was opened as one."""
        if not self.is_ours:
            self.is_ours = True
            self._write()
            os.fsync(self._file)

    def release(self) -> None:
        """Free the lock; the file of a store stays (deleting it would let two writers lock two files)."""
        if self._file >= 0:
            if self._is_new and not self.is_ours:  # no store came of it: leave nothing beside another's file
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def _write(self) -> None:
        content = f"{os.getpid()}\n{_MARK if self.is_ours else ''}\n".encode("ascii")
        os.pwrite(self._file, content, 0)
        os.ftruncate(self._file, len(content))


def put_aside(path: Path, *, now: datetime, may_be_ours: bool) -> Path:
    """Rename a damaged database with its -wal and -shm to <name>.corrupt-<time> and return that path.

    may_be_ours: this process or an earlier one has written the store. Otherwise only a file named like a database is
    renamed: `--store recording.wav` must not move somebody's recording. Raises StoreError, OSError.
    """
    if not may_be_ours and path.suffix.lower() not in _OUR_SUFFIXES:
        raise StoreError(
            f"{path}: expected a fieldcube store, found another kind of file; give another --store"
        )
    stem = f"{path.name}.corrupt-{now.astimezone(timezone.utc):%Y%m%dT%H%M%SZ}"
    aside, n = path.with_name(stem), 1
    while aside.exists():
        n += 1
        aside = path.with_name(f"{stem}-{n}")
    # The database first: SQLite discards a -wal that lies beside an empty or missing database.
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    sync_folder(path.parent)
    return aside
