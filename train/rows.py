"""Rows of figures: CSV, a plot of mAP against bits, and tables beside the paper's."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from train.gauges import BitGauges
from train.paper import AVERAGE, ENCODERS, PREFIX, TABLE_OF_KIND, beside
from train.retrieval import DEPTH, RetrievalFigures

POOLED = "pooled"  # group name: all groups as one database
KEPT_SHARE = 0.95  # of the widest code's mAP: what the knee must keep


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one representation on one group of one data set."""

    dataset: str
    encoder: str
    representation: str
    n_bits: int  # 0 = continuous
    group: str  # a group, POOLED, or AVERAGE (plain mean over the groups)
    figures: RetrievalFigures
    zero_shot: float  # accuracy, 0..1; NaN where the nearest query is no class
    gauges: BitGauges | None = None  # of the items' codes


def flat(row: Row) -> dict[str, object]:
    """One line of the CSV: names, counts, then shares between 0 and 1; empty where a figure does not exist."""
    found: dict[str, object] = {
        "dataset": row.dataset,
        "encoder": row.encoder,
        "representation": row.representation,
        "n_bits": row.n_bits,
        "group": row.group,
        "n_queries": row.figures.n_queries,
        "n_items": row.figures.n_items,
    }
    for k in sorted(row.figures.precision, reverse=True):
        found[f"map_{k}_retrieved"] = row.figures.map_retrieved[k]
        found[f"map_{k}_relevant"] = row.figures.map_relevant[k]
        found[f"precision_{k}"] = row.figures.precision[k]
    found["zero_shot"] = row.zero_shot
    gauges = asdict(row.gauges) if row.gauges else dict.fromkeys(BitGauges.__dataclass_fields__)
    found |= gauges
    return {k: "" if v is None or (isinstance(v, float) and np.isnan(v)) else v for k, v in found.items()}


def write_csv(rows: Sequence[Mapping[str, object]], file: Path) -> None:
    """Write mappings of the same keys, one a line; numbers with six digits."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})


def summary(rows: Iterable[Row], title: str) -> Table:
    """Every representation but prefixes on the pool and on the groups' average, percent."""
    table = Table(title=f"{title}, percent")
    for column in ("data", "encoder", "representation", "group"):
        table.add_column(column)
    for column in ("mAP@1000", "mAP@1000 relevant", "P@1", "P@10", "zero-shot"):
        table.add_column(column, justify="right")
    for row in rows:
        if row.group not in (POOLED, AVERAGE) or row.representation.endswith(PREFIX):
            continue
        found = row.figures
        numbers = (
            found.map_retrieved[DEPTH],
            found.map_relevant[DEPTH],
            found.precision[1],
            found.precision[10],
            row.zero_shot,
        )
        shown = ["-" if np.isnan(n) else f"{100 * n:.2f}" for n in numbers]
        table.add_row(row.dataset, row.encoder, row.representation, row.group, *shown)
    return table


def paper_tables(rows: Sequence[Row], kind_of: Mapping[str, str], encoder: str, name: str) -> list[Table]:
    """Our rows beside the paper's tables of the same data; none where the paper has no such data.

    Args:
        kind_of: the kind ("inat24", "birdset", ...) of each data set's name.
        encoder: name of our towers; the paper's rows of all its encoders are shown when it is none of theirs.
        name: what our rows are called.
    """
    printed = []
    for number in ("I", "II", "III", "IV"):
        kind = {"IV": "birdset"}.get(number) or next(k for k, t in TABLE_OF_KIND.items() if t == number)
        own = [r for r in rows if kind_of.get(r.dataset) == kind]
        if not own:
            continue
        default = [e for e in ENCODERS.values() if (e == "BioLingual") == (number != "I")]
        theirs = [ENCODERS[encoder]] if ENCODERS.get(encoder) in default else default
        printed.append(beside(number, theirs, columns_of(own, number), name))
    return printed


def columns_of(rows: Sequence[Row], table: str) -> dict[str, dict[str, float]]:
    """Percent of each column of a paper's table, for each representation: groups in I and II, whole data sets in III and IV."""
    by_group = table in ("I", "II")
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        value = row.zero_shot if table == "IV" else row.figures.map_retrieved[DEPTH]
        if np.isnan(value) or by_group == (row.group == POOLED):
            continue
        own = found.setdefault(row.representation, {})
        own[row.group if by_group else row.dataset] = 100 * value
    if not by_group:
        for own in found.values():
            own[AVERAGE] = float(np.mean(list(own.values())))
    return found


def knee(maps: Mapping[int, float]) -> int:
    """Fewest bits that keep 95 % of the mAP of the widest code."""
    least = KEPT_SHARE * maps[max(maps)]
    return min(n_bits for n_bits, value in maps.items() if value >= least)


def curves(rows: Sequence[Row], dataset: str) -> tuple[dict[str, dict[int, float]], dict[str, float]]:
    """Pooled mAP@1000 in percent against bits for each kind of code, and that of each continuous representation.

    Re-ranked rows are left out.
    """
    by_bits: dict[str, dict[int, float]] = {}
    flats: dict[str, float] = {}
    for row in rows:
        if row.dataset != dataset or row.group != POOLED or "," in row.representation:
            continue
        percent = 100 * row.figures.map_retrieved[DEPTH]
        if row.n_bits:
            kind = row.representation.removesuffix(PREFIX).removesuffix(f" {row.n_bits}")
            by_bits.setdefault(f"{row.encoder}, {kind}", {})[row.n_bits] = percent
        else:
            flats[f"{row.encoder}, {row.representation}"] = percent
    return by_bits, flats


def knees(rows: Sequence[Row]) -> list[str]:
    """A sentence on the knee of every curve of several widths."""
    found = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        for name, maps in curves(rows, dataset)[0].items():
            if len(maps) > 1:
                widest, least = max(maps), knee(maps)
                found.append(
                    f"{dataset}, {name}: {least} bits keep {KEPT_SHARE:.0%} of the mAP@1000 of {widest} ({maps[least]:.2f} of {maps[widest]:.2f} %)"
                )
    return found


def plot_bits(rows: Sequence[Row], file: Path) -> None:
    """Draw mAP@1000 against bits, one panel for each data set; continuous representations as level lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    datasets = list(dict.fromkeys(r.dataset for r in rows))
    drawing = Figure(figsize=(6.0 * len(datasets), 4.5), layout="constrained")
    FigureCanvasAgg(drawing)
    for number, dataset in enumerate(datasets):
        axes = drawing.add_subplot(1, len(datasets), number + 1)
        by_bits, flats = curves(rows, dataset)
        for name, maps in by_bits.items():
            widths = sorted(maps)
            axes.plot(widths, [maps[w] for w in widths], marker="o", label=name)
        for name, percent in flats.items():
            axes.axhline(percent, linestyle="--", linewidth=1, color="grey")
            axes.annotate(name, (0.01, percent), xycoords=("axes fraction", "data"), fontsize=7, va="bottom")
        axes.set_xscale("log", base=2)
        ticks = sorted({w for maps in by_bits.values() for w in maps})
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.set(title=dataset, xlabel="bits", ylabel="mAP@1000, percent")
        if by_bits:
            axes.legend(fontsize=7)
    file.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(file, dpi=120)
