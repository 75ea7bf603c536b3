"""Pretrained towers with heads -> encoders of a bundle: float graph, int8 graph, parity of both with PyTorch, for ONNX and TFLite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from tokenizers import Tokenizer
from torch import Tensor

from edge.bundle import AudioInput
from edge.errors import FieldcubeError
from export.assemble import Part, text_entry
from export.parity import ParityRow, compare, retrieval
from export.runtimes import (
    EncodeSentence,
    EncodeWindow,
    onnx_observation,
    onnx_text,
    tflite_observation,
    tflite_text,
)
from export.tower_graphs import (
    MAX_ONNX_BYTES,
    DeployedObservation,
    DeployedSentence,
    observation_to_onnx,
    sentence_to_onnx,
    to_tflite,
)
from export.tower_quantize import corrected, quantize_tower, quantize_tower_tflite
from export.tower_source import TowerSource

ExportRuntime = Literal["onnx", "tflite"]


class TooLargeError(FieldcubeError):
    """A float graph that no single ONNX file can hold."""


@dataclass(frozen=True, slots=True)
class Exported:
    """One encoder of a bundle, how to run it, and how near it is to PyTorch."""

    part: Part
    rows: tuple[ParityRow, ...]
    float_file: Path
    small_file: Path


def require_one_file(model: torch.nn.Module, what: str) -> None:
    """Raise TooLargeError before minutes of export: above 2 GB a graph needs external data, which a recorder refuses."""
    n_bytes = sum(p.numel() * 4 for p in model.parameters()) + sum(b.numel() * 4 for b in model.buffers())
    if n_bytes > MAX_ONNX_BYTES:
        raise TooLargeError(
            f"{what}: expected at most {MAX_ONNX_BYTES / 1e9:.0f} GB of float weights, found {n_bytes / 1e9:.1f} GB; one ONNX file cannot hold "
            "them, and a recorder takes no external data: use a smaller tower (BioCLIP-2 has 1.2 GB, BioCLIP 0.3 GB), or python export/to_tflite.py"
        )


@torch.no_grad()
def run_batches(model: torch.nn.Module, inputs: NDArray[np.float32], batch: int = 4) -> NDArray[np.float32]:
    """Logits of a module, [n, n_bits]."""
    parts = [model(torch.from_numpy(inputs[i : i + batch])) for i in range(0, len(inputs), batch)]
    return torch.cat(parts).numpy()


def run_each(encode: EncodeWindow, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of an exported encoder, one input after the other, [n, n_bits]."""
    return np.stack([encode(each) for each in inputs])


def reference_text(source: TowerSource, texts: Sequence[str]) -> NDArray[np.float32]:
    """PyTorch's logits of sentences, each alone, [n, n_bits]."""
    model = DeployedSentence(source.pair.text, source.text_head)
    with torch.no_grad():
        return torch.cat([model(*source.pair.tokenize([text])) for text in texts]).numpy()


def export_observation(
    source: TowerSource, runtime: ExportRuntime, folder: Path, console: Console
) -> Exported:
    """Export the windows' or pictures' encoder."""
    pair, parity = source.pair, source.parity
    model = DeployedObservation(pair.observation, source.observation_head)
    float_file, small_file = (
        folder / f"{pair.modality}.float.{runtime}",
        folder / f"{pair.modality}.{runtime}",
    )
    reference = run_batches(model, parity.samples)
    is_audio = pair.modality == "audio"
    if runtime == "onnx":
        require_one_file(model, f"{source.pair.name} {pair.modality}")
        console.print(f"{pair.modality}: export to ONNX")
        observation_to_onnx(model, pair, float_file)
        console.print(
            f"{pair.modality}: int8 per channel, corrected on {len(source.correction)} observations"
        )
        quantize_tower(float_file, small_file, is_audio)
        wanted = run_batches(model, source.correction)
        corrected(small_file, lambda file: run_each(onnx_observation(file), source.correction), wanted)
        opened: Callable[[Path], EncodeWindow] = onnx_observation
    else:
        console.print(f"{pair.modality}: convert to TFLite")
        to_tflite(model, (pair.example(1),), float_file)
        console.print(f"{pair.modality}: int8 weights, dynamic ranges")
        quantize_tower_tflite(float_file, small_file)
        opened = tflite_observation
    text = reference_text(source, parity.queries)
    rows = []
    for title, file, is_float in (("float", float_file, True), ("int8", small_file, False)):
        found = run_each(opened(file), parity.samples)
        maps = retrieval(text, reference, parity), retrieval(text, found, parity)
        rows.append(
            compare(f"{pair.modality} {runtime} {title}", file, reference, found, *maps, is_float, len(found))
        )
    tolerance = float(np.quantile(np.abs(found - reference), 0.999))
    golden, inputs = golden_inputs(source)
    logits = run_each(opened(small_file), inputs)
    name = f"{pair.modality}.{runtime}"
    part = Part(
        pair.modality,
        runtime,
        "int8",
        name,
        small_file.read_bytes(),
        pair.input,
        None,
        golden,
        logits,
        tolerance,
    )
    return Exported(part, tuple(rows), float_file, small_file)


def golden_inputs(source: TowerSource) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
    """Golden inputs as they travel (int16 windows, or uint8 pictures [n, size, size, 3]) and as the graph takes them."""
    given = source.pair.input
    if isinstance(given, AudioInput):
        windows = np.round(np.clip(source.golden, -1, 1) * 32767).astype(np.int16)
        return windows, windows.astype(np.float32) / np.float32(32767)
    mean, std = (np.asarray(each, np.float32)[:, None, None] for each in (given.mean, given.std))
    pictures = np.clip(np.round((source.golden * std + mean) * 255), 0, 255).astype(np.uint8)
    pixels = (pictures.astype(np.float32) / 255 - mean) / std
    return pictures.transpose(0, 2, 3, 1), pixels.astype(np.float32)


def export_text(
    source: TowerSource, runtime: ExportRuntime, folder: Path, console: Console
) -> tuple[Exported, EncodeSentence]:
    """Export the sentences' encoder; also returns it ready to run."""
    pair = source.pair
    model = DeployedSentence(pair.text, source.text_head)
    float_file, small_file = folder / f"text.float.{runtime}", folder / f"text.{runtime}"
    queries = source.parity.queries
    texts = tuple(dict.fromkeys([*queries, *source.texts]))[:96]
    reference = reference_text(source, texts)

    def opened(file: Path) -> EncodeSentence:
        if runtime == "onnx":
            return onnx_text(file, pair.tokenizer_json, pair.max_tokens)
        return tflite_text(file, pair.tokenizer_json, pair.max_tokens, pair.pad_id)

    def run(file: Path, sentences: Sequence[str] = texts) -> NDArray[np.float32]:
        encode = opened(file)
        return np.stack([encode(sentence) for sentence in sentences])

    if runtime == "onnx":
        require_one_file(model, f"{pair.name} text")
        console.print("text: export to ONNX")
        sentence_to_onnx(model, pair, float_file)
        console.print("text: int8 per channel")
        quantize_tower(float_file, small_file, is_audio=False)
        corrected(small_file, run, reference)
    else:
        console.print("text: convert to TFLite")
        to_tflite(
            model, padded_tokens(pair.tokenizer_json, pair.max_tokens, pair.pad_id, texts[0]), float_file
        )
        quantize_tower_tflite(float_file, small_file)
    audio = run_batches(DeployedObservation(pair.observation, source.observation_head), source.parity.samples)
    rows = []
    for title, file, is_float in (("float", float_file, True), ("int8", small_file, False)):
        found = run(file)
        maps = (
            retrieval(reference[: len(queries)], audio, source.parity),
            retrieval(found[: len(queries)], audio, source.parity),
        )
        rows.append(compare(f"text {runtime} {title}", file, reference, found, *maps, is_float, len(audio)))
    tolerance = float(np.quantile(np.abs(found - reference), 0.999))
    encode = opened(small_file)
    part = Part(
        "text",
        runtime,
        "int8",
        f"text.{runtime}",
        small_file.read_bytes(),
        text_entry(pair.max_tokens, pair.tokenizer_json, pair.pad_id),
        pair.tokenizer_json,
        np.asarray(texts[:5]),
        np.stack([encode(text) for text in texts[:5]]),
        tolerance,
    )
    return Exported(part, tuple(rows), float_file, small_file), encode


def padded_tokens(tokenizer_json: bytes, max_tokens: int, pad_id: int, text: str) -> tuple[Tensor, Tensor]:
    """Ids and mask int32 [1, max_tokens] of a sentence, as a TFLite graph takes them."""
    tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=pad_id, length=max_tokens)
    encoded = tokenizer.encode(text)
    return torch.tensor([encoded.ids], dtype=torch.int32), torch.tensor(
        [encoded.attention_mask], dtype=torch.int32
    )
