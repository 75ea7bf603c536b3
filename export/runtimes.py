"""Run an exported file before it is part of a bundle: plain callables over ONNX Runtime and LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from train.text_tower import MAX_TOKENS

Floats = NDArray[np.float32]
EncodeWindow = Callable[[Floats], Floats]  # [window_samples], [3, size, size] or [n_features] -> [n_outputs]
EncodeSentence = Callable[[str], Floats]  # sentence -> [n_outputs]


def _session(file: Path, n_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 3  # errors: what it warns of concerns graphics cards
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def onnx_observation(file: Path, n_threads: int = 1) -> EncodeWindow:
    """Open an ONNX encoder of windows or pictures, or a head."""
    session = _session(file, n_threads)
    name = session.get_inputs()[0].name

    def encode(inputs: Floats) -> Floats:
        row: Floats = session.run(None, {name: inputs[None]})[0][0]
        return row

    return encode


def onnx_text(
    file: Path, tokenizer_json: bytes, max_tokens: int = MAX_TOKENS, n_threads: int = 1
) -> EncodeSentence:
    """Open an ONNX text encoder with its tokenizer."""
    session, tokenizer = _session(file, n_threads), Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.enable_truncation(max_tokens)

    def encode(sentence: str) -> Floats:
        ids = np.asarray([tokenizer.encode(sentence).ids], dtype=np.int64)
        row: Floats = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0]
        return row

    return encode


def _interpreter(file: Path, n_threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=n_threads)
    interpreter.allocate_tensors()
    return interpreter


def tflite_observation(file: Path, n_threads: int = 1) -> EncodeWindow:
    """Open a TFLite encoder of windows or pictures, or a head (batch 1)."""
    interpreter = _interpreter(file, n_threads)
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def encode(inputs: Floats) -> Floats:
        interpreter.set_tensor(source, inputs[None])
        interpreter.invoke()
        row: Floats = interpreter.get_tensor(target)[0].copy()  # the next invoke overwrites it
        return row

    return encode


def tflite_text(
    file: Path, tokenizer_json: bytes, max_tokens: int, pad_id: int, n_threads: int = 1
) -> EncodeSentence:
    """Open a TFLite encoder of sentences: ids and mask int32 [1, max_tokens], padded."""
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=pad_id, length=max_tokens)
    interpreter = _interpreter(file, n_threads)
    ids, mask = sorted(interpreter.get_input_details(), key=lambda each: each["name"])  # ..args_0, ..args_1
    target = interpreter.get_output_details()[0]["index"]

    def encode(sentence: str) -> Floats:
        encoded = tokenizer.encode(sentence)
        interpreter.set_tensor(ids["index"], np.asarray([encoded.ids], dtype=np.int32))
        interpreter.set_tensor(mask["index"], np.asarray([encoded.attention_mask], dtype=np.int32))
        interpreter.invoke()
        row: Floats = interpreter.get_tensor(target)[0].copy()  # the next invoke overwrites it
        return row

    return encode
