"""One setting varied and all else equal: figures of every value over several seeds, with their spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from train.evaluate_codes import Features, Head, binary, continuous, measure
from train.questions import Questions
from train.retrieval import DEPTH
from train.rows import POOLED

N_ORDERS = 5  # shuffles of the held-out items: the spread over seeds is wider than that over more


@dataclass(frozen=True, slots=True)
class Trial:
    """What one training gives: heads, and the held-out features that they are judged on."""

    questions: Questions
    features: Features
    text_head: Head
    observation_head: Head


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures of one representation after one training, on the pool of the held-out items; shares between 0 and 1."""

    over: str
    value: str
    seed: int
    representation: str  # "binary", "asymmetric" or "continuous"
    n_bits: int
    map_1000_retrieved: float
    map_1000_relevant: float
    precision_1: float
    zero_shot: float
    distinct: float  # codes / items; NaN for continuous
    training_s: float


def judge(over: str, value: str, seed: int, trial: Trial, training_s: float) -> list[Outcome]:
    """Measure the codes of a trial, Hamming and asymmetric, and its features."""
    codes = binary(trial.questions, trial.features, trial.text_head, trial.observation_head, bits=())
    kept = [r for r in codes if r.finer is None and not r.name.startswith("sigmoid")]
    found = []
    for representation in [*kept, continuous("continuous", trial.questions, trial.features)]:
        rows = measure("held out", "", representation, trial.questions, N_ORDERS)
        row = next(r for r in rows if r.group == POOLED)
        figures = row.figures
        found.append(
            Outcome(
                over,
                value,
                seed,
                representation.name.split()[0],
                representation.n_bits,
                figures.map_retrieved[DEPTH],
                figures.map_relevant[DEPTH],
                figures.precision[1],
                row.zero_shot,
                row.gauges.distinct if row.gauges else float("nan"),
                training_s,
            )
        )
    return found


def sweep(
    over: str, values: Sequence[str], seeds: Sequence[int], train: Callable[[str, int], Trial]
) -> list[Outcome]:
    """Train once for every value and seed, and judge each."""
    found = []
    for value in values:
        for seed in seeds:
            start = time.monotonic()
            trial = train(value, seed)
            found += judge(over, value, seed, trial, time.monotonic() - start)
    return found


def gathered(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], list[Outcome]]:
    """Outcomes of all seeds for each (value, representation), in the order of the values."""
    found: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault((outcome.value, outcome.representation), []).append(outcome)
    return found


def mean_and_spread(numbers: Sequence[float]) -> tuple[float, float]:
    """Mean, and the sample standard deviation (0 for one number)."""
    return float(np.mean(numbers)), float(np.std(numbers, ddof=1)) if len(numbers) > 1 else 0.0


def table_of(outcomes: Sequence[Outcome]) -> Table:
    """Every value's mean and spread over the seeds, percent."""
    seeds = len({o.seed for o in outcomes})
    told = f"{seeds} seeds, mean ± standard deviation" if seeds > 1 else "1 seed: its spread is not known"
    table = Table(title=f"sweep over {outcomes[0].over}, {told}, percent")
    for column in (outcomes[0].over, "representation", "bits"):
        table.add_column(column)
    shown = ("map_1000_retrieved", "map_1000_relevant", "precision_1", "zero_shot", "distinct")
    for column in ("mAP@1000", "mAP@1000 relevant", "P@1", "zero-shot", "distinct codes"):
        table.add_column(column, justify="right")
    for (value, representation), own in gathered(outcomes).items():
        cells = []
        for name in shown:
            mean, spread = mean_and_spread([getattr(o, name) for o in own])
            shown_spread = f" ± {100 * spread:.2f}" if seeds > 1 else ""
            cells.append("-" if np.isnan(mean) else f"{100 * mean:.2f}{shown_spread}")
        table.add_row(value, representation, str(own[0].n_bits or "-"), *cells)
    return table


def plot_sweep(outcomes: Sequence[Outcome], file: Path) -> None:
    """Draw mAP@1000 of every value with the spread over the seeds; bits on a logarithmic axis, other values side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(6.5, 4.5), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.add_subplot()
    lines: dict[str, dict[str, tuple[float, float]]] = {}
    for (value, representation), own in gathered(outcomes).items():
        spread = mean_and_spread([100 * o.map_1000_retrieved for o in own])
        lines.setdefault(representation, {})[value] = spread
    values = list(dict.fromkeys(o.value for o in outcomes))
    places: Mapping[str, float] = {v: float(i) for i, v in enumerate(values)}
    if outcomes[0].over == "bits":
        places = {v: float(v) for v in values}
        axes.set_xscale("log", base=2)
    for representation, points in lines.items():
        means, spreads = zip(*points.values(), strict=True)
        axes.errorbar(
            [places[v] for v in points], means, spreads, marker="o", capsize=3, label=representation
        )
    axes.set_xticks([places[v] for v in values], values)
    axes.set(xlabel=outcomes[0].over, ylabel="mAP@1000, percent")
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(file, dpi=120)
