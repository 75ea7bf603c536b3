"""PyTorch modules -> float graphs: BatchNorm folded, one input shape rule per modality, named inputs and outputs."""

from __future__ import annotations

import copy
import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from train.model import AudioEncoder, HashCoder, LogMel
from train.text_tower import MAX_TOKENS, SentenceTower

OPSET = 20


class DeployedAudio(nn.Module):
    """What runs on a recorder: front end, tower without BatchNorm, folded head."""

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__()
        self.front_end: LogMel = copy.deepcopy(encoder.front_end)
        self.tower = fold_batch_norms(copy.deepcopy(encoder.tower).eval())
        self.head = encoder.head.folded()
        self.eval()

    def forward(self, samples: Tensor) -> Tensor:
        """Map float32 [batch, window_samples] to logits [batch, n_bits]."""
        logits: Tensor = self.head(self.tower(self.front_end(samples)))
        return logits


class DeployedText(nn.Module):
    """Token ids -> logits."""

    def __init__(self, tower: SentenceTower, head: HashCoder) -> None:
        super().__init__()
        self.tower = tower
        self.head = head.folded()
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 [batch, n_tokens] to logits [batch, n_bits]."""
        embedding = self.tower(input_ids, attention_mask).unsqueeze(
            1
        )  # 3-d: a MatMul in the graph, which can be quantised
        logits: Tensor = self.head(embedding).squeeze(1)
        return logits


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold each BatchNorm2d into the convolution that is registered just before it; parity shows that order is right."""
    previous: tuple[nn.Module, str] | None = None

    def visit(parent: nn.Module) -> None:
        nonlocal previous
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                previous = (parent, name)
            elif isinstance(child, nn.BatchNorm2d):
                if previous is None:
                    raise ValueError(f"BatchNorm {name} has no convolution before it")
                owner, conv_name = previous
                setattr(owner, conv_name, fuse_conv_bn_eval(getattr(owner, conv_name), child))
                setattr(parent, name, nn.Identity())
                previous = None
            else:
                visit(child)

    visit(module)
    return module


def export_onnx(model: nn.Module, inputs: tuple[Tensor, ...], file: Path, **options: object) -> None:
    """Write a module as one ONNX file without traces of this machine; options: of torch.onnx.export."""
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.onnx.export(model, inputs, dynamo=True, opset_version=OPSET, verbose=False, **options)
    model = program.model_proto
    strip_traces(model)
    onnx.save(model, file)


def strip_traces(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of its own run in every node: stack traces, with paths of the machine, a tenth of the file."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
        item.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""


def audio_to_onnx(model: DeployedAudio, window_samples: int, file: Path) -> None:
    """Write samples [batch, window_samples] -> logits [batch, n_bits]."""
    batch = torch.export.Dim("batch")
    export_onnx(
        model,
        (torch.zeros(2, window_samples),),
        file,
        dynamic_shapes=({0: batch},),
        input_names=["samples"],
        output_names=["logits"],
    )


def text_to_onnx(model: DeployedText, file: Path) -> None:
    """Write input_ids, attention_mask [batch, n_tokens] -> logits [batch, n_bits]."""
    batch, n_tokens = torch.export.Dim("batch"), torch.export.Dim("n_tokens", max=MAX_TOKENS)
    shape = {0: batch, 1: n_tokens}
    # two tensors, not one used twice: the exporter would take them for the same input
    ids, mask = torch.ones(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64)
    export_onnx(
        model,
        (ids, mask),
        file,
        dynamic_shapes=(shape, dict(shape)),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
    )
