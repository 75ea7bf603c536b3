"""Pair: a bundle and the watchlist that was compiled for it, which a recorder takes together or not at all. FORMAT_VERSION = 1.

The hub publishes the description of a pair as one signed file; the files it names are found by their sha256.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge import require
from edge.errors import BundleError

FORMAT_VERSION = 1
MAX_PAIR_BYTES = 1 << 20  # of a description
MAX_FILES = 256
_MAX_INT = 2**53
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_KEYS = ("number", "watchlist", "watchlist_version", "bundle", "code_space", "files", "list", "hub_public")


@dataclass(frozen=True, slots=True)
class PairFile:
    """A file by its content: sha256 in hexadecimal, and size."""

    sha256: str
    n_bytes: int

    def __post_init__(self) -> None:
        require.instance(BundleError, "sha256", self.sha256, (str,))
        if not _SHA256.fullmatch(self.sha256):
            raise require.wrong(BundleError, "sha256", "64 hexadecimal digits", self.sha256)
        require.integer(BundleError, "n_bytes", self.n_bytes, 0, _MAX_INT)

    @property
    def target(self) -> str:
        """Return its path among the published files."""
        return f"files/{self.sha256}"


@dataclass(frozen=True, slots=True)
class Pair:
    """What a recorder is to run.

    number: 1, 2, ... with each publication of a hub; a recorder never goes back to a smaller one on its own.
    watchlist, watchlist_version: of the list at the hub; bundle: name and version, for people; files: of the bundle, by
    name, manifest.json among them; compiled: watchlist.json; hub_public: 32 bytes, who may sign downlinks.
    """

    number: int
    watchlist: str
    watchlist_version: int
    bundle: str
    code_space: str
    files: Mapping[str, PairFile]
    compiled: PairFile
    hub_public: bytes

    def __post_init__(self) -> None:
        require.integer(BundleError, "number", self.number, 1, _MAX_INT)
        require_watchlist_name(self.watchlist)
        require.integer(BundleError, "watchlist_version", self.watchlist_version, 0, _MAX_INT)
        require.text(BundleError, "bundle", self.bundle)
        require.text(BundleError, "code_space", self.code_space)
        require.integer(BundleError, "number of files", len(self.files), 1, MAX_FILES)
        for name in self.files:
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", name):
                raise require.wrong(BundleError, "files", "plain file names", name)
        if "manifest.json" not in self.files:
            raise BundleError("files: expected manifest.json among them, found none")
        if len(self.hub_public) != 32:
            raise require.wrong(BundleError, "hub_public", "32 bytes", self.hub_public)

    @property
    def n_bytes(self) -> int:
        """Return the size of everything it names."""
        return self.compiled.n_bytes + sum(each.n_bytes for each in self.files.values())


def require_watchlist_name(name: object) -> None:
    """Require a name that a watchlist may have, which becomes a part of a path. Raises BundleError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise require.wrong(BundleError, "watchlist", "up to 64 letters, digits, - and _", name)


def pair_target(watchlist: str) -> str:
    """Return the path of the description of the newest pair with a watchlist, among the published files."""
    require_watchlist_name(watchlist)
    return f"pairs/{watchlist}.json"


def format_pair(pair: Pair) -> bytes:
    """Return the bytes of a description."""
    table = {
        "format_version": FORMAT_VERSION,
        "number": pair.number,
        "watchlist": pair.watchlist,
        "watchlist_version": pair.watchlist_version,
        "bundle": pair.bundle,
        "code_space": pair.code_space,
        "files": {name: [each.sha256, each.n_bytes] for name, each in sorted(pair.files.items())},
        "list": [pair.compiled.sha256, pair.compiled.n_bytes],
        "hub_public": pair.hub_public.hex(),
    }
    return (json.dumps(table, indent=1, ensure_ascii=False) + "\n").encode()


def parse_pair(content: bytes, file: str) -> Pair:
    """Return the pair in a description; file: its name, for the error. Raises BundleError."""
    if len(content) > MAX_PAIR_BYTES:
        raise BundleError(f"{file}: expected at most {MAX_PAIR_BYTES} bytes, found {len(content)}")
    try:
        table: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file}: expected the description of a pair in JSON, found {error}") from error
    require.version(BundleError, file, table, FORMAT_VERSION, "update whichever side is older")
    found = require.keys(BundleError, file, table, ("format_version", *_KEYS))
    try:
        require.instance(BundleError, "files", found["files"], (dict,))
        return Pair(
            found["number"],
            found["watchlist"],
            found["watchlist_version"],
            found["bundle"],
            found["code_space"],
            {name: _file(each) for name, each in found["files"].items()},
            _file(found["list"]),
            _bytes(found["hub_public"]),
        )
    except BundleError as error:
        raise BundleError(f"{file}: {error}") from error


def _file(value: object) -> PairFile:
    if not isinstance(value, list) or len(value) != 2:
        raise require.wrong(BundleError, "files", "[sha256, size]", value)
    return PairFile(value[0], value[1])


def _bytes(value: object) -> bytes:
    try:
        return bytes.fromhex(value if isinstance(value, str) else "?")
    except ValueError as error:
        raise require.wrong(BundleError, "hub_public", "hexadecimal digits", value) from error
