"""Every engine of the archive is held to the same: what tests/hub/archive_oracle.py says."""

from __future__ import annotations

import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edge.codes import from_planes
from edge.errors import ArchiveError, UsageError
from edge.store_blocks import UNKNOWN_WALL_NS, planes_of
from hub.archive import Archive, ArchiveBlock, Filter
from hub.archive_engines import open_archive
from tests.hub.archive_oracle import Oracle
from tests.simulate.archive_blocks import FIRST_WALL_NS, SPACE, block_of, fleet_blocks

ROOT = Path(__file__).parents[2]
HOUR_NS = 3600 * 10**9
EVERYTHING = Filter()
Opener = Callable[[], Archive]


ENGINES = [
    "sqlite",
    "sqlite on disk",
    pytest.param(
        "clickhouse", marks=pytest.mark.skipif(find_spec("chdb") is None, reason="chdb (900 MB) is not here")
    ),
]


def place_of(engine: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if engine == "clickhouse":
        return f"chdb:{request.getfixturevalue('chdb_folder')}?database=d{secrets.token_hex(8)}"
    cache_mb = 0 if engine == "sqlite on disk" else 1000
    return f"sqlite:{folder / 'archive.sqlite'}?cache_mb={cache_mb}"


@pytest.fixture(params=ENGINES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Return what opens this test's archive, again and again."""
    archives: list[Archive] = []
    place = place_of(request.param, tmp_path, request)

    def open_one() -> Archive:
        archives.append(open_archive(place))
        return archives[-1]

    yield open_one
    for archive in archives:
        archive.close()


@pytest.fixture
def archive(opened: Opener) -> Archive:
    return opened()


@pytest.fixture(scope="module", params=ENGINES)
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fleet: list[ArchiveBlock]
) -> Iterator[Archive]:
    """Return an archive of the fleet, for tests that only read."""
    place = place_of(request.param, tmp_path_factory.mktemp("filled"), request)
    archive = open_archive(place)
    archive.add(fleet)
    yield archive
    archive.close()


@pytest.fixture(scope="module")
def fleet() -> list[ArchiveBlock]:
    """Return 3 devices' observations over two days, few different codes so that many tie, some without a clock."""
    return list(fleet_blocks(12_000, 3, run=700, spread=200, unknown=0.1))


@pytest.fixture(scope="module")
def oracle(fleet: list[ArchiveBlock]) -> Oracle:
    return Oracle(fleet)


def query(seed: int, n_bytes: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, n_bytes, np.uint8)


def answer(archive: Archive, codes: np.ndarray, k: int, where: Filter, most: int | None = None) -> object:
    limits = None if most is None else [most] * len(codes)
    return [
        [(hit.distance, replace(hit, distance=0)) for hit in hits]
        for hits in archive.search(codes, SPACE, k, where, limits)
    ]


WHERE = {
    "everything": EVERYTHING,
    "two devices": Filter(devices=frozenset({1, 3})),
    "no device": Filter(devices=frozenset()),
    "an unknown device": Filter(devices=frozenset({99})),
    "a period": Filter(since_ns=FIRST_WALL_NS + HOUR_NS + 1, until_ns=FIRST_WALL_NS + 3 * HOUR_NS),
    "from a time on": Filter(since_ns=FIRST_WALL_NS + 5 * HOUR_NS),
    "before a time": Filter(until_ns=FIRST_WALL_NS + HOUR_NS // 3),
    "an empty period": Filter(since_ns=5, until_ns=6),
    "beyond every time": Filter(since_ns=-(2**70), until_ns=2**70),
    "hours": Filter(hours=frozenset({23, 0, 3})),
    "hours of a clock ahead": Filter(hours=frozenset({6, 7}), utc_offset_s=5 * 3600 + 2700),
    "hours of a clock behind": Filter(hours=frozenset({1, 20}), utc_offset_s=-(3 * 3600 + 1800)),
    "hours of an odd clock": Filter(hours=frozenset({2}), utc_offset_s=1234),
    "no hour": Filter(hours=frozenset()),
    "all at once": Filter(frozenset({2, 3}), FIRST_WALL_NS + HOUR_NS, FIRST_WALL_NS + 9 * HOUR_NS, frozenset({0, 1}), 60),
}  # fmt: skip


@pytest.mark.parametrize("where", WHERE.values(), ids=WHERE.keys())
def test_finds_what_the_oracle_finds(
    filled: Archive, fleet: list[ArchiveBlock], oracle: Oracle, where: Filter
) -> None:
    codes = np.stack([query(1), query(2)])
    for k in (1, 100):
        assert answer(filled, codes, k, where) == [oracle.search(code, SPACE, k, where) for code in codes]
    assert answer(filled, codes, 500, where, 105) == [
        oracle.search(code, SPACE, 500, where, 105) for code in codes
    ]


@pytest.mark.parametrize("n_bytes", [8, 16, 24])
def test_a_prefix_is_a_code_too(
    filled: Archive, fleet: list[ArchiveBlock], oracle: Oracle, n_bytes: int
) -> None:
    code = query(3)[:n_bytes]
    for where in (EVERYTHING, WHERE["hours"]):
        assert answer(filled, code[None], 50, where) == [oracle.search(code, SPACE, 50, where)]


def test_ties_go_to_the_smaller_uid_in_whatever_order_blocks_come(archive: Archive) -> None:
    codes = np.zeros((3000, 32), np.uint8)
    walls = np.full(3000, FIRST_WALL_NS)
    blocks = [block_of(uid, 1, uid, codes, walls) for uid in (6000, 0, 9000, 3000)]
    for block in blocks:
        archive.add([block])
    (hits,) = archive.search(codes[:1], SPACE, 4000, EVERYTHING)
    assert [hit.uid for hit in hits] == list(range(4000))


def test_ties_go_to_the_smaller_uid_in_a_later_segment_too(archive: Archive) -> None:
    codes, walls = np.zeros((8192, 32), np.uint8), np.full(8192, FIRST_WALL_NS)
    archive.add([block_of(10**6 + 8192 * i, 1, 8192 * i, codes, walls) for i in range(9)])
    archive.add([block_of(0, 1, 10**6, codes[:20], walls[:20])])
    (hits,) = archive.search(codes[:1], SPACE, 30, EVERYTHING)
    assert [hit.uid for hit in hits] == [*range(20), *range(10**6, 10**6 + 10)]


def test_every_observation_keeps_its_own_source(archive: Archive) -> None:
    """Many in one block, as of short recordings; what is kept of a block in parts has other names in each."""
    codes = np.random.default_rng(2).integers(0, 256, (1200, 32), np.uint8)
    names = tuple(f"card/{i:04}.wav" for i in range(900))
    block = block_of(0, 1, 0, codes, np.full(1200, FIRST_WALL_NS), sources=names)
    archive.add([block])
    known = Oracle([block])
    assert answer(archive, codes[:1], 1200, EVERYTHING) == [known.search(codes[0], SPACE, 1200, EVERYTHING)]
    assert Oracle(list(archive.blocks())).rows == known.rows


def test_the_complement_of_a_code_is_the_farthest(archive: Archive) -> None:
    codes = np.stack([query(5), ~query(5)])
    archive.add([block_of(0, 1, 0, codes, np.full(2, FIRST_WALL_NS))])
    (hits,) = archive.search(codes[1:], SPACE, 5, EVERYTHING)
    assert [(hit.uid, hit.distance) for hit in hits] == [(1, 0), (0, 256)]
    assert archive.search(codes[1:], SPACE, 5, EVERYTHING, [255]) == [hits[:1]]
    assert archive.search(codes[1:], SPACE, 5, EVERYTHING, [-1]) == [[]]


def test_blocks_that_come_again_are_kept_once(
    opened: Opener, fleet: list[ArchiveBlock], oracle: Oracle
) -> None:
    archive = opened()
    archive.add(fleet[:10])
    archive.add(fleet)
    archive.add(fleet[3:7])
    code = query(7)
    expected = [oracle.search(code, SPACE, 300, EVERYTHING)]
    assert answer(archive, code[None], 300, EVERYTHING) == expected
    archive.close()
    again = opened()
    again.add(fleet[-2:])
    assert answer(again, code[None], 300, EVERYTHING) == expected
    assert sum(again.counts().values()) == 12_000


@pytest.mark.parametrize("asked_before", [True, False])
def test_what_is_added_after_it_was_opened_again_is_found(
    opened: Opener, fleet: list[ArchiveBlock], oracle: Oracle, asked_before: bool
) -> None:
    archive = opened()
    archive.add(fleet[:9])
    archive.close()
    again = opened()
    code = query(12)
    if asked_before:  # codes are loaded by then, and times are not
        again.search(code[None], SPACE, 10, EVERYTHING)
    again.add(fleet[9:])
    for where in (WHERE["hours of a clock ahead"], EVERYTHING, WHERE["a period"]):
        assert answer(again, code[None], 80, where) == [oracle.search(code, SPACE, 80, where)]


def test_another_archive_of_the_same_file_sees_what_is_added(
    tmp_path: Path, fleet: list[ArchiveBlock]
) -> None:
    """As when a folder is indexed while the hub runs."""
    one, other = (open_archive(str(tmp_path / "archive.sqlite")) for _ in range(2))
    for number, block in enumerate(fleet):
        (one, other)[number % 2].add([block])
        if number % 5 == 0:
            assert sum(one.counts().values()) == sum(other.counts().values()) == block.first_uid + block.n
    code = query(13)[None]
    assert one.search(code, SPACE, 200, EVERYTHING) == other.search(code, SPACE, 200, EVERYTHING)
    one.close()
    other.close()


def test_counts_by_device_and_code_space(archive: Archive) -> None:
    walls = np.full(10, UNKNOWN_WALL_NS)
    codes = np.stack([query(seed) for seed in range(10)])
    assert archive.counts() == {}
    archive.add([block_of(0, 1, 0, codes, walls), block_of(10, 2, 0, codes, walls, "other-1")])
    archive.add([block_of(20, 1, 10, codes[:4], walls[:4])])
    assert archive.counts() == {(1, SPACE): 14, (2, "other-1"): 10}


def test_code_spaces_are_not_mixed_and_an_unknown_one_is_told(archive: Archive) -> None:
    codes, walls = np.stack([query(1), query(2)]), np.full(2, FIRST_WALL_NS)
    assert archive.search(codes, SPACE, 3, EVERYTHING) == [[], []]
    archive.add([block_of(0, 1, 0, codes, walls), block_of(2, 1, 2, codes, walls, "other-1")])
    (hits,) = archive.search(codes[:1], "other-1", 9, EVERYTHING)
    assert [hit.uid for hit in hits] == [2, 3]
    with pytest.raises(ArchiveError, match=r"no-such-2, found only those of other-1, simulated"):
        archive.search(codes, "no-such-2", 3, EVERYTHING)


def test_narrow_codes_are_found_by_prefixes_alone(archive: Archive) -> None:
    codes, walls = np.stack([query(1), query(2)]), np.full(2, FIRST_WALL_NS)
    archive.add([block_of(0, 1, 0, codes[:, :8], walls)])
    with pytest.raises(ArchiveError, match="expected codes of 256 bits .*, found 64; search with a prefix"):
        archive.search(codes, SPACE, 3, EVERYTHING)
    archive.add([block_of(2, 1, 2, codes, walls)])
    (wide,), (narrow,) = (
        archive.search(code[None], SPACE, 3, EVERYTHING) for code in (codes[0], codes[0, :8])
    )
    assert [hit.uid for hit in wide] == [2, 3]
    assert [(hit.uid, hit.distance) for hit in narrow[:2]] == [(0, 0), (2, 0)]
    assert len(narrow) == 3


@pytest.mark.parametrize("name", ["everything", "two devices", "a period", "hours of a clock ahead"])
def test_histogram_counts_what_lies_within_a_distance(
    filled: Archive, fleet: list[ArchiveBlock], oracle: Oracle, name: str
) -> None:
    code, bin_s = query(8), 1800
    expected: dict[int, int] = {}
    for _, hit in oracle.search(code, SPACE, 10**9, WHERE[name], 118):
        if hit.wall_ns is not None:
            number = hit.wall_ns // 10**9 // bin_s
            expected[number] = expected.get(number, 0) + 1
    assert filled.histogram(code, SPACE, WHERE[name], 118, bin_s) == expected
    assert expected or name == "nothing"


def test_gives_back_all_it_was_given_in_the_order_of_uid(
    archive: Archive, fleet: list[ArchiveBlock], oracle: Oracle
) -> None:
    archive.add(fleet[5:])
    archive.add(fleet[:5])
    assert Oracle(list(archive.blocks())).rows == oracle.rows
    assert Oracle(list(archive.blocks(5_432))).rows == oracle.rows[5_432:]
    assert list(archive.blocks(12_000)) == []
    walked = {block.first_uid: block for block in archive.blocks()}
    observations = list(walked[0].run.observations("dev", 1))
    assert observations == list(fleet[0].run.observations("dev", 1))[: len(observations)]


def test_tells_which_uids_are_there(archive: Archive) -> None:
    assert list(archive.ranges()) == []
    for first, n in ((1, 10), (70_000, 5), (11, 4), (500, 600)):
        archive.add([block_of(first, 1, first, np.zeros((n, 32), np.uint8), np.zeros(n, np.int64))])
    assert list(archive.ranges()) == [(1, 14), (500, 600), (70_000, 5)]


def test_tells_the_codes_of_what_is_there(filled: Archive, fleet: list[ArchiveBlock]) -> None:
    run = fleet[1].run
    codes = from_planes(planes_of(run.codes, run.n))
    first = fleet[1].first_uid
    assert filled.codes_of([first + 699, first, 12_000, -1]) == {
        first: codes[0].tobytes(),
        first + 699: codes[699].tobytes(),
    }


def test_many_short_runs_of_many_devices(archive: Archive) -> None:
    blocks = list(fleet_blocks(8_000, 40, run=13, spread=300, unknown=0.02, seed=4))
    known = Oracle(blocks)
    archive.add(blocks)
    code = query(9)
    for where in (
        EVERYTHING,
        Filter(devices=frozenset(range(1, 40, 2))),
        Filter(devices=frozenset({5}), since_ns=FIRST_WALL_NS + 400 * 10**9),
        Filter(since_ns=FIRST_WALL_NS + 400 * 10**9, until_ns=FIRST_WALL_NS + 402 * 10**9),
    ):
        assert answer(archive, code[None], 60, where) == [known.search(code, SPACE, 60, where)]


@pytest.mark.parametrize("n_devices", [1, 150])
def test_more_than_a_segment_of_codes(archive: Archive, n_devices: int) -> None:
    """Segments of 65,536; with many devices those asked for lie in more places than are scanned one by one."""
    blocks = list(fleet_blocks(140_000, n_devices, run=900, seed=5))
    archive.add(blocks)
    codes = np.concatenate([from_planes(planes_of(block.run.codes, block.run.n)) for block in blocks])
    devices = np.concatenate([np.full(block.n, block.device) for block in blocks])
    code = query(10)
    distances = np.unpackbits(codes ^ code, axis=1).sum(axis=1)
    for where in (EVERYTHING, Filter(devices=frozenset({1, *range(2, 151, 2)}))):
        rows = (
            np.arange(len(codes))
            if where.devices is None
            else np.flatnonzero(np.isin(devices, [*where.devices]))
        )
        best = rows[np.lexsort((rows, distances[rows]))][:1000]
        (hits,) = archive.search(code[None], SPACE, 1000, where)
        assert [(hit.uid, hit.distance) for hit in hits] == [(int(uid), int(distances[uid])) for uid in best]


def test_what_another_thread_adds_is_found_at_once_and_whole(archive: Archive) -> None:
    blocks = list(fleet_blocks(40_000, 4, run=500, seed=6))
    codes = np.stack([from_planes(planes_of(block.run.codes, block.run.n))[0] for block in blocks])
    wrong: list[object] = []
    n_added = 0

    def nearest_uid(code: np.ndarray) -> int:
        return archive.search(code[None], SPACE, 1, EVERYTHING)[0][0].uid

    def ask() -> None:
        while n_added < len(blocks):
            n = n_added
            asked = (0, n // 2, n - 1) if n else ()
            wrong.extend(i for i in asked if nearest_uid(codes[i]) != 500 * i)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(0, len(blocks), 8):
        archive.add(blocks[i : i + 8])
        n_added = i + 8
    for thread in threads:
        thread.join()
    assert wrong == []


KILLED = """
import sys
sys.path.insert(0, {root!r})
from tests.simulate.archive_blocks import fleet_blocks
from hub.archive_engines import open_archive
archive = open_archive({place!r})
for block in fleet_blocks(10**7, 3, run=800, seed=11):
    archive.add([block])
    print(block.first_uid + block.n, flush=True)
"""

RECOVERED = """
import sys
sys.path.insert(0, {root!r})
from tests.hub.archive_oracle import Oracle
from tests.simulate.archive_blocks import fleet_blocks
from hub.archive_engines import open_archive
archive = open_archive({place!r})
n = sum(archive.counts().values())
found, sent = (Oracle(list(each)).rows for each in (archive.blocks(), fleet_blocks(n, 3, run=800, seed=11)))
archive.add(list(fleet_blocks(n + 1600, 3, run=800, seed=11)))
print(n, sum(a == b for a, b in zip(found, sent, strict=True)), sum(archive.counts().values()))
"""


def killed_after(place: str, n: int) -> int:
    """Start a process that adds block after block, kill it after n observations, return how many it had told of."""
    script = KILLED.format(root=str(ROOT), place=place)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = 0
    for line in process.stdout:
        told = int(line)
        if told >= n:
            os.kill(process.pid, signal.SIGKILL)
            break
    rest = process.stdout.read().split("\n")  # what it had told before it died
    process.stdout.close()
    process.wait()
    return max([told, *(int(line) for line in rest[:-1] if line)])


@pytest.mark.parametrize("engine", [each for each in ENGINES if each != "sqlite on disk"])
def test_nothing_that_was_added_is_lost_by_kill_9(engine: str, tmp_path: Path) -> None:
    """What another process reads, since one process may own a chdb folder and this one owns one."""
    place = (
        f"chdb:{tmp_path / 'killed'}" if engine == "clickhouse" else f"sqlite:{tmp_path / 'killed.sqlite'}"
    )
    told = killed_after(place, 12_000)
    script = RECOVERED.format(root=str(ROOT), place=place)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    n, n_same, n_after = map(int, done.stdout.split())
    assert told <= n <= told + 800
    assert n_same == n
    assert n_after == n + 1600


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("sqlite:x?cache_mb=many", "expected cache_mb to be a whole number, found 'many'"),
        ("sqlite:x?database=y", "expected the option cache_mb, found database"),
        (
            "clickhouse://me:secret@host:8123?cache_mb=3",
            "^host:8123: expected the option database, found cache_mb",
        ),
    ],
)
def test_options_that_an_engine_does_not_have_are_told(place: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        open_archive(place)


def test_another_programs_database_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ArchiveError, match="expected an archive of fieldcube, found another SQLite database"):
        open_archive(str(path))
    assert path.read_bytes() == before
    with pytest.raises(ArchiveError, match="expected an archive that can be read and written"):
        open_archive(str(tmp_path / "no" / "folder"))
