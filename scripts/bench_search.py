"""hub-search: how long a person waits for the best 100 of very many observations, over HTTP, and what a scan costs."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import urllib3

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge.batch import Batch
from edge.bundle import Bundle, default_bundle
from edge.codes import from_planes, top_k
from edge.observation import iso_utc
from hub.archive import ArchiveBlock
from hub.archive_sqlite import SqliteArchive
from hub.digests import run_digests
from hub.store_registry import Registry
from hub.store_registry_intake import Arrival, Kept
from tests.simulate.archive_blocks import FIRST_WALL_NS, fleet_blocks

N_RECORDERS = 100
WINDOW_NS = 5 * 10**9
TEXTS = ("a dog barking", "rain on leaves", "a chainsaw in the distance", "frogs at night", "an owl calling")
COLD = "everything, file not in the system's cache"
COLD_RUNS = 3
FAISS_HINT = "faiss is not installed; to compare with it: pip install faiss-cpu"
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Hub:
    """A running hub. cold_s: from its start, files not in the system's cache, until the first answer; pid: its process."""

    url: str
    pid: int
    listening_s: float
    cold_s: float

    def cpu_ns(self) -> int:
        """Return how long its threads have worked."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(each.read_text(encoding="ascii").split()[0]) for each in tasks)

    @property
    def memory_mb(self) -> float:
        """Return the memory that it has in use now."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        (used,) = (line.split()[1] for line in lines if line.startswith("VmRSS"))
        return int(used) * 1024 / 1e6


@dataclass(frozen=True, slots=True)
class Times:
    """What one search took in each run: ms of waiting, and ms of a CPU's work."""

    wall_ms: list[float]
    cpu_ms: list[float]

    @contextmanager
    def taken(self, cpu_ns: Callable[[], int]) -> Iterator[None]:
        """Note how long the block takes."""
        begun, worked_ns = time.perf_counter(), cpu_ns()
        yield
        self.wall_ms.append((time.perf_counter() - begun) * 1e3)
        self.cpu_ms.append((cpu_ns() - worked_ns) / 1e6)


def hub_search(arguments: argparse.Namespace) -> int:
    """Search a hub over HTTP for the best 100, with and without filters, beside faiss and the memory limit."""
    n = arguments.observations
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        begun = time.perf_counter()
        added_s = build(folder, n)
        built_s = time.perf_counter() - begun
        n_bytes = sum(each.stat().st_size for each in folder.glob("archive.sqlite*"))
        print(
            f"{n:,} observations of {N_RECORDERS} recorders, made, registered and archived in {built_s:.0f} s: "
            f"{n / added_s:,.0f}/s into the archive, {n_bytes / n:.1f} bytes each on disk"
        )
        for cache_mb in arguments.cache_mb:
            with started(folder, cache_mb) as hub:
                print(
                    f"--cache-mb {cache_mb}: listens after {hub.listening_s:.1f} s, first answer after {hub.cold_s:.1f} s "
                    "(encoder opened, codes read from the disk)"
                )
                runs, scans = measured(hub, n, folder / "archive.sqlite", arguments)
                report(hub, runs, scans, arguments)
    return 0


def report(hub: Hub, runs: dict[str, Times], scans: dict[str, Times], arguments: argparse.Namespace) -> None:
    """Print a table; CPU is that of the process that scans, whatever else the machine does."""
    print(f"top-{arguments.k}, {arguments.runs} interleaved runs; the hub holds {hub.memory_mb:,.0f} MB")
    rows = [(f"HTTP, {what}", times) for what, times in runs.items()] + list(scans.items())
    print(f"{'':52}{'median ms':>12}{'fastest ms':>12}{'95 % ms':>12}{'CPU ms':>12}")
    for what, times in rows:
        middle, late = np.percentile(times.wall_ms, (50, 95))
        print(f"{what:52}{middle:12.1f}{min(times.wall_ms):12.1f}{late:12.1f}{np.median(times.cpu_ms):12.1f}")


def build(folder: Path, n: int) -> float:
    """Make the registry and the archive of a hub; return the seconds that the archive took."""
    archive = SqliteArchive.open(folder / "archive.sqlite", cache_bytes=0)
    made = fleet_blocks(n, N_RECORDERS, space=Bundle.load(default_bundle()).manifest.code_space)
    added_s = 0.0
    with Registry.open(folder / "hub.sqlite") as registry:
        devices = [
            registry.devices.enrol(f"recorder-{i}", i.to_bytes(32, "big"), None, 0)
            for i in range(N_RECORDERS)
        ]
        for device in devices[: N_RECORDERS // 4]:
            registry.devices.set_place(device.name, 47.5, 8.5)
        names = {device.number: device.name for device in devices}
        while some := list(islice(made, 16)):
            arrivals = [arrival(registry, names[block.device], block) for block in some]
            answers = registry.intake.keep(arrivals, FIRST_WALL_NS)
            blocks = [block for each in answers if isinstance(each, Kept) for block in each.blocks]
            begun = time.perf_counter()
            archive.add(blocks)
            added_s += time.perf_counter() - begun
            registry.intake.archived(blocks)
    archive.close()
    return added_s


def arrival(registry: Registry, name: str, block: ArchiveBlock) -> Arrival:
    """Return a block as it comes from a recorder: the registry must know what is in the archive."""
    run, columns = block.run, block.run.unpacked()
    batch = Batch(name, block.epoch, (run.first_seq + run.n, 0, 0), (run,))
    digests = run_digests(run, columns, registry.intake.digest_key)
    return Arrival(block.device, batch, (columns,), (digests,), 0)


@contextmanager
def started(folder: Path, cache_mb: int) -> Iterator[Hub]:
    """Run a hub on a folder whose archive is not in the system's cache."""
    path = folder / "archive.sqlite"
    forget(path)
    begun = time.perf_counter()
    command = [sys.executable, "-m", "hub.command", "serve", "--folder", str(folder), "--port", "0"]
    command += ["--archive", f"sqlite:{path}?cache_mb={cache_mb}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        listening_s = time.perf_counter() - begun
        with urllib3.PoolManager(1) as client:
            ask(client, url, {"query": TEXTS[0]})
        yield Hub(url, process.pid, listening_s, time.perf_counter() - begun)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def forget(path: Path) -> None:
    """Take a file out of the system's cache: what reads it next waits for the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ask(client: urllib3.PoolManager, url: str, fields: dict[str, Any]) -> Any:
    """Return the answer to a search."""
    answer = client.request("GET", f"{url}/api/search", fields=fields)
    assert answer.status == 200, answer.data
    return answer.json()


def measured(
    hub: Hub, n: int, path: Path, arguments: argparse.Namespace
) -> tuple[dict[str, Times], dict[str, Times]]:
    """Return times of searches by what they ask, and of plain scans of as many codes in this process."""
    span_ns = n // N_RECORDERS * WINDOW_NS
    middle = {"since": iso_utc(FIRST_WALL_NS + span_ns // 2)}
    tenth = {**middle, "until": iso_utc(FIRST_WALL_NS + span_ns // 2 + span_ns // 10)}
    night = {"hours": "22,23,0,1,2,3", "offset_s": 7200}
    asked: dict[str, dict[str, Any]] = {
        "everything": {},
        "10 % of the time": tenth,
        "6 hours of the day": night,
        "a recorder": {"device": "recorder-7"},
        "25 recorders in a box on the map": {"box": "47,8,48,9"},
        "box, hours and half of the time": {"box": "47,8,48,9", **night, **middle},
        "64 bits first": {"prefix_bits": 64},
    }
    scans = plain_scans(n, arguments.k) if arguments.compare else {}
    times = {what: Times([], []) for what in (*asked, COLD)}
    scan_times = {what: Times([], []) for what in scans}
    with urllib3.PoolManager(1) as client:
        for text in TEXTS:
            ask(client, hub.url, {"query": text, **night})  # encoded once, times of day read once
        for run in range(arguments.runs):
            for what, filters in asked.items():
                fields = {"query": TEXTS[run % len(TEXTS)], "top": arguments.k, **filters}
                with times[what].taken(hub.cpu_ns):
                    found = ask(client, hub.url, fields)
                assert len(found["results"]) == arguments.k
            for what, scan in scans.items():
                with scan_times[what].taken(time.thread_time_ns):
                    scan()
        for run in range(COLD_RUNS):
            forget(path)
            with times[COLD].taken(hub.cpu_ns):
                ask(client, hub.url, {"query": TEXTS[run], "top": arguments.k})
    return times, scan_times


def plain_scans(n: int, k: int) -> dict[str, Any]:
    """Return what scans random codes in this process: the same search without hub, faiss, and reading alone."""
    random = np.random.default_rng(0)
    planes = random.integers(0, 2**64, (4, n), dtype=np.uint64)
    query = random.integers(0, 256, 32, dtype=np.uint8)
    scans: dict[str, Any] = {
        "edge.codes.top_k, in memory": lambda: top_k(query, planes, k),
        "memory limit: reading the codes once": planes.sum,
    }
    try:
        import faiss  # only to compare, in no extra of the package
    except ImportError:
        print(FAISS_HINT, file=sys.stderr)
        return scans
    faiss.omp_set_num_threads(1)
    index = faiss.IndexBinaryFlat(256)
    index.add(from_planes(planes))
    scans["faiss IndexBinaryFlat, 1 thread"] = lambda: index.search(query[None], k)
    return scans


def clickhouse_scan(arguments: argparse.Namespace) -> int:
    """Scan rates of ClickHouse embedded (chdb), one thread: what docs/hub_scale.md plans shards with."""
    from hub.archive import Filter
    from hub.archive_clickhouse import ClickHouseArchive

    n = arguments.observations
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        archive = ClickHouseArchive.open(f"chdb:{folder}")
        blocks, added_s = fleet_blocks(n, N_RECORDERS), 0.0
        while some := list(islice(blocks, 64)):
            begun = time.perf_counter()
            archive.add(some)
            added_s += time.perf_counter() - begun
        archive._client.command("OPTIMIZE TABLE fieldcube.observation FINAL")
        sizes = archive._client.query(
            "SELECT name, data_compressed_bytes FROM system.columns WHERE database = 'fieldcube' AND table = 'observation'"
        ).result_rows
        print(f"{n:,} observations: {n / added_s:,.0f}/s in, acknowledged when synced")
        print("bytes a row: " + ", ".join(f"{name} {size / n:.2f}" for name, size in sizes))
        archive._client.set_client_setting("max_threads", 1)
        random = np.random.default_rng(0)
        space = next(iter(archive.counts()))[1]
        period = Filter(since_ns=FIRST_WALL_NS, until_ns=FIRST_WALL_NS + n // N_RECORDERS * WINDOW_NS // 10)
        asked: Sequence[tuple[str, int, Filter]] = (
            ("256 bits", 32, Filter()),
            ("128-bit prefix", 16, Filter()),
            ("64-bit prefix", 8, Filter()),
            ("256 bits, 10 % of the time", 32, period),
            ("256 bits, 6 hours of the day", 32, Filter(hours=frozenset(range(6)))),
        )
        for what, n_bytes, where in asked:
            times, cpu = [], []
            for _ in range(arguments.runs):
                code = random.integers(0, 256, (1, n_bytes), np.uint8)
                begun, worked = time.perf_counter(), time.process_time()
                archive.search(code, space, arguments.k, where)
                times.append(time.perf_counter() - begun)
                cpu.append(time.process_time() - worked)
            middle, busy = np.median(times), np.median(cpu)
            print(
                f"{what:32}{middle * 1e3:10.1f} ms, {busy * 1e3:8.1f} ms of CPU: {n / busy / 1e6:8.1f} M codes/s a core"
            )
        archive.close()
    return 0


def add_parsers(commands: Any) -> None:
    """Add hub-search and clickhouse-scan to the measurements."""
    command = commands.add_parser("hub-search", help=hub_search.__doc__, description=hub_search.__doc__)
    command.add_argument("--observations", type=int, default=10_000_000, help="(default 10,000,000)")
    command.add_argument("-k", type=int, default=100, help="how many to find (default 100)")
    command.add_argument("--runs", type=int, default=20, help="interleaved runs (default 20)")
    command.add_argument(
        "--cache-mb",
        type=int,
        nargs="+",
        default=[4000],
        help="memory for codes, 0 = all from the disk (default 4000); each of several is measured",
    )
    command.add_argument(
        "--no-compare", dest="compare", action="store_false", help="no scans beside it, which take memory"
    )
    command.add_argument(
        "--folder", type=Path, help="where the hub's files are (default: the temporary folder)"
    )
    command.set_defaults(measure=hub_search)
    command = commands.add_parser(
        "clickhouse-scan", help=clickhouse_scan.__doc__, description=clickhouse_scan.__doc__
    )
    command.add_argument("--observations", type=int, default=10_000_000, help="(default 10,000,000)")
    command.add_argument("-k", type=int, default=100, help="how many to find (default 100)")
    command.add_argument("--runs", type=int, default=7, help="of each search (default 7)")
    command.add_argument("--folder", type=Path, help="where chdb's files are (default: the temporary folder)")
    command.set_defaults(measure=clickhouse_scan)
