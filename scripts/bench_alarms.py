"""Measure what calibrated alarms cost: a window, the longest pause, the state, learning what is stored, memory."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge.alarms import Alarms
from edge.bundle import Bundle, default_bundle
from edge.monitor_alarms import LEARN_S
from edge.observation import Instant, Observation
from edge.reference import Reference, load_reference
from edge.watchlist import Query, QueryPart, Watchlist

Kind = Literal["plain", "confirm", "and", "or"]
KINDS: tuple[Kind, ...] = ("plain", "confirm", "and", "or")


def alarms(arguments: argparse.Namespace) -> int:
    """Decide on windows by calibrated alarms, lines of each kind: a window, the state, learning two stored days, memory."""
    rows = []
    for kind in KINDS:  # a process for each: memory is told of the whole process
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measured, (kind, arguments.queries, arguments.windows, arguments.hop)))
    print(f"calibrated alarms, {arguments.queries} lines, a window every {arguments.hop:g} s, 1 thread")
    print(
        "| lines | opened in s | a window, mean ms | longest ms | state MB on disk | two stored days learnt in s | peak MB |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print("| wanted | | 0.2 | | 1 | 10 | 150 |")
    return 0


def measured(kind: Kind, n_queries: int, n_windows: int, hop_s: float) -> list[str]:
    """Return the figures of lines of one kind, in this process."""
    bundle = Bundle.load(default_bundle())
    reference = load_reference(bundle)
    assert reference is not None  # the starter has one
    watchlist = listed(kind, n_queries, bundle, reference)
    begun = time.perf_counter()
    judge = Alarms(watchlist, reference, hop_s)
    opened_s = time.perf_counter() - begun
    times_ms = []
    for observation in observed(reference, watchlist.code_space, n_windows, hop_s):
        begun = time.process_time()  # what else the machine does is not counted
        judge.hear(observation)
        times_ms.append(1000 * (time.process_time() - begun))
    begun = time.perf_counter()
    judge.learn(observed(reference, watchlist.code_space, round(LEARN_S / hop_s), hop_s), judge.queries)
    learnt_s = time.perf_counter() - begun
    figures = (opened_s, float(np.mean(times_ms)), max(times_ms), len(judge.state()) / 1e6, learnt_s)
    formats = ("{:.2f}", "{:.3f}", "{:.1f}", "{:.3f}", "{:.1f}")
    return [
        kind,
        *(form.format(value) for form, value in zip(formats, figures, strict=True)),
        f"{peak_mb():.0f}",
    ]


def listed(kind: Kind, n_queries: int, bundle: Bundle, reference: Reference) -> Watchlist:
    """Return lines of one kind; combined ones have two sentences."""
    random = np.random.default_rng(0)
    texts, n_bytes = reference.text_codes, bundle.manifest.code_bits // 8
    codes = texts[random.integers(len(texts), size=(n_queries, 2))].copy()
    codes ^= random.integers(0, 256, codes.shape, np.uint8) & random.integers(0, 256, codes.shape, np.uint8)
    queries = []
    for i, (first, second) in enumerate(codes):
        parts = (QueryPart("first", first.tobytes()), QueryPart("second", second.tobytes()))
        options: dict[str, Any] = {"confirm": (2, 3)} if kind == "confirm" else {}
        if kind in ("and", "or"):
            options = {"combine": kind, "parts": parts}
        queries.append(Query(f"query {i}", f"query {i}", code=first.tobytes(), **options))
    return Watchlist(bundle.manifest.code_space, 8 * n_bytes, "", tuple(queries))


def observed(reference: Reference, code_space: str, n: int, hop_s: float) -> Iterator[Observation]:
    """Yield n windows of one recording, the reference's background again and again."""
    instant, rate_hz = Instant("", 0, None, "unset"), 32_000
    for i in range(n):
        code = reference.background[i % len(reference.background)].tobytes()
        first_sample = round(i * hop_s * rate_hz)
        yield Observation(
            "bench", 1, i, code, code_space, "stdin", first_sample, rate_hz, 5 * rate_hz, instant
        )


def peak_mb() -> float:
    """Return the most memory that this process ever held."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024 / 1e6


def add_parser(commands: Any) -> None:
    """Add alarms to the measurements."""
    command = commands.add_parser("alarms", help=alarms.__doc__, description=alarms.__doc__)
    command.add_argument("--queries", type=int, default=200)
    command.add_argument("--windows", type=int, default=5000)
    command.add_argument(
        "--hop", type=float, default=2.5, help="s from window to window (default %(default)s)"
    )
    command.set_defaults(measure=alarms)
