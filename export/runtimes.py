"""Run an exported file before it is part of a bundle: plain callables over ONNX Runtime and LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from train.text_tower import MAX_TOKENS

EncodeWindow = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # [window_samples] -> [n_bits]
EncodeSentence = Callable[[str], NDArray[np.float32]]  # sentence -> [n_bits]


def _session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def onnx_audio(file: Path) -> EncodeWindow:
    """Open an ONNX audio encoder."""
    session = _session(file)

    def encode(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(["logits"], {"samples": samples[None]})[0][0]
        return logits

    return encode


def onnx_text(file: Path, tokenizer_json: bytes) -> EncodeSentence:
    """Open an ONNX text encoder with its tokenizer."""
    session, tokenizer = _session(file), Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.enable_truncation(MAX_TOKENS)

    def encode(sentence: str) -> NDArray[np.float32]:
        ids = np.asarray([tokenizer.encode(sentence).ids], dtype=np.int64)
        logits: NDArray[np.float32] = session.run(
            ["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        )[0][0]
        return logits

    return encode


def tflite_audio(file: Path) -> EncodeWindow:
    """Open a TFLite audio encoder (batch 1)."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def encode(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter.set_tensor(source, samples[None])
        interpreter.invoke()
        logits: NDArray[np.float32] = interpreter.get_tensor(target)[
            0
        ].copy()  # the next invoke overwrites it
        return logits

    return encode
