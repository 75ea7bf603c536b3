"""Sentences become token ids, by the tokenizer of a bundle. Nothing else imports tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import BundleError, MissingDependencyError

TokenIds = NDArray[np.int64]


def token_function(tokenizer_json: bytes, file: Path, max_tokens: int) -> Callable[[str], TokenIds]:
    """Return sentence -> ids int64 [1, n_tokens], cut at max_tokens; file: the encoder that they are for.

    Raises BundleError for an impossible tokenizer.
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

    def tokens(text: str) -> TokenIds:
        return np.asarray([tokenizer.encode(text).ids], dtype=np.int64)

    return tokens


def filled(ids: TokenIds, n_tokens: int | None, pad_id: int | None, file: Path) -> tuple[TokenIds, TokenIds]:
    """Return (ids, attention mask), int64 [1, n_tokens]: filled up with pad_id for a graph of fixed length.

    n_tokens: None where the graph takes any length. Raises BundleError where the bundle has no pad_id for it.
    """
    mask = np.ones_like(ids)
    if n_tokens is None or ids.shape[1] == n_tokens:
        return ids, mask
    if pad_id is None:
        raise BundleError(
            f"{file}: expected pad_id in the manifest for a graph of {n_tokens} tokens, found none; export again"
        )
    missing = ((0, 0), (0, n_tokens - ids.shape[1]))
    return np.pad(ids, missing, constant_values=pad_id), np.pad(mask, missing)
