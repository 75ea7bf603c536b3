from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import (
    FORMAT_VERSION,
    AudioInput,
    Bundle,
    Calibration,
    Decoy,
    EncoderEntry,
    GoldenEntry,
    ImageInput,
    Manifest,
    TextInput,
    default_bundle,
    new_code_space,
    onnx_has_external_data,
    require_code_space,
    write_bundle,
)
from edge.errors import BundleError, CodeSpaceError
from edge.manifest import format_manifest, parse_manifest

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / f"manifest-v{FORMAT_VERSION}.json"


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def message(field: int, content: bytes) -> bytes:
    """Return a protobuf field that holds bytes or another message."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def integer(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


INSIDE_TENSOR = (
    integer(2, 1) + message(9, bytes(4)) + integer(14, 0)
)  # float, raw data, data_location DEFAULT
OUTSIDE_TENSOR = integer(2, 1) + integer(14, 1)
PATH_TENSOR = integer(2, 1) + message(13, message(1, b"location") + message(2, b"../../etc/passwd"))


def onnx_model(graph: bytes) -> bytes:
    return integer(1, 10) + message(2, b"test") + message(7, message(2, b"graph") + graph)


ONNX = onnx_model(message(5, INSIDE_TENSOR))
TFLITE = b"\x1c\x00\x00\x00TFL3 not a real model"
TOKENIZER = b"{}"


def golden_npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, inputs=np.zeros((1, 8), np.float32), codes_onnx=np.zeros((1, 32), np.uint8))
    return file.getvalue()


NPZ = golden_npz()
FILES: dict[str, bytes | Path] = {
    "audio.onnx": ONNX,
    "audio.tflite": TFLITE,
    "text.onnx": ONNX,
    "tokenizer.json": TOKENIZER,
    "golden.npz": NPZ,
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest(**changes: Any) -> Manifest:
    audio = AudioInput(32_000, 160_000)
    text = TextInput(64, "tokenizer.json", sha256(TOKENIZER))
    whole = Manifest(
        name="starter",
        version="0.1.0",
        code_space="starter-0123456789ab",
        code_bits=256,
        encoders=(
            EncoderEntry("audio", "onnx", "int8", "audio.onnx", sha256(ONNX), audio),
            EncoderEntry(
                "audio", "tflite", "int8 weights", "audio.tflite", sha256(TFLITE), audio, "Identity"
            ),
            EncoderEntry("text", "onnx", "int8", "text.onnx", sha256(ONNX), text),
        ),
        calibration=Calibration("logistic", -0.125, 10.5, 1000, "validation é"),
        decoys=(Decoy("wind", bytes(range(32))),),
        golden=(GoldenEntry("audio", "golden.npz", sha256(NPZ), 0.25),),
        licence="CC BY-NC-SA 4.0",
        licence_note="",
        provenance={"train_run": "starter-1", "commit": "0" * 40, "data": ["ESC-10"]},
        figures={"map": 0.5},
    )
    return replace(whole, **changes)


def written(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", manifest(), FILES)


def golden_manifest() -> Manifest:
    """Return a manifest whose bytes do not depend on the files above."""
    entries = tuple(replace(each, sha256="ab" * 32) for each in manifest().encoders[:2])
    text = replace(manifest().encoders[2], sha256="cd" * 32, input=TextInput(64, "tokenizer.json", "ef" * 32))
    image = ImageInput(224, (0.5, 0.25, 0.125), (0.5, 0.5, 0.5), "shortest-side-centre-crop")
    entry = EncoderEntry("image", "onnx", "float32", "image.onnx", "01" * 32, image)
    golden = (GoldenEntry("audio", "golden.npz", "23" * 32, 0.25),)
    return manifest(encoders=(*entries, text, entry), golden=golden)


def test_the_manifest_has_the_golden_bytes_and_reads_back_the_same() -> None:
    assert format_manifest(golden_manifest()) == GOLDEN.read_bytes()
    assert parse_manifest(GOLDEN.read_bytes(), "manifest.json") == golden_manifest()


def test_a_bundle_is_written_loaded_and_verified(tmp_path: Path) -> None:
    bundle = written(tmp_path)
    assert Bundle.load(tmp_path / "bundle") == bundle
    assert bundle.manifest == manifest()
    bundle.verify()
    entry = bundle.encoder_entry("audio")
    assert (entry.runtime, entry.size_bytes) == ("onnx", len(ONNX))
    assert bundle.read(entry) == ONNX
    assert bundle.verified_path(entry).read_bytes() == ONNX
    assert bundle.encoder_entry("audio", "tflite").output == "Identity"
    assert bundle.read_tokenizer(bundle.encoder_entry("text")) == TOKENIZER
    golden = bundle.golden("audio")
    assert golden is not None
    assert golden["codes_onnx"].shape == (1, 32)
    assert bundle.golden("text") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]  # nothing temporary is left


def test_the_earlier_bundle_is_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = written(tmp_path)
    replace_file = os.replace

    def refuse_new(source: Path, target: Path) -> None:
        if str(source).endswith(".new"):
            raise OSError(5, "Input/output error")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", refuse_new)
    with pytest.raises(OSError, match="Input/output error"):
        write_bundle(tmp_path / "bundle", manifest(version="0.2.0"), FILES)
    assert Bundle.load(tmp_path / "bundle") == earlier
    earlier.verify()
    assert list(tmp_path.iterdir()) == [tmp_path / "bundle"]


def test_a_manifest_without_end_is_refused() -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: expected JSON in UTF-8, found "):
        parse_manifest(b'{"a":' * 100_000, "manifest.json")


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    bundle = written(tmp_path)
    with pytest.raises(
        BundleError, match="expected a text/tflite encoder, found audio/onnx, audio/tflite, text/onnx"
    ):
        bundle.encoder_entry("text", "tflite")
    with pytest.raises(BundleError, match="expected a image encoder"):
        bundle.encoder_entry("image")
    with pytest.raises(BundleError, match=r"expected a text encoder, found audio audio\.onnx"):
        bundle.read_tokenizer(bundle.encoder_entry("audio"))


@pytest.mark.parametrize("name", ["audio.onnx", "audio.tflite", "tokenizer.json", "golden.npz"])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    bundle = written(tmp_path)
    path = bundle.folder / name
    changed = path.read_bytes()[:-1] + b"?"
    path.write_bytes(changed)
    with pytest.raises(BundleError) as caught:
        bundle.verify()
    assert f"{path}: expected sha256 {sha256(FILES[name])}, found {sha256(changed)}" in str(caught.value)  # type: ignore[arg-type]


def test_verify_names_every_file_that_fails(tmp_path: Path) -> None:
    bundle = written(tmp_path)
    (bundle.folder / "audio.onnx").write_bytes(b"")
    (bundle.folder / "golden.npz").unlink()
    with pytest.raises(BundleError) as caught:
        bundle.verify()
    assert "audio.onnx: expected sha256" in str(caught.value)
    assert "golden.npz: expected a file of the bundle, found No such file" in str(caught.value)


def test_the_text_encoder_may_be_left_off_the_board(tmp_path: Path) -> None:
    (written(tmp_path).folder / "text.onnx").unlink()
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.encoder_entry("text").size_bytes == 0
    assert bundle.read(bundle.encoder_entry("audio")) == ONNX


def test_a_link_out_of_the_bundle_is_refused(tmp_path: Path) -> None:
    bundle = written(tmp_path)
    outside = tmp_path / "outside.onnx"
    outside.write_bytes(ONNX)
    (bundle.folder / "audio.onnx").unlink()
    (bundle.folder / "audio.onnx").symlink_to(outside)
    with pytest.raises(
        BundleError, match=r"expected a file inside the bundle, found a link to .*outside\.onnx"
    ):
        bundle.read(bundle.encoder_entry("audio"))


def edited(tmp_path: Path, *keys: Any, value: Any = None, delete: bool = False) -> Path:
    """Return a bundle folder whose manifest has one value replaced or deleted."""
    folder = written(tmp_path).folder
    root = json.loads((folder / "manifest.json").read_text("utf-8"))
    place = root
    for key in keys[:-1]:
        place = place[key]
    if delete:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    (folder / "manifest.json").write_text(json.dumps(root), "utf-8")
    return folder


@pytest.mark.parametrize(
    "name",
    ["../audio.onnx", "/etc/passwd", "sub/audio.onnx", "..", ".hidden", "a\\b", "C:x", "", "manifest.json"],
)
def test_a_file_name_that_could_leave_the_bundle_is_refused(tmp_path: Path, name: str) -> None:
    folder = edited(tmp_path, "encoders", 0, "file", value=name)
    with pytest.raises(BundleError, match=r"manifest\.json: encoders\[0\]\.file: expected .*, found"):
        Bundle.load(folder)
    folder = edited(tmp_path, "encoders", 2, "input", "tokenizer", value=name)
    with pytest.raises(BundleError, match=r"encoders\[2\]\.input\.tokenizer: expected"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        (("code_space",), "manifest.json: expected the keys"),
        (("encoders", 1, "sha256"), "encoders[1]: expected the keys"),
        (("encoders", 0, "input", "window_samples"), "encoders[0].input: expected the keys"),
        (("calibration", "intercept"), "calibration: expected the keys"),
        (("decoys", 0, "code"), "decoys[0]: expected the keys"),
        (("golden", 0, "tolerance"), "golden[0]: expected the keys"),
        (("provenance", "commit"), "provenance: expected the keys"),
    ],
)
def test_a_missing_key_is_named(tmp_path: Path, keys: tuple[Any, ...], where: str) -> None:
    folder = edited(tmp_path, *keys, delete=True)
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert str(folder / "manifest.json") in str(caught.value)
    assert where in str(caught.value)
    assert f"missing {keys[-1]}" in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        (
            ("format_version",),
            3,
            "expected format_version 1, found 3; use the bundle and the fieldcube of one release",
        ),
        (("code_bits",), 100, "code_bits: expected one of 64, 128, 192, 256, found 100"),
        (("code_bits",), 128, "decoys[0].code: expected 128 bits (code_bits), found 256 bits"),
        (("code_bits",), "256", "code_bits: expected one of 64, 128, 192, 256, found '256'"),
        (("name",), 3, "name: expected non-empty text, found 3"),
        (("encoders",), {}, "encoders: expected list, found {}"),
        (("encoders",), [], "encoders: expected one for each modality and runtime, found none"),
        (
            ("encoders", 1, "runtime"),
            "onnx",
            "encoders: expected one for each modality and runtime, found audio/onnx",
        ),
        (("encoders", 0, "modality"), "smell", "encoders[0].modality: expected one of audio, image, text"),
        (("encoders", 0, "modality"), "text", "encoders[0].input: expected the keys max_tokens"),
        (
            ("encoders", 0, "runtime"),
            "torch",
            "encoders[0].runtime: expected one of onnx, tflite, found 'torch'",
        ),
        (("encoders", 0, "sha256"), "AB" * 32, "encoders[0].sha256: expected a sha256 of 64 lower-case"),
        (
            ("encoders", 0, "input", "sample_rate_hz"),
            32000.5,
            "encoders[0].input.sample_rate_hz: expected an integer",
        ),
        (("encoders", 0, "input"), [1, 2], "encoders[0].input: expected a mapping, found list"),
        (
            ("calibration", "coefficient"),
            0.1,
            "calibration.coefficient: expected a number from -1000000.0 to -1e-09",
        ),
        (("calibration", "method"), "magic", "calibration.method: expected one of logistic, found 'magic'"),
        (("decoys", 0, "code"), "xyz", "decoys[0].code: expected hexadecimal digits, found 'xyz'"),
        (("golden", 0, "tolerance"), None, "golden[0].tolerance: expected a number from 0.0"),
        (("figures",), [], "figures: expected Mapping, found []"),
    ],
)
def test_a_wrong_value_is_refused(tmp_path: Path, keys: tuple[Any, ...], value: Any, expected: str) -> None:
    folder = edited(tmp_path, *keys, value=value)
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert str(caught.value).startswith(f"{folder / 'manifest.json'}: ")
    assert expected in str(caught.value)


def test_a_bundle_without_calibration_and_with_unknown_keys_is_fine(tmp_path: Path) -> None:
    assert Bundle.load(edited(tmp_path, "calibration", value=None)).manifest.calibration is None
    assert Bundle.load(edited(tmp_path, "later", value={"new": 1})).manifest == manifest()
    assert Bundle.load(edited(tmp_path, "encoders", 0, "later", value=1)).manifest == manifest()


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: expected a bundle folder .*, found No such file"):
        Bundle.load(tmp_path)
    for content in (b"{", b"\xff", b'"text"', b"[]"):
        (tmp_path / "manifest.json").write_bytes(content)
        with pytest.raises(BundleError, match=r"manifest\.json: expected (JSON in UTF-8|a mapping), found"):
            Bundle.load(tmp_path)


def test_a_golden_file_with_pickles_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez(file, inputs=np.array([{"object": 1}], dtype=object))
    content = file.getvalue()
    golden = (GoldenEntry("audio", "golden.npz", sha256(content), 0.25),)
    bundle = write_bundle(tmp_path / "bundle", manifest(golden=golden), {**FILES, "golden.npz": content})
    with pytest.raises(BundleError, match=r"golden\.npz: expected a \.npz"):
        bundle.golden("audio")


ATTRIBUTE_OF_TENSOR = message(1, message(5, message(5, OUTSIDE_TENSOR)))  # node, attribute, tensor
SUBGRAPH = message(1, message(5, message(6, message(5, PATH_TENSOR))))  # node, attribute, graph, initializer


@pytest.mark.parametrize(
    "model",
    [
        onnx_model(message(5, OUTSIDE_TENSOR)),
        onnx_model(message(5, INSIDE_TENSOR) + message(5, PATH_TENSOR)),
        onnx_model(ATTRIBUTE_OF_TENSOR),
        onnx_model(SUBGRAPH),
        onnx_model(message(15, message(1, OUTSIDE_TENSOR))),
        ONNX + message(25, message(7, message(5, message(5, OUTSIDE_TENSOR)))),
        ONNX + message(20, message(1, message(5, OUTSIDE_TENSOR))),
    ],
    ids=["initializer", "location", "attribute", "subgraph", "sparse", "function", "training"],
)
def test_onnx_external_data_is_found_wherever_it_is(tmp_path: Path, model: bytes) -> None:
    assert onnx_has_external_data(model)
    entry = replace(manifest().encoders[0], sha256=sha256(model))
    with pytest.raises(
        BundleError, match=r"audio\.onnx: expected an ONNX model that holds its data, found external"
    ):
        write_bundle(tmp_path / "b", manifest(encoders=(entry,)), {**FILES, "audio.onnx": model})
    assert not any(tmp_path.iterdir())


def test_onnx_models_with_their_data_inside_pass() -> None:
    fixed = (
        varint(3 << 3 | 1) + bytes(8) + varint(4 << 3 | 5) + bytes(4)
    )  # 64- and 32-bit fields are passed over
    assert not onnx_has_external_data(ONNX)
    assert not onnx_has_external_data(onnx_model(message(5, INSIDE_TENSOR + fixed)))
    assert not onnx_has_external_data(
        onnx_model(message(5, message(9, OUTSIDE_TENSOR)))
    )  # raw data, not fields


@pytest.mark.parametrize("content", [b"", ONNX[:-1], b"\x3b", b"\xff" * 11, b"not protobuf", b"\x08"])
def test_bytes_that_are_no_onnx_model_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"wire type|cut off|too long|no graph"):
        onnx_has_external_data(content)
    entry = replace(manifest().encoders[0], sha256=sha256(content))
    with pytest.raises(BundleError, match=r"audio\.onnx: expected an ONNX model, found bytes with"):
        write_bundle(tmp_path / "b", manifest(encoders=(entry,)), {**FILES, "audio.onnx": content})


def test_an_earlier_bundle_is_replaced_but_nothing_else(tmp_path: Path) -> None:
    folder = written(tmp_path).folder
    (folder / "stale.txt").write_text("old")
    assert write_bundle(folder, manifest(version="0.2.0"), FILES).manifest.version == "0.2.0"
    assert not (folder / "stale.txt").exists()
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"")
    with pytest.raises(BundleError, match="found other files"):
        write_bundle(other, manifest(), FILES)
    assert (other / "cat.jpg").exists()


def test_a_bundle_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    folder = written(tmp_path).folder
    with pytest.raises(BundleError, match=r"text\.onnx: expected sha256"):
        write_bundle(folder, manifest(version="0.2.0"), {**FILES, "text.onnx": b"other"})
    with pytest.raises(BundleError, match=r"expected plain file names, found '\.\./card\.md'"):
        write_bundle(folder, manifest(version="0.2.0"), {**FILES, "../card.md": b""})
    assert Bundle.load(folder).manifest.version == "0.1.0"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_files_may_be_given_as_paths_and_more_than_the_manifest_names(tmp_path: Path) -> None:
    (tmp_path / "source.onnx").write_bytes(ONNX)
    files = {**FILES, "audio.onnx": tmp_path / "source.onnx", "MODEL_CARD.md": b"# Card"}
    bundle = write_bundle(tmp_path / "made" / "bundle", manifest(), files)
    assert bundle.read(bundle.encoder_entry("audio")) == ONNX
    assert (bundle.folder / "MODEL_CARD.md").read_bytes() == b"# Card"


def test_code_spaces_depend_on_every_encoder_and_their_order() -> None:
    space = new_code_space("starter", "aa", "bb")
    assert space == new_code_space("starter", "aa", "bb")
    assert space.startswith("starter-")
    assert len(space) == len("starter-") + 12
    assert len({space, new_code_space("starter", "bb", "aa"), new_code_space("starter", "aa")}) == 3
    with pytest.raises(BundleError, match="found 'My Bundle'"):
        new_code_space("My Bundle", "aa")
    with pytest.raises(BundleError, match="at least one encoder, found none"):
        new_code_space("starter")


def test_another_code_space_is_refused() -> None:
    require_code_space("a-1", "a-1", "watchlist", "list.json")
    with pytest.raises(
        CodeSpaceError, match=r"list\.json: watchlist: expected code space a-1, found b-2; .*"
    ):
        require_code_space("a-1", "b-2", "watchlist", Path("list.json"))


def test_the_default_bundle_lies_in_the_package() -> None:
    assert default_bundle().parts[-2:] == ("edge", "starter")
