"""8-bit towers around a float front end, and a correction of what that moves each logit by on average.

Most of what int8 weights do to a logit is the same for every input: putting the mean back is free, and what remains comes from the
activations. Ways that were measured and lost: docs/models.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from edge.bundle import Modality, Runtime
from edge.errors import FieldcubeError
from export.quiet import without_warnings

BLOCK = 128  # weights that share one scale, where scales are not per channel
LARGE_TABLE = 256  # rows from which a table of word vectors is worth quantising


class QuantizeError(FieldcubeError):
    """A graph that cannot be quantised as it should."""


def log_mel_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes before the first normalisation, in topological order: the log-mel front end of an audio tower.

    Quantised log-mel features cost a tenth of the bits. Raises QuantizeError where the tower begins otherwise.
    """
    names, is_after_log = [], False
    for node in model.graph.node:
        if is_after_log and node.op_type in ("BatchNormalization", "LayerNormalization", "Conv"):
            return names
        names.append(node.name)
        is_after_log = is_after_log or node.op_type == "Log"
    raise QuantizeError(
        "audio tower: expected a logarithm and then a normalisation or a convolution, found none; "
        "its front end cannot be told from the rest"
    )


def _loaded(float_file: Path) -> onnx.ModelProto:
    model = onnx.load(float_file)
    del model.graph.value_info[:]  # stale shapes from the exporter stop shape inference
    quantize_tables(model)
    return model


def quantize_tables(model: onnx.ModelProto) -> None:
    """Store large tables of word vectors as int8 with one scale for each row, in place; rows are scaled back as they are looked up.

    The quantisers of onnxruntime know one scale for a whole table, or 4 bits.
    """
    graph = model.graph
    tables = {
        each.name: each for each in graph.initializer if len(each.dims) == 2 and each.dims[0] >= LARGE_TABLE
    }
    nodes = []
    for node in graph.node:
        nodes.append(node)
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None:
            continue
        name, rows = table.name, numpy_helper.to_array(table)
        scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True) / 127, 1e-12).astype(np.float32)
        int8 = np.round(rows / scale).astype(np.int8)
        graph.initializer.remove(table)
        graph.initializer.append(numpy_helper.from_array(int8, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        output, ids = node.output[0], node.input[1]
        node.input[0], node.output[0] = f"{name}_int8", f"{output}_int8"
        nodes += [
            helper.make_node(
                "Cast", [f"{output}_int8"], [f"{output}_float"], f"{name}_cast", to=onnx.TensorProto.FLOAT
            ),
            helper.make_node("Gather", [f"{name}_scale", ids], [f"{output}_scale"], f"{name}_scale"),
            helper.make_node("Mul", [f"{output}_float", f"{output}_scale"], [output], f"{name}_scaled"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def float_nodes(model: onnx.ModelProto, is_audio: bool, n_last: int) -> list[str]:
    """Names of nodes that stay float: the front end of an audio tower, and the last n_last products with weights."""
    weights = {each.name for each in model.graph.initializer}
    products = [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and weights.intersection(node.input)
    ]
    return [*(log_mel_nodes(model) if is_audio else ()), *products[len(products) - n_last :]]


def quantize_tower(float_file: Path, small_file: Path, is_audio: bool, n_last: int) -> None:
    """Write a version with int8 weights, one scale per channel, and activations that are quantised as they come."""
    model = _loaded(float_file)
    onnx.save(model, small_file)
    with without_warnings():
        quantize_dynamic(
            small_file,
            small_file,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=float_nodes(model, is_audio, n_last),
        )


def quantize_tower_blocks(float_file: Path, small_file: Path, is_audio: bool, n_last: int) -> None:
    """Write a version with int8 weights and activations, one scale per block of each row: nearer to float, and hardly faster."""
    model = _loaded(float_file)
    excluded = float_nodes(model, is_audio, n_last)
    config = DefaultWeightOnlyQuantConfig(
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=4,  # 8-bit activations inside the product
        bits=8,
        op_types_to_quantize=("MatMul",),
        quant_axes=(("MatMul", 0),),
    )
    with without_warnings():
        quantizer = MatMulNBitsQuantizer(model, algo_config=config, nodes_to_exclude=excluded)
        quantizer.process()
    onnx.save(quantizer.model.model, small_file)


def quantize_tower_weights(float_file: Path, small_file: Path, is_audio: bool, n_last: int) -> None:
    """Write a version with int8 weights, one scale per channel, and float arithmetic: small on disk, nearest to float, no faster.

    Written as Cast and Mul, which onnxruntime works out once when it opens the file; it would run DequantizeLinear at every call.
    """
    model = _loaded(float_file)
    graph, excluded = model.graph, set(float_nodes(model, is_audio, n_last))
    weights = {each.name: each for each in graph.initializer if len(each.dims) == 2}
    channels: dict[str, int] = {}  # axis of the output channels of each weight
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm") and node.name not in excluded and node.input[1] in weights:
            is_transposed = any(each.name == "transB" and each.i for each in node.attribute)
            channels[node.input[1]] = 0 if is_transposed else 1
    nodes = []
    for name, axis in channels.items():
        values = numpy_helper.to_array(weights[name])
        scale = np.maximum(np.abs(values).max(axis=1 - axis, keepdims=True) / 127, 1e-12).astype(np.float32)
        graph.initializer.remove(weights[name])
        graph.initializer.append(
            numpy_helper.from_array(np.round(values / scale).astype(np.int8), f"{name}_int8")
        )
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        nodes += [
            helper.make_node(
                "Cast", [f"{name}_int8"], [f"{name}_float"], f"{name}_cast", to=onnx.TensorProto.FLOAT
            ),
            helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name], f"{name}_scaled"),
        ]
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, small_file)


def _quantize_tflite(
    recipe_rules: list[dict[str, Any]], float_file: Path, small_file: Path, is_audio: bool, n_last: int
) -> None:
    from ai_edge_quantizer import quantizer

    # names of tensors carry the classes of modules; that of the last one is the output's
    scopes = [
        *(["LogMel"] if is_audio else ()),
        *(["DeployedHead", "serving_default_output"] if n_last else ()),
    ]
    rules = list(recipe_rules)
    for scope in scopes:
        rule = {"regex": f".*{scope}.*", "operation": "*", "algorithm_key": "no_quantize", "op_config": {}}
        rules.append(rule)
    with without_warnings():
        quantizer.Quantizer(str(float_file), rules).quantize().export_model(str(small_file), overwrite=True)


def quantize_tower_tflite(float_file: Path, small_file: Path, is_audio: bool, n_last: int) -> None:
    """Write a version with int8 weights, one scale per channel, and activations quantised as they come, a scale for each row."""
    from ai_edge_quantizer import recipe

    _quantize_tflite(recipe.dynamic_wi8_afp32(), float_file, small_file, is_audio, n_last)


def quantize_tower_tflite_weights(float_file: Path, small_file: Path, is_audio: bool, n_last: int) -> None:
    """Write a version with int8 weights, one scale per channel, and float arithmetic: slower, nearer to float, right on every LiteRT."""
    from ai_edge_quantizer import recipe

    _quantize_tflite(recipe.weight_only_wi8_afp32(), float_file, small_file, is_audio, n_last)


def add_correction(file: Path, correction: NDArray[np.float32]) -> None:
    """Add float32 [n_bits] to the output `logits` of an ONNX graph, in place."""
    model = onnx.load(file)
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            if name == "logits":
                node.output[i] = "logits_uncorrected"
    model.graph.initializer.append(numpy_helper.from_array(correction.astype(np.float32), "correction"))
    node = helper.make_node("Add", ["logits_uncorrected", "correction"], ["logits"], name="correct")
    model.graph.node.append(node)
    onnx.save(model, file)


def shift_bias(file: Path, bias: NDArray[np.float32], correction: NDArray[np.float32]) -> None:
    """Add float32 [n_bits] to the logits of a TFLite model, in place: to the bias of its last layer, found by its bytes.

    Raises QuantizeError where the file does not hold these bytes once.
    """
    content, wanted = file.read_bytes(), bias.astype("<f4").tobytes()
    n_found = content.count(wanted)
    if n_found != 1:
        raise QuantizeError(f"{file}: expected the bias of the last layer once, found it {n_found} times")
    file.write_bytes(content.replace(wanted, (bias + correction).astype("<f4").tobytes()))


# float file, file to write, is it an audio tower, how many layers at its end stay float
Quantize = Callable[[Path, Path, bool, int], None]
QUANTIZE: dict[tuple[Runtime, str], Quantize] = {
    ("onnx", "int8"): quantize_tower,
    ("onnx", "int8 in blocks"): quantize_tower_blocks,
    ("onnx", "int8 weights"): quantize_tower_weights,
    ("tflite", "int8"): quantize_tower_tflite,
    ("tflite", "int8 weights"): quantize_tower_tflite_weights,
}


def precisions_of(kind: Modality, runtime: Runtime) -> tuple[str, ...]:
    """What to try in turn: the fastest first, but for sentences, which are few and whose codes stay for long, the nearest to float."""
    if kind == "text":
        return ("int8 in blocks" if runtime == "onnx" else "int8 weights",)
    return ("int8", "int8 in blocks", "int8 weights") if runtime == "onnx" else ("int8", "int8 weights")
