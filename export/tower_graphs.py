"""Towers with heads -> float graphs of every modality: BatchNorm folded, one input shape rule, named inputs and outputs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edge.bundle import Modality
from edge.errors import FieldcubeError
from export.graphs import export_onnx
from export.quiet import without_warnings
from train.towers import TowerPair

MAX_ONNX_BYTES = (
    2_000_000_000  # protobuf's limit is 2 GiB; larger graphs need external data, which a recorder refuses
)


class GraphError(FieldcubeError):
    """A graph that is not what was asked for."""


class TooLargeError(FieldcubeError):
    """A float graph that no single file can hold."""


class DeployedObservation(nn.Module):
    """Windows or pictures -> logits, or features where the head is a file of its own (None)."""

    def __init__(self, tower: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.tower, self.head = tower, DeployedHead(head) if head else nn.Identity()
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [batch, ...] to logits [batch, n_bits] or features [batch, n_features]."""
        logits: Tensor = self.head(self.tower(inputs))
        return logits


class DeployedSentence(nn.Module):
    """Token ids -> logits, or features where the head is a file of its own (None)."""

    def __init__(self, tower: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.tower, self.head = tower, DeployedHead(head) if head else nn.Identity()
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int [batch, n_tokens] to logits [batch, n_bits] or features [batch, n_features]."""
        logits: Tensor = self.head(self.tower(input_ids, attention_mask))
        return logits


class DeployedHead(nn.Module):
    """Features -> logits."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = folded(head)
        self.eval()

    def forward(self, features: Tensor) -> Tensor:
        """Map [batch, n_features] to logits [batch, n_bits]."""
        # 3-d: a MatMul in the graph, which every quantiser takes
        logits: Tensor = self.head(features.unsqueeze(1)).squeeze(1)
        return logits


def first_bits(head: nn.Module, n_bits: int) -> nn.Module:
    """A folded copy of a head, cut to its first bits: another width of the same code."""
    cut = copy.deepcopy(folded(head))
    last = last_linear(cut)
    last.weight = nn.Parameter(last.weight[:n_bits].detach().clone())
    last.bias = nn.Parameter(last.bias[:n_bits].detach().clone())
    last.out_features = n_bits
    return cut


def last_linear(head: nn.Module) -> nn.Linear:
    """The layer that gives the logits."""
    return [module for module in head.modules() if isinstance(module, nn.Linear)][-1]


def folded(head: nn.Module) -> nn.Module:
    """A head for inference, its BatchNorm folded; one that has none is returned as it is."""
    fold = getattr(head, "folded", None)  # HashCoder, ProjectionHead
    module: nn.Module = fold() if fold else head
    return module.eval()


def tower_to_onnx(model: nn.Module, pair: TowerPair, kind: Modality, file: Path, output: str) -> None:
    """Write samples [batch, window_samples], pixels [batch, 3, size, size], or input_ids and attention_mask [batch, n_tokens] -> output [batch, n]."""
    batch = torch.export.Dim("batch")
    if kind == "text":
        shape = {0: batch, 1: torch.export.Dim("n_tokens", max=pair.max_tokens)}
        # two tensors, not one used twice: the exporter would take them for the same input
        ids, mask = pair.tokenize(["a tawny owl calls", "a dog barks at night"])
        inputs: tuple[Tensor, ...] = (ids, mask.clone())
        shapes: tuple[dict[int, Any], ...] = (shape, dict(shape))
        names = ["input_ids", "attention_mask"]
    else:
        inputs, shapes = (pair.example(2),), ({0: batch},)
        names = ["samples" if kind == "audio" else "pixels"]
    export_onnx(model, inputs, file, dynamic_shapes=shapes, input_names=names, output_names=[output])
    for given in onnx.load(file).graph.input:
        fixed = [
            dim.dim_value for dim in given.type.tensor_type.shape.dim[: len(shapes[0])] if not dim.dim_param
        ]
        if fixed:  # the exporter falls back to fixed sizes without a word
            raise GraphError(
                f"{pair.name} {kind}: expected an input {given.name} of any length, found it fixed to {fixed}"
            )


def head_to_onnx(model: DeployedHead, n_features: int, file: Path) -> None:
    """Write features [batch, n_features] -> logits [batch, n_bits]."""
    shapes = ({0: torch.export.Dim("batch")},)
    names: dict[str, Any] = {"input_names": ["features"], "output_names": ["logits"]}
    export_onnx(model, (torch.randn(2, n_features),), file, dynamic_shapes=shapes, **names)


def to_tflite(model: nn.Module, inputs: tuple[Tensor, ...], file: Path) -> None:
    """Write a graph of batch 1; `inputs` are examples (ids and mask as int32: int64 ids do not convert)."""
    import litert_torch

    with without_warnings():
        litert_torch.convert(model, inputs).export(str(file))


def require_one_file(model: nn.Module, what: str) -> None:
    """Raise TooLargeError before minutes of export: above 2 GB a graph needs external data, which a recorder refuses."""
    n_bytes = sum(each.numel() * 4 for each in (*model.parameters(), *model.buffers()))
    if n_bytes > MAX_ONNX_BYTES:
        raise TooLargeError(
            f"{what}: expected at most {MAX_ONNX_BYTES / 1e9:.0f} GB of float weights, found {n_bytes / 1e9:.1f} GB; one ONNX file cannot hold "
            "them, and a recorder takes no external data: use a smaller tower (bioclip-2 has 1.2 GB, bioclip 0.3 GB)"
        )
