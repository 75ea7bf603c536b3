"""Measure fieldcube and print a table for each figure: python scripts/bench.py topk."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from edge.bundle import Bundle, default_bundle
from edge.codes import from_planes, top_k
from edge.store_reader import Hit, StoreReader
from tests.simulate.large_store import build_large_store

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
    """Exact top-k of random codes in memory, one thread, against faiss and the memory limit."""
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
    what = f"top-{arguments.k} of {arguments.codes:,} codes of 256 bits"
    print(f"{what}, 1 thread, {arguments.runs} interleaved runs (faiss: IndexBinaryFlat)")
    rows = [
        [name, f"{middle[name]:.1f}", f"{min(values):.1f}", f"{middle['fieldcube'] / middle[name]:.2f}"]
        for name, values in times.items()
    ]
    print_table(["what", "median ms", "fastest ms", "fieldcube / this"], rows)
    return 0


def search(arguments: argparse.Namespace) -> int:
    """edge-search over a large store, whole command (start of Python, text encoder, scan), warm cache."""
    bundle = Bundle.load(arguments.bundle or default_bundle())
    space = bundle.manifest.code_space
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "large.sqlite"
        build_large_store(path, arguments.observations, space, n_bytes=bundle.manifest.code_bits // 8)
        command = [sys.executable, "-m", "edge.search", "a dog barking", "--json", "--top", str(arguments.k)]
        command += ["--store", str(path), "--bundle", str(bundle.folder)]
        code = np.random.default_rng(1).integers(0, 256, bundle.manifest.code_bits // 8, dtype=np.uint8)

        def scan() -> list[Hit]:
            with StoreReader.open(path) as reader:
                return list(reader.top_k(code, space, arguments.k))

        runs: dict[str, Callable[[], Any]] = {
            "edge-search, whole command": lambda: subprocess.run(
                command, check=True, capture_output=True, cwd=Path(__file__).resolve().parents[1]
            ),
            "its scan of the store": scan,
            "reading the file": path.read_bytes,
        }
        times = interleaved_ms(runs, arguments.runs)
        n_bytes = sum(each.stat().st_size for each in Path(folder).glob("large.sqlite*"))
    read_ms = statistics.median(times["reading the file"])
    print(
        f"edge-search, top-{arguments.k} of {arguments.observations:,} observations, median of {arguments.runs} runs; "
        f"{n_bytes / arguments.observations:.1f} bytes an observation on disk"
    )
    rows = []
    for name, values in times.items():
        middle = statistics.median(values)
        rows.append([name, f"{middle:.0f}", f"{min(values):.0f}", f"{middle / read_ms:.2f}"])
    print_table(["what", "ms", "fastest ms", "this / reading the file"], rows)
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
    command = commands.add_parser("search", help=search.__doc__, description=search.__doc__)
    command.add_argument(
        "--observations", type=int, default=10_000_000, help="how many are stored (default 10,000,000)"
    )
    command.add_argument("-k", type=int, default=20, help="how many to find (default 20)")
    command.add_argument("--runs", type=int, default=10, help="interleaved runs (default 10)")
    command.add_argument(
        "--bundle", type=Path, help="the bundle that encodes the text (default: the starter)"
    )
    command.add_argument(
        "--folder", type=Path, help="where the store is built (default: the temporary folder)"
    )
    command.set_defaults(measure=search)
    arguments = parser.parse_args(argv)
    result: int = arguments.measure(arguments)
    return result


if __name__ == "__main__":
    sys.exit(main())
