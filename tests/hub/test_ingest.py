from __future__ import annotations

import pytest

from edge.batch import Progress
from edge.errors import WireError
from hub.archive import Archive
from hub.ingest import Ingest
from hub.refusal import UnauthorizedError
from hub.store_registry import Registry
from tests.simulate.recorder import FIRST_WALL_NS, SPACE, WINDOW_NS, Recorder


def archived(ingest: Ingest, archive: Archive) -> dict[tuple[int, int, int], bytes]:
    """Return the code of everything in the archive by (device, epoch, seq), each of which must be there once."""
    assert ingest.wait_archived(10)
    found: dict[tuple[int, int, int], bytes] = {}
    for block in archive.blocks():
        for each in block.run.observations("any", block.epoch):
            key = (block.device, each.epoch, each.seq)
            assert key not in found
            found[key] = each.code
    return found


def test_a_batch_is_acknowledged_and_reaches_the_archive(
    ingest: Ingest, archive: Archive, owl: Recorder, registry: Registry
) -> None:
    receipt = ingest.take(owl.sent(0, 10))
    assert receipt.epoch == owl.epoch
    assert receipt.progress["observations"] == Progress(10)
    assert receipt.n_conflicts == 0
    codes = [each.code for each in owl.run(0, 10).observations("any", 7)]
    assert archived(ingest, archive) == {(1, 7, seq): code for seq, code in enumerate(codes)}
    assert list(registry.intake.waiting()) == []


def test_what_comes_twice_is_kept_once(
    ingest: Ingest, archive: Archive, owl: Recorder, registry: Registry
) -> None:
    body = owl.sent(0, 10)
    first = ingest.take(body)
    assert ingest.take(body) == first
    assert ingest.take(owl.sent(5, 10)).progress["observations"] == Progress(15)
    assert len(archived(ingest, archive)) == 15
    assert archive.counts() == {(1, SPACE): 15}
    assert registry.results.conflicts() == []


def test_missing_ranges_are_told_and_filled(ingest: Ingest, archive: Archive, owl: Recorder) -> None:
    assert ingest.take(owl.sent(20, 5)).progress["observations"] == Progress(25, ((0, 20),))
    assert ingest.take(owl.sent(3, 2)).progress["observations"] == Progress(25, ((0, 3), (5, 15)))
    whole = ingest.take(owl.sent(0, 25))
    assert whole.progress["observations"] == Progress(25)
    assert whole.n_conflicts == 0
    assert len(archived(ingest, archive)) == 25


def test_another_content_under_a_known_number_is_reported_and_overwrites_nothing(
    ingest: Ingest, archive: Archive, owl: Recorder, registry: Registry
) -> None:
    ingest.take(owl.sent(0, 10))
    assert ingest.take(owl.sent(4, 10, salt=1)).n_conflicts == 6
    kept = archived(ingest, archive)
    codes = [each.code for each in owl.run(0, 10).observations("any", 7)]
    assert [kept[1, 7, seq] for seq in range(10)] == codes
    assert len(kept) == 14
    (conflict,) = registry.results.conflicts()
    assert (conflict.device, conflict.stream, conflict.first, conflict.n) == (1, "observations", 4, 6)


def test_detections_and_events_are_kept_once_and_compared(
    ingest: Ingest, owl: Recorder, registry: Registry
) -> None:
    sent = owl.batch(
        [owl.run(0, 4)],
        next=(4, 2, 1),
        detections=((0, owl.detection(1)), (1, owl.detection(2, "fox"))),
        events=(owl.event(0),),
    )
    first = ingest.take(owl.envelope(sent))
    assert first.progress == {
        "observations": Progress(4),
        "detections": Progress(2),
        "events": Progress(1),
    }
    assert ingest.take(owl.envelope(sent)) == first
    changed = owl.batch(
        [], next=(4, 2, 1), detections=((1, owl.detection(2, "fox", 71)),), events=(owl.event(0, "x"),)
    )
    assert ingest.take(owl.envelope(changed)).n_conflicts == 2
    assert {each.query: each.distance for each in registry.results.detections()} == {"owl": 70, "fox": 70}
    assert [each.reason for each in registry.results.events(1)] == ["overrun"]
    assert sorted(each.stream for each in registry.results.conflicts()) == ["detections", "events"]


@pytest.mark.parametrize("order", ["together", "detection first", "observation first"])
def test_a_detection_knows_its_observation_in_whatever_order_they_come(
    ingest: Ingest, owl: Recorder, registry: Registry, order: str
) -> None:
    runs, found = [owl.run(0, 4)], ((0, owl.detection(2)),)
    batches = {
        "together": [owl.batch(runs, detections=found)],
        "detection first": [owl.batch(detections=found), owl.batch(runs)],
        "observation first": [owl.batch(runs), owl.batch(detections=found)],
    }[order]
    for batch in batches:
        ingest.take(owl.envelope(batch))
    assert ingest.wait_archived(10)
    (kept,) = registry.results.detections(query="a owl")
    assert (kept.wall_ns, kept.source) == (FIRST_WALL_NS + 2 * WINDOW_NS, "microphone:owl-1")
    assert kept.uid == registry.results.uid_of(1, 7, 2)
    assert kept.uid is not None
    assert registry.results.identity_of(kept.uid) == (1, 7, 2)


def test_dropped_ranges_settle_numbers_that_never_come(
    ingest: Ingest, owl: Recorder, registry: Registry
) -> None:
    batch = owl.batch([owl.run(0, 4), owl.run(8, 2)], dropped=((2, 6, "disk full"),))
    assert ingest.take(owl.envelope(batch)).progress["observations"] == Progress(10)
    assert registry.results.dropped(1) == [(7, 4, 4, "disk full")]
    (effort,) = registry.results.efforts()
    assert (effort.n_made, effort.n_kept, effort.n_dropped) == (10, 6, 4)


def test_what_was_told_as_dropped_and_comes_after_all_is_kept(
    ingest: Ingest, archive: Archive, owl: Recorder, registry: Registry
) -> None:
    ingest.take(owl.envelope(owl.batch([owl.run(0, 2)], next=(12, 0, 0), dropped=((2, 10, "disk full"),))))
    ingest.take(owl.sent(4, 3))
    ingest.take(owl.sent(11, 1))
    assert registry.results.dropped(1) == [(7, 2, 2, "disk full"), (7, 7, 4, "disk full")]
    assert {seq for _, _, seq in archived(ingest, archive)} == {0, 1, 4, 5, 6, 11}
    (effort,) = registry.results.efforts(1)
    assert (effort.n_made, effort.n_kept, effort.n_dropped) == (12, 6, 6)


def test_only_enrolled_recorders_with_their_own_key_may_send(
    ingest: Ingest, owl: Recorder, registry: Registry
) -> None:
    stranger, forger = Recorder("fox-1"), Recorder("owl-1", seed=5)
    for body in (stranger.sent(0, 1), forger.sent(0, 1), owl.signed("clip", b"")):
        with pytest.raises(UnauthorizedError):
            ingest.take(body)
    altered = bytearray(owl.sent(0, 4))
    altered[200] ^= 1
    with pytest.raises((UnauthorizedError, WireError)):
        ingest.take(bytes(altered))
    registry.devices.set_status("owl-1", "revoked")
    with pytest.raises(UnauthorizedError, match="revoked"):
        ingest.take(owl.sent(0, 4))
    assert registry.results.efforts() == []


def test_a_batch_of_another_recorder_is_refused(ingest: Ingest, owl: Recorder) -> None:
    other = Recorder("fox-1")
    from edge.batch import encode_batch

    with pytest.raises(WireError, match="fox-1"):
        ingest.take(owl.signed("batch", encode_batch(other.batch([other.run(0, 1)]))))
