"""Backup: a copy of what a hub keeps, made while it runs, and put back while it is stopped. Clips are not in it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path

from edge.durable import sync_folder, write_file
from edge.errors import HubError
from hub.settings import Settings
from hub.store_registry import Registry
from hub.store_registry_database import lock_ingest

FORMAT_VERSION = 1
_MARK = "backup.json"  # written last: a folder that has it is whole
_REGISTRY, _ARCHIVE, _FRAMES, _UPDATES, _TOKEN = (
    "hub.sqlite",
    "archive.sqlite",
    "frames.sqlite",
    "updates",
    "token",
)
_BESIDE = ("", "-wal", "-shm")  # of a SQLite file; a -wal of another state would spoil what is put back


def write_backup(settings: Settings, registry: Registry, archive: Path | None, copy: Path) -> bool:
    """Write registry, archive, frames, updates and token into a new folder; return whether there was an archive in a file.

    archive: None where another engine has the codes. The registry is copied first: what came while the archive was copied
    is in the archive alone then, and a hub that starts with both enters it in its registry. Raises HubError.
    """
    with _mapped(copy):
        try:
            copy.mkdir(mode=0o700, parents=True)
        except FileExistsError as error:
            raise HubError(f"{copy}: expected no such folder yet, found one; give another name") from error
        registry.database.backup(copy / _REGISTRY)
        has_codes = archive is not None and archive.is_file()
        if archive is not None and has_codes:
            _copy_database(archive, copy / _ARCHIVE)
        if settings.frames_path.is_file():
            _copy_database(settings.frames_path, copy / _FRAMES)
        if settings.updates_folder.is_dir():
            _copy_updates(settings.updates_folder, copy / _UPDATES)
        if settings.token_path.is_file():
            shutil.copy2(settings.token_path, copy / _TOKEN)
        for path in copy.rglob("*"):
            _sync(path)
        write_file(copy / _MARK, json.dumps({"format_version": FORMAT_VERSION}).encode())
    return has_codes


def restore_backup(settings: Settings, archive: Path | None, copy: Path, now: datetime) -> Path | None:
    """Put a copy back; return the folder into which what was there has been moved, None where nothing was.

    archive: file of the codes, None where another engine has them. Raises HubError: a hub that runs, a folder that is no
    whole copy; then nothing is changed.
    """
    _require_whole(copy)
    settings.folder.mkdir(parents=True, exist_ok=True)
    aside = settings.folder / f"before-restore-{now:%Y%m%dT%H%M%SZ}"
    fresh = settings.folder / "restoring"
    with ExitStack() as held, _mapped(settings.folder):
        held.callback(os.close, lock_ingest(settings.registry_path))
        lock = os.open(settings.registry_path.with_name(_REGISTRY + "-lock"), os.O_RDWR | os.O_CREAT, 0o600)
        held.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(fresh, ignore_errors=True)  # of a restore that was broken off
        shutil.copytree(copy, fresh)  # all of it is here before anything is moved
        for path in fresh.rglob("*"):
            _sync(path)
        places = {
            _REGISTRY: settings.registry_path,
            _ARCHIVE: archive,
            _FRAMES: settings.frames_path,
            _UPDATES: settings.updates_folder,
            _TOKEN: settings.token_path,
        }
        for name, place in places.items():
            if place is None or (name == _ARCHIVE and not (fresh / name).exists()):
                continue  # codes of another engine, or none in this copy: what is there stays
            for ending in _BESIDE:
                there = place.with_name(place.name + ending)
                if there.exists():
                    aside.mkdir(mode=0o700, exist_ok=True)
                    shutil.move(there, aside / (name + ending))
            if (fresh / name).exists():
                shutil.move(fresh / name, place)
                sync_folder(place.parent)
        shutil.rmtree(fresh)
    return aside if aside.exists() else None


def _require_whole(copy: Path) -> None:
    try:
        version = json.loads((copy / _MARK).read_bytes()).get("format_version")
    except (OSError, ValueError, AttributeError) as error:
        raise HubError(
            f"{copy}: expected a folder that `edge-hub backup` has written to its end, found no {_MARK} to read; give another one"
        ) from error
    if version != FORMAT_VERSION:
        raise HubError(
            f"{copy}: expected a copy of version {FORMAT_VERSION}, found {version}; update fieldcube"
        )


def _copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite file that others may be writing to, as it was at one moment."""
    with closing(sqlite3.connect(source)) as held, closing(sqlite3.connect(target)) as copied:
        held.backup(copied)


def _copy_updates(source: Path, target: Path) -> None:
    """Copy what is published: first the file that names all others, which are there before it is and never change."""
    (target / "metadata").mkdir(parents=True)
    newest = Path("metadata") / "timestamp.json"
    if (source / newest).is_file():
        shutil.copy2(source / newest, target / newest)
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
            shutil.copystat(path, place)
        elif not place.exists() and not path.name.endswith(".tmp"):
            shutil.copy2(path, place)


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_folder(path)
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _mapped(place: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, shutil.Error, sqlite3.Error) as error:
        raise HubError(
            f"{place}: expected a place for a copy, found {error}; make room or give rights"
        ) from error
