"""8-bit towers: dynamic int8 per channel around a float front end, then a correction of each logit's mean.

Measured on BioLingual's architecture: per-channel scales take the centred agreement of bits from 0.91 to 0.93, the correction to 0.97;
static ranges and 8-bit blocks were slower or lost more (docs/models.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from export.quantize import is_not_advice

QUANTISED = ("MatMul", "Gemm", "Gather")


def log_mel_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes before the first BatchNormalization, in topological order: the front end of an audio tower; none without one."""
    names = []
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            return names
        names.append(node.name)
    return []


def quantize_tower(
    float_file: Path, int8_file: Path, is_audio: bool, float_nodes: tuple[str, ...] = ()
) -> None:
    """Write a version with int8 weights, one scale per channel, and activations that are quantised as they come.

    float_nodes: more nodes that stay float, where a layer is too sensitive.
    """
    model = onnx.load(float_file)
    del model.graph.value_info[:]  # stale shapes from the exporter stop shape inference
    onnx.save(model, int8_file)
    logging.getLogger().addFilter(is_not_advice)
    excluded = [*(log_mel_nodes(model) if is_audio else ()), *float_nodes]
    quantize_dynamic(
        int8_file,
        int8_file,
        op_types_to_quantize=list(QUANTISED),
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=excluded,
    )


def add_correction(file: Path, correction: NDArray[np.float32]) -> None:
    """Add float32 [n_bits] to the output `logits` of a graph, in place: what quantising moved each logit by on average is put back."""
    model = onnx.load(file)
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            if name == "logits":
                node.output[i] = "logits_uncorrected"
    model.graph.initializer.append(numpy_helper.from_array(correction.astype(np.float32), "correction"))
    model.graph.node.append(
        helper.make_node("Add", ["logits_uncorrected", "correction"], ["logits"], name="correct")
    )
    onnx.save(model, file)


def corrected(
    file: Path, run: Callable[[Path], NDArray[np.float32]], reference: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Correct a quantised graph; run gives its logits of the correction inputs [n, n_bits], reference the float ones. Returns the correction."""
    correction: NDArray[np.float32] = (reference - run(file)).mean(axis=0)
    add_correction(file, correction)
    return correction


def quantize_tower_tflite(float_file: Path, int8_file: Path) -> None:
    """Write a version with int8 weights and activations quantised as they come; the log-mel front end stays float."""
    from ai_edge_quantizer import quantizer, recipe

    rules = [
        *recipe.dynamic_wi8_afp32(),
        {"regex": ".*LogMel.*", "operation": "*", "algorithm_key": "no_quantize", "op_config": {}},
    ]
    quantizer.Quantizer(str(float_file), rules).quantize().export_model(str(int8_file), overwrite=True)
