"""Bundle: the folder that is deployed. Load, verify and write it; its manifest is in edge.manifest."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.durable import sync_folder
from edge.errors import BundleError, CodeSpaceError
from edge.manifest import (
    FORMAT_VERSION,
    Calibration,
    Decoy,
    EncoderEntry,
    GoldenEntry,
    HeadEntry,
    Manifest,
    Modality,
    ReferenceEntry,
    Runtime,
    format_manifest,
    parse_manifest,
)
from edge.manifest_inputs import AudioInput, ImageInput, TextInput
from edge.onnx_protobuf import onnx_has_external_data

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FORMAT_VERSION",
    "AudioInput",
    "Bundle",
    "Calibration",
    "Decoy",
    "EncoderEntry",
    "GoldenEntry",
    "HeadEntry",
    "ImageInput",
    "Manifest",
    "Modality",
    "ReferenceEntry",
    "Runtime",
    "TextInput",
    "default_bundle",
    "new_code_space",
    "onnx_has_external_data",
    "require_code_space",
    "write_bundle",
]

MANIFEST_NAME = "manifest.json"
_MAX_MANIFEST_BYTES = 16 * 2**20  # a manifest is some 100 kB; more is no manifest


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder with a valid manifest. Its files are checked against their sha256 whenever one is read."""

    folder: Path
    manifest: Manifest

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read and validate the manifest of folder; sizes of encoder files are filled in.

        Raises BundleError naming file, expected and found.
        """
        path = Path(folder) / MANIFEST_NAME
        try:
            if path.stat().st_size > _MAX_MANIFEST_BYTES:
                raise BundleError(
                    f"{path}: expected at most {_MAX_MANIFEST_BYTES} bytes, found {path.stat().st_size}"
                )
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{path}: expected a bundle folder with manifest.json, found {error.strerror or error}; "
                "give the folder that export wrote"
            ) from error
        manifest = parse_manifest(content, str(path))
        encoders = tuple(
            replace(each, size_bytes=_size(Path(folder) / each.file)) for each in manifest.encoders
        )
        return cls(Path(folder), replace(manifest, encoders=encoders))

    def encoder_entry(self, modality: Modality, runtime: Runtime | None = None) -> EncoderEntry:
        """Return the encoder for a modality, the first listed where runtime is None.

        Raises BundleError where there is none.
        """
        for entry in self.manifest.encoders:
            if entry.modality == modality and runtime in (None, entry.runtime):
                return entry
        wanted = modality if runtime is None else f"{modality}/{runtime}"
        found = ", ".join(f"{each.modality}/{each.runtime}" for each in self.manifest.encoders)
        raise BundleError(f"{self.folder / MANIFEST_NAME}: expected a {wanted} encoder, found {found}")

    def read(self, entry: EncoderEntry | GoldenEntry | ReferenceEntry) -> bytes:
        """Return the bytes of a file, checked: inside the folder, sha256, and no ONNX external data."""
        content = self._read_checked(entry.file, entry.sha256)
        if isinstance(entry, EncoderEntry) and entry.runtime == "onnx":
            self._refuse_external_data(entry.file, content)
        return content

    def read_head(self, entry: EncoderEntry) -> bytes | None:
        """Return the bytes of the head of an encoder in two files, checked as read does; None where it is in one."""
        if entry.head is None:
            return None
        content = self._read_checked(entry.head.file, entry.head.sha256)
        if entry.runtime == "onnx":
            self._refuse_external_data(entry.head.file, content)
        return content

    def read_tokenizer(self, entry: EncoderEntry) -> bytes:
        """Return the checked bytes of the tokenizer of a text encoder."""
        if not isinstance(entry.input, TextInput):
            raise BundleError(f"{self.folder}: expected a text encoder, found {entry.modality} {entry.file}")
        return self._read_checked(entry.input.tokenizer, entry.input.tokenizer_sha256)

    def verified_path(self, entry: EncoderEntry | GoldenEntry) -> Path:
        """Return the path of a file after the same checks as read, for libraries that only take paths."""
        self.read(entry)
        return self.folder / entry.file

    def golden(self, modality: Modality) -> dict[str, NDArray[Any]] | None:
        """Return the arrays of the golden file of a modality, or None where the bundle has none."""
        for entry in self.manifest.golden:
            if entry.modality == modality:
                return self.arrays(entry)
        return None

    def arrays(self, entry: GoldenEntry | ReferenceEntry) -> dict[str, NDArray[Any]]:
        """Return the arrays of a .npz of the bundle; its hash is checked first. Raises BundleError where it is none."""
        content = self.read(entry)
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (ValueError, OSError, KeyError) as error:
            raise BundleError(f"{self.folder / entry.file}: expected a .npz, found {error}") from error

    def read_all(self, entry: EncoderEntry) -> None:
        """Check every file of an encoder: the graph, the head where it is another file, the tokenizer of text."""
        self.read(entry)
        self.read_head(entry)
        if isinstance(entry.input, TextInput):
            self.read_tokenizer(entry)

    def verify(self) -> None:
        """Check every file of the manifest; raises one BundleError with a line for each that fails."""
        failures: list[str] = []
        manifest = self.manifest
        entries: list[EncoderEntry | GoldenEntry | ReferenceEntry] = [*manifest.encoders, *manifest.golden]
        entries += [manifest.reference] if manifest.reference is not None else []
        for entry in entries:
            try:
                if isinstance(entry, EncoderEntry):
                    self.read_all(entry)
                else:
                    self.read(entry)
            except BundleError as error:
                failures.append(str(error))
        if failures:
            raise BundleError("\n".join(failures))

    def _read_checked(self, name: str, sha256: str) -> bytes:
        path = self.folder / name
        try:
            if path.resolve().parent != self.folder.resolve():
                raise BundleError(
                    f"{path}: expected a file inside the bundle, found a link to {path.resolve()}"
                )
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{path}: expected a file of the bundle, found {error.strerror or error}; "
                "copy the whole bundle again"
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise BundleError(f"{path}: expected sha256 {sha256}, found {found}; copy the whole bundle again")
        return content

    def _refuse_external_data(self, name: str, content: bytes) -> None:
        path = self.folder / name
        try:
            external = onnx_has_external_data(content)
        except ValueError as error:
            raise BundleError(f"{path}: expected an ONNX model, found bytes with {error}") from error
        if external:
            raise BundleError(
                f"{path}: expected an ONNX model that holds its data, found external data; "
                "export it again with all tensors inside the file"
            )


def new_code_space(name: str, *sha256s: str) -> str:
    """Return the id "<name>-<12 hex>" of the code space of encoders with these sha256s, in this order."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise BundleError(f"code space: expected a name of a-z, 0-9, '.', '_' and '-', found {name!r}")
    if not sha256s:
        raise BundleError(f"code space {name}: expected the sha256 of at least one encoder, found none")
    return f"{name}-{hashlib.sha256(chr(10).join(sha256s).encode()).hexdigest()[:12]}"


def require_code_space(expected: str, found: str, what: str, file: str | Path) -> None:
    """Raise CodeSpaceError unless both ids are the same; what and file name the thing that carries found."""
    if expected != found:
        raise CodeSpaceError(
            f"{file}: {what}: expected code space {expected}, found {found}; "
            "codes of different encoders cannot be compared, make it again with this bundle"
        )


def default_bundle() -> Path:
    """Return the folder of the starter bundle that ships with the package."""
    return Path(__file__).parent / "starter"


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Bundle:
    """Write a bundle in one step: a folder beside it is filled, synced, checked, and renamed into place.

    files: content or path to copy, by plain name: all that the manifest names, and any more (model card).
    An earlier bundle in folder is replaced; anything else there is refused. Raises BundleError.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST_NAME).is_file() and any(folder.iterdir()):
        raise BundleError(
            f"{folder}: expected a bundle, an empty folder or nothing to replace, found other files"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    filling = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    retired = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    shutil.rmtree(filling, ignore_errors=True)
    filling.mkdir()
    try:
        for name, content in {**files, MANIFEST_NAME: format_manifest(manifest)}.items():
            if Path(name).name != name or name.startswith("."):
                raise BundleError(f"{folder}: expected plain file names, found {name!r}")
            with (filling / name).open("wb") as file:
                file.write(content if isinstance(content, bytes) else content.read_bytes())
                file.flush()
                os.fsync(file.fileno())
        Bundle.load(filling).verify()
        sync_folder(filling)
        if folder.exists():
            os.replace(folder, retired)
        try:
            os.replace(filling, folder)
        except BaseException:
            if retired.exists():
                os.replace(retired, folder)  # better the earlier bundle than none
            raise
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(filling, ignore_errors=True)
    shutil.rmtree(retired, ignore_errors=True)
    return Bundle.load(folder)


def _size(path: Path) -> int:
    """Return the size of a file in bytes, 0 where it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
