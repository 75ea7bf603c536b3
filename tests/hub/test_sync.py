"""edge-sync and the hub together, over real connections: enrolment, delivery, quota, revocation, cloned cards."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from edge.bundle import Bundle
from edge.config import Sync
from edge.device_key import DeviceKey, fingerprint
from edge.errors import SyncError
from edge.store import ObservationStore
from edge.store_reader import StoreReader
from edge.sync_delivery import Totals
from edge.sync_visits import key_path, run, system_clocks
from edge.update_install import Installed
from edge.update_state import Trial
from hub.enrolment import new_code
from hub.publisher import Publisher
from hub.serving import opened_hub, running
from hub.settings import Settings
from tests.hub.published import TINY, now, watchlist_for
from tests.simulate.observations import code_of, detection, observation


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    with opened_hub(Settings(tmp_path / "hub", port=0, quota_bytes_per_day=60_000)) as opened:
        yield opened


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with running(app, app.state.hub.settings) as started:
        yield started


def record(path: Path, n: int, *, salt: bytes = b"") -> None:
    with ObservationStore.open(path, "owl-1") as store:
        for i in range(n):
            found = observation(store, (salt + code_of(store.next_seq))[:32])
            store.add(found, [detection(found)] if i % 10 == 0 else [])


def sync(path: Path, settings: Sync, **options: Any) -> Totals:
    options = {"for_s": 0.0, "follow": False, "at_once": True, **options}
    return run(settings, path, system_clocks(), **options)


def enrolled(app: FastAPI, url: str) -> Sync:
    return Sync(hub=url, code=new_code(app.state.hub.registry, None, time.time_ns()))


def test_what_was_recorded_is_in_the_archive_and_the_device_is_well(
    tmp_path: Path, app: FastAPI, url: str
) -> None:
    path = tmp_path / "s.sqlite"
    record(path, 300)
    totals = sync(path, enrolled(app, url))
    assert (totals.n_observations, totals.n_detections) == (300, 30)
    hub = app.state.hub
    assert hub.ingest.wait_archived(10)
    with StoreReader.open(path) as reader:
        recorded = list(reader.observations())
    kept = [o for block in hub.archive.blocks() for o in block.run.observations("owl-1", block.epoch)]
    assert kept == recorded
    device = hub.registry.devices.named("owl-1")
    assert device.health["n_observations"] == 300
    assert device.fingerprint == fingerprint(DeviceKey.open(key_path(Sync(hub=url), path)).public)


def test_the_hub_is_told_what_was_installed(tmp_path: Path, app: FastAPI, url: str) -> None:
    path, folder = tmp_path / "s.sqlite", tmp_path / "updates"
    record(path, 10)
    settings = enrolled(app, url)

    def told() -> set[str]:
        sync(path, settings, updates=folder)
        health = app.state.hub.registry.devices.named("owl-1").health
        return {key for key in health if key.startswith(("watchlist", "pair"))}

    assert told() == set()
    tiny = Bundle.load(TINY)
    publisher = Publisher(tmp_path / "published", now)
    pair = publisher.publish(tiny, watchlist_for(tiny, "owl"), "night", 7)
    installed = Installed(folder)
    installed.adopt(tiny, watchlist_for(tiny, "first"))
    assert told() == set()
    paths = {each.name.split(".")[0]: each for each in publisher.targets_folder.glob("files/*")}
    staged = installed.stage(pair, lambda described: paths[described.sha256])
    installed.switch(staged, pair, Trial(0, 0, 0), None)
    assert told() == {"watchlist", "watchlist_version", "pair"}
    (folder / "state.json").write_text("{", encoding="utf-8")
    assert told() == set()  # and what was recorded is delivered all the same


def test_a_recorder_waits_for_a_person_and_stops_when_revoked(tmp_path: Path, app: FastAPI, url: str) -> None:
    path, devices = tmp_path / "s.sqlite", app.state.hub.registry.devices
    record(path, 20)
    assert sync(path, Sync(hub=url)).is_pending
    devices.set_status("owl-1", "enrolled")
    assert sync(path, Sync(hub=url)).n_observations == 20
    devices.set_status("owl-1", "revoked")
    record(path, 20)
    for _ in range(2):
        with pytest.raises(SyncError, match="401|revoked"):
            sync(path, Sync(hub=url))
    devices.set_status("owl-1", "enrolled")
    assert sync(path, Sync(hub=url)).n_observations == 20


def test_over_the_hubs_quota_it_waits_until_the_hub_says(tmp_path: Path, app: FastAPI, url: str) -> None:
    path, settings = tmp_path / "s.sqlite", enrolled(app, url)
    record(path, 2500)
    with pytest.raises(SyncError, match="answers 429"):
        sync(path, settings)
    with pytest.raises(SyncError, match="not before 20.+Z"):
        sync(path, settings, at_once=False)


def test_a_cloned_card_is_told_on_both_sides(
    tmp_path: Path, app: FastAPI, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = tmp_path / "a" / "s.sqlite", tmp_path / "b" / "s.sqlite"
    settings = enrolled(app, url)
    record(first, 50)
    sync(first, settings)
    shutil.copytree(first.parent, second.parent)
    record(first, 30)
    record(second, 40, salt=b"other")
    sync(first, settings)
    sync(second, settings)
    assert "differ from what it was sent before" in caplog.text
    assert "What was recorded since goes by a new epoch" in caplog.text
    sync(first, settings)
    hub = app.state.hub
    assert hub.ingest.wait_archived(10)
    assert hub.registry.results.conflicts()  # told at the hub as well
    kept = {
        each.code for block in hub.archive.blocks() for each in block.run.observations("owl", block.epoch)
    }
    with StoreReader.open(first) as a, StoreReader.open(second) as b:
        recorded = {each.code for store in (a, b) for each in store.observations()}
    assert recorded <= kept  # of both, though they had the same numbers


def test_a_foreign_key_does_not_get_in_under_a_known_name(tmp_path: Path, app: FastAPI, url: str) -> None:
    path, settings = tmp_path / "s.sqlite", enrolled(app, url)
    record(path, 10)
    sync(path, settings)
    with pytest.raises(SyncError, match="answers 401"):
        sync(path, replace(settings, key=tmp_path / "thief.key"))
    assert sync(path, settings).n_observations == 0
