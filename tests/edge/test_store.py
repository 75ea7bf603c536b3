"""The store: nothing committed is lost, damage never stops recording, readers and other writers are kept apart."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from edge import store_schema, store_tables
from edge.errors import CodeSpaceError, ObservationError, StoreError, UsageError
from edge.observation import Detection, Instant, Observation
from edge.store import ObservationStore
from edge.store_reader import Period, StoreReader
from tests.simulate.large_store import build_large_store

SPACE = "test-0123456789ab"
REPOSITORY = Path(__file__).parents[2]
SCHEMA_FILE = REPOSITORY / "tests/data/store_schema_1.sql"
RATE_HZ = 32_000
SMALLEST_FILE_LIMIT = 36_000  # bytes: SQLite's -shm of 32 KiB fits, a store of more than 8 pages does not
FIRST_WALL_NS = 1_777_777_777 * 10**9


class Clock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def code_of(seq: int, n_bytes: int = 32) -> bytes:
    return np.random.default_rng(seq).bytes(n_bytes)


def observation(store: ObservationStore, code: bytes | None = None, space: str = SPACE) -> Observation:
    """Return the next observation of a store; every third one has no wall clock, every 20 another source."""
    seq = store.next_seq
    wall_ns = None if seq % 3 == 2 else FIRST_WALL_NS + seq * 5 * 10**9
    return Observation(
        device_id=store.device_id,
        epoch=store.epoch,
        seq=seq,
        code=code_of(seq) if code is None else code,
        code_space=space,
        source=f"card/{seq // 20}.wav",
        first_sample=seq % 20 * 160_000,
        sample_rate_hz=RATE_HZ,
        n_samples=160_000 - seq % 7,
        instant=Instant(
            "boot-1", 10**12 + seq * 5 * 10**9 + seq % 11, wall_ns, "unset" if wall_ns is None else "ntp"
        ),
    )


def detection(found: Observation, query: str = "owl") -> Detection:
    return Detection(
        found.device_id, found.epoch, found.seq, query, f"a {query}", 70, 0.75, None, "clips/a.flac"
    )


def fill(store: ObservationStore, n: int) -> list[Observation]:
    added = []
    for _ in range(n):
        added.append(observation(store))
        store.add(added[-1])
    return added


def stored(path: Path) -> list[Observation]:
    with StoreReader.open(path) as reader:
        return list(reader.observations())


def brute_force(observations: list[Observation], code: bytes) -> list[tuple[int, int]]:
    """Return (distance, seq) by counting bits one at a time."""
    query = np.unpackbits(np.frombuffer(code, np.uint8))
    bits = [np.unpackbits(np.frombuffer(each.code, np.uint8)) for each in observations]
    return sorted((int((row != query).sum()), each.seq) for row, each in zip(bits, observations))


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Make writing past n_bytes of any file fail, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def without_privileges() -> Iterator[None]:
    """Run as a user whom file permissions bind, also where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# --- what goes in comes out


def test_every_observation_comes_back_as_it_was(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", "dev", block_observations=32) as store:
        added = fill(store, 101)  # three blocks and a tail
    assert stored(tmp_path / "a.sqlite") == added


def test_walk_can_begin_in_the_middle_of_a_block(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=32) as store:
        added = fill(store, 101)
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        assert list(reader.observations(40)) == added[40:]
        assert list(reader.observations(99)) == added[99:]


def test_detections_come_back_with_their_observation_and_filters(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=32) as store:
        pairs = []
        for seq in range(101):
            one = observation(store)
            found = [detection(one, "owl" if seq % 20 else "rain")] if seq % 10 == 0 else []
            store.add(one, found)
            pairs += [(one, each) for each in found]
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        assert list(reader.detections()) == pairs
        assert list(reader.detections(query="a rain")) == [p for p in pairs if p[1].query == "rain"]
        assert list(reader.detections(source="card/2.wav")) == [p for p in pairs if 40 <= p[0].seq < 60]
        limit = FIRST_WALL_NS + 30 * 5 * 10**9
        timed = [p for p in pairs if p[0].instant.wall_ns is not None and p[0].instant.wall_ns >= limit]
        assert list(reader.detections(Period(limit))) == timed


def test_gaps_and_skipped_sources_are_kept_in_order(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path) as store:
        store.record_gap("microphone:USB", 32_000, 4_800, "overflow", sample_rate_hz=RATE_HZ)
        fill(store, 2)
        store.record_skipped("card/broken.wav", "truncated")
    with StoreReader.open(tmp_path) as reader:  # a folder holds observations.sqlite
        gap, skipped = reader.events()
    assert (gap.kind, gap.source, gap.first_sample, gap.n_samples, gap.sample_rate_hz) == (
        "gap", "microphone:USB", 32_000, 4_800, RATE_HZ,
    )  # fmt: skip
    assert (skipped.kind, skipped.reason, skipped.before_seq) == ("skipped", "truncated", 2)


def test_a_block_holds_one_code_space_and_width(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=16) as store:
        for space, n_bytes in ((SPACE, 32), ("other-0", 32), (SPACE, 32)):
            for _ in range(10):
                store.add(observation(store, code_of(store.next_seq, n_bytes), space))
        added = 30
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        assert reader.counts() == {SPACE: 20, "other-0": 10}
        assert [each.seq for each in reader.observations()] == list(range(added))
        assert len(list(reader.top_k(np.zeros(32, np.uint8), "other-0", 0))) == 10


def test_an_observation_of_another_identity_is_refused(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite") as store:
        first = observation(store)
        store.add(first)
        with pytest.raises(ObservationError, match=r"expected \(device, epoch, seq\).*1\), found.*0\)"):
            store.add(first)
        with pytest.raises(ObservationError, match="expected"):
            store.add(observation(store), [detection(first)])
        assert store.next_seq == 1


def test_size_stays_near_that_of_the_codes(tmp_path: Path) -> None:
    n = 100_000
    build_large_store(tmp_path / "a.sqlite", n, SPACE)
    assert (tmp_path / "a.sqlite").stat().st_size / n < 36


# --- search


@pytest.mark.parametrize("k", [1, 7, 60, 101, 500, 0])
def test_search_is_exact_and_ties_keep_the_order_of_recording(tmp_path: Path, k: int) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=32) as store:
        added = []
        for seq in range(101):
            added.append(observation(store, code_of(seq % 30)))  # each code three or four times: many ties
            store.add(added[-1])
    expected = brute_force(added, code_of(12345))
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        hits = list(reader.top_k(np.frombuffer(code_of(12345), np.uint8), SPACE, k))
    assert [(hit.distance, hit.seq) for hit in hits] == (expected[:k] if k else expected)
    for hit in hits:
        one = added[hit.seq]
        assert (hit.source, hit.offset_s, hit.duration_s, hit.started_at) == (
            one.source, one.offset_s, one.duration_s, one.started_at,
        )  # fmt: skip


@pytest.mark.parametrize("k", [5, 0])
def test_asymmetric_search_weighs_the_bits_by_their_logits(tmp_path: Path, k: int) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=32) as store:
        added = fill(store, 70)
    logits = np.random.default_rng(1).normal(size=256).astype(np.float32)
    own = logits >= 0
    expected = []
    for each in added:
        bits = np.unpackbits(np.frombuffer(each.code, np.uint8), bitorder="little")
        expected.append((256 * float(np.abs(logits[bits != own]).sum() / np.abs(logits).sum()), each.seq))
    expected.sort()
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        hits = list(reader.asymmetric_top_k(logits, SPACE, k))
        even = reader.asymmetric_top_k(np.where(own, 2.0, -2.0).astype(np.float32), SPACE, 3)
        plain = reader.top_k(np.packbits(own, bitorder="little"), SPACE, 3)
        assert [(round(hit.distance), hit.seq) for hit in even] == [(hit.distance, hit.seq) for hit in plain]
    assert [hit.seq for hit in hits] == [seq for _, seq in (expected[:k] if k else expected)]
    assert np.allclose(
        [hit.distance for hit in hits], [distance for distance, _ in expected[: len(hits)]], rtol=1e-4
    )


@pytest.mark.parametrize(("since", "until"), [(10, 80), (33, 34), (None, 50), (90, None), (64, 96)])
def test_a_period_contains_exactly_the_known_times_in_it(
    tmp_path: Path, since: int | None, until: int | None
) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=32) as store:
        added = fill(store, 101)
    period = Period(*(None if at is None else FIRST_WALL_NS + at * 5 * 10**9 for at in (since, until)))
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        hits = list(reader.top_k(np.zeros(32, np.uint8), SPACE, 0, period))
        assert reader.n_without_time() == 33
    wanted = [each.seq for each in added if each.seq % 3 != 2 and (since or 0) <= each.seq < (until or 999)]
    assert sorted(hit.seq for hit in hits) == wanted


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-05-04", 1_777_852_800),
        ("2026-05-04T03:02:01Z", 1_777_863_721),
        ("2026-05-04T03:02:01.5+02:00", 1_777_856_521.5),
        ("2026-05-04 03:02", 1_777_863_720),
    ],
)
def test_times_are_read_as_utc(text: str, seconds: float) -> None:
    assert Period.parse(text, None).since_ns == seconds * 10**9


def test_impossible_times_are_refused() -> None:
    with pytest.raises(UsageError, match="--until: expected a time like .*, found 'tomorrow'"):
        Period.parse(None, "tomorrow")
    with pytest.raises(UsageError, match="--until: expected a time after --since"):
        Period.parse("2026-05-05", "2026-05-04")


def test_another_code_space_or_width_is_refused(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite") as store:
        fill(store, 3)
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        with pytest.raises(
            CodeSpaceError, match=rf"a.sqlite: expected .*other-1, found {SPACE}; search with"
        ):
            reader.top_k(np.zeros(32, np.uint8), "other-1", 5)
        with pytest.raises(CodeSpaceError, match="a.sqlite: expected codes of 128 bits, found 256"):
            reader.top_k(np.zeros(16, np.uint8), SPACE, 5)


def test_an_empty_store_answers_nothing(tmp_path: Path) -> None:
    ObservationStore.open(tmp_path / "a.sqlite").close()
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        assert list(reader.top_k(np.zeros(32, np.uint8), SPACE, 5)) == []
        assert list(reader.observations()) == []


# --- commits, kills and faults


def test_commits_come_in_groups(tmp_path: Path) -> None:
    clock = Clock()
    with ObservationStore.open(tmp_path / "a.sqlite", commit_interval_s=5, clock=clock) as store:
        fill(store, 3)
        clock.now_s += 4.9
        fill(store, 1)
        assert (len(stored(store.path)), store.committed_seq) == (0, 0)
        clock.now_s += 0.1
        store.commit_if_due()
        assert (len(stored(store.path)), store.committed_seq) == (4, 4)
        fill(store, 1)
        assert store.committed_seq == 4
        store.flush()
        assert (len(stored(store.path)), store.committed_seq) == (5, 5)


WRITER = """
    import sys
    from pathlib import Path
    from tests.edge.test_store import observation
    from edge.store import ObservationStore
    store = ObservationStore.open(Path(sys.argv[1]), "dev", commit_interval_s=0, block_observations=16)
    print(store.epoch, flush=True)
    while True:
        for _ in range(1 + store.next_seq % 5):
            store.add(observation(store))
        store.flush()
        print(store.committed_seq, flush=True)
"""


def test_kill_9_loses_nothing_committed_and_the_next_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    epochs, n_acknowledged = set(), 0
    for n_lines in (3, 40, 1, 75):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            epochs.add(int(writer.stdout.readline()))
            lines = [writer.stdout.readline() for _ in range(n_lines)]
            writer.send_signal(signal.SIGKILL)
            lines += writer.stdout.read().splitlines()  # what was acknowledged before the kill arrived
        assert writer.returncode == -signal.SIGKILL
        n_acknowledged = int(lines[-1])
        seqs = [each.seq for each in stored(path)]
        assert seqs == list(range(len(seqs)))
        assert len(seqs) >= n_acknowledged > 0
    assert len(epochs) == 1
    with ObservationStore.open(path) as store:
        assert (store.epoch in epochs, store.device_id, store.put_aside) == (True, "dev", ())
        assert store.next_seq == len(seqs)


def test_a_full_disk_loses_nothing_and_recording_goes_on_when_space_returns(tmp_path: Path) -> None:
    clock = Clock()
    store = ObservationStore.open(tmp_path / "a.sqlite", clock=clock, block_observations=64)
    added = fill(store, 40)
    store.flush()
    epoch = store.epoch
    with largest_file(SMALLEST_FILE_LIMIT):
        added += fill(store, 40)
        with pytest.raises(StoreError, match=r"a.sqlite: .*40 observations wait in memory: free space"):
            store.flush()
        added += fill(store, 10)  # no attempt before the interval is over
        clock.now_s += 5
        added.append(observation(store))
        with pytest.raises(StoreError, match="51 observations wait"):
            store.add(added[-1])
        assert (store.committed_seq, store.next_seq) == (40, 91)
    assert stored(store.path) == added[:40]
    store.close()
    assert (store.epoch, store.n_dropped) == (epoch, 0)
    assert stored(store.path) == added


def test_what_does_not_fit_in_memory_is_dropped_and_recorded_but_no_detection(tmp_path: Path) -> None:
    clock = Clock()
    store = ObservationStore.open(tmp_path / "a.sqlite", clock=clock, max_uncommitted=20)
    fill(store, 5)
    store.flush()
    with largest_file(SMALLEST_FILE_LIMIT):
        with_detection = observation(store)
        store.add(with_detection, [detection(with_detection)])
        with pytest.raises(StoreError):
            store.flush()
        fill(store, 49)
    store.close()
    assert store.n_dropped == 30
    with StoreReader.open(store.path) as reader:
        seqs = [each.seq for each in reader.observations()]
        ((first_seq, n, reason),) = reader.dropped()
        assert [found.seq for found, _ in reader.detections()] == [5]
    assert (first_seq, n) == (6, 30)
    assert "not written in time" in reason
    assert sorted([*seqs, *range(first_seq, first_seq + n)]) == list(range(55))


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk needs root"
)
def test_a_really_full_disk(tmp_path: Path) -> None:
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], check=False
    ).returncode:
        pytest.skip("this machine does not let tests mount")
    try:
        store = ObservationStore.open(tmp_path / "a.sqlite", block_observations=64)
        added = fill(store, 100)
        store.flush()
        ballast = tmp_path / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        with pytest.raises(StoreError, match="full"):
            while True:
                added += fill(store, 100)
                store.flush()
        assert stored(store.path) == added[: store.committed_seq]
        ballast.unlink()
        store.close()
        assert stored(store.path) == added
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_commit_that_fails_after_it_was_done_is_not_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_then_fail(tables: store_tables.StoreTables, *batch: object) -> None:
        monkeypatch.undo()
        tables.write(*batch)  # type: ignore[arg-type]
        raise sqlite3.OperationalError("disk I/O error")

    with ObservationStore.open(tmp_path / "a.sqlite") as store:
        store.record_skipped("x.wav", "empty")
        added = fill(store, 4)
        monkeypatch.setattr(store_tables.StoreTables, "write", write_then_fail)
        with pytest.raises(StoreError, match="disk I/O error"):
            store.flush()
        added += fill(store, 2)
    assert stored(store.path) == added
    with StoreReader.open(store.path) as reader:
        assert len(reader.events()) == 1


def test_a_removed_file_is_begun_anew_with_what_was_not_committed(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", "dev") as store:
        fill(store, 10)
        store.flush()
        epoch = store.epoch
        waiting = fill(store, 3)
        for name in ("a.sqlite", "a.sqlite-wal", "a.sqlite-shm"):
            (tmp_path / name).unlink()
        store.flush()
        assert (store.epoch != epoch, store.next_seq) == (True, 3)
    found = stored(store.path)
    assert [(each.seq, each.code) for each in found] == [(i, each.code) for i, each in enumerate(waiting)]


# --- damage


def damage_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(4096))


def damage_tail_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 64] = b"\xa5" * 64
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5000)


@pytest.mark.parametrize("damage", [damage_header, damage_tail_pages, truncate])
def test_a_damaged_database_is_put_aside_and_recording_goes_on(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.sqlite"
    with ObservationStore.open(path, "dev", block_observations=32) as store:
        fill(store, 100)
        epoch = store.epoch
    damage(path)
    damaged = path.read_bytes()
    time = datetime(2026, 5, 4, 3, 2, 1, tzinfo=timezone.utc)
    with ObservationStore.open(path, "dev", now=lambda: time) as store:
        (aside,) = store.put_aside
        assert aside == tmp_path / "a.sqlite.corrupt-20260504T030201Z"
        assert (store.epoch != epoch, store.next_seq) == (True, 0)
        fill(store, 5)
    assert aside.read_bytes() == damaged
    assert len(stored(path)) == 5
    assert "damaged" in caplog.text
    with StoreReader.open(path) as reader:
        (event,) = reader.events()
    assert (event.kind, event.source) == ("recovered", str(aside))


def test_damage_found_while_recording_keeps_what_was_not_committed(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with ObservationStore.open(path, "dev", block_observations=32) as store:
        fill(store, 200)
    with ObservationStore.open(path, "dev", block_observations=32) as store:
        epoch = store.epoch
        one = observation(store)
        store.add(one, [detection(one)])
        damage_tail_pages(path)
        waiting = [one, *fill(store, 40)]
        store.flush()
        assert len(store.put_aside) == 1
        assert store.epoch != epoch
        assert store.next_seq == 41
        fill(store, 1)
    found = stored(path)
    assert [each.code for each in found[:41]] == [each.code for each in waiting]
    with StoreReader.open(path) as reader:
        ((where, _),) = reader.detections()
    assert (where.seq, where.code) == (0, one.code)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    sound = tmp_path / "dawn.wav"
    sound.write_bytes(b"RIFF" + bytes(5000))
    with pytest.raises(StoreError, match=r"dawn.wav: expected a fieldcube store, found another kind of file"):
        ObservationStore.open(sound)
    assert sound.read_bytes() == b"RIFF" + bytes(5000)
    with pytest.raises(
        StoreError, match=r"dawn.wav: expected a readable store, found file is not a database"
    ):
        StoreReader.open(sound)


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "photos.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photo (name TEXT)")
    connection.close()
    content = path.read_bytes()
    for open_store in (ObservationStore.open, StoreReader.open):
        with pytest.raises(
            StoreError, match="photos.sqlite: expected a fieldcube store, found another program's"
        ):
            open_store(path)
    assert [each.name for each in tmp_path.glob("*corrupt*")] == []
    assert sqlite3.connect(path).execute("SELECT count(*) FROM photo").fetchone() == (0,)
    assert len(path.read_bytes()) == len(content)


def test_a_damaged_store_is_one_clear_error_for_readers(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with ObservationStore.open(path, block_observations=32) as store:
        fill(store, 320)
    damage_tail_pages(path)
    with (
        pytest.raises(
            StoreError, match="a.sqlite: expected a readable store, found .*malformed; edge-monitor puts"
        ),
        StoreReader.open(path) as reader,
    ):
        reader.top_k(np.zeros(32, np.uint8), SPACE, 5)


# --- two at a time


def test_readers_see_what_is_committed_while_the_writer_goes_on(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=32) as store:
        added = fill(store, 50)
        store.flush()
        with StoreReader.open(store.path) as reader:
            walk = reader.observations()
            seen = [next(walk)]
            added += fill(store, 70)
            store.flush()  # folds the tail into blocks under the reader
            seen += walk
            assert seen == added
            assert len(list(reader.top_k(np.zeros(32, np.uint8), SPACE, 0))) == 120


def test_a_second_writer_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(StoreError, match=rf"only writer, found another one \(process {writer.pid}\)"):
            ObservationStore.open(path)
        writer.kill()
        writer.stdout.read()
    ObservationStore.open(path).close()


@pytest.mark.parametrize("writable", [True, False])
def test_a_closed_store_can_be_read_also_in_a_read_only_folder(writable: bool) -> None:
    folder = Path(tempfile.mkdtemp())  # tmp_path lies below folders that only its owner may enter
    try:
        with ObservationStore.open(folder / "a.sqlite") as store:
            added = fill(store, 50)
        assert not (folder / "a.sqlite-wal").exists()
        folder.chmod(0o777 if writable else 0o555)
        with without_privileges():
            assert stored(folder / "a.sqlite") == added
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_a_killed_store_in_a_read_only_folder_is_read_or_refused_but_never_read_in_part() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        store = ObservationStore.open(folder / "live.sqlite")
        added = fill(store, 50)
        store.flush()
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(folder / f"live.sqlite{suffix}", folder / f"a.sqlite{suffix}")
        store.close()
        folder.chmod(0o555)
        with without_privileges():
            assert stored(folder / "a.sqlite") == added
        folder.chmod(0o755)
        (folder / "a.sqlite-shm").unlink()
        folder.chmod(0o555)
        with (
            without_privileges(),
            pytest.raises(StoreError, match=r"a.sqlite-wal: copy both files to a folder"),
        ):
            stored(folder / "a.sqlite")
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_a_place_that_cannot_be_written_is_a_clear_error() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o555)
        with without_privileges(), pytest.raises(StoreError, match="expected a place that can be written"):
            ObservationStore.open(folder / "a.sqlite")
    finally:
        folder.rmdir()


def test_a_missing_store_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none.sqlite: expected a fieldcube store, found no such file"):
        StoreReader.open(tmp_path / "none.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_the_device_is_kept_and_another_one_refused(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", "north") as store:
        epoch = store.epoch
    with ObservationStore.open(tmp_path / "a.sqlite") as store:
        assert (store.device_id, store.epoch) == ("north", epoch)
    with pytest.raises(StoreError, match="expected observations of device 'south', found those of 'north'"):
        ObservationStore.open(tmp_path / "a.sqlite", "south")
    ObservationStore.open(tmp_path / "a.sqlite", "north").close()  # the refused one let go of the lock


# --- schema


def schema_of(path: Path) -> str:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return f"-- user_version {version}\n" + "".join(f"{re.sub(r' +', ' ', sql)};\n" for (sql,) in rows)


def test_schema_is_the_golden_one(tmp_path: Path) -> None:
    ObservationStore.open(tmp_path / "a.sqlite").close()
    assert schema_of(tmp_path / "a.sqlite") == SCHEMA_FILE.read_text(encoding="utf-8")


def test_a_migration_is_applied_once_with_its_record(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite") as store:
        added = fill(store, 3)
    connection = store_schema.connect_writer(tmp_path / "a.sqlite")

    def add_note(open_connection: sqlite3.Connection) -> None:
        open_connection.execute("ALTER TABLE tail ADD COLUMN note TEXT")

    def fail(open_connection: sqlite3.Connection) -> None:
        open_connection.execute("DROP TABLE tail")
        raise sqlite3.OperationalError("disk I/O error")

    path = tmp_path / "a.sqlite"
    for _ in range(2):  # the second time there is nothing to do
        store_schema.migrate(connection, path, [store_schema.create_tables, add_note])
    with pytest.raises(sqlite3.OperationalError):
        store_schema.migrate(connection, path, [store_schema.create_tables, add_note, fail])
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert connection.execute("SELECT count(*), max(note) FROM tail").fetchone() == (len(added), None)
    connection.close()
    for open_store in (ObservationStore.open, StoreReader.open):  # this program knows only version 1
        with pytest.raises(
            StoreError, match="expected a store of schema version 1 or older, found 2; update"
        ):
            open_store(path)


def test_an_older_schema_is_not_read_before_it_is_migrated(tmp_path: Path) -> None:
    connection = store_schema.connect_writer(tmp_path / "a.sqlite")
    connection.close()
    with pytest.raises(StoreError, match="of schema version 1, found an empty database; run edge-monitor"):
        StoreReader.open(tmp_path / "a.sqlite")
