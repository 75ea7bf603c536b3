"""What a recorder has learnt of its site, read from the file that edge-monitor keeps; safe beside one that runs."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.alarms import STATE_VERSION

LOG = logging.getLogger(__name__)

_ARRAYS = ("keys", "names", "wanted", "threshold", "expected", "counts")


@dataclass(frozen=True, slots=True)
class LearntQuery:
    """One query. digest: of its codes and how they are put together; counts: windows of the site by distance in bits, [n_bins].

    threshold_bits: windows up to so many bits alarm, a fraction is the share of time in which one bit more does, None = it cannot
    alarm yet; wanted_per_day, expected_per_day: false alarms a day of listening, as edge-queries --explain tells them of this site.
    """

    name: str
    digest: bytes
    threshold_bits: float | None
    wanted_per_day: float
    expected_per_day: float | None
    counts: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Learnt:
    """A site. written_ns: wall clock of the recorder; hop_s: from window to window."""

    written_ns: int
    hop_s: float
    queries: tuple[LearntQuery, ...]


def read_learnt(path: Path) -> Learnt | None:
    """Return what was learnt; None where there is no file, an older one, or, with a warning, a damaged one."""
    try:
        content = path.read_bytes()  # whole: the next one takes its place by renaming
        written_ns = path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    except OSError as error:
        LOG.warning("%s: expected a learnt background, found: %s", path, error)
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            if int(file["version"]) != STATE_VERSION or "names" not in file.files:
                return None  # edge-monitor writes it anew
            arrays = {name: file[name] for name in _ARRAYS}
            hop_s = float(file["hop_s"])
        return Learnt(written_ns, hop_s, tuple(_queries(arrays)))
    except Exception as error:  # of a damaged zip: an unknown method, a password, an allocation ...
        LOG.warning("%s: expected a learnt background, found: %r", path, error)
        return None


def _queries(arrays: dict[str, NDArray[np.generic]]) -> list[LearntQuery]:
    """Return the queries of the arrays of a state. Raises ValueError."""
    counts = arrays["counts"].astype(np.float64)
    if counts.ndim != 2 or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(f"expected counts [n_queries, n_bins] from 0, found {arrays['counts'].shape}")
    values = [arrays[name].tolist() for name in _ARRAYS[:-1]]
    return [
        LearntQuery(
            str(name), bytes.fromhex(str(key)), _known(threshold), float(wanted), _known(expected), row
        )
        for key, name, wanted, threshold, expected, row in zip(*values, counts, strict=True)
    ]


def _known(value: float) -> float | None:
    """Return a number, None for NaN."""
    return None if np.isnan(value) else float(value)
