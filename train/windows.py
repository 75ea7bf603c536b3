"""Windows of whole recordings, cut as a recorder cuts files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cut_windows(audio: NDArray[np.float32], window_samples: int) -> NDArray[np.float32]:
    """Windows end to end, the last one aligned to the recording's end, a short recording repeated; float32 [n, window_samples]."""
    if len(audio) < window_samples:
        return np.resize(audio, window_samples)[None]
    starts = list(range(0, len(audio) - window_samples + 1, window_samples))
    if len(audio) - starts[-1] - window_samples >= window_samples // 20:  # a quarter of a second of 5 s
        starts.append(len(audio) - window_samples)
    return np.stack([audio[s : s + window_samples] for s in starts])
