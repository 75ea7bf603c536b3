"""What is sent next: every record once and in order, within limits, whatever the hub misses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("cbor2")

from edge.batch import STREAMS, Batch, Progress, Stream, encode_batch
from edge.observation import Detection
from edge.store import ObservationStore
from edge.store_runs import StoreRuns
from edge.sync_plan import MAX_JUMP, Limit, Plan, unsettled
from tests.simulate.observations import SPACE, code_of, detection, observation
from tests.simulate.small_hub import SmallHub

NOTHING: dict[Stream, Progress] = dict.fromkeys(STREAMS, Progress(0))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreRuns]:
    """Return 300 observations in two code spaces, 20..29 and 100 dropped, every 10th with a detection, 3 events."""
    path = tmp_path / "s.sqlite"
    with ObservationStore.open(path, "owl-1", block_observations=64, commit_interval_s=3600.0) as writer:
        for seq in range(300):
            if seq in (20, 100):
                writer.flush()
            space = SPACE if seq < 150 else "other-space"
            found = observation(writer, code_of(seq, 32 if seq < 220 else 16), space)
            writer.add(found, [detection(found)] if seq % 10 == 5 and seq != 25 else [])
            if seq in (29, 100):
                for _ in range(10 if seq == 29 else 1):
                    writer._uncommitted.drop_oldest()
        for name in "abc":
            writer.record_skipped(f"{name}.wav", "damaged")
    with StoreRuns.open(tmp_path / "s.sqlite") as opened:
        yield opened


def delivered(plan: Plan, hub: SmallHub, limit: Limit) -> list[Batch]:
    """Send until nothing is left; each record must be new."""
    batches: list[Batch] = []
    epoch = plan.store.epoch
    while True:
        progress = {stream: hub.progress(epoch, stream) for stream in STREAMS}
        batch = plan.next_batch(progress, limit, None)
        if not (batch.runs or batch.detections or batch.events or batch.dropped):
            return batches
        for run in batch.runs:
            assert not {(epoch, run.first_seq + i) for i in range(run.n)} & set(hub.observations)
        assert not {(epoch, number) for number, _ in batch.detections} & set(hub.detections)
        hub.take(batch)
        batches.append(batch)
        assert len(batches) < 1000


@pytest.mark.parametrize("n_bytes", [1, 500, 2_000, 10_000, 1_000_000])
@pytest.mark.parametrize("n_records", [1, 7, 16_384])
def test_every_record_is_sent_once_within_the_limits(store: StoreRuns, n_bytes: int, n_records: int) -> None:
    hub = SmallHub()
    batches = delivered(Plan(store, "lte"), hub, Limit(n_bytes, n_records))
    made = store.made()
    assert set(range(made[0])) == {seq for _, seq in hub.observations} | {seq for _, seq in hub.dropped}
    assert (len(hub.detections), len(hub.events)) == made[1:]
    for batch in batches:
        n = sum(run.n for run in batch.runs) + len(batch.detections) + len(batch.events) + len(batch.dropped)
        assert n <= n_records
        assert n == 1 or len(encode_batch(batch)) < n_bytes * 1.2 + 600
    if n_records == 1:
        assert len(batches) == sum(made) - 11 + 2  # a dropped range is one record


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_missing_is_sent_and_nothing_else(store: StoreRuns, seed: int) -> None:
    chosen, hub = random.Random(seed), SmallHub()
    delivered(Plan(store, "lte"), hub, Limit(1_000_000))
    for kept in (hub.observations, hub.detections, hub.events):
        for key in [key for key in kept if chosen.random() < 0.2]:
            del kept[key]
    hub.dropped = {key for key in hub.dropped if chosen.random() < 0.8}
    lost = set(range(300)) - {seq for _, seq in hub.observations} - {seq for _, seq in hub.dropped}
    batches = delivered(Plan(store, "lte"), hub, Limit(chosen.choice([300, 3_000])))
    sent = {run.first_seq + i for batch in batches for run in batch.runs for i in range(run.n)}
    sent |= {first + i for batch in batches for first, n, _ in batch.dropped for i in range(n)}
    assert lost <= sent
    assert sent - lost <= {*range(20, 30), 100}  # of a dropped range whole is told, also where part is known
    assert len(hub.detections) == store.made()[1]


def test_numbers_grow_from_the_front(store: StoreRuns) -> None:
    """A hub tells its oldest gaps as one where there are many: then only what fills them from the front helps."""
    firsts = []
    for batch in delivered(Plan(store, "lte"), SmallHub(), Limit(600)):
        firsts += sorted([*(run.first_seq for run in batch.runs), *(first for first, _, _ in batch.dropped)])
    assert firsts == sorted(firsts)


def test_detections_come_first_and_take_the_room(store: StoreRuns) -> None:
    batches = delivered(Plan(store, "lte"), SmallHub(), Limit(1_000))
    with_detections = [bool(batch.detections) for batch in batches]
    n = with_detections.count(True)
    assert n > 2
    assert with_detections == [True] * n + [False] * (len(batches) - n)
    assert all(sum(run.n for run in batch.runs) <= 4 for batch in batches[: n - 1])  # what a detection leaves


def test_without_codes_only_detections_and_events_go(store: StoreRuns) -> None:
    for plan, limit in ((Plan(store, "lte"), Limit(10**6, codes=False)), (Plan(store, "lora"), Limit(10**6))):
        (batch,) = delivered(plan, SmallHub(), limit)
        assert (len(batch.detections), len(batch.events), batch.runs, batch.dropped) == (29, 3, (), ())


def test_over_a_satellite_each_querys_best_code_goes(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    chances = {3: ("owl", 0.7), 5: ("owl", 0.9), 6: ("frog", 0.6), 8: ("owl", 0.8)}
    with ObservationStore.open(path, "owl-1") as writer:
        for seq in range(10):
            found = observation(writer)
            name, probability = chances.get(seq, ("", 0.0))
            made = (
                Detection("owl-1", writer.epoch, seq, name, "text", 60, probability, None, None)
                if name
                else None
            )
            writer.add(found, [made] if made else [])
    with StoreRuns.open(path) as store:
        batch = Plan(store, "satellite").next_batch(NOTHING, Limit(100_000), None)
        assert [(run.first_seq, run.n) for run in batch.runs] == [(5, 1), (6, 1)]
        known = {**NOTHING, "observations": Progress(6, ((0, 5),))}
        batch = Plan(store, "satellite").next_batch(known, Limit(100_000), None)
        assert [run.first_seq for run in batch.runs] == [6]
        far = {**NOTHING, "observations": Progress(0)}
        assert MAX_JUMP > 6
        assert Plan(store, "satellite").next_batch(far, Limit(100_000, codes=False), None).runs == ()


def test_what_the_hub_refuses_is_not_offered_again(store: StoreRuns) -> None:
    hub = SmallHub()
    refused: dict[Stream, frozenset[int]] = {
        "observations": frozenset({0, 7, 299}),
        "detections": frozenset({2}),
        "events": frozenset({0, 1, 2}),
    }
    delivered(Plan(store, "lte", refused), hub, Limit(900))
    assert not {0, 7, 299} & {seq for _, seq in hub.observations}
    assert len(hub.observations) == 300 - 3 - 11
    assert (len(hub.detections), len(hub.events)) == (28, 0)


def test_a_hole_that_the_store_cannot_explain_is_passed_over(store: StoreRuns) -> None:
    hub = SmallHub()
    with ObservationStore.open(store.path, "owl-1") as writer:
        for _ in range(5):
            writer._next_seq = writer.next_seq + 3
            writer.add(observation(writer))
    delivered(Plan(store, "lte"), hub, Limit(10_000))
    assert len(hub.observations) == 289 + 5


@pytest.mark.parametrize(
    ("progress", "made", "refused", "expected"),
    [
        (Progress(0), 0, (), []),
        (Progress(0), 5, (), [(0, 5)]),
        (Progress(5), 5, (), []),
        (Progress(5, ((1, 2),)), 9, (), [(1, 2), (5, 4)]),
        (Progress(9, ((1, 2), (4, 5))), 6, (), [(1, 2), (4, 2)]),  # a hub that is ahead of this store
        (Progress(0), 5, (0, 2, 4, 9), [(1, 1), (3, 1)]),
        (Progress(0), 2, (0, 1), []),
    ],
)
def test_what_is_not_settled(
    progress: Progress, made: int, refused: tuple[int, ...], expected: list[tuple[int, int]]
) -> None:
    assert unsettled(progress, made, frozenset(refused)) == expected
