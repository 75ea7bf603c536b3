"""An update of a bundle that carries only what changed: with split encoders a new head, not the tower before it."""

from __future__ import annotations

from pathlib import Path

from edge.bundle import MANIFEST_NAME, Bundle, TextInput, write_bundle
from edge.errors import BundleError
from edge.manifest import Manifest, parse_manifest


def files_of(manifest: Manifest) -> dict[str, str]:
    """Return {name: sha256} of every file that a manifest names."""
    files = {golden.file: golden.sha256 for golden in manifest.golden}
    if manifest.reference is not None:
        files[manifest.reference.file] = manifest.reference.sha256
    for entry in manifest.encoders:
        files[entry.file] = entry.sha256
        if entry.head is not None:
            files[entry.head.file] = entry.head.sha256
        if isinstance(entry.input, TextInput):
            files[entry.input.tokenizer] = entry.input.tokenizer_sha256
    return files


def changed_files(before: Manifest, after: Manifest) -> tuple[str, ...]:
    """Return the names of the files that a recorder with one bundle lacks for another one, in order of name."""
    known = files_of(before)
    return tuple(name for name, sha256 in sorted(files_of(after).items()) if known.get(name) != sha256)


def update_bundle(folder: Path, update: Path) -> Bundle:
    """Turn the bundle in folder into that of the manifest in update, in one step as write_bundle does.

    update: a folder with manifest.json, the changed_files, and any more that are to go along (a model card); the other
    files are taken from folder. Every file is checked before the bundle is replaced: nothing changes where
    BundleError is raised.
    """
    folder, update = Path(folder), Path(update)
    path = update / MANIFEST_NAME
    try:
        manifest = parse_manifest(path.read_bytes(), str(path))
        carried = {
            each.name: each for each in update.iterdir() if each.is_file() and each.name != MANIFEST_NAME
        }
    except OSError as error:
        raise BundleError(
            f"{path}: expected an update with manifest.json, found {error.strerror or error}"
        ) from error
    Bundle.load(folder)
    files: dict[str, bytes | Path] = dict(carried)
    for name in files_of(manifest):
        here = folder / name
        if name not in carried:
            if not here.is_file():
                raise BundleError(
                    f"{update}: expected {name} in the update or in {folder}, found it in neither; send it along"
                )
            files[name] = here
    return write_bundle(folder, manifest, files)
