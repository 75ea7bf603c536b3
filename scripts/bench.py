"""Measure fieldcube and print a table for each figure: python scripts/bench.py topk"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from edge.codes import from_planes, top_k

FAISS_HINT = "faiss is not installed; to compare with it: pip install faiss-cpu"


def interleaved_ms(runs: dict[str, Callable[[], Any]], n_runs: int) -> dict[str, list[float]]:
    """Time each function n_runs times in turn, so that what else the machine does hits all alike; ms."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for function in runs.values():
        function()  # warm up
    for _ in range(n_runs):
        for name, function in runs.items():
            start = time.perf_counter()
            function()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    for row in (header, ["-" * len(name) for name in header], *rows):
        print("| " + " | ".join(row) + " |")


def topk(arguments: argparse.Namespace) -> int:
    """Exact top-k of random codes in memory, one thread, against faiss IndexBinaryFlat and the memory limit."""
    random = np.random.default_rng(0)
    planes = random.integers(0, 2**64, (4, arguments.codes), dtype=np.uint64)
    query = random.integers(0, 256, 32, dtype=np.uint8)
    runs: dict[str, Callable[[], Any]] = {
        "fieldcube": lambda: top_k(query, planes, arguments.k),
        "memory limit": planes.sum,
    }
    try:
        import faiss  # only to compare, in no extra of the package
    except ImportError:
        print(FAISS_HINT, file=sys.stderr)
    else:
        faiss.omp_set_num_threads(1)
        index = faiss.IndexBinaryFlat(256)
        index.add(from_planes(planes))
        runs["faiss"] = lambda: index.search(query[None], arguments.k)
        distances, _ = runs["fieldcube"]()
        if not np.array_equal(distances, runs["faiss"]()[0][0]):
            print("fieldcube and faiss found different distances", file=sys.stderr)
            return 1
    times = interleaved_ms(runs, arguments.runs)
    middle = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"top-{arguments.k} of {arguments.codes:,} codes of 256 bits, 1 thread, {arguments.runs} interleaved runs"
    )
    rows = [
        [name, f"{middle[name]:.1f}", f"{min(values):.1f}", f"{middle['fieldcube'] / middle[name]:.2f}"]
        for name, values in times.items()
    ]
    print_table(["what", "median ms", "fastest ms", "fieldcube / this"], rows)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="MEASUREMENT")
    command = commands.add_parser("topk", help=topk.__doc__, description=topk.__doc__)
    command.add_argument("--codes", type=int, default=10_000_000, help="how many codes (default 10,000,000)")
    command.add_argument("-k", type=int, default=100, help="how many to find (default 100)")
    command.add_argument("--runs", type=int, default=20, help="interleaved runs (default 20)")
    command.set_defaults(measure=topk)
    arguments = parser.parse_args(argv)
    result: int = arguments.measure(arguments)
    return result


if __name__ == "__main__":
    sys.exit(main())
