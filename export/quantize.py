"""8- and 4-bit weights: static int8 for the audio tower (its front end stays float), weight-only blocks for the sentence encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

FFN_BLOCK, ATTENTION_BLOCK, TABLE_BLOCK = 64, 128, 64  # weights that share one scale
LARGE_TABLE = 1000  # rows from which an embedding table is worth quantising


class _Windows(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, windows: NDArray[np.float32]) -> None:
        self.rows: Iterator[NDArray[np.float32]] = iter(windows)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        row = next(self.rows, None)
        return None if row is None else {"samples": row[None]}


def front_end_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of all nodes before the first convolution in topological order: the log-mel front end."""
    names = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            return names
        names.append(node.name)
    raise ValueError("no convolution in the graph")


def quantize_audio(float_file: Path, int8_file: Path, windows: NDArray[np.float32]) -> None:
    """Write a static int8 (QDQ, per-channel weights) version, ranges from `windows` float32 [n, window_samples].

    Quantised log-mel features cost a tenth of the bits, so everything before the first convolution stays float32.
    """
    model = onnx.load(float_file)
    del model.graph.value_info[:]  # stale shapes from the exporter stop shape inference
    onnx.save(model, int8_file)
    logging.getLogger().addFilter(is_not_advice)
    quantize_static(
        int8_file,
        int8_file,
        _Windows(windows),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "MaxPool", "AveragePool"],
        nodes_to_exclude=front_end_nodes(model),
    )


def is_not_advice(record: logging.LogRecord) -> bool:
    """Drop the quantiser's advice to run its shape inference first, which fails on exported graphs."""
    return "pre-processing before quantization" not in record.getMessage()


def quantize_text(float_file: Path, small_file: Path) -> None:
    """Write a weight-only version: 4-bit embedding table and feed-forward layers, 8-bit attention and head, float arithmetic."""
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.ERROR)
    model = onnx.load(float_file)
    del model.graph.value_info[:]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}

    def is_table(node: onnx.NodeProto) -> bool:
        return node.op_type == "Gather" and shapes.get(node.input[0], (0,))[0] >= LARGE_TABLE

    def matrix(node: onnx.NodeProto) -> tuple[int, ...]:
        found = [shapes[name] for name in node.input if name in shapes and len(shapes[name]) == 2]
        return found[0] if node.op_type == "MatMul" and found else ()

    def is_wide(node: onnx.NodeProto) -> bool:
        return len(matrix(node)) == 2 and max(matrix(node)) >= 4 * min(matrix(node))

    def is_other(node: onnx.NodeProto) -> bool:
        return len(matrix(node)) == 2 and not is_wide(node)

    model = _quantize_nodes(model, is_table, "Gather", 4, TABLE_BLOCK)
    model = _quantize_nodes(model, is_wide, "MatMul", 4, FFN_BLOCK)
    model = _quantize_nodes(model, is_other, "MatMul", 8, ATTENTION_BLOCK)
    onnx.save(model, small_file)


def _quantize_nodes(
    model: onnx.ModelProto, wanted: Callable[[onnx.NodeProto], bool], op_type: str, bits: int, block: int
) -> onnx.ModelProto:
    others = [node.name for node in model.graph.node if node.op_type == op_type and not wanted(node)]
    config = DefaultWeightOnlyQuantConfig(
        block_size=block,
        is_symmetric=True,
        accuracy_level=4,  # 8-bit activations inside the product: a quarter of the time, no measurable loss
        bits=bits,
        op_types_to_quantize=(op_type,),
        quant_axes=(("MatMul", 0), ("Gather", 1)),
    )
    quantizer = MatMulNBitsQuantizer(model, algo_config=config, nodes_to_exclude=others)
    quantizer.process()
    return quantizer.model.model
