"""Make tests/data/tiny_image_bundle: encoders of a few kB that tell red, green and blue pictures apart.

They share the 256 logits of tests/make_tiny_bundle.py: red is a low tone, green a middle one, blue a high one, so that both bundles
can be one of sound and pictures. What is made is what exporters give: an ONNX sentence encoder without attention mask, TFLite ones
of 16 tokens with and without it, and each encoder whole and as a tower and a head.
Needs onnx, onnxruntime, torch and litert-torch: python tests/make_tiny_image_bundle.py
"""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from make_tiny_bundle import (
    CODE_BITS,
    EMPTY_WORDS,
    NOISE,
    SHORTEST,
    SPECIAL,
    TOLERANCE,
    WORDS,
    Floats,
    constant,
    model,
    projection,
    tail,
    word_vectors,
)

from edge.bundle import (
    Bundle,
    Calibration,
    Decoy,
    EncoderEntry,
    GoldenEntry,
    HeadEntry,
    ImageInput,
    Manifest,
    TextInput,
    new_code_space,
    write_bundle,
)
from edge.codes import pack
from edge.encoder import open_image_encoder, open_text_encoder
from edge.images import pixels_of

FOLDER = Path(__file__).parent / "data" / "tiny_image_bundle"
SIZE, N_FEATURES, MAX_TOKENS = 16, 8, 16
TAKES = ImageInput(SIZE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "shortest-side-bicubic-centre-crop")
COLOURS = {"red": "low", "green": "middle", "blue": "high"}  # in the order of channels


def vocabulary() -> tuple[list[str], Floats]:
    """Return the pieces and a vector [8] of each: those of the tiny bundle, then the colours."""
    ids, table = word_vectors()
    pieces = [*ids, *COLOURS]
    return pieces, np.concatenate([table, table[[ids[word] for word in COLOURS.values()]]])


def colour_vectors() -> Floats:
    """Return the matrix [3, 8] from channels to features."""
    ids, table = word_vectors()
    return table[[ids[word] for word in COLOURS.values()]]


class Tower(torch.nn.Module):
    """Pixels [1, 3, SIZE, SIZE] -> features [1, 8]: how much each channel stands out from the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = torch.nn.Parameter(torch.from_numpy(colour_vectors()))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels to features."""
        channels = pixels.mean(dim=(2, 3))  # [batch, 3]
        return torch.relu(channels - channels.mean(dim=1, keepdim=True)) @ self.colours


class Head(torch.nn.Module):
    """Features [1, 8] -> logits [1, 256], as make_tiny_bundle.tail."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.from_numpy(projection()))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features to logits."""
        length = torch.sqrt((features * features).sum(dim=1, keepdim=True))
        return features / torch.clamp(length, min=SHORTEST) @ self.matrix[:8] + NOISE * self.matrix[8]


class Words(torch.nn.Module):
    """Ids int32 [1, 16], and a mask where it is given -> logits [1, 256], or features [1, 8] without a head."""

    def __init__(self, head: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.from_numpy(vocabulary()[1]))
        self.head = torch.nn.Identity() if head is None else head

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Map ids to logits; the row of the padding is zeros, so that it does not need the mask."""
        pieces = torch.nn.functional.embedding(input_ids, self.table)  # [1, 16, 8]
        if attention_mask is not None:
            pieces = pieces * attention_mask.unsqueeze(2)
        return self.head(pieces.sum(dim=1))  # type: ignore[no-any-return]


def tower_nodes() -> tuple[list[Any], list[Any]]:
    """Return nodes and constants from `pixels` to `features`, as Tower."""
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["channels"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["channels"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["channels", "grey"], ["apart"]),
        helper.make_node("Relu", ["apart"], ["above"]),
        helper.make_node("MatMul", ["above", "colours"], ["features"]),
    ]
    return nodes, [constant("colours", colour_vectors())]


def onnx_files() -> dict[str, bytes]:
    """Return the encoders in ONNX form."""
    nodes, constants = tower_nodes()
    more_nodes, more = tail("features")
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", N_FEATURES])
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "n_tokens"])
    words = [
        helper.make_node("Gather", ["table", "input_ids"], ["pieces"]),
        helper.make_node("ReduceSum", ["pieces", "one"], ["features"], keepdims=0),
    ]
    tables = [constant("table", vocabulary()[1]), constant("one", np.array([1], np.int64))]
    return {
        "image.onnx": model(nodes + more_nodes, [pixels], constants + more),
        "image_tower.onnx": model(nodes, [pixels], constants, features),
        "image_head.onnx": model(more_nodes, [features], more),
        "text.onnx": model(words + more_nodes, [ids], tables + more),
        "text_tower.onnx": model(words, [ids], tables, features),
    }


def tflite_files() -> dict[str, bytes]:
    """Return the encoders in TFLite form."""
    import litert_torch

    pixels, features = torch.zeros(1, 3, SIZE, SIZE), torch.zeros(1, N_FEATURES)
    ids, mask = torch.ones(1, MAX_TOKENS, dtype=torch.int32), torch.ones(1, MAX_TOKENS, dtype=torch.int32)
    graphs: dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, ...]]] = {
        "image.tflite": (torch.nn.Sequential(Tower(), Head()), (pixels,)),
        "image_tower.tflite": (Tower(), (pixels,)),
        "image_head.tflite": (Head(), (features,)),
        "text.tflite": (Words(Head()), (ids, mask)),
        "text_ids.tflite": (Words(Head()), (ids,)),
        "text_tower.tflite": (Words(), (ids, mask)),
    }
    files = {}
    for name, (module, inputs) in graphs.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            litert_torch.convert(module.eval(), inputs).export(str(path))
            files[name] = path.read_bytes()
    return files


def tokenizer_json() -> bytes:
    """Return the tokenizer of the tiny bundle with the colours in its vocabulary."""
    import json

    from make_tiny_bundle import tokenizer_json as tiny

    tokenizer = json.loads(tiny())
    tokenizer["model"]["vocab"] = {piece: i for i, piece in enumerate(vocabulary()[0])}
    return json.dumps(tokenizer, indent=1).encode()


def golden_pictures() -> NDArray[np.uint8]:
    """Return plain and striped pictures that are no squares: uint8 [n, 24, 40, 3]."""
    random = np.random.default_rng(5)
    pictures = random.integers(90, 140, (9, 24, 40, 3))
    for i, strength in enumerate((110, 60, 30)):
        for channel in range(3):
            pictures[3 * i + channel, ..., channel] += strength
    pictures[:, :, :8] = random.integers(0, 256, (9, 24, 8, 3))  # left of what is cut out, but for 4 columns
    return pictures.astype(np.uint8)


def npz(**arrays: NDArray[Any]) -> bytes:
    """Return arrays with the codes of their logits as bytes of a .npz."""
    codes = {
        name.replace("logits", "codes"): pack(logits, CODE_BITS)
        for name, logits in arrays.items()
        if name.startswith("logits")
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays, **codes)
    return stream.getvalue()


def bundle_of(
    files: dict[str, bytes], golden: dict[str, bytes], decoys: tuple[Decoy, ...], folder: Path
) -> Bundle:
    """Write a bundle of split image encoders and sentence encoders in both runtimes."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    words = TextInput(MAX_TOKENS, "tokenizer.json", hashes["tokenizer.json"], pad_id=SPECIAL.index("[PAD]"))
    encoders = []
    for runtime in ("onnx", "tflite"):
        tower, name = f"image_tower.{runtime}", f"image_head.{runtime}"
        head = HeadEntry(name, hashes[name], "float32", N_FEATURES)
        encoders += [
            EncoderEntry("image", runtime, "float32", tower, hashes[tower], TAKES, head=head),  # type: ignore[arg-type]
            EncoderEntry("text", runtime, "float32", f"text.{runtime}", hashes[f"text.{runtime}"], words),  # type: ignore[arg-type]
        ]
    manifest = Manifest(
        name="tiny-image",
        version="1",
        code_space=new_code_space("tiny", *(hashes[name] for name in sorted(hashes) if "_" not in name)),
        code_bits=CODE_BITS,
        encoders=tuple(encoders),
        calibration=Calibration("logistic", -0.1, 7.0, 0, "made up for tests"),
        decoys=decoys,
        golden=tuple(
            GoldenEntry(modality, f"golden_{modality}.npz", hashlib.sha256(content).hexdigest(), TOLERANCE)  # type: ignore[arg-type]
            for modality, content in golden.items()
        ),
        licence="CC0-1.0",
        licence_note="made by tests/make_tiny_image_bundle.py",
        provenance={"train_run": "none", "commit": "none", "data": "none"},
        figures={},
    )
    return write_bundle(
        folder, manifest, {**files, **{f"golden_{name}.npz": content for name, content in golden.items()}}
    )


def main() -> None:
    """Write the bundle: once without golden inputs, to encode them with it."""
    assert set(WORDS) == set(COLOURS.values())
    assert not vocabulary()[1][[*range(len(SPECIAL))]].any(), "padding must not count"
    assert "noise" in EMPTY_WORDS
    files = {**onnx_files(), **tflite_files(), "tokenizer.json": tokenizer_json()}
    pictures, sentences = (
        golden_pictures(),
        np.array(["a red sound", "green", "the blue one", "a low tone", "noise"]),
    )
    with tempfile.TemporaryDirectory() as folder:
        plain = bundle_of(files, {}, (), Path(folder) / "plain")
        image: dict[str, NDArray[Any]] = {"inputs": pictures}
        text: dict[str, NDArray[Any]] = {"texts": sentences}
        for runtime in ("onnx", "tflite"):
            see = open_image_encoder(plain, runtime)  # type: ignore[arg-type]
            read = open_text_encoder(plain, runtime=runtime)  # type: ignore[arg-type]
            image[f"logits_{runtime}"] = np.stack([see.encode(pixels_of(each, TAKES)) for each in pictures])
            text[f"logits_{runtime}"] = np.stack([read.encode(str(each)) for each in sentences])
        decoy = Decoy("noise", pack(read.encode("noise"), CODE_BITS).tobytes())
    bundle = bundle_of(files, {"image": npz(**image), "text": npz(**text)}, (decoy,), FOLDER)
    print(f"{FOLDER}: {sum(path.stat().st_size for path in bundle.folder.iterdir())} bytes")


if __name__ == "__main__":
    main()
