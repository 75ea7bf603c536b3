"""One exported encoder as it goes into a bundle: its files, its input, and golden examples of what it gives."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import AudioInput, EncoderEntry, HeadEntry, ImageInput, Modality, Runtime, TextInput
from export.runtimes import EncodeSentence, EncodeWindow
from export.sources import Source

TEXT_TOLERANCE = 0.05  # |golden logit| from which a bit of a sentence must be equal on any CPU
GOLDEN_SENTENCES = (
    "chainsaw",
    "a dog barks",
    "frogs calling at a pond",
    "Strix aluco with common name Tawny Owl",
    "gunshots",
)


@dataclass(frozen=True, slots=True)
class HeadPart:
    """The head of an encoder, where it is a file of its own."""

    name: str  # file name in the bundle
    content: bytes
    precision: str
    n_features: int

    def entry(self) -> HeadEntry:
        """What the manifest says of it."""
        digest = hashlib.sha256(self.content).hexdigest()
        return HeadEntry(self.name, digest, self.precision, self.n_features)


@dataclass(frozen=True, slots=True)
class Part:
    """One exported encoder, ready for a bundle."""

    modality: Modality
    runtime: Runtime
    precision: str
    name: str  # file name in the bundle
    content: bytes
    input: AudioInput | ImageInput | TextInput
    tokenizer_json: bytes | None
    golden_inputs: NDArray[Any]  # windows [n, window_samples], or sentences [n]
    golden_logits: NDArray[np.float32]  # [n, n_bits]
    tolerance: float
    head: HeadPart | None = None

    def entry(self) -> EncoderEntry:
        """What the manifest says of it."""
        digest = hashlib.sha256(self.content).hexdigest()
        head = self.head.entry() if self.head else None
        return EncoderEntry(
            self.modality, self.runtime, self.precision, self.name, digest, self.input, head=head
        )


def audio_part(
    source: Source, runtime: Runtime, precision: str, file: Path, encode: EncodeWindow, tolerance: float
) -> Part:
    """Wrap an exported audio encoder."""
    audio = source.checkpoint.settings.audio
    golden = np.round(source.golden * 32767).astype(np.int16)
    logits = np.stack([encode(window.astype(np.float32) / np.float32(32767)) for window in golden])
    entry_input = AudioInput(audio.sample_rate_hz, audio.window_samples)
    name = f"audio.{file.suffix[1:]}"
    return Part(
        "audio", runtime, precision, name, file.read_bytes(), entry_input, None, golden, logits, tolerance
    )


def text_entry(max_tokens: int, tokenizer_json: bytes, pad_id: int | None = None) -> TextInput:
    """The input of a text encoder whose tokenizer travels as tokenizer.json."""
    return TextInput(max_tokens, "tokenizer.json", hashlib.sha256(tokenizer_json).hexdigest(), pad_id)


def text_part(
    file: Path, precision: str, tokenizer_json: bytes, max_tokens: int, encode: EncodeSentence
) -> Part:
    """Wrap an exported text encoder."""
    logits = np.stack([encode(sentence) for sentence in GOLDEN_SENTENCES])
    entry_input = text_entry(max_tokens, tokenizer_json)
    sentences = np.asarray(GOLDEN_SENTENCES)
    return Part(
        "text",
        "onnx",
        precision,
        "text.onnx",
        file.read_bytes(),
        entry_input,
        tokenizer_json,
        sentences,
        logits,
        TEXT_TOLERANCE,
    )
