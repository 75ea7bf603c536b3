"""hub-ingest: how many observations the hub takes in a second with a durable acknowledgement of each batch."""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import urllib3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge.batch import Batch, Run, decode_receipt, encode_batch, encode_envelope
from edge.device_key import DeviceKey
from edge.store_blocks import Columns, pack_columns
from hub.archive_sqlite import SqliteArchive
from hub.ingest import Ingest
from hub.store_registry import Registry

N_RECORDERS = 8
SPACE = "simulated-000000000000"
_FIRST_WALL_NS = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z
_QUOTA_BYTES = 1 << 50


def hub_ingest(arguments: argparse.Namespace) -> int:
    """Take signed batches at the hub on one core, each acknowledged when it is synced, beside raw SQLite."""
    core, *others = sorted(os.sched_getaffinity(0))
    keys = [DeviceKey(Ed25519PrivateKey.generate()) for _ in range(N_RECORDERS)]
    n_batches = max(N_RECORDERS, arguments.observations // arguments.batch // N_RECORDERS * N_RECORDERS)
    bodies = list(_envelopes(keys, n_batches, arguments.batch))
    n = n_batches * arguments.batch
    rows: list[tuple[str, float, float | None, list[float]]] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        ack_s, waits_s = _sent(folder / "http", keys, bodies, core, set(others) or {core})
        rows.append((f"hub over HTTP, {N_RECORDERS} at once", n / ack_s, None, waits_s))
        os.sched_setaffinity(0, {core})  # of this process and every thread it starts
        for n_threads in (1, N_RECORDERS):
            ack_s, archived_s, waits_s = _taken(folder / f"{n_threads}", keys, bodies, n_threads)
            what = "one batch at a time" if n_threads == 1 else f"{n_threads} at once"
            rows.append((f"hub without HTTP, {what}", n / ack_s, n / archived_s, waits_s))
        for what, insert in (
            ("raw SQLite, a row each", _insert_rows),
            ("raw SQLite, a row a batch", _insert_blob),
        ):
            took_s, waits_s = _raw(folder / f"{insert.__name__}.sqlite", bodies, arguments.batch, insert)
            rows.append((what, n / took_s, None, waits_s))
    print(
        f"{n:,} observations in {n_batches} batches of {arguments.batch}, one core, a full sync before each acknowledgement"
    )
    print("archived: also until the codes can be searched; of rows: columns that a search needs and the code")
    print(f"{'':40}{'observations/s':>16}{'archived/s':>14}{'ms a batch':>12}{'99 % ms':>9}{'of rows':>9}")
    raw = next(row[1] for row in rows if row[0].endswith("row each"))
    for what, rate, archived, waits_s in rows:
        middle, late = np.percentile(waits_s, (50, 99)) * 1e3
        searched = "" if archived is None else f"{archived:,.0f}"
        print(f"{what:40}{rate:16,.0f}{searched:>14}{middle:12.1f}{late:9.1f}{rate / raw:9.2f}")
    return 0


def _envelopes(keys: list[DeviceKey], n_batches: int, n: int) -> Iterator[bytes]:
    random = np.random.default_rng(0)
    same = np.ones(n, np.int64)
    for i in range(n_batches):
        key, first = keys[i % len(keys)], i // len(keys) * n
        seq = np.arange(first, first + n)
        columns = Columns(
            source=0 * same,
            first_sample=seq * 160_000,
            n_samples=160_000 * same,
            sample_rate_hz=32_000 * same,
            boot=0 * same,
            boottime_ns=10**10 + seq * 5 * 10**9 + random.integers(0, 1000, n),
            wall_ns=_FIRST_WALL_NS + seq * 5 * 10**9 + random.integers(0, 10**6, n),
            clock_state=2 * same,
        )
        run = Run(
            first, n, SPACE, ("microphone:USB",), ("boot",), pack_columns(columns), random.bytes(32 * n)
        )
        name = f"recorder-{i % len(keys)}"
        payload = encode_batch(Batch(name, 1, (first + n, 0, 0), (run,)))
        yield encode_envelope(name, payload, key.sign("batch", payload))


def _sent(
    folder: Path, keys: list[DeviceKey], bodies: list[bytes], core: int, others: set[int]
) -> tuple[float, list[float]]:
    """Return the seconds until all was acknowledged by a hub on one core, and those of each batch; clients on the others."""
    command = [sys.executable, "-m", "hub.command", "serve", "--folder", str(folder), "--port", "0"]
    os.sched_setaffinity(0, {core})  # what it starts inherits
    process = subprocess.Popen(
        [*command, "--quota-mb", "1e6"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    os.sched_setaffinity(0, others)
    with Registry.open(folder / "hub.sqlite") as registry:
        _enrol(registry, keys)

    def send(mine: list[bytes]) -> list[float]:
        waits_s = []
        with urllib3.PoolManager(1) as client:  # one connection, kept, as a recorder has
            for body in mine:
                begun = time.perf_counter()
                answer = client.request("POST", f"{url}/v1/batches", body=body)
                assert decode_receipt(answer.data).n_conflicts == 0
                waits_s.append(time.perf_counter() - begun)
        return waits_s

    with ThreadPoolExecutor(len(keys)) as pool:
        begun = time.perf_counter()
        waits_s = list(
            chain.from_iterable(pool.map(send, [bodies[i :: len(keys)] for i in range(len(keys))]))
        )
        took_s = time.perf_counter() - begun
    process.terminate()
    process.wait()
    process.stdout.close()
    return took_s, waits_s


def _enrol(registry: Registry, keys: list[DeviceKey]) -> None:
    for i, key in enumerate(keys):
        registry.devices.enrol(f"recorder-{i}", key.public, None, 0)
        registry.devices.set_status(f"recorder-{i}", "enrolled")


def _taken(
    folder: Path, keys: list[DeviceKey], bodies: list[bytes], n_threads: int
) -> tuple[float, float, list[float]]:
    """Return the seconds until all was acknowledged, until all was in the archive, and those of each batch."""
    folder.mkdir()
    archive = SqliteArchive.open(folder / "archive.sqlite")
    with Registry.open(folder / "hub.sqlite", _QUOTA_BYTES) as registry:
        _enrol(registry, keys)
        with Ingest(registry, archive, time.time_ns) as ingest, ThreadPoolExecutor(n_threads) as pool:

            def send(mine: list[bytes]) -> list[float]:
                waits_s = []
                for body in mine:
                    begun = time.perf_counter()
                    assert ingest.take(body).n_conflicts == 0
                    waits_s.append(time.perf_counter() - begun)
                return waits_s

            begun = time.perf_counter()
            waits_s = list(
                chain.from_iterable(pool.map(send, [bodies[i::n_threads] for i in range(n_threads)]))
            )
            ack_s = time.perf_counter() - begun
            assert ingest.wait_archived()
            archived_s = time.perf_counter() - begun
    archive.close()
    return ack_s, archived_s, waits_s


def _insert_rows(connection: sqlite3.Connection, i: int, n: int, body: bytes) -> None:
    device, first = i % N_RECORDERS, i // N_RECORDERS * n
    code = body[100:132]
    rows = [(device, 1, seq, _FIRST_WALL_NS + seq, code) for seq in range(first, first + n)]
    connection.executemany("INSERT INTO observation VALUES (?, ?, ?, ?, ?)", rows)


def _insert_blob(connection: sqlite3.Connection, i: int, n: int, body: bytes) -> None:
    connection.execute("INSERT INTO batch VALUES (?, ?, ?)", (i % N_RECORDERS, i // N_RECORDERS * n, body))


def _raw(path: Path, bodies: list[bytes], n: int, insert: Any) -> tuple[float, list[float]]:
    """Return the seconds that SQLite alone takes, nothing checked, with the same durability."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE observation (device INTEGER, epoch INTEGER, seq INTEGER, wall_ns INTEGER, code BLOB,"
        " PRIMARY KEY (device, epoch, seq))"
    )
    connection.execute("CREATE TABLE batch (device INTEGER, first_seq INTEGER, body BLOB)")
    waits_s = []
    begun = time.perf_counter()
    for i, body in enumerate(bodies):
        start = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        insert(connection, i, n, body)
        connection.execute("COMMIT")
        waits_s.append(time.perf_counter() - start)
    took_s = time.perf_counter() - begun
    connection.close()
    return took_s, waits_s


def add_parser(commands: Any) -> None:
    """Add hub-ingest to the measurements."""
    command = commands.add_parser("hub-ingest", help=hub_ingest.__doc__, description=hub_ingest.__doc__)
    command.add_argument("--observations", type=int, default=1_000_000, help="(default 1,000,000)")
    command.add_argument("--batch", type=int, default=4096, help="observations of a batch (default 4096)")
    command.add_argument(
        "--folder", type=Path, help="where the databases lie (default: the temporary folder)"
    )
    command.set_defaults(measure=hub_ingest)
