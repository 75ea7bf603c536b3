"""Publisher: pairs of bundle and watchlist, signed with python-tuf, for recorders to fetch over plain HTTP.

The keys are made at the first start, readable by the hub's user alone. Everything is written in an order in which a reader
always finds a whole state: files, then metadata under new names, then timestamp.json, which alone is replaced.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # re-exported without saying so, as the next
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge.bundle import Bundle, require_code_space
from edge.bundle_pair import Pair, PairFile, format_pair, pair_target, parse_pair
from edge.bundle_update import files_of
from edge.device_key import DeviceKey
from edge.durable import sync_folder, write_file
from edge.errors import HubError
from edge.watchlist import Watchlist, format_watchlist
from hub.settings import HUB_KEY

ROLES = ("root", "targets", "snapshot", "timestamp")
VALID = {
    "root": timedelta(days=3650),
    "targets": timedelta(days=365),
    "snapshot": timedelta(days=30),
    "timestamp": timedelta(days=7),
}
_Signed = TypeVar("_Signed", Root, Targets, Snapshot, Timestamp)


class Publisher:
    """One repository in a folder: metadata/ and targets/ are served, keys/ never.

    now: the clock, aware UTC. Several processes may publish into one folder, one after the other.
    Every method raises HubError where files cannot be read or written, or are not what was written here.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime]) -> None:
        self.folder, self._now = folder, now
        self.metadata_folder, self.targets_folder = folder / "metadata", folder / "targets"
        with self._alone():
            self._signers = {role: _open_signer(folder / "keys" / f"{role}.pem") for role in ROLES}
            self.hub_key = DeviceKey.open(folder / HUB_KEY)
            if not (self.metadata_folder / "timestamp.json").exists():
                self._begin()

    @property
    def root(self) -> bytes:
        """Return the first root: what is put on a recorder by hand, or at enrolment, and trusted from then on."""
        return (self.metadata_folder / "1.root.json").read_bytes()

    def publish(self, bundle: Bundle, watchlist: Watchlist, name: str, version: int) -> Pair:
        """Publish a bundle and a watchlist compiled for it, as the newest pair of a watchlist's name; all or nothing.

        Encoders that the folder of the bundle lacks are refused. What is published already is not written again.
        """
        manifest = bundle.manifest
        require_code_space(manifest.code_space, watchlist.code_space, "watchlist", name)
        bundle.verify()
        contents: dict[str, bytes] = {}
        files: dict[str, PairFile] = {}
        for file in ("manifest.json", *sorted(files_of(manifest))):
            files[file] = _described((bundle.folder / file).read_bytes(), contents)
        compiled = _described(format_watchlist(watchlist), contents)
        with self._alone():
            targets = self._load(
                "targets", Targets, self._load_snapshot().signed.meta["targets.json"].version
            )
            pair = Pair(
                targets.signed.version + 1,
                name,
                version,
                f"{manifest.name} {manifest.version}",
                manifest.code_space,
                files,
                compiled,
                self.hub_key.public,
            )
            before = self._pairs(targets.signed)
            latest = before.get(name)
            if latest is not None and replace(pair, number=latest.number) == latest:
                return latest
            known = {**before, name: pair}
            targets.signed.targets = {}
            for each in known.values():
                self._add(targets.signed, pair_target(each.watchlist), format_pair(each))
                for file_of in (*each.files.values(), each.compiled):
                    content = contents.get(file_of.sha256)
                    if content is not None:
                        self._add(targets.signed, file_of.target, content)
                    else:
                        targets.signed.targets[file_of.target] = TargetFile(
                            file_of.n_bytes, {"sha256": file_of.sha256}, file_of.target
                        )
            self._release(targets)
        return pair

    def pairs(self) -> list[Pair]:
        """Return the newest pair of each watchlist, by name."""
        targets = self._load("targets", Targets, self._load_snapshot().signed.meta["targets.json"].version)
        return [pair for _, pair in sorted(self._pairs(targets.signed).items())]

    def renew(self) -> bool:
        """Sign again what has used up half of its time; return whether anything was. To be called once a day."""
        with self._alone():
            snapshot = self._load_snapshot()
            targets = self._load("targets", Targets, snapshot.signed.meta["targets.json"].version)
            root = self._load("root", Root, max(self._root_versions()))
            timestamp = self._load("timestamp", Timestamp, None)
            old = [
                each.signed.type
                for each in (root, targets, snapshot, timestamp)
                if each.signed.expires - self._now() < VALID[each.signed.type] / 2
            ]
            if "root" in old:
                self._sign("root", root)
            if "targets" in old:
                self._release(targets)
            elif "snapshot" in old:
                self._release_snapshot(snapshot)
            elif "timestamp" in old:
                self._sign("timestamp", timestamp)
        return bool(old)

    def _begin(self) -> None:
        root = Root(consistent_snapshot=True)
        for role in ROLES:
            root.add_key(self._signers[role].public_key, role)
        self._write("root", Metadata(root))
        self._write("targets", Metadata(Targets()))
        self._write("snapshot", Metadata(Snapshot()))
        self._write("timestamp", Metadata(Timestamp()))

    def _release(self, targets: Metadata[Targets]) -> None:
        self._sign("targets", targets)
        snapshot = self._load_snapshot()
        snapshot.signed.meta["targets.json"] = MetaFile(targets.signed.version)
        self._release_snapshot(snapshot)

    def _release_snapshot(self, snapshot: Metadata[Snapshot]) -> None:
        self._sign("snapshot", snapshot)
        timestamp = self._load("timestamp", Timestamp, None)
        timestamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
        self._sign("timestamp", timestamp)

    def _sign(self, role: str, metadata: Metadata[_Signed]) -> None:
        """Write the next version of a role."""
        metadata.signed.version += 1
        self._write(role, metadata)

    def _write(self, role: str, metadata: Metadata[_Signed]) -> None:
        """Sign and write a version of a role, valid from now on."""
        metadata.signed.expires = (self._now() + VALID[role]).replace(microsecond=0)
        metadata.sign(self._signers[role])
        name = "timestamp.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
        with self._mapped():
            self.metadata_folder.mkdir(parents=True, exist_ok=True)
            write_file(self.metadata_folder / name, metadata.to_bytes())

    def _load_snapshot(self) -> Metadata[Snapshot]:
        timestamp = self._load("timestamp", Timestamp, None)
        return self._load("snapshot", Snapshot, timestamp.signed.snapshot_meta.version)

    def _load(self, role: str, kind: type[_Signed], version: int | None) -> Metadata[_Signed]:
        path = self.metadata_folder / (f"{role}.json" if version is None else f"{version}.{role}.json")
        try:
            found = Metadata[_Signed].from_file(str(path))
            root = Metadata[Root].from_file(
                str(self.metadata_folder / f"{max(self._root_versions())}.root.json")
            )
            root.verify_delegate(role, found)
        except (RepositoryError, OSError, ValueError) as error:
            raise HubError(f"{path}: expected what this hub has signed, found {error}") from error
        if not isinstance(found.signed, kind):
            raise HubError(f"{path}: expected metadata of {role}, found {found.signed.type}")
        return found

    def _root_versions(self) -> list[int]:
        return [int(path.name.split(".")[0]) for path in self.metadata_folder.glob("*.root.json")]

    def _pairs(self, targets: Targets) -> dict[str, Pair]:
        found: dict[str, Pair] = {}
        for target, described in targets.targets.items():
            if target.startswith("pairs/"):
                path = self._path(target, described.hashes["sha256"])
                with self._mapped():
                    pair = parse_pair(path.read_bytes(), str(path))
                found[pair.watchlist] = pair
        return found

    def _add(self, targets: Targets, target: str, content: bytes) -> None:
        described = TargetFile.from_data(target, content)
        path = self._path(target, described.hashes["sha256"])
        targets.targets[target] = described
        with self._mapped():
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_file(path, content)

    def _path(self, target: str, sha256: str) -> Path:
        """Return where a target lies: python-tuf asks for it by hash and name."""
        folder, name = target.split("/")
        return self.targets_folder / folder / f"{sha256}.{name}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Run the block while nobody else publishes here."""
        with self._mapped():
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HubError(f"{self.folder}: expected a place for what is published, found {error}") from error


def _described(content: bytes, contents: dict[str, bytes]) -> PairFile:
    sha256 = hashlib.sha256(content).hexdigest()
    contents[sha256] = content
    return PairFile(sha256, len(content))


def _open_signer(path: Path) -> CryptoSigner:
    """Return the signer in a PEM file that only its user may read; make one where there is none. Raises HubError."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = path.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(CryptoSigner.generate_ed25519().private_bytes)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise HubError(
                f"{path}: expected a key that only its user may read, found mode {mode:04o}; run: chmod 600 {path}"
            )
        return CryptoSigner(load_pem_private_key(path.read_bytes(), password=None))
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise HubError(f"{path}: expected a key in PEM, found {error}") from error
