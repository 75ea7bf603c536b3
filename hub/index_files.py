"""Archives that are indexed: the recordings and pictures below a folder, on a disk or behind a URL such as s3://."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge.audio_events import CLIP_SUFFIX
from edge.errors import HubError, MissingDependencyError, UsageError
from edge.file_search import files_below
from edge.utf8 import shown

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of an archive. path: from its folder on, as bytes; version: changes when the file does (its time of change)."""

    path: bytes
    size_bytes: int
    version: str


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A folder that cannot be listed, and why."""

    name: str
    reason: str


class FileArchive(Protocol):
    """Where the files are."""

    def list(self, suffixes: frozenset[str]) -> Iterator[Listed | Unlisted]:
        """Yield the files with one of these suffixes, a folder's before those of its subfolders, in order of name."""

    @contextmanager
    def local(self, path: bytes) -> Iterator[Path]:
        """Give a file on this machine's disk for the time of a with block. Raises OSError."""


def open_archive(place: str) -> FileArchive:
    """Return the archive in a folder or at a URL that pyarrow knows. Raises UsageError, MissingDependencyError."""
    return UrlArchive(place) if "://" in place else FolderArchive(place)


def plain_place(place: str) -> str:
    """Return a place however it was written, without passwords and options: what may be kept and shown."""
    if "://" not in place:
        return shown(str(Path(place).resolve()))
    scheme, _, rest = place.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}".rstrip("/")


def place_id(place: str) -> str:
    """Return 8 hexadecimal digits that stand for a place."""
    return hashlib.blake2b(plain_place(place).encode(), digest_size=4).hexdigest()


def place_name(place: str) -> str:
    """Return what a place is called: the last part of its path, in letters, digits, dots and dashes."""
    last = plain_place(place).rpartition("/")[2]
    return "".join(each if each.isalnum() or each in ".-_" else "-" for each in last) or "root"


class FolderArchive:
    """Files below a folder of this machine; hidden ones and our own clips are left out, as in edge-monitor."""

    def __init__(self, folder: str) -> None:
        if not Path(folder).is_dir():
            found = "a file" if Path(folder).exists() else "no such folder"
            raise UsageError(f"{shown(folder)}: expected a folder with recordings or pictures, found {found}")
        self._folder = folder

    def list(self, suffixes: frozenset[str]) -> Iterator[Listed | Unlisted]:
        """Yield the files and what could not be listed."""
        for found in files_below(self._folder, suffixes):
            if isinstance(found, OSError):
                yield Unlisted(shown(str(found.filename)), f"cannot be read: {found.strerror}")
            elif not found.lower().endswith(CLIP_SUFFIX):
                try:
                    status = os.stat(found)
                except OSError:  # gone meanwhile
                    continue
                path = os.fsencode(os.path.relpath(found, self._folder))
                yield Listed(path, status.st_size, str(status.st_mtime_ns))

    @contextmanager
    def local(self, path: bytes) -> Iterator[Path]:
        """Give the file where it lies."""
        yield Path(self._folder) / os.fsdecode(path)


class UrlArchive:
    """Files behind a URL (s3://bucket/prefix, gs://, hdfs://, file:///): listed once, copied one by one to be encoded.

    Credentials and region: as Amazon's own tools find them; another S3: s3://bucket/prefix?endpoint_override=HOST&scheme=https.
    """

    def __init__(self, url: str) -> None:
        try:
            from pyarrow import ArrowInvalid, fs
        except ImportError as error:
            raise MissingDependencyError(
                f"{plain_place(url)}: needs pyarrow; run: pip install fieldcube[hub]"
            ) from error
        self._url, self._fs = plain_place(url), fs
        try:
            self._files, base = fs.FileSystem.from_uri(url)
        except (ArrowInvalid, OSError) as error:
            raise UsageError(f"{self._url}: expected a URL of files, found: {error}") from error
        self._base = str(base).rstrip("/")

    def list(self, suffixes: frozenset[str]) -> Iterator[Listed | Unlisted]:
        """Yield the files. Raises HubError where the place cannot be listed."""
        try:
            found = self._files.get_file_info(self._fs.FileSelector(self._base, recursive=True))
        except OSError as error:
            raise HubError(f"{self._url}: expected a place that can be listed, found: {error}") from error
        paths = ((info.path[len(self._base) :].lstrip("/"), info) for info in found if info.is_file)
        named = sorted(((_order(path), path, info) for path, info in paths), key=lambda each: each[0])
        for _, path, info in named:
            is_hidden = any(part.startswith(".") for part in path.split("/"))
            wanted = os.path.splitext(path)[1].lower() in suffixes and not path.lower().endswith(CLIP_SUFFIX)
            if wanted and not is_hidden:
                yield Listed(os.fsencode(path), int(info.size), str(info.mtime_ns))

    @contextmanager
    def local(self, path: bytes) -> Iterator[Path]:
        """Give a copy that is gone after the with block."""
        inside = os.fsdecode(path)
        with tempfile.TemporaryDirectory(prefix="fieldcube-index-") as folder:
            copy = Path(folder) / os.path.basename(inside)  # its name may tell when it was recorded
            stream: Any
            with self._files.open_input_stream(f"{self._base}/{inside}") as stream, copy.open("wb") as file:
                while content := stream.read(_READ_BYTES):
                    file.write(content)
            yield copy


def _order(path: str) -> tuple[tuple[int, str], ...]:
    *folders, name = path.split("/")
    return (*((1, folder) for folder in folders), (0, name))
