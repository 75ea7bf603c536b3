"""Measure fieldcube and print a table for each figure: python scripts/bench.py topk."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench_alarms
import bench_ingest
import bench_search
import bench_training
import numpy as np
import soundfile

from edge.bundle import AudioInput, Bundle, default_bundle
from edge.codes import from_planes, top_k
from edge.encoder import available_runtimes, open_audio_encoder
from edge.store_reader import Hit, StoreReader
from tests.simulate.large_store import build_large_store

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
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


def encoder(arguments: argparse.Namespace) -> int:
    """Time to encode one window of sound, batch 1, one thread, in every runtime that is installed."""
    bundle = Bundle.load(arguments.bundle or default_bundle())
    runs: dict[str, Callable[[], Any]] = {}
    entries = [entry for entry in bundle.manifest.encoders if entry.modality == "audio"]
    for entry in entries:
        if entry.runtime in available_runtimes():
            opened = open_audio_encoder(bundle, entry.runtime)
            noise = np.random.default_rng(0).normal(0, 0.1, opened.window_samples).astype(np.float32)
            runs[f"{entry.runtime} {entry.precision}"] = partial(opened.encode, noise)
    window_s = opened.window_samples / opened.sample_rate_hz
    print(f"encoder, one window of {window_s:g} s, 1 thread, median of {arguments.runs} runs")
    rows = []
    for name, values in interleaved_ms(runs, arguments.runs).items():
        middle = statistics.median(values)
        rows.append([name, f"{middle:.2f}", f"{min(values):.2f}", f"{middle / 1e3 / window_s:.5f}"])
    print_table(["runtime", "ms", "fastest ms", "real-time factor"], rows)
    return 0


def monitor(arguments: argparse.Namespace) -> int:
    """edge-monitor as a process: memory, start to first window, replay speed; sentences compiled at the start."""
    recording = arguments.input.resolve()
    n_copies = max(1, round(arguments.minutes * 60 / soundfile.info(recording).duration))
    bundle = Bundle.load(arguments.bundle or default_bundle())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        audio = bundle.encoder_entry("audio").input
        assert isinstance(audio, AudioInput)
        first = Path(folder) / "window.wav"  # one window: such a run ends just after it
        soundfile.write(first, np.zeros(audio.window_samples, np.int16), audio.sample_rate_hz)
        for runtime in available_runtimes():
            base = [
                sys.executable,
                "-m",
                "edge.monitor",
                "--queries",
                str(arguments.queries.resolve()),
                "--json",
            ]
            base += [
                "--bundle",
                str(bundle.folder.resolve()),
                "--runtime",
                runtime,
                "--store",
                f"{runtime}.sqlite",
            ]
            starts = [watched([*base, "--input", str(first)], folder)[0] for _ in range(5)]
            wall_s, summary, peak_mb, steady_mb = watched(
                [*base, "--input", *[str(recording)] * n_copies], folder
            )
            start_s, speed = statistics.median(starts), 1 / summary["real_time_factor"]
            figures = [f"{peak_mb:.0f}", f"{steady_mb:.0f}", f"{start_s:.2f}", f"{speed:.0f}"]
            rows.append([runtime, *figures, f"{summary['seconds_audio'] / wall_s:.0f}"])
    print(f"edge-monitor, {n_copies} x {recording.name}, 1 thread, store and clips, half-window hop")
    print("start: whole command on one window, sentences compiled; median of 5")
    header = ["runtime", "peak MB", "steady MB", "start s", "times real time", "with start and end"]
    print_table(header, rows)
    return 0


def watched(command: Sequence[str], folder: str) -> tuple[float, dict[str, Any], float, float]:
    """Run a command that ends with a summary; return (seconds, summary, peak MB, MB in its second half)."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    used: list[float] = []
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=subprocess.DEVNULL
        )
        status = Path(f"/proc/{process.pid}/status")
        peak_mb = 0.0
        while process.poll() is None:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            if "VmRSS" in fields:  # not while it is ending
                used.append(int(fields["VmRSS"].split()[0]) * 1024 / 1e6)
                peak_mb = int(fields["VmHWM"].split()[0]) * 1024 / 1e6
            time.sleep(0.002)
        seconds = time.perf_counter() - start
        out.seek(0)
        summary: dict[str, Any] = json.loads(out.read().splitlines()[-1])
    return seconds, summary, peak_mb, statistics.median(used[len(used) // 2 :])


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
    command = commands.add_parser("encoder", help=encoder.__doc__, description=encoder.__doc__)
    command.add_argument("--bundle", type=Path, help="(default: the starter)")
    command.add_argument("--runs", type=int, default=50, help="interleaved runs (default 50)")
    command.set_defaults(measure=encoder)
    command = commands.add_parser("monitor", help=monitor.__doc__, description=monitor.__doc__)
    command.add_argument("--bundle", type=Path, help="(default: the starter)")
    command.add_argument(
        "--queries", type=Path, default=EXAMPLES / "watchlist.txt", help="(default: the example)"
    )
    command.add_argument(
        "--input", type=Path, default=EXAMPLES / "forest_minute.ogg", help="(default: the example)"
    )
    command.add_argument("--minutes", type=float, default=20.0, help="of sound, by repeating the input (20)")
    command.set_defaults(measure=monitor)
    bench_alarms.add_parser(commands)
    bench_training.add_parsers(commands)
    bench_ingest.add_parser(commands)
    bench_search.add_parsers(commands)
    arguments = parser.parse_args(argv)
    result: int = arguments.measure(arguments)
    return result


if __name__ == "__main__":
    sys.exit(main())
