from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from edge.batch import Progress
from edge.errors import HubError
from hub.archive import ArchiveBlock
from hub.archive_sqlite import SqliteArchive
from hub.enrolment import enrol
from hub.ingest import Ingest
from hub.store_registry import Registry
from tests.hub.conftest import NOW_NS
from tests.simulate.recorder import Recorder


def seqs(archive: SqliteArchive) -> list[int]:
    return sorted(
        block.run.first_seq + i for block in archive.blocks() if block.device == 1 for i in range(block.n)
    )


def deliver(registry: Registry, archive: SqliteArchive, *bodies: bytes, ask_again: bool = False) -> Progress:
    """Send bodies to a hub that starts and stops; return what the last receipt says of observations."""
    with Ingest(registry, archive, lambda: NOW_NS, ask_again=ask_again) as ingest:
        receipts = [ingest.take(body) for body in bodies]
        assert ingest.wait_archived(10)
    return receipts[-1].progress["observations"]


def test_what_an_older_archive_lacks_is_asked_for_again(
    tmp_path: Path,
    registry: Registry,
    archive: SqliteArchive,
    owl: Recorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = ((0, owl.detection(70)),)
    deliver(registry, archive, owl.sent(0, 60))
    archive.close()
    shutil.copy(archive.path, tmp_path / "older.sqlite")
    newer = SqliteArchive.open(archive.path)
    deliver(registry, newer, owl.envelope(owl.batch([owl.run(60, 40), owl.run(120, 30)], detections=found)))
    newer.close()
    older = SqliteArchive.open(tmp_path / "older.sqlite")
    assert deliver(registry, older, owl.envelope(owl.batch(next=(150, 1, 0)))) == Progress(60)
    assert "70 of owl-1" in caplog.text
    assert registry.results.efforts()[0].n_kept == 60
    # a detection keeps what is known of it, and is told of its observation when that comes again
    (kept,) = registry.results.detections()
    assert (kept.seq, kept.uid) == (70, None)
    assert deliver(registry, older, owl.sent(60, 90)) == Progress(150)
    assert seqs(older) == list(range(150))
    (kept,) = registry.results.detections()
    assert kept.uid == registry.results.uid_of(1, 7, 70)
    assert kept.uid is not None
    assert older.codes_of([kept.uid])
    assert registry.results.conflicts() == []
    older.close()


def test_a_block_that_was_lost_in_the_middle_is_listed_as_missing(
    registry: Registry, archive: SqliteArchive, owl: Recorder
) -> None:
    deliver(registry, archive, owl.sent(0, 20), owl.sent(20, 20), owl.sent(40, 20))
    archive.remove([(21, 20)])
    assert deliver(registry, archive, owl.sent(60, 1)) == Progress(61, ((20, 20),))
    assert deliver(registry, archive, owl.sent(20, 20)) == Progress(61)
    assert seqs(archive) == list(range(61))


def test_codes_that_wait_are_not_asked_for_again(
    tmp_path: Path, registry: Registry, archive: SqliteArchive, owl: Recorder
) -> None:
    deliver(registry, archive, owl.sent(0, 10))
    device = registry.devices.named("owl-1")
    with Ingest(registry, archive, lambda: NOW_NS) as ingest:
        arrival = ingest.arrival(device, owl.batch([owl.run(10, 10)]), 0)
    registry.intake.keep([arrival], NOW_NS)  # committed, and then the power went
    assert deliver(registry, archive, owl.envelope(owl.batch(next=(20, 0, 0)))) == Progress(20)
    assert seqs(archive) == list(range(20))


def test_an_empty_archive_is_a_decision_of_a_person(
    tmp_path: Path, registry: Registry, archive: SqliteArchive, owl: Recorder
) -> None:
    deliver(registry, archive, owl.sent(0, 50))
    lost = SqliteArchive.open(tmp_path / "lost.sqlite")
    for _ in range(2):  # the first refusal leaves nothing locked
        with pytest.raises(HubError, match="--ask-again"):
            Ingest(registry, lost, lambda: NOW_NS)
    assert deliver(registry, lost, owl.envelope(owl.batch(next=(50, 0, 0))), ask_again=True) == Progress(0)
    assert deliver(registry, lost, owl.sent(0, 50)) == Progress(50)
    assert seqs(lost) == list(range(50))
    lost.close()


def test_what_only_the_archive_has_is_entered_in_an_older_registry(
    tmp_path: Path, registry: Registry, archive: SqliteArchive, owl: Recorder
) -> None:
    told = owl.envelope(owl.batch([owl.run(0, 20)], next=(1000, 0, 0), dropped=((700, 100, "disk full"),)))
    deliver(registry, archive, told)
    registry.database.backup(tmp_path / "old.sqlite")
    deliver(registry, archive, owl.sent(20, 700))
    with Registry.open(tmp_path / "old.sqlite") as old:
        assert deliver(old, archive, owl.sent(20, 700)) == Progress(800)
        assert deliver(old, archive, owl.sent(800, 10)) == Progress(810)
        assert old.results.dropped(1) == [(7, 720, 80, "disk full")]
        assert old.results.conflicts() == []  # the digests are those of what came
        uid = old.results.uid_of(1, 7, 700)
        assert uid is not None
        assert archive.codes_of([uid])
    assert seqs(archive) == [*range(720), *range(800, 810)]


def test_an_archive_that_comes_back_after_all_is_not_there_twice(
    tmp_path: Path, registry: Registry, archive: SqliteArchive, owl: Recorder
) -> None:
    deliver(registry, archive, owl.sent(0, 30), owl.sent(30, 30))
    other = SqliteArchive.open(tmp_path / "other.sqlite")
    deliver(registry, other, owl.sent(0, 30), ask_again=True)  # a wrong --archive
    other.close()
    assert deliver(registry, archive, owl.sent(60, 1)) == Progress(61)
    assert seqs(archive) == list(range(61))
    assert not list(tmp_path.glob("archive-set-aside-*"))


def test_numbers_that_came_under_another_uid_are_set_aside(
    tmp_path: Path, registry: Registry, archive: SqliteArchive, owl: Recorder
) -> None:
    deliver(registry, archive, owl.sent(0, 30))
    archive.add([ArchiveBlock(1000, 1, 7, owl.run(10, 20))])
    assert deliver(registry, archive, owl.sent(30, 1)) == Progress(31)
    assert seqs(archive) == list(range(31))
    held = SqliteArchive.open(tmp_path / "archive-set-aside-1000.sqlite")
    assert sum(block.n for block in held.blocks()) == 20
    held.close()


def test_codes_of_a_recorder_that_the_registry_does_not_know_are_set_aside(
    tmp_path: Path, registry: Registry, archive: SqliteArchive, owl: Recorder
) -> None:
    deliver(registry, archive, owl.sent(0, 10))
    registry.database.backup(tmp_path / "old.sqlite")
    fox, hen = Recorder("fox-1", seed=3), Recorder("hen-1", seed=4)
    enrol(registry, fox.enrolment(), NOW_NS)
    registry.devices.set_status("fox-1", "enrolled")
    deliver(registry, archive, fox.sent(0, 10), owl.sent(10, 10))
    with Registry.open(tmp_path / "old.sqlite") as old:
        assert deliver(old, archive, owl.sent(20, 1)) == Progress(21)
        enrol(old, hen.enrolment(), NOW_NS)  # gets the number that the other recorder had
        old.devices.set_status("hen-1", "enrolled")
        deliver(old, archive, hen.sent(0, 5))
    assert {block.device: block.n for block in archive.blocks()}[2] == 5
    assert seqs(archive) == list(range(21))
    assert archive.counts() == {(1, owl.run(0, 1).code_space): 21, (2, owl.run(0, 1).code_space): 5}
    (aside,) = tmp_path.glob("archive-set-aside-*.sqlite")
    held = SqliteArchive.open(aside)
    assert [(block.device, block.n) for block in held.blocks()] == [(2, 10)]
    held.close()


def test_a_new_registry_beside_an_old_archive_is_refused(
    tmp_path: Path, registry: Registry, archive: SqliteArchive, owl: Recorder
) -> None:
    deliver(registry, archive, owl.sent(0, 10))
    with Registry.open(tmp_path / "new.sqlite") as new, pytest.raises(HubError, match="edge-hub restore"):
        Ingest(new, archive, lambda: NOW_NS)
    assert len(seqs(archive)) == 10


def test_nothing_is_told_where_both_agree(
    registry: Registry, archive: SqliteArchive, owl: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        deliver(registry, archive, owl.sent(0, 10))
        deliver(registry, archive, owl.sent(10, 10))
    assert caplog.text == ""
