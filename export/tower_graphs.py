"""Towers with heads -> float graphs of every modality: BatchNorm folded, one input shape rule, named inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge.bundle import AudioInput
from export.graphs import export_onnx
from train.towers import TowerPair

MAX_ONNX_BYTES = (
    2_000_000_000  # protobuf's limit is 2 GiB; larger graphs need external data, which a recorder refuses
)


class DeployedObservation(nn.Module):
    """Windows or pictures -> logits."""

    def __init__(self, tower: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.tower, self.head = tower, folded(head)
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [batch, ...] to logits [batch, n_bits]."""
        # 3-d: a MatMul in the graph, which every quantiser takes
        logits: Tensor = self.head(self.tower(inputs).unsqueeze(1)).squeeze(1)
        return logits


class DeployedSentence(nn.Module):
    """Token ids -> logits."""

    def __init__(self, tower: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.tower, self.head = tower, folded(head)
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int [batch, n_tokens] to logits [batch, n_bits]."""
        logits: Tensor = self.head(self.tower(input_ids, attention_mask).unsqueeze(1)).squeeze(1)
        return logits


class FirstBits(nn.Module):
    """A head cut to its first bits: another width of the same code."""

    def __init__(self, head: nn.Module, n_bits: int) -> None:
        super().__init__()
        self.head, self.n_bits = folded(head), n_bits

    def forward(self, features: Tensor) -> Tensor:
        """Map [..., n_features] to logits [..., n_bits]."""
        logits: Tensor = self.head(features)[..., : self.n_bits]
        return logits

    def folded(self) -> FirstBits:
        """The same: already folded."""
        return self


def folded(head: nn.Module) -> nn.Module:
    """A head for inference, its BatchNorm folded."""
    module: nn.Module = head.folded()  # type: ignore[operator]  # HashCoder, ProjectionHead, FirstBits
    return module.eval()


def observation_to_onnx(model: nn.Module, pair: TowerPair, file: Path) -> None:
    """Write `samples` [batch, window_samples] or `pixels` [batch, 3, size, size] -> logits [batch, n_bits]."""
    batch = torch.export.Dim("batch")
    name = "samples" if isinstance(pair.input, AudioInput) else "pixels"
    inputs = (pair.example(2),)
    export_onnx(
        model, inputs, file, dynamic_shapes=({0: batch},), input_names=[name], output_names=["logits"]
    )


def sentence_to_onnx(model: nn.Module, pair: TowerPair, file: Path) -> None:
    """Write input_ids, attention_mask [batch, n_tokens] -> logits [batch, n_bits]."""
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("n_tokens", max=pair.max_tokens)}
    # two tensors, not one used twice: the exporter would take them for the same input
    ids, mask = pair.tokenize(["a tawny owl calls", "a dog barks at night"])
    options: dict[str, Any] = {"input_names": ["input_ids", "attention_mask"], "output_names": ["logits"]}
    export_onnx(model, (ids, mask.clone()), file, dynamic_shapes=(shape, dict(shape)), **options)


def to_tflite(model: nn.Module, inputs: tuple[Tensor, ...], file: Path) -> None:
    """Write a graph of batch 1; `inputs` are examples (ids and mask as int32: int64 ids do not convert)."""
    import litert_torch

    from export.quiet import without_warnings

    with without_warnings():
        litert_torch.convert(model, inputs).export(str(file))
