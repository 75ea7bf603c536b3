"""Build a store of many observations in seconds, as a year of recording would leave it; the codes are random.

Half of the observations come from one microphone, half from 10-minute files. Random codes cannot be compressed and
no query is nearer to them than to a real recording, so that both size and time are those of the worst case.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from edge.store import BLOCK_OBSERVATIONS, ObservationStore
from edge.store_blocks import Columns, pack_columns
from edge.store_schema import INSERT_BLOCK, connect_writer, transaction

RATE_HZ = 32_000
WINDOW_SAMPLES = 160_000  # 5 s
WINDOWS_PER_FILE = 120
FIRST_WALL_NS = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z
_BLOCKS_PER_COMMIT = 64


def build_large_store(path: Path, n: int, code_space: str, *, n_bytes: int = 32, seed: int = 0) -> None:
    """Write n observations with random codes of n_bytes into a new store at path, without syncing each commit."""
    ObservationStore.open(path, "simulated").close()
    rng = np.random.default_rng(seed)
    connection = connect_writer(path)
    connection.execute("PRAGMA synchronous = OFF")
    with transaction(connection):
        n_files = n // WINDOWS_PER_FILE + 1
        names = ((i + 2, f"card-07/2026/recorder_{i:07d}.wav") for i in range(n_files))
        connection.execute("INSERT INTO code_space (id, name) VALUES (1, ?)", (code_space,))
        connection.execute("INSERT INTO boot (id, name) VALUES (1, 'f0e1d2c3-0000-4000-8000-000000000001')")
        connection.execute("INSERT INTO source (id, name) VALUES (1, 'microphone:USB Audio')")
        connection.executemany("INSERT INTO source (id, name) VALUES (?, ?)", names)
    starts = range(0, n, BLOCK_OBSERVATIONS)
    for batch in range(0, len(starts), _BLOCKS_PER_COMMIT):
        with transaction(connection):
            for first_seq in starts[batch : batch + _BLOCKS_PER_COMMIT]:
                n_rows = min(BLOCK_OBSERVATIONS, n - first_seq)
                columns = _columns(np.arange(first_seq, first_seq + n_rows), from_files=first_seq >= n // 2)
                block = (first_seq, n_rows, 1, *columns.wall_range(), pack_columns(columns))
                connection.execute(INSERT_BLOCK, (*block, rng.bytes(n_rows * n_bytes)))
    connection.close()


def _columns(seq: np.ndarray, *, from_files: bool) -> Columns:
    """Return plausible facts for these seq."""
    within = seq % WINDOWS_PER_FILE if from_files else seq
    first_sample = within * WINDOW_SAMPLES
    nominal_ns = seq * (WINDOW_SAMPLES * 10**9 // RATE_HZ)
    file_number = seq // WINDOWS_PER_FILE
    # a file is read in an instant and starts when its recorder's clock said so; a microphone's clock just runs on
    boottime_ns = file_number * 1_234_567_891 % 10**15 if from_files else 10**10 + nominal_ns
    same = np.ones_like(seq)
    return Columns(
        source=file_number + 2 if from_files else same,
        first_sample=first_sample,
        n_samples=same * WINDOW_SAMPLES,
        sample_rate_hz=same * RATE_HZ,
        boot=same,
        boottime_ns=boottime_ns,
        wall_ns=FIRST_WALL_NS + nominal_ns,
        clock_state=same * (1 if from_files else 2),
    )


def main() -> int:
    """Build a store from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--n", type=int, default=10_000_000)
    parser.add_argument("--code-space", default="simulated-000000000000")
    args = parser.parse_args()
    build_large_store(args.path, args.n, args.code_space)
    print(f"{args.path}: {args.path.stat().st_size / args.n:.2f} bytes/observation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
