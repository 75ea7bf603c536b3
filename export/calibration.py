"""The probability of a match, for a bundle whose checkpoint brings none: from labelled observations, put to random watchlists."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.calibrate import as_notes, fit_logistic, simulate

NOTHING = -1  # class of an observation that shows none of the sentences
MIN_CLASSES = 3  # a watchlist of one sentence has no nearest one
MIN_OWNERS = 50  # fewer recordings or pictures make no probability
MIN_EACH = 20  # pairs that are right, and that are wrong


def fitted_calibration(
    observations: NDArray[np.float32],
    classes: NDArray[np.int64],
    owners: NDArray[np.int64],
    sentences: NDArray[np.float32],
    decoys: NDArray[np.float32],
    source: str,
) -> dict[str, Any] | None:
    """Fit how often the nearest sentence is right, given its distance; None where these observations cannot tell.

    Args:
        observations: logits, or bits as 1 and -1, [n, n_bits]; classes: [n], row of the sentence that each shows, or NOTHING.
        owners: [n], which recording or event each is of; sentences: [n_sentences, n_bits]; decoys: [n_decoys, n_bits].
        source: what was observed, for people.
    """
    shown = np.setdiff1d(classes, [NOTHING])
    if len(shown) < MIN_CLASSES or len(np.unique(owners)) < MIN_OWNERS:
        return None
    pairs = simulate(observations, classes, owners, sentences, decoys, NOTHING)
    n_right = int(pairs.correct.sum())
    if min(n_right, len(pairs.correct) - n_right) < MIN_EACH:
        return None
    fitted = fit_logistic(pairs.distances, pairs.correct)
    return as_notes(fitted, pairs, source) if fitted.coefficient < 0 else None


def as_signs(codes: NDArray[np.uint8], n_bits: int) -> NDArray[np.float32]:
    """Bits of packed codes [n, n_bytes] as 1 and -1, [n, n_bits]."""
    bits = np.unpackbits(np.ascontiguousarray(codes), axis=1, count=n_bits, bitorder="little")
    return 2 * bits.astype(np.float32) - 1
