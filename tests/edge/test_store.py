"""The store's writer: nothing committed is lost, damage never stops recording, a second writer is refused."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edge import store_tables
from edge.errors import ObservationError, StoreError
from edge.observation import Observation
from edge.store import ObservationStore
from edge.store_reader import StoreReader
from tests.simulate.observations import (
    Clock,
    detection,
    fill,
    observation,
)

REPOSITORY = Path(__file__).parents[2]
SMALLEST_FILE_LIMIT = 36_000  # bytes: SQLite's -shm of 32 KiB fits, a store of more than 8 pages does not


def stored(path: Path) -> list[Observation]:
    with StoreReader.open(path) as reader:
        return list(reader.observations())


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


def test_an_observation_of_another_identity_is_refused(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite") as store:
        first = observation(store)
        store.add(first)
        with pytest.raises(ObservationError, match=r"expected \(device, epoch, seq\).*1\), found.*0\)"):
            store.add(first)
        with pytest.raises(ObservationError, match="expected"):
            store.add(observation(store), [detection(first)])
        assert store.next_seq == 1


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


def test_text_that_is_not_utf_8_loses_nothing(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite") as store:
        fill(store, 2)
        store.record_skipped("a\udcff.wav", "no \ud800")
        one = observation(store)
        with pytest.raises(ObservationError, match="clip: expected text in UTF-8"):
            replace(detection(one), clip="a\udcff.flac")
        store.flush()
        assert len(stored(store.path)) == 2
        with StoreReader.open(store.path) as reader:
            (event,) = reader.events()
    assert (event.source, event.reason) == ("a\\xff.wav", "no \\ud800")


WRITER = """
    import sys
    from pathlib import Path
    from tests.simulate.observations import observation
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
    store = ObservationStore.open(
        tmp_path / "a.sqlite", clock=clock, max_uncommitted=20, block_observations=16
    )
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


def test_a_place_that_cannot_be_written_is_a_clear_error() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o555)
        with without_privileges(), pytest.raises(StoreError, match="expected a place that can be written"):
            ObservationStore.open(folder / "a.sqlite")
    finally:
        folder.rmdir()


def test_the_device_is_kept_and_another_one_refused(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", "north") as store:
        epoch = store.epoch
    with ObservationStore.open(tmp_path / "a.sqlite") as store:
        assert (store.device_id, store.epoch) == ("north", epoch)
    with pytest.raises(StoreError, match="expected observations of device 'south', found those of 'north'"):
        ObservationStore.open(tmp_path / "a.sqlite", "south")
    ObservationStore.open(tmp_path / "a.sqlite", "north").close()  # the refused one let go of the lock
