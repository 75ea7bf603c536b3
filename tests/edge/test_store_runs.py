"""Reading a store by number: every observation once, in runs, whatever lies in blocks, the tail or nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.codes import from_planes
from edge.errors import StoreError
from edge.store import ObservationStore
from edge.store_reader import StoreReader
from edge.store_runs import StoredRun, StoreRuns
from tests.simulate.observations import detection, fill, observation


def facts(run: StoredRun) -> list[tuple[object, ...]]:
    columns = run.columns
    return [
        (
            run.first_seq + i,
            code.tobytes(),
            run.code_space,
            run.sources[columns.source[i]],
            run.boots[columns.boot[i]],
            int(columns.first_sample[i]),
            int(columns.boottime_ns[i]),
        )
        for i, code in enumerate(from_planes(run.planes))
    ]


def expected(path: Path, first: int, n: int) -> list[tuple[object, ...]]:
    with StoreReader.open(path) as reader:
        return [
            (o.seq, o.code, o.code_space, o.source, o.instant.boot_id, o.first_sample, o.instant.boottime_ns)
            for o in reader.observations()
            if first <= o.seq < first + n
        ]


@pytest.mark.parametrize(
    ("first", "n"), [(0, 100), (0, 1), (7, 30), (31, 2), (32, 32), (60, 40), (99, 5), (100, 5)]
)
def test_runs_give_what_the_reader_gives(tmp_path: Path, first: int, n: int) -> None:
    path = tmp_path / "s.sqlite"
    with ObservationStore.open(path, block_observations=32) as store:
        fill(store, 100)
    with StoreRuns.open(path) as runs:
        found = list(runs.runs(first, n))
    assert [fact for run in found for fact in facts(run)] == expected(path, first, n)
    assert all(len(run.sources) == len({source for *_, source, _, _, _ in facts(run)}) for run in found)


def test_a_run_has_one_code_space_and_one_width(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with ObservationStore.open(path) as store:
        for space, n_bytes in (("a", 32), ("a", 32), ("b", 32), ("b", 16), ("a", 32)):
            store.add(observation(store, bytes(n_bytes), space))
    with StoreRuns.open(path) as runs:
        found = [(run.first_seq, run.n, run.code_space, len(run.planes)) for run in runs.runs(0, 10)]
    assert found == [(0, 2, "a", 4), (2, 1, "b", 4), (3, 1, "b", 2), (4, 1, "a", 4)]


def test_records_have_numbers_from_0_and_made_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with ObservationStore.open(path) as store:
        added = fill(store, 3)
        for seq in (1, 2):
            found = observation(store)
            store.add(found, [detection(found, "owl"), detection(found, f"frog {seq}")])
        store.record_skipped("a.wav", "damaged")
        store.record_skipped("b.wav", "damaged")
    with StoreRuns.open(path) as runs:
        assert runs.made() == (5, 4, 2)
        assert [(event.number, event.source) for event in runs.events(1, 5)] == [(1, "b.wav")]
        assert [(number, each.query) for number, each in runs.detections(1, 2)] == [(1, "frog 1"), (2, "owl")]
        assert next(runs.detections(0, 1))[1].epoch == added[0].epoch
        assert list(runs.detections(4, 9)) == []
        assert runs.clips(3) == ["clips/a.flac"]
        assert runs.clips(0) == []


def test_an_empty_store_has_made_nothing_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "s.sqlite"):
        pass
    with StoreRuns.open(tmp_path / "s.sqlite") as runs:
        assert runs.made() == (0, 0, 0)
        assert list(runs.runs(0, 10)) == []
        assert runs.dropped() == []
    with pytest.raises(StoreError, match="no such file"):
        StoreRuns.open(tmp_path / "other.sqlite")
