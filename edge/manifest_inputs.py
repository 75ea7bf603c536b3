"""What encoders take, as a manifest says it: sound, pictures, or token ids."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edge import require
from edge.errors import BundleError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class AudioInput:
    """Input of an audio encoder: float32 mono [window_samples] in [-1, 1] at sample_rate_hz."""

    sample_rate_hz: int
    window_samples: int

    def __post_init__(self) -> None:
        require.integer(BundleError, "sample_rate_hz", self.sample_rate_hz, 1, _MAX)
        require.integer(BundleError, "window_samples", self.window_samples, 1, _MAX)


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Input of an image encoder: RGB, size x size pixels, (x / 255 - mean) / std for each channel.

    resize: how an image becomes square; edge.images knows "shortest-side-bicubic-centre-crop" and
    "squash-bicubic", and refuses others when an encoder is opened.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str

    def __post_init__(self) -> None:
        require.integer(BundleError, "size", self.size, 1, _MAX)
        for name, triple, low in (("mean", self.mean, -math.inf), ("std", self.std, 1e-9)):
            if not isinstance(triple, tuple) or len(triple) != 3:
                raise require.wrong(BundleError, name, "three numbers", triple)
            for value in triple:
                require.number(BundleError, name, value, low, math.inf)
        require.text(BundleError, "resize", self.resize)


@dataclass(frozen=True, slots=True)
class TextInput:
    """Input of a text encoder: token ids from a tokenizers file, at most max_tokens of them.

    pad_id: id that fills a graph of fixed length up to max_tokens, None where no graph needs it.
    """

    max_tokens: int
    tokenizer: str
    tokenizer_sha256: str
    pad_id: int | None = None

    def __post_init__(self) -> None:
        require.integer(BundleError, "max_tokens", self.max_tokens, 1, _MAX)
        require_plain_name("tokenizer", self.tokenizer)
        require_sha256("tokenizer_sha256", self.tokenizer_sha256)
        if self.pad_id is not None:
            require.integer(BundleError, "pad_id", self.pad_id, 0, _MAX)


def require_plain_name(name: str, value: object) -> None:
    """Require a file name that cannot leave the bundle: no separator, no drive, not hidden."""
    require.text(BundleError, name, value)
    text = str(value)
    if any(mark in text for mark in "/\\:\0") or text.startswith(".") or text == "manifest.json":
        raise require.wrong(BundleError, name, "a plain file name inside the bundle", value)


def require_sha256(name: str, value: object) -> None:
    """Require a sha256 as hashlib.hexdigest gives it."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise require.wrong(BundleError, name, "a sha256 of 64 lower-case hexadecimal digits", value)
