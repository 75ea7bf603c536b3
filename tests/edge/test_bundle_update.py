"""Updates of a bundle: only what changed travels, and nothing is replaced before all of it is right."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edge.bundle import Bundle, EncoderEntry, new_code_space
from edge.bundle_update import changed_files, files_of, update_bundle
from edge.errors import BundleError
from edge.manifest import SPLIT_FORMAT_VERSION, Manifest, format_manifest, parse_manifest

MANIFEST_V2 = Path(__file__).parents[1] / "data" / "golden" / f"manifest-v{SPLIT_FORMAT_VERSION}.json"


def with_new_heads(bundle: Bundle, update: Path) -> Manifest:
    """Write an update of a bundle with other heads; return its manifest."""
    update.mkdir()
    encoders: list[EncoderEntry] = []
    for entry in bundle.manifest.encoders:
        if entry.head is None:
            encoders.append(entry)
            continue
        content = bytearray((bundle.folder / entry.head.file).read_bytes())
        at = content.rindex(b"\x3f")  # in a number of the last tensor
        content[at] = 0x40
        (update / entry.head.file).write_bytes(bytes(content))
        sha256 = hashlib.sha256(bytes(content)).hexdigest()
        encoders.append(replace(entry, head=replace(entry.head, sha256=sha256)))
    space = new_code_space("tiny", "new heads")
    manifest = replace(bundle.manifest, version="2", code_space=space, encoders=tuple(encoders))
    (update / "manifest.json").write_bytes(format_manifest(manifest))
    return manifest


@pytest.fixture
def deployed(tiny_image: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(tiny_image.folder, tmp_path / "deployed")
    return Bundle.load(tmp_path / "deployed")


def test_a_new_head_travels_alone(deployed: Bundle, tmp_path: Path) -> None:
    manifest = with_new_heads(deployed, tmp_path / "update")
    assert changed_files(deployed.manifest, manifest) == ("image_head.onnx", "image_head.tflite")
    found = update_bundle(deployed.folder, tmp_path / "update")
    assert found.manifest == manifest
    found.verify()
    assert Bundle.load(deployed.folder) == found
    assert changed_files(found.manifest, manifest) == ()
    assert not list(tmp_path.glob(".*"))


def test_every_file_of_a_manifest_is_known(deployed: Bundle) -> None:
    assert set(files_of(deployed.manifest)) == {
        *("image_tower.onnx", "image_head.onnx", "image_tower.tflite", "image_head.tflite"),
        *("text.onnx", "text.tflite", "tokenizer.json", "golden_image.npz", "golden_text.npz"),
    }


def test_an_update_that_lacks_something_changes_nothing(deployed: Bundle, tmp_path: Path) -> None:
    with_new_heads(deployed, tmp_path / "update")
    (tmp_path / "update" / "image_head.onnx").unlink()
    with pytest.raises(BundleError, match=r"image_head\.onnx: expected sha256"):  # the earlier one is another
        update_bundle(deployed.folder, tmp_path / "update")
    (deployed.folder / "image_head.onnx").rename(tmp_path / "kept")
    with pytest.raises(BundleError, match=r"update: expected image_head\.onnx in the update or in .*neither"):
        update_bundle(deployed.folder, tmp_path / "update")
    (tmp_path / "kept").rename(deployed.folder / "image_head.onnx")
    assert Bundle.load(deployed.folder) == deployed
    deployed.verify()
    with pytest.raises(
        BundleError, match=r"manifest\.json: expected an update with manifest\.json, found No"
    ):
        update_bundle(deployed.folder, tmp_path / "nothing")


def test_a_split_manifest_has_the_golden_bytes_and_reads_back_the_same(tiny_image: Bundle) -> None:
    entries = tuple(replace(entry, sha256="ab" * 32) for entry in tiny_image.manifest.encoders[:2])
    image, text = entries
    assert image.head is not None
    image = replace(image, head=replace(image.head, sha256="cd" * 32))
    text = replace(text, input=replace(text.input, tokenizer_sha256="ef" * 32))  # type: ignore[arg-type]
    manifest = replace(
        tiny_image.manifest, code_space="tiny-0123456789ab", encoders=(image, text), golden=(), decoys=()
    )
    assert format_manifest(manifest) == MANIFEST_V2.read_bytes()
    assert parse_manifest(MANIFEST_V2.read_bytes(), "manifest.json") == manifest


def test_only_a_manifest_with_a_split_encoder_has_the_later_version(tiny: Bundle, tiny_image: Bundle) -> None:
    assert (tiny.manifest.format_version, tiny_image.manifest.format_version) == (1, SPLIT_FORMAT_VERSION)
    assert replace(tiny_image.manifest, format_version=1).format_version == SPLIT_FORMAT_VERSION
    assert b'"head"' not in format_manifest(tiny.manifest)
    assert b'"pad_id"' not in format_manifest(tiny.manifest)
