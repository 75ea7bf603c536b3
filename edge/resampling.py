"""Resampling of a contiguous stream to the encoder's rate, the same bits whatever the size of the pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class Cutter:
    """Cuts a stream of arrays of any length into arrays of exactly n_samples."""

    def __init__(self, n_samples: int) -> None:
        self._piece: Samples = np.empty(n_samples, np.float32)
        self._n_filled = 0

    def push(self, samples: Samples) -> Iterator[Samples]:
        """Take samples and yield every piece that is full; each is owned by the caller."""
        taken = 0
        while taken < len(samples):
            n = min(len(samples) - taken, len(self._piece) - self._n_filled)
            self._piece[self._n_filled : self._n_filled + n] = samples[taken : taken + n]
            self._n_filled += n
            taken += n
            if self._n_filled == len(self._piece):
                full, self._piece, self._n_filled = self._piece, np.empty_like(self._piece), 0
                yield full

    def rest(self) -> Samples:
        """Return what does not fill a piece (may be empty) and begin anew."""
        rest: Samples = self._piece[: self._n_filled].copy()
        self._n_filled = 0
        return rest


class Resampler:
    """Brings mono sound from one rate to another with soxr HQ.

    soxr is fed in steps of one second of input, whatever push is given, so that its output cannot depend on
    how a file or a sound card cut the sound. In all, n samples give round(n * rate_hz / rate_in_hz).
    """

    def __init__(self, rate_in_hz: int, rate_hz: int) -> None:
        self._steps = Cutter(rate_in_hz)
        self._soxr: Any = None
        if rate_in_hz != rate_hz:
            self._soxr = soxr.ResampleStream(rate_in_hz, rate_hz, 1, dtype="float32", quality="HQ")

    def push(self, samples: Samples) -> Iterator[Samples]:
        """Take samples float32 [n] at rate_in_hz and yield what is ready at rate_hz."""
        if self._soxr is None:
            yield samples
            return
        for step in self._steps.push(samples):
            yield self._soxr.resample_chunk(step)

    def finish(self) -> Samples:
        """Return the end of the stream; the resampler is of no use afterwards."""
        rest = self._steps.rest()
        if self._soxr is None:
            return rest
        return np.asarray(self._soxr.resample_chunk(rest, last=True), np.float32)
