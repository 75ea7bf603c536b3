"""The store's files on disk: the writer's lock, and putting a damaged database aside."""

from __future__ import annotations

import fcntl
import os
from datetime import datetime, timezone
from pathlib import Path

from edge.durable import sync_folder
from edge.errors import StoreError

_OUR_SUFFIXES = (".sqlite", ".sqlite3", ".db")


class WriterLock:
    """Hold <store>.lock while one process writes; the kernel frees it however the process ends.

    Raises StoreError when another process holds it, or the folder cannot be written.
    existed: the lock file was there before, so a fieldcube has written this store before.
    """

    def __init__(self, store: Path) -> None:
        path = store.with_name(store.name + ".lock")
        self.existed = path.exists()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                f"{store}: expected a place that can be written, found {error.strerror}; give another --store"
            ) from error
        try:
            # a POSIX record lock, not flock: a forked capture child that outlives us must not keep it
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._file)
            raise StoreError(
                f"{store}: expected to be the only writer, found another one (process {holder}); "
                "stop it, or give another --store"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode("ascii"), 0)

    def release(self) -> None:
        """Free the lock; the file stays (deleting it would let two writers lock two files)."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


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
