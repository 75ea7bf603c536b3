"""Make tests/data/tiny_bundle: encoders of a few kB that tell a low, a middle and a high tone from noise.

A window is one second at 8 kHz. Eight band-pass filters give the energy of eight bands; their centred and normalised
logarithms, the same eight numbers that the words of the vocabulary stand for, go through one random matrix to 256 logits.
Needs onnx, onnxruntime, and for the TFLite form torch and litert-torch: python tests/make_tiny_bundle.py
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge.bundle import (
    AudioInput,
    Calibration,
    Decoy,
    EncoderEntry,
    GoldenEntry,
    Manifest,
    TextInput,
    new_code_space,
    write_bundle,
)
from edge.codes import pack
from edge.onnx_encoder import array_function, text_function
from edge.tflite_encoder import array_function as tflite_function

FOLDER = Path(__file__).parent / "data" / "tiny_bundle"
RATE_HZ, WINDOW_SAMPLES, CODE_BITS = 8_000, 8_000, 256
BANDS_HZ = (300, 500, 750, 1000, 1400, 1900, 2500, 3200)
FILTER_SAMPLES, STRIDE_SAMPLES = 160, 80
FLOOR = 1e-7  # of energy: silence is noise at this level
SHORTEST = 4.0  # features below this length stand for less than a clear tone
NOISE = 0.3  # a constant ninth feature: what is left where no band stands out
WORDS = {"low": 500, "middle": 1000, "high": 2500}
EMPTY_WORDS = ("a", "an", "the", "tone", "whistle", "noise", "wind", "sound", "of", "and", "##s", "##ing")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
TOLERANCE = 0.02

Floats = NDArray[np.float32]


def filters() -> Floats:
    """Return cosine and sine of each band under a Hann window: [16, 1, FILTER_SAMPLES]."""
    t = np.arange(FILTER_SAMPLES) / RATE_HZ
    hann = np.hanning(FILTER_SAMPLES) / FILTER_SAMPLES
    waves = [f(2 * np.pi * band * t) * hann for f in (np.cos, np.sin) for band in BANDS_HZ]
    return np.asarray(waves, np.float32)[:, None, :]


def projection() -> Floats:
    """Return the random matrix [9, 256] from features to logits."""
    return np.random.default_rng(20).normal(size=(9, CODE_BITS)).astype(np.float32)


def word_vectors() -> tuple[dict[str, int], Floats]:
    """Return the vocabulary and a vector [8] of each piece: a long centred vector for a pitch, else zeros."""
    pieces = [*SPECIAL, *WORDS, *EMPTY_WORDS]
    table = np.zeros((len(pieces), len(BANDS_HZ)), np.float32)
    for word, band in WORDS.items():
        table[pieces.index(word), BANDS_HZ.index(band)] = 1.0
        table[pieces.index(word)] -= 1 / len(BANDS_HZ)
    table *= 10 / np.sqrt(1 - 1 / len(BANDS_HZ))  # long enough to be clear
    return {piece: i for i, piece in enumerate(pieces)}, table


def tail(features: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes and constants from features [batch, 8] to logits: normalise, append NOISE, project."""
    matrix = projection()
    nodes = [
        helper.make_node("ReduceL2", [features], ["length"], axes=[1], keepdims=1),
        helper.make_node("Max", ["length", "smallest"], ["divisor"]),
        helper.make_node("Div", [features, "divisor"], ["unit"]),
        helper.make_node("MatMul", ["unit", "matrix"], ["projected"]),
        helper.make_node("Add", ["projected", "bias"], ["logits"]),
    ]
    constants = [
        constant("smallest", np.float32(SHORTEST)),
        constant("matrix", matrix[:8]),
        constant("bias", NOISE * matrix[8]),
    ]
    return nodes, constants


def constant(name: str, value: object) -> onnx.TensorProto:
    """Return a constant of a graph."""
    return numpy_helper.from_array(np.asarray(value), name)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
    output: onnx.ValueInfoProto | None = None,
) -> bytes:
    """Return the bytes of a checked model; its output is logits [batch, 256] where none is given."""
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CODE_BITS])
    graph = helper.make_graph(nodes, "tiny", inputs, [output or logits], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString())


def audio_onnx() -> bytes:
    """Return the audio encoder in ONNX form."""
    nodes = [
        helper.make_node("Unsqueeze", ["samples", "one"], ["channel"]),
        helper.make_node("Conv", ["channel", "filters"], ["waves"], strides=[STRIDE_SAMPLES]),
        helper.make_node("Mul", ["waves", "waves"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["powers"], axes=[2], keepdims=0),  # [batch, 16]
        helper.make_node("Split", ["powers"], ["cosines", "sines"], axis=1),
        helper.make_node("Add", ["cosines", "sines"], ["energies"]),
        helper.make_node("Add", ["energies", "floor"], ["raised"]),
        helper.make_node("Log", ["raised"], ["levels"]),
        helper.make_node("ReduceMean", ["levels"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["levels", "mean"], ["features"]),
    ]
    more, constants = tail("features")
    constants += [
        constant("one", np.array([1], np.int64)),
        constant("filters", filters()),
        constant("floor", np.float32(FLOOR)),
    ]
    samples = helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["batch", WINDOW_SAMPLES])
    return model(nodes + more, [samples], constants)


def text_onnx() -> bytes:
    """Return the text encoder in ONNX form."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["pieces"]),  # [batch, n_tokens, 8]
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "two"], ["mask_column"]),
        helper.make_node("Mul", ["pieces", "mask_column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["features"], keepdims=0),
    ]
    more, constants = tail("features")
    constants += [constant("table", word_vectors()[1]), constant("one", np.array([1], np.int64))]
    constants += [constant("two", np.array([2], np.int64))]
    shape = ["batch", "n_tokens"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape)
        for name in ("input_ids", "attention_mask")
    ]
    return model(nodes + more, inputs, constants)


def tokenizer_json() -> bytes:
    """Return a small WordPiece tokenizer, lower case, with [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary, _ = word_vectors()
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return json.dumps(json.loads(tokenizer.to_str()), indent=1).encode()


def audio_tflite() -> bytes:
    """Return the audio encoder in TFLite form."""
    import litert_torch
    import torch

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = torch.nn.Parameter(torch.from_numpy(filters()))
            self.matrix = torch.nn.Parameter(torch.from_numpy(projection()))

        def forward(self, samples: torch.Tensor) -> torch.Tensor:
            waves = torch.nn.functional.conv1d(samples[:, None], self.filters, stride=STRIDE_SAMPLES)
            powers = (waves * waves).mean(dim=2)  # [batch, 16]
            levels = torch.log(powers[:, :8] + powers[:, 8:] + FLOOR)
            features = levels - levels.mean(dim=1, keepdim=True)
            length = torch.sqrt((features * features).sum(dim=1, keepdim=True))
            unit = features / torch.clamp(length, min=SHORTEST)
            return unit @ self.matrix[:8] + NOISE * self.matrix[8]

    converted = litert_torch.convert(Tiny().eval(), (torch.zeros(1, WINDOW_SAMPLES),))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audio.tflite"
        converted.export(str(path))
        return path.read_bytes()


def golden_windows() -> NDArray[np.int16]:
    """Return tones, two tones at once, and noise: int16 [n, WINDOW_SAMPLES]."""
    t = np.arange(WINDOW_SAMPLES) / RATE_HZ
    chords = [(band,) for band in BANDS_HZ] + [(500, 1000), (1000, 2500), (500, 2500)]
    tones = [sum(np.sin(2 * np.pi * band * t) for band in chord) for chord in chords]
    noise = np.random.default_rng(7).normal(0, 0.1, WINDOW_SAMPLES)
    return np.asarray([np.rint(32767 * 0.3 * wave) for wave in (*tones, noise)], np.int16)


def main() -> None:
    """Write the bundle."""
    audio, text, tokenizer, tflite = audio_onnx(), text_onnx(), tokenizer_json(), audio_tflite()
    files = {"audio.onnx": audio, "text.onnx": text, "tokenizer.json": tokenizer, "audio.tflite": tflite}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    encode_text = text_function(text, Path("text.onnx"), tokenizer, 16, "logits")
    windows, sentences = golden_windows(), np.array(["a low tone", "the middle tone", "a high tone", "noise"])
    shape = (WINDOW_SAMPLES,)
    runs = {"onnx": array_function(audio, Path("audio.onnx"), "samples", shape, "logits", CODE_BITS)}
    runs["tflite"] = tflite_function(tflite, Path("audio.tflite"), shape, CODE_BITS)
    golden: dict[str, dict[str, NDArray[np.generic]]] = {
        "audio": {"inputs": windows},
        "text": {"texts": sentences},
    }
    for runtime, run in runs.items():
        golden["audio"][f"logits_{runtime}"] = np.stack(
            [run(w.astype(np.float32) / np.float32(32767)) for w in windows]
        )
    golden["text"]["logits_onnx"] = np.stack([encode_text(str(sentence)) for sentence in sentences])
    entries = []
    for modality, arrays in golden.items():
        arrays |= {
            name.replace("logits", "codes"): pack(logits, CODE_BITS)
            for name, logits in arrays.items()
            if "logits" in name
        }
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        files[f"golden_{modality}.npz"] = stream.getvalue()
        sha256 = hashlib.sha256(stream.getvalue()).hexdigest()
        entries.append(GoldenEntry(modality, f"golden_{modality}.npz", sha256, TOLERANCE))
    sound = AudioInput(RATE_HZ, WINDOW_SAMPLES)
    words = TextInput(16, "tokenizer.json", hashes["tokenizer.json"])
    manifest = Manifest(
        name="tiny",
        version="1",
        code_space=new_code_space("tiny", hashes["audio.onnx"], hashes["text.onnx"]),
        code_bits=CODE_BITS,
        encoders=(
            EncoderEntry("audio", "onnx", "float32", "audio.onnx", hashes["audio.onnx"], sound),
            EncoderEntry("audio", "tflite", "float32", "audio.tflite", hashes["audio.tflite"], sound),
            EncoderEntry("text", "onnx", "float32", "text.onnx", hashes["text.onnx"], words),
        ),
        calibration=Calibration("logistic", -0.1, 7.0, 0, "made up for tests"),
        decoys=(Decoy("noise", pack(encode_text("noise"), CODE_BITS).tobytes()),),
        golden=tuple(entries),
        licence="CC0-1.0",
        licence_note="made by tests/make_tiny_bundle.py",
        provenance={"train_run": "none", "commit": "none", "data": "none"},
        figures={},
    )
    bundle = write_bundle(FOLDER, manifest, files)
    print(f"{FOLDER}: {sum(path.stat().st_size for path in bundle.folder.iterdir())} bytes")


if __name__ == "__main__":
    main()
