"""Ingest under damage: hostile messages, a full disk, kills, an archive that fails, numbers beyond all bounds."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.batch import Batch, Progress
from edge.errors import ArchiveError, HubError, WireError
from hub.archive import ArchiveBlock
from hub.archive_sqlite import SqliteArchive
from hub.enrolment import enrol, new_code
from hub.ingest import Ingest
from hub.refusal import BusyError, NoRoomError, OverQuotaError
from hub.store_registry import Registry
from hub.store_registry_intake import MAX_EPOCHS, MAX_JUMP
from tests.hub.conftest import NOW_NS
from tests.simulate.fuzz_hub import fuzz_hub
from tests.simulate.recorder import Recorder


def kept(archive: SqliteArchive) -> list[int]:
    """Return the seq of everything in an archive, in order."""
    return sorted(block.run.first_seq + i for block in archive.blocks() for i in range(block.n))


def test_damaged_messages_get_refusals_and_nothing_else(tmp_path: Path) -> None:
    answers = fuzz_hub(tmp_path, 10_000)
    assert answers["submitted"] > 200
    assert answers["WireError"] > 5000


def test_numbers_beyond_all_bounds_are_refused_and_leave_nothing(
    ingest: Ingest, owl: Recorder, registry: Registry
) -> None:
    ingest.take(owl.sent(0, 10))
    far = 10 + MAX_JUMP
    assert ingest.take(owl.sent(far, 1)).progress["observations"].next == far + 1
    next_far = far + 1 + MAX_JUMP + 1
    for batch in (
        owl.batch([owl.run(next_far, 1)]),
        owl.batch(dropped=((next_far - 10, 11, "full"),)),
        owl.batch(detections=((MAX_JUMP + 1, owl.detection(0)),)),
        owl.batch(events=(owl.event(MAX_JUMP + 1),)),
    ):
        with pytest.raises(WireError, match="expected numbers up to"):
            ingest.take(owl.envelope(batch))
    (effort,) = registry.results.efforts()
    assert (effort.n_kept, effort.n_dropped, registry.results.detections()) == (11, 0, [])


def test_a_recorder_cannot_begin_epochs_without_end(
    ingest: Ingest, owl: Recorder, registry: Registry
) -> None:
    device = registry.devices.named("owl-1")
    registry.intake.keep(
        [ingest.arrival(device, Batch("owl-1", epoch, (0, 0, 0)), 0) for epoch in range(MAX_EPOCHS)], NOW_NS
    )
    ingest.keep(device, Batch("owl-1", 5, (0, 0, 0)))
    with pytest.raises(WireError, match="epoch"):
        ingest.keep(device, Batch("owl-1", MAX_EPOCHS, (0, 0, 0)))


def test_a_full_disk_refuses_whole_batches_and_loses_none_that_it_took(
    tmp_path: Path, registry: Registry, owl: Recorder
) -> None:
    archive = SqliteArchive.open(tmp_path / "archive.sqlite")
    with Ingest(registry, archive, lambda: NOW_NS) as ingest:
        ingest.take(owl.sent(0, 100))
        n_pages = registry.database.path.stat().st_size // 4096
        registry.database.limit_pages(n_pages + 30)
        taken = 100
        with pytest.raises(NoRoomError) as refused:
            for _ in range(100):
                ingest.take(owl.sent(taken, 1000))
                taken += 1000
        assert (refused.value.status, taken < 100_000) == (507, True)
        assert ingest.wait_archived(10)
        assert kept(archive) == list(range(taken))
        registry.database.limit_pages(1 << 30)
        assert ingest.take(owl.sent(taken, 1000)).progress["observations"] == Progress(taken + 1000)
    archive.close()


def test_one_batch_that_is_refused_takes_no_other_with_it(
    registry: Registry, archive: SqliteArchive, owl: Recorder
) -> None:
    with Ingest(registry, archive, lambda: NOW_NS) as ingest:
        device = registry.devices.named("owl-1")
        good, bad, better = (
            ingest.arrival(device, owl.batch([owl.run(first, 5)]), 10) for first in (0, 2 * MAX_JUMP, 5)
        )
        answers = registry.intake.keep([good, bad, better], NOW_NS)
        assert isinstance(answers[1], WireError)
        assert kept(archive) == []
        assert ingest.take(owl.sent(0, 10)).progress["observations"] == Progress(10)
        ingest.wait_archived(10)
    assert kept(archive) == list(range(10))


def test_refused_batches_count_for_the_quota(tmp_path: Path, archive: SqliteArchive) -> None:
    owl = Recorder("owl-1")
    far, near = owl.sent(2 * MAX_JUMP, 100), owl.sent(0, 100)
    with (
        Registry.open(tmp_path / "hub.sqlite", 2 * len(far)) as registry,
        Ingest(registry, archive, lambda: NOW_NS) as ingest,
    ):
        enrol(registry, owl.enrolment(new_code(registry, None, NOW_NS)), NOW_NS)
        for _ in range(2):
            with pytest.raises(WireError, match="expected numbers up to"):
                ingest.take(far)
        with pytest.raises(OverQuotaError):
            ingest.take(near)


def test_the_quota_counts_over_restarts(tmp_path: Path, archive: SqliteArchive, owl: Recorder) -> None:
    path, body = tmp_path / "hub.sqlite", owl.sent(0, 100)

    def take(now_ns: int) -> None:
        with (
            Registry.open(path, 2 * len(body)) as registry,
            Ingest(registry, archive, lambda: now_ns) as ingest,
        ):
            ingest.take(body)

    take(NOW_NS)
    take(NOW_NS)
    with pytest.raises(OverQuotaError):
        take(NOW_NS)
    take(NOW_NS + 86_400 * 10**9)


class Failing(SqliteArchive):
    """An archive that takes nothing for a while."""

    fails = True

    def add(self, blocks: Sequence[ArchiveBlock]) -> None:
        if self.fails:
            raise ArchiveError("archive: out of order")
        super().add(blocks)


def test_codes_wait_for_an_archive_that_fails(tmp_path: Path, registry: Registry, owl: Recorder) -> None:
    archive = Failing.open(tmp_path / "archive.sqlite")
    assert isinstance(archive, Failing)
    with Ingest(registry, archive, lambda: NOW_NS, retry_s=0.05) as ingest:
        ingest.take(owl.sent(0, 10))
        assert not ingest.wait_archived(0.2)
        assert len(list(registry.intake.waiting())) == 1
        archive.fails = False
        assert ingest.wait_archived(10)
    assert kept(archive) == list(range(10))
    archive.close()


class Deadly(SqliteArchive):
    """An archive in which the power goes, before or after it has kept what it was given."""

    is_late = False

    def add(self, blocks: Sequence[ArchiveBlock]) -> None:
        if self.is_late:
            super().add(blocks)
        os.kill(os.getpid(), signal.SIGKILL)


def _die(folder: Path, body: bytes, is_late: bool) -> None:
    archive = Deadly.open(folder / "archive.sqlite")
    assert isinstance(archive, Deadly)
    archive.is_late = is_late
    with (
        Registry.open(folder / "hub.sqlite") as registry,
        Ingest(registry, archive, lambda: NOW_NS) as ingest,
    ):
        ingest.take(body)
        ingest.wait_archived(10)


@pytest.mark.parametrize("is_late", [False, True])
def test_killed_between_commit_and_archive_nothing_is_lost_or_doubled(
    tmp_path: Path, registry: Registry, owl: Recorder, is_late: bool
) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_die, args=(tmp_path, owl.sent(0, 10), is_late)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    archive = SqliteArchive.open(tmp_path / "archive.sqlite")
    assert len(list(registry.intake.waiting())) == 1
    with Ingest(registry, archive, lambda: NOW_NS) as ingest:
        assert ingest.wait_archived(10)
        assert kept(archive) == list(range(10))
        assert ingest.take(owl.sent(0, 10)).progress["observations"] == Progress(10)
        assert ingest.wait_archived(10)
    assert kept(archive) == list(range(10))
    archive.close()


def test_more_batches_than_may_wait_are_told_to_come_again(
    registry: Registry, archive: SqliteArchive, owl: Recorder
) -> None:
    with Ingest(registry, archive, lambda: NOW_NS, max_waiting=2) as ingest:
        with registry.database.writing():  # the disk is slow
            futures = [ingest.submit(owl.sent(i, 1)) for i in range(2)]
            with pytest.raises(BusyError, match="fewer batches") as refused:
                for i in range(2, 5):
                    ingest.submit(owl.sent(i, 1))
            assert refused.value.status == 503
        assert [future.result(10).receipt.n_conflicts for future in futures] == [0] * len(futures)


def test_a_connection_that_failed_is_opened_anew(registry: Registry, owl: Recorder) -> None:
    with pytest.raises(HubError), registry.database.writing() as connection:
        connection.execute("SELECT no_such_column FROM device")
    with pytest.raises(HubError), registry.database.writing() as connection:
        connection.close()
    registry.devices.set_title("owl-1", "at the pond")
    assert registry.devices.named("owl-1").title == "at the pond"
