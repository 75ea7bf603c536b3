"""Gauges of code collapse, logged every epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class BitGauges:
    """How well a set of codes uses its bits."""

    distinct: float  # distinct codes / items; healthy text codes: above 0.9
    bit_correlation: float  # mean |correlation| between pairs of bits; 0 is best
    effective_rank: float  # exp(entropy of the normalised singular values) of the signs; at most n_bits
    bit_entropy: float  # mean entropy of a bit in bits; 1 is best

    def __str__(self) -> str:
        return (
            f"distinct {self.distinct:.2f}, |bit correlation| {self.bit_correlation:.3f}, "
            f"effective rank {self.effective_rank:.0f}, bit entropy {self.bit_entropy:.2f}"
        )


def bit_gauges(logits: NDArray[np.float32]) -> BitGauges:
    """Measure the codes of `logits`, [n_items, n_bits], n_items >= 2."""
    bits = logits >= 0
    n_items = len(bits)
    distinct = len(np.unique(np.packbits(bits, axis=1), axis=0)) / n_items
    share = np.clip(bits.mean(axis=0), 1e-9, 1 - 1e-9)
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    signs = bits.astype(np.float64) * 2 - 1
    centred = signs - signs.mean(axis=0)
    spread = centred.std(axis=0)
    varied = centred[:, spread > 0] / spread[spread > 0]
    correlation = np.abs(varied.T @ varied / n_items)
    n_varied = correlation.shape[0]
    off_diagonal = (correlation.sum() - n_varied) / max(n_varied * (n_varied - 1), 1) if n_varied > 1 else 1.0
    singular = np.linalg.svd(signs, compute_uv=False)
    shares = singular / singular.sum()
    shares = shares[shares > 1e-12]
    return BitGauges(
        distinct, float(off_diagonal), float(np.exp(-(shares * np.log(shares)).sum())), float(entropy.mean())
    )
