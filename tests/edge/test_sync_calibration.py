"""What of the learnt backgrounds is sent, how often, over which link, and within how many bytes."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cbor2")
pytest.importorskip("cryptography")
pytest.importorskip("urllib3")

from edge.alarms import Alarms
from edge.alarms_learnt import read_learnt
from edge.batch import Batch, encode_batch
from edge.batch_calibration import SiteCalibration
from edge.config import Link, Sync
from edge.false_alarms import tail_of
from edge.monitor_alarms import state_path
from edge.observation import Instant, Observation
from edge.reference import Reference
from edge.store import ObservationStore
from edge.store_cursor import APPLICATION_ID, SyncCursor, create_tables, cursor_path
from edge.sync_calibration import SATELLITE_BYTES, calibrations, near_end
from edge.watchlist import Query, Watchlist
from tests.edge.test_sync_delivery import Recorder
from tests.simulate.observations import observation
from tests.simulate.small_hub import SmallHub, refusal, small_hub

HOP_S = 60.0
DAY_S = 86_400.0


def quiet(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32), np.uint8)


def learnt(store: Path, n_queries: int, n_windows: int = 400) -> Alarms:
    """Let the queries of a recorder hear windows, and keep what they learnt beside its store."""
    queries = tuple(
        Query(f"bird {i}", f"a bird {i}", code=row.tobytes()) for i, row in enumerate(quiet(n_queries, 1))
    )
    empty, none = np.zeros((0, 32), np.uint8), np.zeros(0, np.int64)
    known = (quiet(1000, 2), np.zeros(1000, np.int64), HOP_S, empty, none, none, np.zeros(0), (), empty)
    alarms = Alarms(Watchlist("x-0123456789ab", 256, "", queries), Reference(*known), HOP_S)
    instant = Instant("boot", 0, None, "unset")
    for seq, code in enumerate(quiet(n_windows, 3)):
        heard = Observation("owl-1", 1, seq, code.tobytes(), "x-0123456789ab", "mic", 0, 100, 1000, instant)
        alarms.hear(heard)
    alarms.save(state_path(store))
    return alarms


def sent(store: Path, link: Link, day: int = 0, n_bytes: int = 100_000) -> list[SiteCalibration]:
    return [site for part in calibrations(store, link, n_bytes, day) for site in part.sites]


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    with small_hub() as running:
        yield running


@pytest.fixture
def recorder(tmp_path: Path, hub: SmallHub) -> Recorder:
    path = tmp_path / "s.sqlite"
    with ObservationStore.open(path, "owl-1") as store:
        store.add(observation(store))
    return Recorder(path, Sync(hub=hub.url))


def told(hub: SmallHub) -> list[str]:
    """Return the names of the queries that a hub was told of, and forget them."""
    found = [site.name for each in hub.batches if each.calibrations for site in each.calibrations.sites]
    hub.batches.clear()
    return found


def test_the_near_end_says_as_much_of_false_alarms_as_all_of_it() -> None:
    counts = (
        np.bincount(np.rint(np.random.default_rng(0).normal(120, 8, 20_000)).astype(int), minlength=257) * 0.7
    )
    cut = near_end(counts)
    assert len(cut) < 115
    assert cut.sum() == pytest.approx(counts.sum())
    for bits in (70.0, 90.5, 100.0, 108.0):
        assert tail_of(cut).probability(bits) == pytest.approx(tail_of(counts).probability(bits), rel=1e-9)
    assert near_end(np.zeros(257)).sum() == 0
    assert near_end(np.eye(1, 257, 256)[0]).tolist() == np.eye(1, 257, 256)[0].tolist()


def test_a_day_by_satellite_stays_within_two_kilobytes_and_all_take_turns(tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    learnt(store, 100)
    seen: set[str] = set()
    for day in range(20_000, 20_030):
        (part,) = calibrations(store, "satellite", 100_000, day)
        assert len(encode_batch(Batch("owl-1", 2**40, (2**40,) * 3, calibrations=part))) < 2_000
        assert len(part.sites) >= 10
        assert part.n_queries == 100
        seen |= {site.name for site in part.sites}
    assert len(seen) == 100
    assert len(encode_batch(Batch("owl-1", 1, (0, 0, 0), calibrations=part))) > SATELLITE_BYTES - 200


def test_over_a_mobile_network_all_of_it_goes_in_parts_that_fit(tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    alarms = learnt(store, 60)
    parts = calibrations(store, "lte", 2_000, 0)
    assert len(parts) >= 4
    assert all(len(encode_batch(Batch("o", 1, (0, 0, 0), calibrations=each))) < 2_200 for each in parts)
    sites = [site for part in parts for site in part.sites]
    assert [site.name for site in sites] == [f"bird {i}" for i in range(60)]
    for number in (0, 59):
        counts = alarms.rule.background.counts[number]
        assert sites[number].n_windows == pytest.approx(counts.sum(), rel=0.01)
    assert sent(store, "lora") == []


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"garbage", lambda b: b""])
def test_a_damaged_file_is_told_and_nothing_is_sent(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "s.sqlite"
    assert sent(store, "lte") == []
    learnt(store, 1)
    assert len(sent(store, "lte")) == 1
    state_path(store).write_bytes(damage(state_path(store).read_bytes()))
    assert caplog.messages == []
    assert sent(store, "lte") == []
    assert "expected a learnt background" in caplog.text


def test_what_an_older_monitor_wrote_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = tmp_path / "s.sqlite"
    learnt(store, 1)
    with np.load(state_path(store)) as file:
        np.savez(state_path(store), **{name: file[name] for name in file.files if name != "names"})
    assert read_learnt(state_path(store)) is None
    assert caplog.messages == []


def test_a_query_that_cannot_alarm_yet_has_no_threshold(tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    alarms = learnt(store, 2)
    alarms.rule.background.counts[0] = 0
    alarms.rule.background.prior[0] = 0
    alarms.rule.refresh()
    alarms.save(state_path(store))
    first, second = sent(store, "lte")
    assert (first.threshold_bits, first.expected_per_day, first.quarters) == (None, None, ())
    assert second.expected_per_day == pytest.approx(2.0, rel=0.5)


def test_a_hub_is_told_once_a_day_and_over_each_link(recorder: Recorder, hub: SmallHub) -> None:
    recorder.sync()
    assert told(hub) == []
    learnt(recorder.path, 2)
    recorder.sync()
    assert told(hub) == ["bird 0", "bird 1"]
    recorder.sync()
    assert told(hub) == []
    recorder.settings = Sync(hub=hub.url, link="satellite")
    recorder.sync()
    assert told(hub) == ["bird 0", "bird 1"]
    recorder.settings = Sync(hub=hub.url, link="lora")
    recorder.clock.now_s += DAY_S
    recorder.sync()
    assert told(hub) == []
    recorder.settings = Sync(hub=hub.url)
    recorder.sync()
    assert told(hub) == ["bird 0", "bird 1"]


def test_a_hub_that_does_not_take_it_gets_everything_else(
    recorder: Recorder, hub: SmallHub, caplog: pytest.LogCaptureFixture
) -> None:
    learnt(recorder.path, 2)
    hub.check = lambda batch: refusal(400, "no") if batch.calibrations else None
    with caplog.at_level(logging.WARNING):
        assert recorder.sync().n_observations == 1
    assert "does not take what was learnt" in caplog.text
    recorder.record(3)
    assert recorder.sync().n_observations == 3
    assert told(hub) == []


def test_what_failed_on_the_way_is_sent_again(recorder: Recorder, hub: SmallHub) -> None:
    learnt(recorder.path, 2)
    answers = iter([refusal(503, "busy")])
    hub.check = lambda batch: next(answers, None) if batch.calibrations else None
    recorder.sync()
    assert told(hub) == ["bird 0", "bird 1"]


def test_the_bytes_of_the_day_are_not_exceeded(recorder: Recorder, hub: SmallHub) -> None:
    learnt(recorder.path, 100)
    recorder.settings = Sync(hub=hub.url, daily_bytes=3_000)
    totals = recorder.sync()
    assert (told(hub), totals.is_over_budget) == ([], True)


def test_a_file_of_the_first_version_keeps_what_it_knew(tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    with closing(sqlite3.connect(cursor_path(store))) as first, first:
        create_tables(first)
        first.execute("INSERT INTO usage VALUES (20000, 'lte', 77)")
        first.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        first.execute("PRAGMA user_version = 1")
    with SyncCursor.open(store) as cursor:
        assert (cursor.used_bytes(20_000, "lte"), cursor.told_day("hub", "lte")) == (77, None)
        cursor.keep_told("hub", "lte", 20_001)
        assert (cursor.told_day("hub", "lte"), cursor.told_day("hub", "satellite")) == (20_001, None)
