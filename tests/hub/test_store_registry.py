from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import HubError, WireError
from edge.observation import MAX_INT
from edge.verdict import Verdict
from hub.digests import KEY_BYTES, run_digests
from hub.ingest import Ingest
from hub.refusal import UnknownError
from hub.store_registry import Registry
from hub.store_registry_ranges import MAX_MISSING, gaps, next_number, progress, settle
from hub.store_registry_schema import MIGRATIONS, create_tables
from tests.hub.conftest import NOW_NS
from tests.simulate.recorder import Recorder


def settled_table() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create_tables(connection)
    return connection


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=25))
def test_settled_ranges_are_the_union_of_what_came(ranges: list[tuple[int, int]]) -> None:
    have: set[int] = set()
    with closing(settled_table()) as connection:
        for first, n in ranges:
            for other in ((1, 5), (2, 6)):  # other devices and epochs stay apart
                settle(connection, *other, "events", 3, 2)
            came = set(range(first, first + n))
            new = settle(connection, 1, 6, "events", first, n)
            assert {i for start, count in new for i in range(start, start + count)} == came - have
            have |= came
        rows = connection.execute(
            "SELECT first, n FROM settled WHERE device = 1 AND epoch = 6 ORDER BY first"
        ).fetchall()
        found = progress(connection, 1, 6, "events")
        assert next_number(connection, 1, 6, "events") == found.next == max(have, default=-1) + 1
    assert {i for start, count in rows for i in range(start, start + count)} == have
    assert all(a[0] + a[1] < b[0] for a, b in pairwise(rows))  # as few as possible
    missing = {i for start, count in found.missing for i in range(start, start + count)}
    assert missing == set(range(found.next)) - have


def test_a_receipt_with_very_many_gaps_tells_the_oldest_as_one() -> None:
    with closing(settled_table()) as connection:
        for i in range(MAX_MISSING + 50):
            settle(connection, 1, 1, "observations", 10 + 2 * i, 1)
        found = progress(connection, 1, 1, "observations")
    assert len(found.missing) == MAX_MISSING
    assert found.missing[0] == (0, 10 + 2 * 50)
    assert found.missing[1:] == tuple((11 + 2 * i, 1) for i in range(50, MAX_MISSING + 49))
    assert found.next == 10 + 2 * (MAX_MISSING + 49) + 1


def test_gaps_at_the_ends_are_found() -> None:
    assert gaps([], 3, 9) == [(3, 6)]
    assert gaps([(0, 4), (5, 1), (8, 9)], 3, 9) == [(4, 1), (6, 2)]
    assert gaps([(0, 100)], 3, 9) == []


def test_numbers_at_the_end_of_int64_are_kept(ingest: Ingest, owl: Recorder, registry: Registry) -> None:
    with pytest.raises(WireError):
        ingest.take(owl.envelope(owl.batch(dropped=((MAX_INT // 2, MAX_INT // 2, "x"),))))
    ingest.take(owl.envelope(replace(owl.batch([owl.run(0, 1)]), epoch=MAX_INT, next=(MAX_INT, 0, 0))))
    (effort,) = registry.results.efforts()
    assert (effort.epoch, effort.n_made, effort.n_kept) == (MAX_INT, MAX_INT, 1)


def test_every_fact_of_an_observation_enters_its_digest() -> None:
    recorder, key = Recorder("owl-1"), np.random.default_rng(0).bytes(KEY_BYTES)
    run = recorder.run(0, 40)
    columns = run.unpacked()
    before = run_digests(run, columns, key)
    assert len(set(before.tolist())) == 40
    for name in ("first_sample", "n_samples", "sample_rate_hz", "boottime_ns", "wall_ns", "clock_state"):
        values = getattr(columns, name).copy()
        values[7] += 1 if name != "wall_ns" else 2**40
        differs = before != run_digests(run, replace(columns, **{name: values}), key)
        assert np.flatnonzero(differs).tolist() == [7]
    for changed in (
        replace(run, sources=("another",)),
        replace(run, boots=("another",)),
        replace(run, code_space="another"),
        replace(run, codes=run.codes[:-8] + b"12345678"),
    ):
        assert (before != run_digests(changed, columns, key)).any()
    renamed = replace(run, sources=("unused", *run.sources))
    moved = replace(columns, source=columns.source + 1)
    assert (before == run_digests(renamed, moved, key)).all()  # the same source under another index
    for width in (8, 16, 24):
        narrow = replace(run, codes=run.codes[: width * 40])
        assert (before != run_digests(narrow, columns, key)).any()


def test_an_older_heartbeat_does_not_replace_a_newer_one(
    ingest: Ingest, owl: Recorder, registry: Registry
) -> None:
    for at_ns, battery in ((5, 0.5), (9, float("nan")), (7, 0.7)):
        ingest.take(owl.envelope(owl.batch(health={"at_ns": at_ns, "battery": battery})))
    device = registry.devices.named("owl-1")
    assert (device.health_at_ns, device.health) == (9, {"at_ns": 9, "battery": None})
    with pytest.raises(WireError, match="health"):
        ingest.take(owl.envelope(owl.batch(health={"at_ns": 10, "x": "y" * 70_000})))


def test_devices_in_a_box_of_the_map(registry: Registry) -> None:
    for i, place in enumerate([(10.0, 20.0), (-5.0, 179.5), (-5.0, -179.5), None]):
        registry.devices.enrol(f"owl-{i}", bytes(32), None, NOW_NS)
        if place:
            registry.devices.set_place(f"owl-{i}", *place)
    assert registry.devices.in_box(0, 0, 20, 30) == {1}
    assert registry.devices.in_box(-10, 170, 0, -170) == {2, 3}
    for place in ((1.0, None), (91.0, 0.0), (float("nan"), 0.0)):
        with pytest.raises(HubError):
            registry.devices.set_place("owl-0", *place)
    with pytest.raises(UnknownError):
        registry.devices.set_place("owl-9", 1, 1)


def test_verdicts_and_watchlists_are_kept(registry: Registry) -> None:
    said = Verdict("owl-1", 7, 3, "owl", "an owl", "space", 70, 0.5, "wrong", NOW_NS)
    registry.results.keep_verdicts([said])
    changed = replace(said, answer="right", note="heard it twice")
    registry.results.keep_verdicts([changed])
    assert registry.results.verdicts() == {said.identity: changed}
    assert registry.people.keep_watchlist("night", "an owl\n", NOW_NS).version == 1
    assert registry.people.keep_watchlist("night", "a fox\n", NOW_NS).version == 2
    assert [each.text for each in registry.people.watchlists()] == ["a fox\n"]
    with pytest.raises(UnknownError):
        registry.people.watchlist("day")


def test_detections_are_chosen_by_time_query_and_device(
    ingest: Ingest, owl: Recorder, registry: Registry
) -> None:
    found = tuple((i, owl.detection(i, ("owl", "fox")[i % 2])) for i in range(10))
    ingest.take(
        owl.envelope(owl.batch([owl.run(0, 9)], detections=found))
    )  # of seq 9 the observation is missing
    results = registry.results
    assert [each.seq for each in results.detections()] == [8, 7, 6, 5, 4, 3, 2, 1, 0, 9]
    assert [each.seq for each in results.detections(query="fox", limit=2, offset=1)] == [5, 3]
    since_ns = results.detections()[3].wall_ns
    assert [each.seq for each in results.detections(since_ns=since_ns)] == [8, 7, 6, 5]
    assert [each.seq for each in results.detections(until_ns=since_ns, query="a owl")] == [4, 2, 0]
    assert results.detections(devices=[2]) == results.detections(devices=[]) == []
    assert results.queries() == [("fox", "a fox", 5), ("owl", "a owl", 5)]
    assert results.identity_of(10**9) is results.uid_of(1, 7, 9) is results.uid_of(2, 7, 0) is None


def test_foreign_and_newer_files_are_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
        other.execute("CREATE TABLE t (x)")
    with pytest.raises(HubError, match="another SQLite database"):
        Registry.open(tmp_path / "other.sqlite")
    Registry.open(tmp_path / "newer.sqlite").close()
    with closing(sqlite3.connect(tmp_path / "newer.sqlite")) as newer:
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(HubError, match="update fieldcube"):
        Registry.open(tmp_path / "newer.sqlite")
    (tmp_path / "text.sqlite").write_text("no database at all, but long enough to be read as one" * 10)
    with pytest.raises(HubError):
        Registry.open(tmp_path / "text.sqlite")


def test_a_backup_is_a_registry_as_it_was(
    ingest: Ingest, owl: Recorder, registry: Registry, tmp_path: Path
) -> None:
    ingest.take(owl.sent(0, 10))
    registry.database.backup(tmp_path / "copy.sqlite")
    ingest.take(owl.sent(10, 10))
    with Registry.open(tmp_path / "copy.sqlite") as copy:
        assert [effort.n_kept for effort in copy.results.efforts()] == [10]


def test_commands_write_beside_a_hub_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"

    def enter(registry: Registry, name: str) -> None:
        for i in range(30):
            registry.devices.enrol(f"{name}-{i}", bytes(32), None, NOW_NS)

    with Registry.open(path) as first, Registry.open(path) as second:
        threads = [
            threading.Thread(target=enter, args=each) for each in ((first, "a"), (second, "b"), (second, "c"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(first.devices.all()) == 90
