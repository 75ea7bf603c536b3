"""What the hub says of how recorders are: by codes that were written, whatever their clocks say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.api_fleet import state_of
from hub.archive import Archive
from hub.ingest import Ingest
from hub.store_frames import FrameStore
from hub.store_registry import Registry
from hub.store_registry_devices import Device
from tests.hub.conftest import NOW_NS
from tests.simulate.recorder import Recorder

DAY_NS = 86_400 * 10**9


class Fleet:
    """A hub whose clock moves only when told, with one recorder."""

    def __init__(self, registry: Registry, archive: Archive, owl: Recorder) -> None:
        self.registry, self.owl, self.now_ns = registry, owl, NOW_NS
        self.ingest = Ingest(registry, archive, lambda: self.now_ns)

    def visit(self, next_seq: int, n: int = 0, **health: Any) -> Device:
        """Let the recorder deliver its last n observations and its health."""
        runs = [self.owl.run(next_seq - n, n)] if n else []
        batch = self.owl.batch(runs, next=(next_seq, 0, 0), health=health or None)
        self.ingest.take(self.owl.envelope(batch))
        return self.registry.devices.named("owl-1")

    def state(self) -> str:
        return state_of(self.registry.devices.named("owl-1"), self.now_ns)


@pytest.fixture
def fleet(registry: Registry, archive: Archive, owl: Recorder) -> Iterator[Fleet]:
    made = Fleet(registry, archive, owl)
    with made.ingest:
        yield made


def test_a_heartbeat_from_the_future_freezes_nothing(fleet: Fleet) -> None:
    far_ns = fleet.now_ns + 3650 * DAY_NS
    fleet.visit(10, 10, at_ns=far_ns, last_code_ns=far_ns - 10**9, temperature_c=20.0)
    fleet.now_ns += 30 * DAY_NS
    device = fleet.visit(
        10, at_ns=fleet.now_ns - 5, last_code_ns=fleet.now_ns - 29 * DAY_NS, temperature_c=66.0
    )
    assert (device.health_at_ns, device.health["temperature_c"]) == (fleet.now_ns - 5, 66.0)
    assert fleet.state() == "silent"


def test_a_recorder_that_lost_its_clock_still_tells_how_it_is(fleet: Fleet) -> None:
    fleet.visit(10, 10, at_ns=fleet.now_ns, clock="ntp", temperature_c=20.0)
    device = fleet.visit(20, 10, at_ns=5, clock="unset", temperature_c=66.0)
    assert device.health["temperature_c"] == 66.0
    device = fleet.visit(15, at_ns=4, clock="unset", temperature_c=1.0)  # late, or sent again
    assert device.health["temperature_c"] == 66.0


def test_a_recorder_that_only_visits_is_not_good(fleet: Fleet) -> None:
    fleet.visit(10, 10, at_ns=5, clock="unset", last_code_ns=fleet.now_ns)
    assert fleet.state() == "good"
    for _ in range(4):
        fleet.now_ns += DAY_NS
        fleet.visit(10, at_ns=fleet.now_ns, clock="unset", last_code_ns=fleet.now_ns)
    assert fleet.state() == "silent"
    fleet.visit(11, at_ns=fleet.now_ns, clock="unset")  # one more was made, which comes later
    assert fleet.state() == "good"


def test_what_comes_again_is_no_sign_of_life(fleet: Fleet) -> None:
    seen_ns = fleet.visit(10, 10).seen_ns
    fleet.now_ns += 40 * DAY_NS
    assert fleet.visit(10, 10).seen_ns == seen_ns == NOW_NS
    assert fleet.state() == "silent"
    body = fleet.owl.batch(next=(10, 0, 0), detections=((0, fleet.owl.detection(3)),))
    fleet.ingest.take(fleet.owl.envelope(body))  # something old that had not come
    assert fleet.registry.devices.named("owl-1").seen_ns == fleet.now_ns


def test_a_radio_heartbeat_from_the_future_hides_no_records(tmp_path: Path) -> None:
    store, now_s = FrameStore(tmp_path / "frames.sqlite"), NOW_NS // 10**9
    store.note_made(1, 7, now_s + 10**8, 100, 30, now_s)
    store.note_made(1, 7, now_s, 150, 50, now_s)
    assert store.made(1) == (7, 150, 50)
    store.note_made(1, 7, now_s - 60, 140, 40, now_s)  # late
    assert store.made(1) == (7, 150, 50)
    store.note_made(1, 8, now_s + 10**8, 3, 1, now_s)
    store.note_made(1, 9, now_s + 60, 5, 2, now_s)
    assert store.made(1) == (9, 5, 2)
    store.note_made(1, 7, now_s + 30, 160, 60, now_s)  # late, of an epoch that is over
    assert store.made(1) == (9, 5, 2)
    store.close()
