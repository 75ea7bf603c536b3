"""Files below a folder, in an order that does not depend on the file system."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from pathlib import Path

# What picture files are called. One that is named outright is tried whatever it is called.
PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif"))


def files_below(folder: Path | str, suffixes: Container[str]) -> Iterator[str | OSError]:
    """Yield the regular files with one of these suffixes (lower case), then an error for each folder that cannot be listed.

    In order of name, those of a folder before those of its subfolders; hidden files and folders are left out. A file
    is named as the folder was given and the way from there: a Path would drop a leading ./
    """
    unreadable: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(parent, name)
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes and Path(path).is_file():
                yield path
    yield from unreadable
