"""Does an ONNX file point to data outside itself? A walk over its protobuf bytes, without the onnx package.

Field numbers: onnx/onnx.proto (IR version 10). External data would be read from files that no sha256 covers.
"""

from __future__ import annotations

from collections.abc import Iterator

_TENSOR_EXTERNAL_DATA = 13
_TENSOR_DATA_LOCATION = 14

# message -> {field number: message it holds}; every way from a model down to a tensor
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse_tensor"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse_tensor",
        23: "sparse_tensor",
    },
    "sparse_tensor": {1: "tensor", 2: "tensor"},
}


def onnx_has_external_data(model: bytes) -> bool:
    """Return whether any tensor of an ONNX model (its bytes) keeps its data in another file.

    Looks at initializers, node attributes, subgraphs, functions and training graphs. Raises ValueError where
    the bytes are no protobuf with a graph in it.
    """
    waiting = [("model", memoryview(model))]
    has_graph = False
    while waiting:
        message, content = waiting.pop()
        for field, value in _fields(content):
            if message == "tensor":
                if field == _TENSOR_EXTERNAL_DATA or (field == _TENSOR_DATA_LOCATION and value == 1):
                    return True
            elif isinstance(value, memoryview) and field in _INSIDE[message]:
                has_graph = has_graph or (message == "model" and field == 7)
                waiting.append((_INSIDE[message][field], value))
    if not has_graph:
        raise ValueError("no graph in it")
    return False


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, int or bytes) of one protobuf message."""
    position = 0
    while position < len(content):
        tag, position = _varint(content, position)
        wire_type = tag & 7
        if wire_type == 0:
            number, position = _varint(content, position)
            yield tag >> 3, number
            continue
        if wire_type == 2:
            length, position = _varint(content, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        if position + length > len(content):
            raise ValueError(f"cut off at byte {position}")
        yield tag >> 3, content[position : position + length]
        position += length


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    """Return (value, next position) of a base-128 integer."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            raise ValueError(f"cut off at byte {position}")
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"an integer too long at byte {position}")
