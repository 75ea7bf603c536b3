"""ONNX Runtime: what runs an encoder in ONNX form. Nothing else imports onnxruntime or tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edge.errors import BundleError, EncoderError, MissingDependencyError

_ERRORS_ONLY = 3  # severity of onnxruntime's own log; below it, it warns of every GPU that is not there


def audio_function(
    content: bytes, file: Path, output: str, n_threads: int = 1
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return samples float32 [window_samples] -> logits float32 [code_bits] from the bytes of a model.

    The model: input `samples` float32 [batch, window_samples]; output [batch, code_bits].
    Raises EncoderError where onnxruntime refuses it.
    """
    session = _session(content, file, ("samples",), output, n_threads)

    def run(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return _run(session, file, output, {"samples": samples[None]})

    return run


def text_function(
    content: bytes, file: Path, tokenizer_json: bytes, max_tokens: int, output: str, n_threads: int = 1
) -> Callable[[str], NDArray[np.float32]]:
    """Return sentence -> logits float32 [code_bits] from the bytes of a model and of its tokenizer.

    The model: inputs `input_ids` and `attention_mask` int64 [batch, n_tokens]; output [batch, code_bits].
    Sentences are cut at max_tokens. Raises EncoderError, BundleError for an impossible tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingDependencyError(
            f"{file}: expected the package tokenizers, found {error}; run: pip install tokenizers"
        ) from error
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
    except Exception as error:  # the library raises Exception itself
        raise BundleError(f"{file}: expected a tokenizer for it, found {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    session = _session(content, file, ("input_ids", "attention_mask"), output, n_threads)

    def run(text: str) -> NDArray[np.float32]:
        ids = np.asarray([tokenizer.encode(text).ids], dtype=np.int64)  # [1, n_tokens]
        return _run(session, file, output, {"input_ids": ids, "attention_mask": np.ones_like(ids)})

    return run


def _session(
    content: bytes, file: Path, inputs: tuple[str, ...], output: str, n_threads: int
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
    found = tuple(each.name for each in session.get_inputs())
    outputs = tuple(each.name for each in session.get_outputs())
    if set(found) != set(inputs) or output not in outputs:
        raise EncoderError(
            f"{file}: expected the inputs {', '.join(inputs)} and the output {output}, "
            f"found {', '.join(found)} and {', '.join(outputs)}"
        )
    return session


def _run(
    session: onnxruntime.InferenceSession, file: Path, output: str, inputs: dict[str, NDArray[Any]]
) -> NDArray[np.float32]:
    """Run a batch of one and return its row."""
    try:
        logits: NDArray[np.float32] = session.run([output], inputs)[0][0]
    except Exception as error:  # its errors have no common class below Exception
        raise EncoderError(f"{file}: expected onnxruntime to run the model, found: {error}") from error
    return logits
