"""Encoders of pictures, of sentences in every form that exporters give, and encoders in two files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle, EncoderEntry, HeadEntry, TextInput, write_bundle
from edge.codes import hamming, pack
from edge.encoder import (
    available_runtimes,
    compile_queries,
    encode_picture,
    open_audio_encoder,
    open_image_encoder,
    open_text_encoder,
)
from edge.errors import BundleError, EncoderError, ImageError, WatchlistError
from edge.images import pixels_of
from edge.query_grammar import parse_lines
from edge.watchlist import Query, Watchlist

Paint = Callable[..., Path]
COLOURS = {"red": (200, 90, 90), "green": (90, 200, 90), "blue": (90, 90, 200)}


def changed(bundle: Bundle, folder: Path, change: Callable[[EncoderEntry], EncoderEntry]) -> Bundle:
    """Write a bundle whose encoder entries are changed; the hashes of their files are set right."""
    files = {path.name: path.read_bytes() for path in bundle.folder.iterdir() if path.name != "manifest.json"}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    entries = [change(entry) for entry in bundle.manifest.encoders]
    entries = [replace(entry, sha256=hashes[entry.file]) for entry in entries]
    return write_bundle(folder, replace(bundle.manifest, encoders=tuple(entries)), dict(files))


@pytest.fixture
def whole(tiny_image: Bundle, tmp_path: Path) -> Bundle:
    """Return the bundle with image encoders in one file."""

    def join(entry: EncoderEntry) -> EncoderEntry:
        return entry if entry.head is None else replace(entry, file=f"image.{entry.runtime}", head=None)

    return changed(tiny_image, tmp_path / "whole", join)


def test_golden_pictures_give_the_golden_logits(tiny_image: Bundle, whole: Bundle, runtime: Any) -> None:
    golden = tiny_image.golden("image")
    assert golden is not None
    assert golden["inputs"].shape[1] != golden["inputs"].shape[2]  # so that the crop counts
    for bundle in (tiny_image, whole):
        encoder = open_image_encoder(bundle, runtime)
        found = [encoder.encode(pixels_of(picture, encoder.takes)) for picture in golden["inputs"]]
        np.testing.assert_allclose(np.stack(found), golden[f"logits_{runtime}"], atol=1e-3)
        assert (encoder.code_space, encoder.code_bits) == (tiny_image.manifest.code_space, 256)


def test_pictures_of_another_shape_or_type_are_refused(tiny_image: Bundle, runtime: Any) -> None:
    encoder = open_image_encoder(tiny_image, runtime)
    for pixels in (
        np.zeros((3, 16, 15), np.float32),
        np.zeros((16, 16, 3), np.float32),
        np.zeros((3, 16, 16)),
    ):
        with pytest.raises(EncoderError, match=r"expected pixels float32 \(3, 16, 16\), found float"):
            encoder.encode(pixels)


def test_logits_of_pictures_are_owned(tiny_image: Bundle, runtime: Any) -> None:
    encoder = open_image_encoder(tiny_image, runtime)
    first = encoder.encode(np.ones((3, 16, 16), np.float32))
    kept = first.copy()
    red = np.zeros((3, 16, 16), np.float32)
    red[0] = 2
    assert not np.allclose(encoder.encode(red), kept)
    np.testing.assert_array_equal(first, kept)


def test_sentences_land_on_the_code_of_their_picture_and_sound_on_both(
    both: Bundle, runtime: Any, paint: Paint, write_tones: Any, tmp_path: Path
) -> None:
    from edge.encoder import encode_file

    read, see = open_text_encoder(both, runtime=runtime), open_image_encoder(both, runtime)
    sentences = np.stack([pack(read.encode(f"a {colour} sound")) for colour in COLOURS])
    pictures = [pack(encode_picture(see, paint(tmp_path / "a.png", rgb))) for rgb in COLOURS.values()]
    hear = open_audio_encoder(both, runtime)
    sounds = [
        pack(encode_file(hear, write_tones(tmp_path / f"{hz}.wav", (hz, 2)))) for hz in (500, 1000, 2500)
    ]
    for codes in (pictures, sounds):
        differing = np.stack([hamming(code, sentences) for code in codes])
        assert np.argmin(differing, axis=1).tolist() == [0, 1, 2]
        assert np.diag(differing).max() < 30


def test_a_sentence_has_the_same_code_in_every_form_of_graph(tiny_image: Bundle, tmp_path: Path) -> None:
    if len(available_runtimes()) < 2:
        pytest.skip("needs both runtimes")

    def without_mask(entry: EncoderEntry) -> EncoderEntry:
        return replace(entry, file="text_ids.tflite") if entry.file == "text.tflite" else entry

    ids_only = changed(tiny_image, tmp_path / "ids", without_mask)
    readers = [open_text_encoder(tiny_image, runtime="onnx"), open_text_encoder(tiny_image, runtime="tflite")]
    readers.append(open_text_encoder(ids_only, runtime="tflite"))
    long = "noise " * 50 + "red"  # cut before the word that counts
    for sentence in ("red", "a blue whistle and the wind", "", long):
        found = [reader.run(sentence) for reader in readers]
        np.testing.assert_allclose(found[1:], [found[0]] * 2, atol=1e-4)
    assert [reader.runtime for reader in readers] == ["onnx", "tflite", "tflite"]
    assert open_text_encoder(tiny_image).runtime == "onnx"


def test_a_graph_of_fixed_length_needs_a_pad_id(tiny_image: Bundle, tmp_path: Path) -> None:
    if "tflite" not in available_runtimes():
        pytest.skip("tflite is not installed")

    def unpadded(entry: EncoderEntry) -> EncoderEntry:
        return replace(entry, input=replace(entry.input, pad_id=None)) if entry.modality == "text" else entry

    bundle = changed(tiny_image, tmp_path / "unpadded", unpadded)
    with pytest.raises(BundleError, match=r"text\.tflite: expected pad_id .* of 16 tokens, found none"):
        open_text_encoder(bundle, runtime="tflite")


def test_padding_counts_where_the_pad_id_is_wrong(tiny_image: Bundle, tmp_path: Path) -> None:
    if "tflite" not in available_runtimes():
        pytest.skip("tflite is not installed")

    def padded_with_red(entry: EncoderEntry) -> EncoderEntry:
        if entry.file != "text.tflite":
            return entry
        assert isinstance(entry.input, TextInput)
        return replace(entry, file="text_ids.tflite", input=replace(entry.input, pad_id=19))

    bundle = changed(tiny_image, tmp_path / "red", padded_with_red)
    found = open_text_encoder(bundle, runtime="tflite").encode("noise")
    assert not np.allclose(found, open_text_encoder(tiny_image, runtime="tflite").encode("noise"), atol=0.1)


def test_a_board_with_tflite_alone_compiles_sentences(tiny_image: Bundle, tmp_path: Path) -> None:
    if "tflite" not in available_runtimes():
        pytest.skip("tflite is not installed")
    folder = tmp_path / "board"
    shutil.copytree(tiny_image.folder, folder)
    (folder / "text.onnx").unlink()
    compiled = compile_queries(Bundle.load(folder), [Query("r", "red")])
    expected = open_text_encoder(tiny_image, runtime="tflite").encode("red")
    assert compiled.queries[0].code == pack(expected).tobytes()


def test_an_image_query_is_the_code_of_its_picture(
    tiny_image: Bundle, runtime: Any, paint: Paint, tmp_path: Path
) -> None:
    paint(tmp_path / "fox.jpg", quality=95)
    queries = parse_lines("image: fox.jpg | name=fox\ndecoy: image: fox.jpg | name=other", tmp_path / "w.txt")
    compiled = compile_queries(tiny_image, queries, runtime)
    encoder = open_image_encoder(tiny_image, runtime)
    assert compiled.queries[0].code == pack(encode_picture(encoder, tmp_path / "fox.jpg")).tobytes()
    assert [query.decoy for query in compiled.queries] == [False, True]


def test_an_image_query_that_cannot_be_seen_is_refused(
    tiny: Bundle, tiny_image: Bundle, colours: Watchlist, tmp_path: Path
) -> None:
    (tmp_path / "fox.jpg").write_bytes(b"no picture")
    query = Query("fox", str(tmp_path / "fox.jpg"), "image")
    with pytest.raises(ImageError, match=r"fox\.jpg: expected a picture that can be read, found: not a pict"):
        compile_queries(tiny_image, [query])
    with pytest.raises(WatchlistError, match="this bundle has no image encoder"):
        compile_queries(tiny, [query])
    with pytest.raises(BundleError, match="expected a audio encoder, found image/onnx"):
        compile_queries(tiny_image, [Query("owl", "owl.wav", "sound")])


def test_an_encoder_with_an_unknown_resize_is_refused(tiny_image: Bundle, tmp_path: Path) -> None:
    def other(entry: EncoderEntry) -> EncoderEntry:
        if entry.modality != "image":
            return entry
        return replace(entry, input=replace(entry.input, resize="ten-crop"))  # type: ignore[arg-type]

    bundle = changed(tiny_image, tmp_path / "other", other)
    with pytest.raises(BundleError, match=r"manifest\.json: resize: expected one of .*, found 'ten-crop'"):
        open_image_encoder(bundle)


def split(tiny_image: Bundle, folder: Path, runtime: str, **wrong: Any) -> Bundle:
    """Return the bundle with something wrong about the head of one runtime."""

    def change(entry: EncoderEntry) -> EncoderEntry:
        if entry.runtime != runtime or entry.head is None:
            return entry
        return replace(entry, head=replace(entry.head, **wrong))

    return changed(tiny_image, folder, change)


def test_a_head_that_does_not_fit_its_tower_is_refused_at_once(
    tiny_image: Bundle, runtime: Any, tmp_path: Path
) -> None:
    bundle = split(tiny_image, tmp_path / "b", runtime, n_features=9)
    with pytest.raises(EncoderError, match=r"image_tower\.\w+: expected (the|one) output .*9.*found.* 8"):
        open_image_encoder(bundle, runtime)


def test_a_head_that_is_another_graph_is_refused(tiny_image: Bundle, runtime: Any, tmp_path: Path) -> None:
    name = f"text.{runtime}"
    sha256 = hashlib.sha256((tiny_image.folder / name).read_bytes()).hexdigest()
    bundle = split(tiny_image, tmp_path / "b", runtime, file=name, sha256=sha256)
    with pytest.raises(EncoderError, match=rf"{name}: expected (the inputs features|one input float32)"):
        open_image_encoder(bundle, runtime)


def test_a_changed_head_never_runs(tiny_image: Bundle, runtime: Any, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    shutil.copytree(tiny_image.folder, folder)
    with (folder / f"image_head.{runtime}").open("ab") as file:
        file.write(b"\0")
    bundle = Bundle.load(folder)
    for attempt in (lambda: open_image_encoder(bundle, runtime), bundle.verify):
        with pytest.raises(BundleError, match=rf"image_head\.{runtime}: expected sha256"):
            attempt()
    (folder / f"image_head.{runtime}").unlink()
    with pytest.raises(BundleError, match=rf"image_head\.{runtime}: expected a file of the bundle"):
        open_image_encoder(bundle, runtime)


def test_a_head_may_not_lie_outside_the_bundle_or_be_its_tower() -> None:
    with pytest.raises(BundleError, match="file: expected a plain file name"):
        HeadEntry("../head.onnx", "ab" * 32, "float32", 8)
    with pytest.raises(BundleError, match="n_features: expected an integer from 1"):
        HeadEntry("head.onnx", "ab" * 32, "float32", 0)
    head = HeadEntry("image.onnx", "ab" * 32, "float32", 8)
    with pytest.raises(BundleError, match="head.file: expected another file than the tower's"):
        EncoderEntry("text", "onnx", "f", "image.onnx", "ab" * 32, TextInput(4, "t", "ab" * 32), head=head)


def test_sentences_may_go_through_a_head_of_their_own(
    tiny_image: Bundle, runtime: Any, tmp_path: Path
) -> None:
    head = tiny_image.encoder_entry("image", runtime).head

    def with_head(entry: EncoderEntry) -> EncoderEntry:
        is_text = entry.modality == "text" and entry.runtime == runtime
        return replace(entry, file=f"text_tower.{runtime}", head=head) if is_text else entry

    bundle = changed(tiny_image, tmp_path / "b", with_head)
    expected = open_text_encoder(tiny_image, runtime=runtime).encode("a blue sound")
    found = open_text_encoder(bundle, runtime=runtime).encode("a blue sound")
    np.testing.assert_allclose(found, expected, atol=1e-5)
