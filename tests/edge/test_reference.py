"""The reference codes of a bundle: read whole, or refused by name."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle, ReferenceEntry, write_bundle
from edge.errors import BundleError
from edge.reference import load_reference

CODES = np.random.default_rng(0).integers(0, 256, (9, 32), np.uint8)
ARRAYS: dict[str, np.ndarray] = {
    "background": CODES[:4],
    "runs": np.array([0, 0, 1, 1], np.int32),
    "sounds": CODES[4:7],
    "sound_text": np.array([0, 0, 1], np.int32),
    "sound_event": np.array([0, 0, 1], np.int32),
    "snr_db": np.array([0, 0, 10], np.float32),
    "texts": np.array(["a dog", "an owl"]),
    "text_codes": CODES[7:],
}


def bundle_with(tiny: Bundle, folder: Path, arrays: dict[str, np.ndarray]) -> Bundle:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    content = stream.getvalue()
    entry = ReferenceEntry("reference.npz", hashlib.sha256(content).hexdigest(), 2.5, "made up")
    files: dict[str, bytes | Path] = {
        path.name: path for path in tiny.folder.iterdir() if path.name != "manifest.json"
    }
    manifest = replace(tiny.manifest, reference=entry)
    return write_bundle(folder / "bundle", manifest, {**files, "reference.npz": content})


def test_a_reference_is_read_as_it_was_written(tiny: Bundle, tmp_path: Path) -> None:
    found = load_reference(bundle_with(tiny, tmp_path, ARRAYS))
    assert found is not None
    assert (found.hop_s, found.texts) == (2.5, ("a dog", "an owl"))
    for name in set(ARRAYS) - {"texts"}:
        assert np.array_equal(getattr(found, name), ARRAYS[name])
    assert {found.runs.dtype, found.sound_text.dtype, found.sound_event.dtype} == {np.dtype(np.int64)}


def test_a_bundle_without_one_has_none(tiny: Bundle) -> None:
    assert load_reference(tiny) is None


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_a_missing_array_is_named(name: str, tiny: Bundle, tmp_path: Path) -> None:
    bundle = bundle_with(tiny, tmp_path, {key: value for key, value in ARRAYS.items() if key != name})
    with pytest.raises(BundleError, match=rf"reference\.npz: expected the arrays .*, found no {name}"):
        load_reference(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"background": CODES[:3]}, r"expected background uint8 \(4, 32\), found uint8 \(3, 32\)"),
        ({"background": CODES[:4, :16]}, r"expected background uint8 \(4, 32\), found uint8 \(4, 16\)"),
        ({"sounds": CODES[4:7].astype(np.int16)}, r"expected sounds uint8 \(3, 32\), found int16 \(3, 32\)"),
        ({"text_codes": CODES[7:8]}, r"expected text_codes uint8 \(2, 32\), found uint8 \(1, 32\)"),
        ({"sound_event": np.zeros(2, np.int32)}, r"expected sound_event \(3,\), found \(2,\)"),
        ({"snr_db": np.zeros(4, np.float32)}, r"expected snr_db \(3,\), found \(4,\)"),
        ({"sound_text": np.array([0, 0, 2], np.int32)}, r"expected sound_text from 0 to 1, found 2"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(
    change: dict[str, Any], message: str, tiny: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=message):
        load_reference(bundle_with(tiny, tmp_path, {**ARRAYS, **change}))


def test_a_reference_that_was_changed_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    bundle = bundle_with(tiny, tmp_path, ARRAYS)
    path = bundle.folder / "reference.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"reference\.npz"):
        load_reference(bundle)
