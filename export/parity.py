"""Does a deployed graph give the codes that PyTorch gives? Agreement of bits, loss of retrieval, and the limits of a release."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from edge.errors import FieldcubeError
from train.data import Recording, decode
from train.metrics import centred_agreement, hamming_table, mean_average_precision, raw_agreement
from train.windows import cut_windows

Encode = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # [window_samples] -> [n_bits]

MAX_FLOAT_DIFFERENCE = 1e-4  # of a logit, float graph against PyTorch, relative to the largest logit
SURE = 1e-3  # |logit| from which every bit of a float graph must be PyTorch's
MIN_RAW_AGREEMENT = 0.97
MIN_CENTRED_AGREEMENT = 0.97
# All codes of queries come from the same quantised sentence encoder, so it may differ a little more from the float one.
MIN_TEXT_CENTRED_AGREEMENT = 0.95
MAX_MAP_LOSS = (
    0.01  # one point of mAP, and the weight of one window: among twenty clips two neighbours swap by chance
)


class ParityError(FieldcubeError):
    """A graph that is too far from the model that was trained; its bundle is not written."""


@dataclass(frozen=True, slots=True)
class LabelledWindows:
    """Real windows with the index of the query that each answers."""

    samples: NDArray[np.float32]  # [n, window_samples]
    classes: NDArray[np.int64]  # [n]; -1 = none of the queries
    queries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One line of the parity table."""

    graph: str
    size_bytes: int
    max_difference: float
    raw: float
    centred: float
    mean_average_precision: float
    map_change: float
    is_float: bool
    n_windows: int
    relative: float  # max_difference / the largest logit
    n_wrong: int  # bits that differ where PyTorch is sure

    def failures(self) -> list[str]:
        """What is below the limits, in words."""
        found = []
        if self.is_float and not self.relative <= MAX_FLOAT_DIFFERENCE:
            found.append(
                f"largest difference of a logit {self.relative:.2g} of the largest logit, limit {MAX_FLOAT_DIFFERENCE:g}"
            )
        if self.is_float and self.n_wrong:
            found.append(f"{self.n_wrong} other bits where |logit| is above {SURE:g}, limit 0")
        if self.raw < MIN_RAW_AGREEMENT:
            found.append(f"equal bits {self.raw:.4f}, limit {MIN_RAW_AGREEMENT}")
        limit = least_centred(self.graph)
        if self.centred < limit:
            found.append(f"equal bits, centred {self.centred:.4f}, limit {limit}")
        max_loss = MAX_MAP_LOSS + 1 / self.n_windows
        if self.map_change < -max_loss:
            found.append(f"mAP change {100 * self.map_change:+.2f} points, limit -{100 * max_loss:.1f}")
        return found


def least_centred(graph: str) -> float:
    """The limit of the centred agreement of bits; graph: its name, beginning with what it encodes."""
    return MIN_TEXT_CENTRED_AGREEMENT if graph.startswith("text") else MIN_CENTRED_AGREEMENT


def labelled_windows(
    recordings: Sequence[Recording], rate_hz: int, window_samples: int, query_of: Callable[[Recording], str]
) -> LabelledWindows:
    """Decode recordings into windows; `query_of` gives the sentence that a recording answers."""
    sentences = [query_of(r) for r in recordings]
    queries = tuple(dict.fromkeys(sentences))
    parts = [cut_windows(decode(r.file, rate_hz), window_samples) for r in recordings]
    classes = np.repeat([queries.index(s) for s in sentences], [len(p) for p in parts])
    return LabelledWindows(np.concatenate(parts), classes, queries)


def compare(
    graph: str,
    file: Path,
    reference: NDArray[np.float32],
    found: NDArray[np.float32],
    reference_map: float,
    found_map: float,
    is_float: bool,
    n_windows: int,
) -> ParityRow:
    """Put two sets of logits [n, n_bits] of the same inputs side by side; n_windows: in the database of the mAPs."""
    difference = float(np.abs(reference - found).max())
    is_other = ((found >= 0) != (reference >= 0)) & (np.abs(reference) > SURE)
    return ParityRow(
        graph,
        file.stat().st_size,
        difference,
        raw_agreement(reference, found),
        centred_agreement(reference, found),
        found_map,
        found_map - reference_map,
        is_float,
        n_windows,
        difference / float(np.abs(reference).max()),
        int(is_other.sum()),
    )


def retrieval(text: NDArray[np.float32], audio: NDArray[np.float32], windows: LabelledWindows) -> float:
    """Text-to-audio mAP by Hamming distance; text [n_queries, n_bits] in the order of windows.queries, audio [n, n_bits]."""
    return mean_average_precision(hamming_table(text, audio), np.arange(len(text)), windows.classes)


def compare_audio(
    graphs: Sequence[tuple[str, Path, bool]],
    open_graph: Callable[[Path], Encode],
    reference: NDArray[np.float32],
    text: NDArray[np.float32],
    windows: LabelledWindows,
) -> tuple[list[ParityRow], float]:
    """Run audio graphs (title, file, is it the float one) over the windows.

    Args:
        reference: PyTorch's logits of the windows [n, n_bits]; text: logits of windows.queries.

    Returns:
        A row for each graph, and the tolerance of the last: the 99.9th percentile of |difference| of its logits.
    """
    reference_map = retrieval(text, reference, windows)
    rows, tolerance = [], 0.0
    for title, file, is_float in graphs:
        encode = open_graph(file)
        found = np.stack([encode(window) for window in windows.samples])
        maps = reference_map, retrieval(text, found, windows)
        rows.append(compare(title, file, reference, found, *maps, is_float, len(found)))
        tolerance = float(np.quantile(np.abs(found - reference), 0.999))
    return rows, tolerance


def print_rows(rows: Sequence[ParityRow], n_windows: int, console: Console) -> None:
    """Print the parity table."""
    table = Table(title=f"parity with PyTorch on {n_windows} real inputs")
    for heading in ("graph", "MB", "max |diff|", "bits equal", "centred", "mAP", "change"):
        table.add_column(heading, justify="left" if heading == "graph" else "right")
    for row in rows:
        table.add_row(
            row.graph,
            f"{row.size_bytes / 1e6:.2f}",
            f"{row.max_difference:.2g}",
            f"{row.raw:.4f}",
            f"{row.centred:.4f}",
            f"{100 * row.mean_average_precision:.2f}",
            f"{100 * row.map_change:+.2f}",
        )
    console.print(table)


def require_parity(rows: Sequence[ParityRow]) -> None:
    """Raise ParityError, naming every graph that is below a limit."""
    failures = [f"{row.graph}: {failure}" for row in rows for failure in row.failures()]
    if failures:
        raise ParityError("no bundle written: " + "; ".join(failures))
