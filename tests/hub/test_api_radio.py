"""Radio and MQTT as people use them: frames brought over HTTP, receipts, downlinks, and edge-sync by URL alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from edge import sync
from edge.bundle import Bundle
from edge.downlink import decode_downlink
from edge.errors import WireError
from edge.frames import from_stream
from edge.observation import Detection, Instant, Observation
from edge.store import ObservationStore
from hub.command import main
from hub.serving import opened_hub, running
from hub.settings import Settings
from tests.hub.published import TINY
from tests.hub.test_command import serving
from tests.hub.test_mqtt import Broker, needs_broker

HOP_NS = 5 * 10**9


@dataclass
class Field:
    """A hub that serves, and a recorder with a store."""

    folder: Path
    client: httpx.Client

    @property
    def store(self) -> Path:
        return self.folder / "recorder" / "observations.sqlite"

    @property
    def hub_folder(self) -> str:
        return str(self.folder / "hub")

    def records(self, n: int) -> None:
        self.store.parent.mkdir(exist_ok=True)
        with ObservationStore.open(self.store, "owl-1") as store:
            for _ in range(n):
                seq = store.next_seq
                at = Instant("boot", seq * HOP_NS, 1_790_000_000 * 10**9 + seq * HOP_NS, "ntp")
                each = Observation(
                    "owl-1",
                    store.epoch,
                    seq,
                    bytes([seq % 256]) * 32,
                    "test-0123456789ab",
                    "microphone:m",
                    seq * 240_000,
                    48_000,
                    240_000,
                    at,
                )
                found = Detection("owl-1", store.epoch, seq, "owl", "an owl", 60, 0.8, 0.2, None)
                store.add(each, [found] if seq % 3 == 0 else [])

    def sync(self, capsys: pytest.CaptureFixture[str], hub: str, *options: str) -> dict[str, object]:
        assert sync.main(["--store", str(self.store), "--hub", hub, "--for", "20", "--json", *options]) == 0
        found = json.loads(capsys.readouterr().out)
        assert isinstance(found, dict)
        return found

    def detections(self) -> int:
        return len(self.client.get("/api/detections").json()["detections"])


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    settings = Settings(tmp_path / "hub", port=0)
    with (
        opened_hub(settings, Bundle.load(TINY)) as app,
        running(app, settings) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=30) as client,
    ):
        yield Field(tmp_path, client)


def hub_key(field: Field, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["key", "--folder", field.hub_folder]) == 0
    key = capsys.readouterr().out.strip()
    assert re.fullmatch("[0-9a-f]{64}", key)
    return key


def test_a_recorder_with_only_a_radio(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    field.records(10)
    air, inbox = field.folder / "air", field.folder / "inbox"
    url = f"frames://{air}?bytes=51&hub={hub_key(field, capsys)}&inbox={inbox}"
    own = str(field.sync(capsys, url, "--status")["key"])
    assert main(["add", "owl-1", own, "--folder", field.hub_folder]) == 0
    assert field.sync(capsys, url, "--link", "lora")["n_detections"] == 4
    frames = air.read_bytes()
    assert all(len(each) <= 51 for each in from_stream(frames))
    taken = field.client.post("/api/frames", content=frames).json()
    assert taken["refused"] == taken["waiting"] == 0 < taken["kept"]
    assert field.client.post("/api/frames", content=frames).json() == taken  # again: changes nothing
    assert field.detections() == 4

    lost = field.client.post("/api/frames", content=b"\xc0" + bytes(40) + b"\xc0").json()
    assert lost == {"kept": 0, "waiting": 0, "refused": 1}
    inbox.write_bytes(field.client.get("/api/frames/owl-1/receipt", params={"max_bytes": 51}).content)
    field.records(5)
    air.unlink()
    field.sync(capsys, url, "--link", "lora", "--now")
    assert field.client.post("/api/frames", content=air.read_bytes()).json()["refused"] == 0
    assert field.detections() == 5


def test_queries_by_satellite(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    field.records(1)
    assert main(["add", "owl-1", "ab" * 32, "--folder", field.hub_folder]) == 0
    public = bytes.fromhex(hub_key(field, capsys))
    manifest = Bundle.load(TINY).manifest
    text = "a chainsaw | name=saw\nan owl | name=owl | alarms_per_day=0.5\n"
    asked = {"text": text, "device": "owl-1"}
    first = field.client.post("/api/downlinks", json=asked).json()
    second = field.client.post("/api/downlinks", json=asked | {"device": None}).json()
    assert first["queries"] == [["saw", "owl"]]
    (message,) = map(bytes.fromhex, first["messages"])
    assert len(message) <= 270
    assert list(from_stream(bytes.fromhex(first["stream"]))) == [message]

    found = decode_downlink(public, "owl-1", manifest.code_space, 32, message, 0)
    assert [each.name for each in found.queries] == ["saw", "owl"]
    assert found.queries[1].alarms_per_day == pytest.approx(0.5, rel=0.1)
    with pytest.raises(WireError, match="signature"):
        decode_downlink(public, "fox", manifest.code_space, 32, message, 0)
    for_all = decode_downlink(
        public, "fox", manifest.code_space, 32, bytes.fromhex(second["messages"][0]), found.at_s
    )
    assert for_all.queries == found.queries  # newer, though of the same second


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"text": "decoy: wind"}, "decoy"),
        ({"text": "an owl | active=night"}, "found more"),
        ({"text": "an owl & rain"}, "found more"),
        ({"text": ""}, "expected"),
        ({"text": "an owl", "device": "nobody"}, "nobody"),
        ({"text": "x" * 200}, "bytes of the name"),
    ],
)
def test_what_does_not_go_by_satellite_is_refused(field: Field, body: dict[str, str], told: str) -> None:
    answer = field.client.post("/api/downlinks", json=body)
    assert 400 <= answer.status_code < 500
    assert told in answer.json()["error"]


def test_a_key_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["add", "owl-1", "abc", "--folder", str(tmp_path)]) == 2
    assert "64 hexadecimal digits" in capsys.readouterr().err


def test_a_hub_key_that_others_may_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "--folder", str(tmp_path)]) == 0
    Settings(tmp_path).hub_key_path.chmod(0o644)
    assert main(["key", "--folder", str(tmp_path)]) == 1
    assert "expected a place for the hub's key, found" in capsys.readouterr().err


@needs_broker
def test_edge_sync_delivers_over_mqtt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broker, folder = Broker(tmp_path), tmp_path / "hub"
    try:
        with (
            serving(folder, "--mqtt", broker.url, "--bundle", str(TINY)) as (_, hub),
            httpx.Client(base_url=hub, trust_env=False, timeout=30) as client,
        ):
            field = Field(tmp_path, client)
            field.records(30)
            assert main(["enrol", "--folder", str(folder)]) == 0
            code = capsys.readouterr().out.strip()
            told = field.sync(capsys, f"{broker.url}?hub={hub_key(field, capsys)}", "--code", code)
            assert (told["n_observations"], told["n_detections"]) == (30, 10)
            assert field.detections() == 10
    finally:
        broker.stop()
