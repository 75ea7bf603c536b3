"""LiteRT (TensorFlow Lite): what runs an encoder in TFLite form. Nothing else imports its interpreter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import EncoderError

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:  # an older board
    from tflite_runtime.interpreter import Interpreter


def audio_function(
    content: bytes, file: Path, window_samples: int, code_bits: int, n_threads: int = 1
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return samples float32 [window_samples] -> logits float32 [code_bits] from the bytes of a model.

    The model: one input float32 [1, window_samples], one output [1, code_bits]; the batch is fixed.
    Raises EncoderError where the interpreter refuses it.
    """
    try:
        interpreter: Any = Interpreter(model_content=content, num_threads=n_threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise EncoderError(f"{file}: expected a model that LiteRT can run, found: {error}") from error
    source, target = _only(interpreter.get_input_details()), _only(interpreter.get_output_details())
    for tensor, what, width in ((source, "input", window_samples), (target, "output", code_bits)):
        shape = None if tensor is None else tuple(int(n) for n in tensor["shape"])
        if tensor is None or shape != (1, width) or tensor["dtype"] is not np.float32:
            found = "several" if tensor is None else f"{np.dtype(tensor['dtype'])} {shape}"
            raise EncoderError(f"{file}: expected one {what} float32 (1, {width}), found {found}")
    assert source is not None  # refused above
    assert target is not None
    source_index, target_index = source["index"], target["index"]

    def run(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            interpreter.set_tensor(source_index, samples[None])
            interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise EncoderError(f"{file}: expected LiteRT to run the model, found: {error}") from error
        logits: NDArray[np.float32] = interpreter.get_tensor(target_index)[
            0
        ].copy()  # the next invoke overwrites it
        return logits

    return run


def _only(tensors: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the one tensor of a list, or None where there are several."""
    return tensors[0] if len(tensors) == 1 else None
