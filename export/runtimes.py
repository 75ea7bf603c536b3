"""Run an exported file before it is part of a bundle: plain callables over ONNX Runtime and LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from train.text_tower import MAX_TOKENS

EncodeWindow = Callable[
    [NDArray[np.float32]], NDArray[np.float32]
]  # [window_samples] or [3, size, size] -> [n_bits]
EncodeSentence = Callable[[str], NDArray[np.float32]]  # sentence -> [n_bits]


def _session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def onnx_observation(file: Path) -> EncodeWindow:
    """Open an ONNX encoder of windows or pictures."""
    session = _session(file)
    name = session.get_inputs()[0].name

    def encode(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(["logits"], {name: inputs[None]})[0][0]
        return logits

    return encode


def onnx_text(file: Path, tokenizer_json: bytes, max_tokens: int = MAX_TOKENS) -> EncodeSentence:
    """Open an ONNX text encoder with its tokenizer."""
    session, tokenizer = _session(file), Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.enable_truncation(max_tokens)

    def encode(sentence: str) -> NDArray[np.float32]:
        ids = np.asarray([tokenizer.encode(sentence).ids], dtype=np.int64)
        logits: NDArray[np.float32] = session.run(
            ["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        )[0][0]
        return logits

    return encode


def tflite_observation(file: Path) -> EncodeWindow:
    """Open a TFLite encoder of windows or pictures (batch 1)."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def encode(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter.set_tensor(source, inputs[None])
        interpreter.invoke()
        logits: NDArray[np.float32] = interpreter.get_tensor(target)[
            0
        ].copy()  # the next invoke overwrites it
        return logits

    return encode


def tflite_text(file: Path, tokenizer_json: bytes, max_tokens: int, pad_id: int) -> EncodeSentence:
    """Open a TFLite encoder of sentences: ids and mask int32 [1, max_tokens], padded."""
    from ai_edge_litert.interpreter import Interpreter

    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=pad_id, length=max_tokens)
    interpreter = Interpreter(model_path=str(file), num_threads=1)
    interpreter.allocate_tensors()
    ids, mask = sorted(interpreter.get_input_details(), key=lambda each: each["name"])  # ..args_0, ..args_1
    target = interpreter.get_output_details()[0]["index"]

    def encode(sentence: str) -> NDArray[np.float32]:
        encoded = tokenizer.encode(sentence)
        interpreter.set_tensor(ids["index"], np.asarray([encoded.ids], dtype=np.int32))
        interpreter.set_tensor(mask["index"], np.asarray([encoded.attention_mask], dtype=np.int32))
        interpreter.invoke()
        logits: NDArray[np.float32] = interpreter.get_tensor(target)[
            0
        ].copy()  # the next invoke overwrites it
        return logits

    return encode
