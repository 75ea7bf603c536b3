"""LiteRT (TensorFlow Lite): what runs an encoder in TFLite form. Nothing else imports its interpreter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.encoder_tokens import filled, token_function
from edge.errors import EncoderError

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:  # an older board
    from tflite_runtime.interpreter import Interpreter

Floats = NDArray[np.float32]


def array_function(
    content: bytes, file: Path, shape: tuple[int, ...], n_outputs: int, n_threads: int = 1
) -> Callable[[Floats], Floats]:
    """Return float32 shape -> float32 [n_outputs] from the bytes of a model.

    The model: one input float32 [1, *shape], one output [1, n_outputs]; the batch is fixed, names do not matter.
    Raises EncoderError where the interpreter refuses it, or it is another model.
    """
    interpreter = _interpreter(content, file, n_threads)
    sources = interpreter.get_input_details()
    source = _require(sources, "one input float32", (1, *shape), (np.float32,), file)
    target = _output(interpreter, n_outputs, file)

    def run(values: Floats) -> Floats:
        return _run(interpreter, {source: values[None]}, target, file)

    return run


def text_function(
    content: bytes,
    file: Path,
    tokenizer_json: bytes,
    max_tokens: int,
    n_outputs: int,
    pad_id: int | None,
    n_threads: int = 1,
) -> Callable[[str], Floats]:
    """Return sentence -> float32 [n_outputs] from the bytes of a model and of its tokenizer.

    The model: ids int32 [1, max_tokens], filled with pad_id, and where it has a second input the attention mask, of the
    same shape; which is which is told by "mask" in a name, else the ids come first in order of name. One output
    [1, n_outputs]. Raises EncoderError, BundleError for an impossible tokenizer or no pad_id.
    """
    interpreter = _interpreter(content, file, n_threads)
    sources = sorted(interpreter.get_input_details(), key=lambda each: ("mask" in each["name"], each["name"]))
    integers = (np.int32, np.int64)
    indices = [
        _require([source], f"{what} int32", (1, max_tokens), integers, file)
        for what, source in zip(("ids", "a mask"), sources, strict=False)
    ]
    if not 1 <= len(sources) <= 2:
        raise EncoderError(f"{file}: expected the inputs ids and at most a mask, found {len(sources)} inputs")
    target = _output(interpreter, n_outputs, file)
    tokens = token_function(tokenizer_json, file, max_tokens)
    filled(tokens(""), max_tokens, pad_id, file)  # tells now that a pad_id is missing

    def run(text: str) -> Floats:
        given = filled(tokens(text), max_tokens, pad_id, file)
        values = {
            index: array.astype(source["dtype"])
            for index, array, source in zip(indices, given, sources, strict=False)
        }
        return _run(interpreter, values, target, file)

    return run


def _interpreter(content: bytes, file: Path, n_threads: int) -> Any:
    try:
        interpreter: Any = Interpreter(model_content=content, num_threads=n_threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise EncoderError(f"{file}: expected a model that LiteRT can run, found: {error}") from error
    return interpreter


def _output(interpreter: Any, n_outputs: int, file: Path) -> int:
    details = interpreter.get_output_details()
    return _require(details, "one output float32", (1, n_outputs), (np.float32,), file)


def _require(
    tensors: list[dict[str, Any]], what: str, shape: tuple[int, ...], types: tuple[type, ...], file: Path
) -> int:
    """Return the index of the only tensor of a list, which must have this shape and one of these types."""
    if len(tensors) != 1:
        raise EncoderError(f"{file}: expected {what} {shape}, found several")
    found = tuple(int(n) for n in tensors[0]["shape"])
    if found != shape or tensors[0]["dtype"] not in types:
        shown = f"{np.dtype(tensors[0]['dtype'])} {found}"
        raise EncoderError(f"{file}: expected {what} {shape}, found {shown}")
    return int(tensors[0]["index"])


def _run(interpreter: Any, values: dict[int, NDArray[Any]], target: int, file: Path) -> Floats:
    """Run a batch of one and return its row."""
    try:
        for index, value in values.items():
            interpreter.set_tensor(index, value)
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise EncoderError(f"{file}: expected LiteRT to run the model, found: {error}") from error
    row: Floats = interpreter.get_tensor(target)[0].copy()  # the next invoke overwrites it
    return row
