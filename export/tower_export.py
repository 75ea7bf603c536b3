"""Pretrained towers with heads -> encoders of a bundle: float graphs, int8 graphs, and how near both are to PyTorch, for ONNX and TFLite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from edge.bundle import AudioInput, Modality, Runtime
from export.encoder_part import HeadPart, Part, text_entry
from export.parity import ParityRow, compare, least_centred, retrieval
from export.runtimes import onnx_observation, onnx_text, tflite_observation, tflite_text
from export.tower_graphs import (
    DeployedHead,
    DeployedObservation,
    DeployedSentence,
    head_to_onnx,
    last_linear,
    require_one_file,
    to_tflite,
    tower_to_onnx,
)
from export.tower_quantize import QUANTIZE, add_correction, precisions_of, shift_bias
from export.tower_source import TowerSource
from train.metrics import centred_agreement
from train.towers import TowerPair

Item = NDArray[np.float32] | str  # a window, a picture as the tower takes it, or a sentence
Logits = NDArray[np.float32]
Encode = Callable[[Any], Logits]

N_SENTENCES = 96  # compared
N_GOLDEN_SENTENCES = 5
# a small head costs little, and its rounding would go straight into bits; in a file of its own it travels over thin links
MAX_HEAD_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Job:
    """One encoder to export: its modules, and inputs to compare with PyTorch, to correct by, and to send along."""

    kind: Modality
    pair: TowerPair
    tower: nn.Module
    head: nn.Module
    compared: Sequence[Item]
    correcting: Sequence[Item]

    def whole(self) -> nn.Module:
        """Tower and head."""
        return self._deployed(self.head)

    def features(self) -> nn.Module:
        """The tower alone."""
        return self._deployed(None)

    def _deployed(self, head: nn.Module | None) -> nn.Module:
        return (DeployedSentence if self.kind == "text" else DeployedObservation)(self.tower, head)

    def n_float_layers(self) -> int:
        """Layers of the head where it is small enough to stay float, else 0."""
        layers = [module for module in self.head.modules() if isinstance(module, nn.Linear)]
        return len(layers) if sum(each.weight.numel() * 4 for each in layers) <= MAX_HEAD_BYTES else 0

    @torch.no_grad()
    def logits(self, items: Sequence[Item]) -> Logits:
        """PyTorch's logits of inputs, each alone, [n, n_bits]."""
        model = self.whole()
        return torch.cat([model(*self.arguments(item)) for item in items]).numpy()

    def arguments(self, item: Item) -> tuple[Tensor, ...]:
        """An input as PyTorch and ONNX take it."""
        if isinstance(item, str):
            return self.pair.tokenize([item])
        return (torch.from_numpy(item[None]),)

    def fixed(self, item: Item) -> tuple[Tensor, ...]:
        """An input as TFLite takes it: ids and mask as int32, padded to the fixed length."""
        if not isinstance(item, str):
            return self.arguments(item)
        ids, mask = self.pair.tokenize([item])
        missing = (0, self.pair.max_tokens - ids.shape[1])
        padded = nn.functional.pad(ids, missing, value=self.pair.pad_id), nn.functional.pad(mask, missing)
        return padded[0].int(), padded[1].int()


@dataclass(frozen=True, slots=True)
class Files:
    """An encoder on disk: one file, or tower and head."""

    tower: Path
    head: Path | None = None

    @property
    def size_bytes(self) -> int:
        """Of both."""
        return self.tower.stat().st_size + (self.head.stat().st_size if self.head else 0)


@dataclass(frozen=True, slots=True)
class Exported:
    """An encoder in float and in int8, and the logits that it gave for the compared inputs, [n, n_bits]."""

    job: Job
    runtime: Runtime
    float_files: Files
    files: Files
    precision: str
    reference: Logits
    float_logits: Logits
    logits: Logits

    @property
    def tolerance(self) -> float:
        """The 99.9th percentile of |difference| of a logit from PyTorch."""
        return float(np.quantile(np.abs(self.logits - self.reference), 0.999))

    def largest_float_difference(self) -> float:
        """Of a logit of the float graph, relative to the largest logit."""
        return float(np.abs(self.float_logits - self.reference).max() / np.abs(self.reference).max())


def observation_job(source: TowerSource) -> Job:
    """The encoder of windows or pictures."""
    pair = source.pair
    items = source.parity.samples, source.correction
    return Job(pair.modality, pair, pair.observation, source.observation_head, *items)


def text_job(source: TowerSource) -> Job:
    """The encoder of sentences; the queries of source.parity come first among the compared."""
    compared = list(dict.fromkeys([*source.parity.queries, *source.texts]))[:N_SENTENCES]
    others = [text for text in source.other_texts if text not in compared]
    return Job("text", source.pair, source.pair.text, source.text_head, compared, others)


def open_files(job: Job, runtime: Runtime, files: Files, n_threads: int = 1) -> Encode:
    """Return input -> logits of exported files."""
    pair, is_onnx = job.pair, runtime == "onnx"
    if job.kind == "text":
        tokens = pair.tokenizer_json, pair.max_tokens
        tower: Encode = (
            onnx_text(files.tower, *tokens, n_threads)
            if is_onnx
            else tflite_text(files.tower, *tokens, pair.pad_id, n_threads)
        )
    else:
        tower = (onnx_observation if is_onnx else tflite_observation)(files.tower, n_threads)
    if files.head is None:
        return tower
    head = (onnx_observation if is_onnx else tflite_observation)(files.head, n_threads)
    return lambda item: head(tower(item))


def run(encode: Encode, items: Sequence[Item]) -> Logits:
    """Logits of inputs, one after the other, [n, n_bits]."""
    return np.stack([encode(item) for item in items])


def export_float(job: Job, runtime: Runtime, is_split: bool, folder: Path) -> Files:
    """Write the float graph, or those of tower and head. Raises TooLargeError."""
    model = job.features() if is_split else job.whole()
    require_one_file(model, f"{job.pair.name} {job.kind}")
    tower = folder / f"{job.kind}.float.{runtime}"
    head = folder / f"{job.kind}_head.float.{runtime}" if is_split else None
    if runtime == "onnx":
        tower_to_onnx(model, job.pair, job.kind, tower, "features" if is_split else "logits")
    else:
        to_tflite(model, job.fixed(job.compared[0]), tower)
    if head is not None:
        alone, n_features = DeployedHead(job.head), job.pair.n_features
        if runtime == "onnx":
            head_to_onnx(alone, n_features, head)
        else:
            to_tflite(alone, (torch.randn(1, n_features),), head)
    return Files(tower, head)


def quantize(job: Job, runtime: Runtime, precision: str, files: Files, folder: Path) -> Files:
    """Write an int8 version of float graphs, its logits corrected; a small head stays float."""
    small = Files(
        folder / f"{job.kind}.{runtime}", folder / f"{job.kind}_head.{runtime}" if files.head else None
    )
    quantize_one = QUANTIZE[runtime, precision]
    n_last = job.n_float_layers() if files.head is None else 0
    quantize_one(files.tower, small.tower, job.kind == "audio", n_last)
    if files.head is not None and small.head is not None:
        if job.n_float_layers():
            small.head.write_bytes(files.head.read_bytes())
        else:
            quantize_one(files.head, small.head, False, 0)
    if len(job.correcting):
        moved = job.logits(job.correcting) - run(open_files(job, runtime, small), job.correcting)
        last = small.head or small.tower
        if runtime == "onnx":
            add_correction(last, moved.mean(axis=0))
        else:
            shift_bias(last, last_linear(job.head).bias.detach().numpy(), moved.mean(axis=0))
    return small


def export_encoder(
    job: Job,
    runtime: Runtime,
    folder: Path,
    console: Console,
    is_split: bool = False,
    precisions: Sequence[str] = (),
) -> Exported:
    """Export one encoder.

    Args:
        is_split: tower and head as two files.
        precisions: tried in turn until the bits agree as a release asks; by default all that the runtime has. What comes last is
            kept whatever it gives: whether a bundle is written is another's decision.
    """
    console.print(f"{job.kind}: export to {runtime}")
    float_files = export_float(job, runtime, is_split, folder)
    reference = job.logits(job.compared)
    float_logits = run(open_files(job, runtime, float_files), job.compared)
    found: Exported | None = None
    for precision in precisions or precisions_of(job.kind, runtime):
        console.print(f"{job.kind}: {precision}, corrected on {len(job.correcting)} inputs")
        files = quantize(job, runtime, precision, float_files, folder)
        logits = run(open_files(job, runtime, files), job.compared)
        found = Exported(job, runtime, float_files, files, precision, reference, float_logits, logits)
        if centred_agreement(reference, logits) >= least_centred(job.kind):
            break
    assert found is not None  # there is at least one precision
    return found


def parity_rows(exported: Exported, other: Logits, source: TowerSource) -> list[ParityRow]:
    """Both graphs beside PyTorch; other: PyTorch's logits of the other encoder, to search with or in."""
    job, queries = exported.job, len(source.parity.queries)

    def search(logits: Logits) -> float:
        if job.kind == "text":
            return retrieval(logits[:queries], other, source.parity)
        return retrieval(other[:queries], logits, source.parity)

    rows = []
    for title, files, logits, is_float in (
        ("float", exported.float_files, exported.float_logits, True),
        (exported.precision, exported.files, exported.logits, False),
    ):
        name = f"{job.kind} {exported.runtime} {title}"
        maps = search(exported.reference), search(logits)
        n = len(source.parity.samples)
        row = compare(name, files.tower, exported.reference, logits, *maps, is_float, n)
        rows.append(replace(row, size_bytes=files.size_bytes))
    return rows


def part_of(exported: Exported, source: TowerSource) -> Part:
    """What goes into a bundle."""
    job, runtime, files = exported.job, exported.runtime, exported.files
    if job.kind == "text":
        items: Sequence[Item] = job.compared[:N_GOLDEN_SENTENCES]
        golden, tokenizer = np.asarray(items), job.pair.tokenizer_json
        takes: Any = text_entry(job.pair.max_tokens, tokenizer, job.pair.pad_id)
    else:
        (golden, given), tokenizer, takes = golden_inputs(source), None, job.pair.input
        items = list(given)
    head = None
    if files.head is not None:
        precision = "float" if job.n_float_layers() else exported.precision
        head = HeadPart(files.head.name, files.head.read_bytes(), precision, job.pair.n_features)
    return Part(
        job.kind,
        runtime,
        exported.precision,
        files.tower.name,
        files.tower.read_bytes(),
        takes,
        tokenizer,
        golden,
        run(open_files(job, runtime, files), items),
        exported.tolerance,
        head,
    )


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
