"""Real recorders and a real hub over a bad line: every observation arrives once, or is known to be given up."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import SyncError
from hub.app import Hub
from hub.serving import opened_hub, running
from hub.settings import Settings
from tests.simulate import hub_report
from tests.simulate.delivery_trial import DeliveryTrial
from tests.simulate.fault_proxy import KINDS, Fault, FaultProxy, Kind, random_faults
from tests.simulate.fleet import FieldRecorder, code_of, make_fleet, run_load
from tests.simulate.hub_process import HubProcess


class Line:
    """A hub that runs, two recorders that it knows, and the proxy between them."""

    def __init__(self, hub: Hub, proxy: FaultProxy, fleet: list[FieldRecorder]) -> None:
        self.hub, self.proxy, self.fleet = hub, proxy, fleet

    def n_kept(self) -> int:
        assert self.hub.ingest.wait_archived(10.0)
        return sum(self.hub.archive.counts().values())


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    settings = Settings(tmp_path / "hub", port=0)
    with opened_hub(settings) as app, running(app, settings) as url, FaultProxy(url) as proxy:
        hub = app.state.hub
        fleet = make_fleet(tmp_path / "cards", hub.registry, 2, time.time_ns())
        yield Line(hub, proxy, fleet)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_happens_to_a_request_its_observations_are_kept_once(kind: Kind, line: Line) -> None:
    recorder = line.fleet[0]
    recorder.record(1)
    recorder.visit(line.proxy.url)
    recorder.record(20)
    faults = itertools.chain([Fault(kind, 60)], itertools.repeat(Fault()))
    line.proxy.choose = lambda: next(faults)
    if kind in ("none", "doubled"):
        assert recorder.visit(line.proxy.url).n_observations == 20
    else:
        with pytest.raises(SyncError):
            recorder.visit(line.proxy.url)
        assert line.n_kept() == (21 if kind in ("lost reply", "cut reply") else 1)
        recorder.visit(line.proxy.url)
    assert line.n_kept() == 21
    assert line.proxy.n[kind] >= 1


def test_a_clone_is_reported_and_both_deliver_all_they_record(line: Line, tmp_path: Path) -> None:
    recorder = line.fleet[0]
    recorder.record(10)
    recorder.visit(line.proxy.url)
    clone = recorder.cloned(tmp_path / "clone", salt=1)
    recorder.record(5)
    recorder.visit(line.proxy.url)
    clone.record(300)
    assert clone.visit(line.proxy.url).n_epochs_begun == 1
    assert line.hub.registry.results.conflicts() != []
    recorder.record(3)
    assert recorder.visit(line.proxy.url).n_conflicts == 0  # the clone goes by an epoch of its own now
    assert line.n_kept() == 318
    kept = [
        each for block in line.hub.archive.blocks() for each in block.run.observations("any", block.epoch)
    ]
    first, second = (
        [each.code for each in kept if each.epoch == epoch]
        for epoch in sorted({each.epoch for each in kept}, key=lambda epoch: recorder.parts[epoch][1])
    )
    assert first == [code_of(recorder.seed, 0, seq) for seq in range(18)]
    assert second == [code_of(recorder.seed, 1, seq) for seq in range(10, 310)]
    device = line.hub.registry.devices.find(recorder.name)
    assert device is not None
    events = line.hub.registry.results.events(device.number)
    assert ["older copy" in each.reason for each in events if each.kind == "recovered"] == [True]


def test_a_fleet_under_load_is_served_without_an_error(line: Line) -> None:
    load = run_load(line.fleet, line.proxy.url, 0.02, visit_every_s=0.5, n_threads=2)
    assert load.errors == []
    assert load.n_visits >= 4
    assert line.n_kept() == load.n_observations == sum(len(each.truth) for each in line.fleet)
    assert 0 < load.summary()["p50_ms"] <= load.summary()["p99_ms"] <= load.summary()["max_ms"]


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
def test_every_number_arrives_once_or_is_known_to_be_lost(tmp_path: Path) -> None:
    with DeliveryTrial(tmp_path, tmp_path / "hub", seed=11, n_recorders=4, small_disk=False) as trial:
        for _ in range(60):
            trial.step()
        trial.hub.kill()
        trial.settle()
        counted = trial.check()
    assert counted["stored"] > 200
    assert counted["dropped"] > 0
    assert trial.outcomes["failed"] > 2
    assert len(trial.proxy.n) > len(KINDS) // 2


@pytest.mark.usefixtures("quiet")
def test_the_trial_sees_what_is_missing_and_what_is_double(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DeliveryTrial(
        tmp_path, tmp_path / "hub", seed=1, n_recorders=2, small_disk=False, fault_share=0.0
    ) as trial:
        for recorder in trial.fleet:
            recorder.record(30)
        trial.settle()
        assert trial.check()["stored"] == 60
        found = list(trial.hub.observations())
        for wrong, match in (
            (found[:-1], "found neither"),
            ([*found, found[7]], "found twice"),
            ([*found[:-1], (*found[-1][:3], bytes(32))], "never recorded"),
        ):
            with monkeypatch.context() as patched:
                patched.setattr(HubProcess, "observations", lambda hub, wrong=wrong: iter(wrong))
                with pytest.raises(AssertionError, match=match):
                    trial.check()


def test_faults_are_the_same_for_the_same_seed_and_all_kinds_come() -> None:
    first, second = random_faults(5, 0.5), random_faults(5, 0.5)
    drawn = [first() for _ in range(400)]
    assert drawn == [second() for _ in range(400)]
    assert {each.kind for each in drawn} == set(KINDS)
    assert 140 < sum(each.kind == "none" for each in drawn) < 260


def test_what_was_measured_goes_between_its_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- delivery -->\nold\n<!-- /delivery -->\nb\n<!-- load -->\n<!-- /load -->\n")
    (tmp_path / "hub_delivery.json").write_text('{"steps": 10000, "done": {"visit": 3, "record": 2}}')
    hub_report.main(tmp_path, page)
    assert page.read_text() == (
        "a\n<!-- delivery -->\n| | |\n|---|---:|\n| steps | 10,000 |\n| done | record 2, visit 3 |\n<!-- /delivery -->\n"
        "b\n<!-- load -->\n<!-- /load -->\n"
    )
