"""LoRa within its hour of airtime and seldom heartbeats: what has no room waits for the next visit, and all comes home once."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge.batch import Batch
from edge.config import Sync
from edge.device_key import DeviceKey
from edge.errors import ConfigError, SyncError
from edge.frames import from_stream
from edge.observation import Instant
from edge.store_runs import StoreRuns
from edge.sync_airtime import airtime_s
from edge.sync_delivery import Totals
from edge.sync_visits import Clocks, key_path, run
from hub.frame_intake import FrameIntake
from hub.ingest import Ingest
from hub.store_frames import FrameStore
from hub.store_registry import Registry
from tests.hub.test_frame_intake import START_NS, Field, detections, expected
from tests.simulate.recorder import Recorder

HOUR_S = 3600
CONTEXT, HEARTBEAT = 1, 6


@dataclass
class Station:
    """edge-sync of a recorder whose frames land in a file; its time passes only by hand."""

    field: Field
    settings: Sync
    now_s: float = 0.0
    air: list[tuple[float, bytes]] = field(default_factory=list)  # when, what

    def now(self) -> Instant:
        return Instant("boot", self.boottime_ns(), None, "unset")

    def boottime_ns(self) -> int:
        return int((1_000 + self.now_s) * 10**9)

    def now_ns(self) -> int:
        return START_NS + int(self.now_s * 10**9)

    def visit(self) -> Totals:
        place = self.field.folder / "air"
        if place.is_file():
            place.unlink()
        clocks = Clocks(self, self.now_ns, lambda: self.now_s, lambda s: None, random.Random(1))
        totals = run(self.settings, self.field.store, clocks, for_s=0, follow=False, at_once=True)
        if place.is_file():
            self.air += [(self.now_s, frame) for frame in from_stream(place.read_bytes())]
        return totals

    def kinds(self) -> Counter[int]:
        return Counter(frame[0] & 15 for _, frame in self.air)

    def most_airtime_s(self) -> float:
        """Return how much was on the air in the fullest hour."""
        return max(
            sum(airtime_s(len(frame) + 13, 12) for at, frame in self.air if end - HOUR_S < at <= end)
            for end, _ in self.air
        )


@pytest.fixture
def hub_key() -> DeviceKey:
    return DeviceKey(Ed25519PrivateKey.from_private_bytes(b"h" * 32))


@pytest.fixture
def intake(tmp_path: Path, registry: Registry, ingest: Ingest, hub_key: DeviceKey) -> Iterator[FrameIntake]:
    store = FrameStore(tmp_path / "frames.sqlite")
    yield FrameIntake(registry, ingest, store, hub_key)
    store.close()


@pytest.fixture
def station(tmp_path: Path, owl: Recorder, hub_key: DeviceKey) -> Station:
    folder = tmp_path / "field"
    folder.mkdir()
    place = folder / "air"
    settings = Sync(hub=f"frames://{place}?bytes=51&hub={hub_key.public.hex()}", link="lora")
    made = Field(folder, owl, hub_key.public)
    private = Ed25519PrivateKey.from_private_bytes(owl.key.seed())
    path = key_path(settings, made.store)
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return Station(made, settings)


def test_the_time_on_air_is_that_of_the_datasheet() -> None:
    found = {sf: round(airtime_s(64, sf) * 1000, 1) for sf in (7, 10, 12)}
    assert found == {7: 118.0, 10: 698.4, 12: 2793.5}


def test_a_backlog_goes_within_the_airtime_of_each_hour_in_order_and_all_of_it_once(
    station: Station, intake: FrameIntake, registry: Registry
) -> None:
    station.field.observe(500, {i: f"bird {i % 3}" for i in range(0, 500, 2)})
    counted, n_full = 0, 0
    while counted < 250:
        totals = station.visit()
        counted += totals.n_detections
        n_full += totals.is_over_airtime
        for at, frame in station.air:
            if at == station.now_s:
                assert intake.take(frame) == "kept"  # nothing comes before what it relies on
        assert len(detections(registry)) == counted  # what counts as sent is what went
        station.now_s += 900
        assert station.now_s < 24 * HOUR_S
    assert n_full > 5
    assert 30 < station.most_airtime_s() <= 36
    assert detections(registry) == expected(station.field)
    sent = [frame for _, frame in station.air if frame[0] & 15 == 4]
    assert len(sent) == len(set(sent)) == -(-250 // 7)
    assert not station.visit().is_over_airtime


def test_names_that_take_more_than_an_hour_on_the_air_come_home_too(
    station: Station, intake: FrameIntake, registry: Registry
) -> None:
    station.field.observe(60, {i: random.Random(i).randbytes(30).hex() for i in range(40)})
    for _ in range(96):
        station.visit()
        station.now_s += 900
    assert sum(airtime_s(64, 12) for at, f in station.air if f[0] & 15 == CONTEXT) > 100
    assert station.most_airtime_s() <= 36
    for _, frame in station.air:
        intake.take(frame)
    assert detections(registry) == expected(station.field)


def test_the_hour_of_a_recorder_without_a_clock_does_not_end_by_its_date(station: Station) -> None:
    station.field.observe(500, dict.fromkeys(range(0, 500, 2), "owl"))
    station.visit()
    n = len(station.air)
    station.now_s += 30 * 60
    assert station.visit().is_over_airtime
    assert len(station.air) == n
    station.now_s += 31 * 60
    station.visit()
    assert len(station.air) > n + 5


def test_heartbeats_are_seldom_by_radio_and_never_wait_for_all_detections(station: Station) -> None:
    station.field.observe(1700, dict.fromkeys(range(1700), "owl"))
    for _ in range(96):
        station.visit()
        station.now_s += 900
    at = [s for s, frame in station.air if frame[0] & 15 == HEARTBEAT]
    assert len(at) == 4
    assert min(b - a for a, b in itertools.pairwise(at)) >= 6 * HOUR_S
    assert max(b - a for a, b in itertools.pairwise(at)) <= 7 * HOUR_S
    station.settings = replace(station.settings, heartbeat_s=0.0, lora_airtime_s=3600.0)
    before = station.kinds()[HEARTBEAT]
    for _ in range(3):
        station.now_s += 900
        station.visit()
    assert station.kinds()[HEARTBEAT] == before + 3


def test_a_frame_that_could_never_go_is_refused(station: Station) -> None:
    station.field.observe(3, {1: "owl"})
    station.settings = replace(station.settings, lora_airtime_s=2.0)
    with pytest.raises(ConfigError, match=r"lora_airtime_s: expected at least 2\.8 s"):
        station.visit()
    station.settings = replace(station.settings, lora_spreading_factor=7)
    assert station.visit().n_detections == 1


def test_what_a_modem_did_not_take_is_neither_told_nor_on_the_air(
    station: Station, intake: FrameIntake, registry: Registry
) -> None:
    station.field.observe(10, dict.fromkeys(range(10), "owl"))
    carrier = station.field.carrier()
    with StoreRuns.open(station.field.store) as runs:
        found = tuple(runs.detections(0, 10))
        batch = Batch(runs.device_id, runs.epoch, runs.made(), detections=found, health={"at_ns": 5})
    place = station.field.folder / "air"
    place.mkdir()
    with pytest.raises(SyncError, match="Is a directory"):
        station.field.send(carrier, batch)
    place.rmdir()
    station.field.send(carrier, batch)  # the same carrier: what it told stays told
    for frame in from_stream(place.read_bytes()):
        assert intake.take(frame) == "kept"
    assert detections(registry) == expected(station.field)
    station.visit()
    place.unlink()
    place.mkdir()
    station.now_s += 7 * HOUR_S
    station.field.observe(10, dict.fromkeys(range(10, 20), "owl"))
    for _ in range(30):
        with pytest.raises(SyncError, match="Is a directory"):
            station.visit()
    place.rmdir()
    assert not station.visit().is_over_airtime
