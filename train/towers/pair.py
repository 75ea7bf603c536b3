"""The contract of a pretrained pair of towers: observation and sentence -> features in one joint space."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from edge.bundle import AudioInput, ImageInput
from edge.errors import FieldcubeError
from train.lora import LoraSettings


class TowerError(FieldcubeError):
    """A tower that cannot be opened, or is none that this project can deploy."""


@lru_cache(maxsize=4)  # to read one takes longer than to use it
def _tokenizer(content: bytes, max_tokens: int, pad_id: int) -> Tokenizer:
    tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=pad_id)
    return tokenizer


def without_padding(content: bytes, source: str) -> bytes:
    """A tokenizer file that neither pads nor cuts, as TowerPair promises; published ones often do. Raises TowerError for what is none."""
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # tokenizers raises plain Exception
        raise TowerError(
            f"{source}: expected a file of the tokenizers library, found: {first_line(error)}; fetch the folder again"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return str(tokenizer.to_str()).encode("utf-8")


def first_line(error: Exception) -> str:
    """The kind of an error of another library and how its message begins."""
    lines = str(error).splitlines()
    return textwrap.shorten(f"{type(error).__name__}: {lines[0] if lines else ''}", 400, placeholder=" ...")


@dataclass(frozen=True, slots=True)
class TowerPair:
    """Two towers without heads, in eval mode; nothing else depends on where they come from.

    observation: audio: samples float32 [batch, window_samples] in [-1, 1]; image: pixels float32 [batch, 3, size, size], normalised as
        `input` says -> features [batch, n_features], in the joint space, not normalised. A front end (log-mel) is inside, in a
        submodule whose class is called LogMel...
    text: input_ids, attention_mask int64 [batch, n_tokens] -> features [batch, n_features], not normalised.
    tokenizer_json: of the tokenizers library; adds special tokens itself, does not pad.
    temperature: of the pretrained similarity, 1 / exp(logit scale).
    """

    name: str  # short, for code spaces: "bioclip-2"
    source: str  # as given to open_towers
    modality: Literal["audio", "image"]
    observation: nn.Module
    text: nn.Module
    input: AudioInput | ImageInput
    tokenizer_json: bytes
    max_tokens: int
    pad_id: int
    n_features: int
    lora: LoraSettings
    licence: str
    temperature: float

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, int64 [n, longest], cut at max_tokens and padded."""
        encoded = _tokenizer(self.tokenizer_json, self.max_tokens, self.pad_id).encode_batch(list(texts))
        ids = torch.tensor([each.ids for each in encoded])
        return ids, torch.tensor([each.attention_mask for each in encoded])

    def example(self, n: int = 2) -> Tensor:
        """Quiet noise in the shape of observations, float32 [n, ...], the same every time."""
        noise = torch.Generator().manual_seed(0)
        if isinstance(self.input, AudioInput):
            return 0.1 * torch.randn(n, self.input.window_samples, generator=noise)
        return torch.randn(n, 3, self.input.size, self.input.size, generator=noise)


@torch.no_grad()
def embed_texts(pair: TowerPair, texts: Sequence[str], batch: int = 64) -> NDArray[np.float32]:
    """Features of sentences, [n, n_features]."""
    parts = [pair.text(*pair.tokenize(texts[i : i + batch])) for i in range(0, len(texts), batch)]
    return torch.cat(parts).float().cpu().numpy()


@torch.no_grad()
def embed_observations(pair: TowerPair, batches: Iterable[Tensor]) -> NDArray[np.float32]:
    """Features of batches of windows or pictures, [n, n_features]."""
    return torch.cat([pair.observation(batch) for batch in batches]).float().cpu().numpy()
