"""ONNX Runtime: what runs an encoder in ONNX form. Nothing else imports onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edge.encoder_tokens import filled, token_function
from edge.errors import EncoderError

_ERRORS_ONLY = 3  # severity of onnxruntime's own log; below it, it warns of every GPU that is not there
_IDS, _MASK = "input_ids", "attention_mask"

Floats = NDArray[np.float32]


def array_function(
    content: bytes,
    file: Path,
    name: str,
    shape: tuple[int, ...],
    output: str,
    n_outputs: int,
    n_threads: int = 1,
) -> Callable[[Floats], Floats]:
    """Return float32 shape -> float32 [n_outputs] from the bytes of a model.

    The model: one input, called name, float32 [batch, *shape]; output [batch, n_outputs]. Raises EncoderError where
    onnxruntime refuses it, or it is another model.
    """
    session = _session(content, file, (name,), output, n_threads)
    for what, tensor, expected in (
        ("input", session.get_inputs()[0], shape),
        ("output", _named(session.get_outputs(), output), (n_outputs,)),
    ):
        found = tensor.shape[1:]  # names stand for lengths that are not fixed
        fits = len(found) == len(expected) and all(
            n == m for n, m in zip(found, expected, strict=True) if isinstance(n, int)
        )
        if tensor.type != "tensor(float)" or not fits:
            raise EncoderError(
                f"{file}: expected the {what} {tensor.name} float32 {['batch', *expected]}, "
                f"found {tensor.type} {tensor.shape}"
            )

    def run(values: Floats) -> Floats:
        return _run(session, file, output, {name: values[None]})

    return run


def text_function(
    content: bytes,
    file: Path,
    tokenizer_json: bytes,
    max_tokens: int,
    output: str,
    n_threads: int = 1,
    pad_id: int | None = None,
) -> Callable[[str], Floats]:
    """Return sentence -> logits float32 [code_bits] from the bytes of a model and of its tokenizer.

    The model: inputs `input_ids` and, where it has it, `attention_mask`, int64 [batch, n_tokens]; output
    [batch, code_bits]. Sentences are cut at max_tokens, and filled with pad_id where n_tokens is a fixed number.
    Raises EncoderError, BundleError for an impossible tokenizer.
    """
    session = _session(content, file, (_IDS,), output, n_threads, optional=(_MASK,))
    n_fixed = _named(session.get_inputs(), _IDS).shape[-1]
    n_tokens = n_fixed if isinstance(n_fixed, int) else None
    tokens = token_function(tokenizer_json, file, min(max_tokens, n_tokens or max_tokens))
    names = {each.name for each in session.get_inputs()}
    filled(tokens(""), n_tokens, pad_id, file)  # tells now that a pad_id is missing

    def run(text: str) -> Floats:
        ids, mask = filled(tokens(text), n_tokens, pad_id, file)
        given = {_IDS: ids, _MASK: mask}
        return _run(session, file, output, {name: given[name] for name in names})

    return run


def _session(
    content: bytes,
    file: Path,
    inputs: Collection[str],
    output: str,
    n_threads: int,
    optional: Collection[str] = (),
) -> onnxruntime.InferenceSession:
    """Open a model and check the names of its inputs and output."""
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # waiting threads must not eat the battery
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class below Exception
        raise EncoderError(f"{file}: expected a model that onnxruntime can run, found: {error}") from error
    session._model_bytes = None  # kept to open it for other providers: a second copy, 112 MB of a ViT-B/16
    found = tuple(each.name for each in session.get_inputs())
    outputs = tuple(each.name for each in session.get_outputs())
    if not set(inputs) <= set(found) <= {*inputs, *optional} or output not in outputs:
        raise EncoderError(
            f"{file}: expected the inputs {', '.join((*inputs, *optional))} and the output {output}, "
            f"found {', '.join(found)} and {', '.join(outputs)}"
        )
    return session


def _named(tensors: list[Any], name: str) -> Any:
    """Return the tensor of this name; _session has seen that it is there."""
    return next(tensor for tensor in tensors if tensor.name == name)


def _run(
    session: onnxruntime.InferenceSession, file: Path, output: str, inputs: dict[str, NDArray[Any]]
) -> Floats:
    """Run a batch of one and return its row."""
    try:
        logits: Floats = session.run([output], inputs)[0][0]
    except Exception as error:  # its errors have no common class below Exception
        raise EncoderError(f"{file}: expected onnxruntime to run the model, found: {error}") from error
    return logits
