"""What runs encoders: which runtimes are installed here, which encoder of a bundle is to run, and its files opened in it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle, EncoderEntry, Modality, Runtime, TextInput
from edge.errors import MissingDependencyError

Floats = NDArray[np.float32]
RuntimeChoice = Literal["auto", "onnx", "tflite"]

_RUNTIMES: tuple[Runtime, ...] = ("onnx", "tflite")  # in the order in which "auto" tries them
_LIBRARIES: dict[Runtime, tuple[str, ...]] = {
    "onnx": ("onnxruntime",),
    "tflite": ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"),
}
_INSTALL: dict[Runtime, str] = {"onnx": "pip install onnxruntime", "tflite": "pip install ai-edge-litert"}


def available_runtimes() -> tuple[Runtime, ...]:
    """Return the runtimes whose library can be imported here."""
    return tuple(runtime for runtime in _RUNTIMES if not _why_missing(runtime))


def choose(bundle: Bundle, modality: Modality, runtime: RuntimeChoice) -> EncoderEntry:
    """Return the encoder that is to run: of those whose file is here the first that can, where runtime is auto.

    Raises BundleError where the bundle has none, MissingDependencyError where nothing here runs one.
    """
    if runtime != "auto":
        entry = bundle.encoder_entry(modality, runtime)
        if reason := _why_missing(runtime):
            raise _missing([runtime], f"runtime {runtime}: {reason}")
        return entry
    named = [entry for entry in bundle.manifest.encoders if entry.modality == modality]
    if not named:
        return bundle.encoder_entry(modality)  # raises, and says what is there
    held = [entry for entry in named if entry.size_bytes]  # some may be left off a board
    if not held:
        bundle.read(named[0])  # says which file is not there, before anything is asked for that would run it
        held = named
    held.sort(key=lambda entry: _RUNTIMES.index(entry.runtime))
    reasons = []
    for entry in held:
        reason = _why_missing(entry.runtime)  # one after the other: each library costs memory
        if not reason:
            return entry
        reasons.append(reason)
    raise _missing([entry.runtime for entry in held], f"{modality} encoder: {'; '.join(reasons)}")


def array_function(
    bundle: Bundle, entry: EncoderEntry, name: str, shape: tuple[int, ...], n_threads: int
) -> Callable[[Floats], Floats]:
    """Return float32 shape -> logits float32 [code_bits]: an encoder in one file, or its tower and then its head.

    name: of the input in ONNX. Raises BundleError for a changed file, EncoderError where the library refuses it.
    """
    output, n_outputs = _tower_output(bundle, entry)
    content, file = bundle.read(entry), bundle.folder / entry.file
    tower = _graph(entry.runtime, content, file, name, shape, output, n_outputs, n_threads)
    head = _head_function(bundle, entry, n_threads)
    return tower if head is None else lambda values: head(tower(values))


def text_function(
    bundle: Bundle, entry: EncoderEntry, content: bytes, tokenizer: bytes, n_threads: int
) -> Callable[[str], Floats]:
    """Return sentence -> logits float32 [code_bits]; content, tokenizer: bytes of the files of entry. Errors as above."""
    assert isinstance(entry.input, TextInput)  # the manifest holds a text input for every text encoder
    file, text = bundle.folder / entry.file, entry.input
    output, n_outputs = _tower_output(bundle, entry)
    tower: Callable[[str], Floats]
    if entry.runtime == "onnx":
        from edge.onnx_encoder import text_function as onnx_function

        tower = onnx_function(content, file, tokenizer, text.max_tokens, output, n_threads, text.pad_id)
    else:
        from edge.tflite_encoder import text_function as tflite_function

        tower = tflite_function(content, file, tokenizer, text.max_tokens, n_outputs, text.pad_id, n_threads)
    head = _head_function(bundle, entry, n_threads)
    return tower if head is None else lambda sentence: head(tower(sentence))


def _head_function(bundle: Bundle, entry: EncoderEntry, n_threads: int) -> Callable[[Floats], Floats] | None:
    """Return features -> logits where the head is a file of its own, else None."""
    content, head = bundle.read_head(entry), entry.head
    if content is None or head is None:
        return None
    shape, bits = (head.n_features,), bundle.manifest.code_bits
    file = bundle.folder / head.file
    return _graph(entry.runtime, content, file, head.features, shape, entry.output, bits, n_threads)


def _tower_output(bundle: Bundle, entry: EncoderEntry) -> tuple[str, int]:
    """Return name and length of what the first file of an encoder gives."""
    if entry.head is None:
        return entry.output, bundle.manifest.code_bits
    return entry.head.features, entry.head.n_features


def _graph(
    runtime: Runtime,
    content: bytes,
    file: Path,
    name: str,
    shape: tuple[int, ...],
    output: str,
    n_outputs: int,
    n_threads: int,
) -> Callable[[Floats], Floats]:
    """Open one file in its runtime."""
    if runtime == "onnx":
        from edge.onnx_encoder import array_function as onnx_function

        return onnx_function(content, file, name, shape, output, n_outputs, n_threads)
    from edge.tflite_encoder import array_function as tflite_function

    return tflite_function(content, file, shape, n_outputs, n_threads)


def _why_missing(runtime: Runtime) -> str:
    """Return why no library of a runtime can be imported, or "" where one can."""
    reasons = []
    for name in _LIBRARIES[runtime]:
        try:
            importlib.import_module(name)
        except ImportError as error:  # also a library that is there and fails to load
            reasons.append(str(error))
        else:
            return ""
    return (
        f"expected {' or '.join(name.partition('.')[0] for name in _LIBRARIES[runtime])}, found {reasons[0]}"
    )


def _missing(runtimes: Sequence[Runtime], what: str) -> MissingDependencyError:
    return MissingDependencyError(f"{what}; run: {' or '.join(_INSTALL[runtime] for runtime in runtimes)}")
