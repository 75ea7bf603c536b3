"""One edge-update at a time: two would take the same pair apart."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.errors import StoreError


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder in which the folder of updates is, or will be. Raises StoreError where another one holds it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"{folder.parent}: expected a folder for updates, found {error}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel frees it however the process ends
    except OSError as error:
        os.close(held)
        raise StoreError(
            f"{folder}: expected to be the only edge-update, found another one; wait for its end"
        ) from error
    try:
        yield
    finally:
        os.close(held)
