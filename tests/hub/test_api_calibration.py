"""What recorders have learnt comes to the hub by edge-sync, as edge-queries --explain tells it at the recorder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from edge.batch import encode_batch
from edge.batch_calibration import SiteCalibration, SiteCalibrations
from edge.bundle import Bundle
from edge.config import Sync
from edge.errors import WireError
from edge.false_alarms import tail_of
from edge.queries_explain import explained
from edge.sync_visits import run, system_clocks
from edge.verdict import Verdict
from hub.enrolment import new_code
from hub.ingest import Ingest
from hub.serving import opened_hub, running
from hub.settings import Settings
from hub.store_registry import Registry
from hub.store_registry_calibrations import KEPT_NS, MAX_QUERIES, Calibrations, keep_calibrations
from tests.hub.conftest import NOW_NS
from tests.hub.learnt_site import HOP_S, asked, listen, with_background
from tests.simulate.recorder import Recorder

SITE = SiteCalibration("owl", bytes(8), 71.25, 0.5, 0.48, 60.0, 60, (4, 8, 4 * 400))


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    with opened_hub(Settings(tmp_path / "hub", port=0)) as opened:
        yield opened


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with running(app, app.state.hub.settings) as started:
        yield started


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_background(tmp_path_factory.mktemp("bundle") / "b")


def sync(app: FastAPI, url: str, store: Path, **settings: Any) -> None:
    hub = Sync(hub=url, code=new_code(app.state.hub.registry, None, time.time_ns()), **settings)
    run(hub, store, system_clocks(), for_s=0.0, follow=False, at_once=True)


def answer(url: str) -> dict[str, dict[str, Any]]:
    found = httpx.get(f"{url}/api/calibration", trust_env=False).json()["queries"]
    return {each["name"]: each for each in found}


@pytest.mark.parametrize("link", ["lte", "satellite"])
def test_the_hub_shows_what_the_recorders_explain(
    link: Any, tmp_path: Path, app: FastAPI, url: str, bundle: Bundle
) -> None:
    watchlist, sites = asked(bundle), {}
    for name, n_windows in (("owl-1", 700), ("owl-2", 100)):
        store = tmp_path / name / "s.sqlite"
        store.parent.mkdir()
        alarms = listen(bundle, watchlist, store, n_windows, seed=n_windows, device=name)
        sync(app, url, store, link=link)
        sites[name] = (alarms, explained(bundle, watchlist, HOP_S, store))
    found = answer(url)
    assert found.keys() == {"two", "often", "query 0"}
    for number, name in enumerate(["two", "often", "query 0"]):
        assert [each["device"] for each in found[name]["sites"]] == ["owl-1", "owl-2"]
        for site in found[name]["sites"]:
            alarms, explanations = sites[site["device"]]
            told = explanations[number]
            is_learnt = site["device"] == "owl-1"  # the other one goes by the bundle's background yet
            assert (told.query.name, told.is_learnt, site["learnt"]) == (name, is_learnt, is_learnt)
            assert site["threshold_bits"] == pytest.approx(told.threshold_bits, rel=1e-5)
            assert site["wanted_per_day"] == told.wanted_per_day
            assert site["expected_per_day"] == pytest.approx(told.expected_per_day, rel=1e-4)
            counts = alarms.rule.background.counts[number]
            assert site["hours"] == pytest.approx(counts.sum() * HOP_S / 3600, rel=0.01)
            came = np.zeros(257)
            windows = site["histogram"]["windows"]
            came[site["histogram"]["first"] :][: len(windows)] = windows
            n_same = (
                int(np.searchsorted(np.cumsum(counts), 0.1 * counts.sum())) if link == "satellite" else 257
            )
            assert came[:n_same] == pytest.approx(counts[:n_same], abs=0.13)
            if is_learnt:
                at = tail_of(counts).probability(told.threshold_bits or 0.0)
                assert tail_of(came).probability(told.threshold_bits or 0.0) == pytest.approx(at, rel=0.1)
        pooled = sum(sites[device][1][number].expected_per_day for device in sites)
        assert found[name]["expected_per_day"] == pytest.approx(pooled, rel=1e-4)
        assert (found[name]["n_recorders"], found[name]["n_detections"]) == (2, 0)


def test_detections_and_verdicts_stand_beside_what_is_expected(
    app: FastAPI, url: str, ingest: Ingest, owl: Recorder, registry: Registry
) -> None:
    hub = app.state.hub
    hub.registry.devices.enrol("owl-1", owl.key.public, None, NOW_NS)
    hub.registry.devices.set_status("owl-1", "enrolled")
    detections = tuple((i, owl.detection(i, "owl" if i < 5 else "fox")) for i in range(8))
    told = SiteCalibrations(NOW_NS, 2, (SITE, replace(SITE, name="bat", expected_per_day=None)))
    batch = owl.batch([owl.run(0, 8)], detections=detections, calibrations=told)
    hub.ingest.take(owl.envelope(batch))
    for seq, said in enumerate(["right", "wrong", "wrong", "unsure"]):
        verdict = Verdict("owl-1", 7, seq, "owl", "a owl", "space", 70, 0.5, said, NOW_NS)  # type: ignore[arg-type]
        hub.registry.results.keep_verdicts([verdict])
    found = answer(url)
    assert found.keys() == {"owl", "bat"}
    counts = [found["owl"][f"n_{name}"] for name in ("detections", "right", "wrong", "unsure")]
    assert counts == [5, 1, 2, 1]
    assert (found["owl"]["expected_per_day"], found["bat"]["expected_per_day"]) == (0.48, None)
    assert (found["bat"]["n_recorders"], found["bat"]["n_expected"]) == (1, 0)
    hub.registry.devices.set_status("owl-1", "revoked")
    assert answer(url) == {}


def test_an_altered_histogram_is_refused_and_changes_nothing(
    ingest: Ingest, owl: Recorder, registry: Registry
) -> None:
    ingest.take(owl.envelope(owl.batch(calibrations=SiteCalibrations(NOW_NS, 1, (SITE,)))))
    before = Calibrations(registry.database).all()
    content = encode_batch(owl.batch(calibrations=SiteCalibrations(NOW_NS + 1, 1, (SITE,))))
    packed = bytes([4, 8, 0xC0, 0x0C])
    assert content.count(packed) == 1
    for damaged in (b"\xff\xff\xff\xff", b"\x04\x08\xc0\x8c"):
        with pytest.raises(WireError, match="calibration"):
            ingest.take(owl.signed("batch", content.replace(packed, damaged)))
    assert Calibrations(registry.database).all() == before
    assert before[0].site == SITE


def test_the_newest_is_kept_and_what_is_no_longer_asked_is_forgotten(
    ingest: Ingest, owl: Recorder, registry: Registry
) -> None:
    def take(at_ns: int, n_queries: int, *names: str, expected: float = 1.0) -> None:
        sites = tuple(replace(SITE, name=name, expected_per_day=expected) for name in names)
        ingest.take(owl.envelope(owl.batch(calibrations=SiteCalibrations(at_ns, n_queries, sites))))

    def kept() -> dict[str, float | None]:
        return {each.site.name: each.site.expected_per_day for each in Calibrations(registry.database).all()}

    take(5, 3, "owl", "fox", expected=2.0)
    take(4, 3, "owl", expected=9.0)
    assert kept() == {"owl": 2.0, "fox": 2.0}
    take(6, 2, "owl")  # one of two: the other is still to come
    assert kept() == {"owl": 1.0, "fox": 2.0}
    take(6, 2, "bat")
    assert kept() == {"owl": 1.0, "bat": 1.0}
    with registry.database.writing() as connection:
        keep_calibrations(connection, 1, SiteCalibrations(7, 9, (SITE,)), NOW_NS + KEPT_NS + 1)
    assert kept() == {"owl": SITE.expected_per_day}
    with registry.database.writing() as connection:
        for start in range(0, MAX_QUERIES + 500, 500):
            sites = tuple(replace(SITE, name=f"{start + i}") for i in range(500))
            keep_calibrations(connection, 1, SiteCalibrations(8, 10**6, sites), NOW_NS + KEPT_NS + 2)
    assert len(kept()) == MAX_QUERIES
