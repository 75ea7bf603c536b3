"""MQTT through a real broker: the same envelopes, and nothing is acknowledged that the hub does not keep."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import cbor2
import paho.mqtt.client as mqtt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.batch import Progress, Purpose, decode_receipt
from edge.batch_mqtt import decode_answer, down_topic, encode_answer, new_client, up_topic
from edge.device_key import DeviceKey
from edge.errors import ConfigError, HubError, SyncError, WireError
from edge.sync_carrier import RefusedError
from edge.sync_mqtt import MqttCarrier
from hub.archive import Archive
from hub.ingest import Ingest
from hub.mqtt import MqttIntake
from hub.parts import Hub
from hub.settings import Settings
from hub.store_registry import Registry
from tests.hub.conftest import NOW_NS
from tests.simulate.recorder import Recorder

BROKER = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_broker = pytest.mark.skipif(BROKER is None, reason="mosquitto is not installed: apt install mosquitto")
HUB_KEY = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"h" * 32))


class Broker:
    """A mosquitto of its own on a free port of loopback."""

    def __init__(self, folder: Path) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n{user}")
        self.start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        assert BROKER is not None
        self._process = subprocess.Popen(
            [BROKER, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(400):
            with suppress(OSError), closing(socket.create_connection(("127.0.0.1", self.port), 1)):
                return
            time.sleep(0.025)
        raise AssertionError("mosquitto does not listen")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    running = Broker(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def hub(tmp_path: Path, registry: Registry, archive: Archive, ingest: Ingest) -> Hub:
    settings = Settings(tmp_path / "hub", port=0, max_body_bytes=50_000)
    return Hub(registry, archive, None, settings, ingest, lambda: NOW_NS)


@pytest.fixture
def intake(broker: Broker, hub: Hub) -> Iterator[MqttIntake]:
    with MqttIntake(broker.url, hub, HUB_KEY) as running:
        yield running


@pytest.fixture
def carrier(broker: Broker) -> Iterator[MqttCarrier]:
    with closing(MqttCarrier(f"{broker.url}?hub={HUB_KEY.public.hex()}", patience_s=20)) as opened:
        yield opened


@needs_broker
def test_envelopes_are_kept_and_answered(
    intake: MqttIntake, carrier: MqttCarrier, owl: Recorder, ingest: Ingest
) -> None:
    for first in (0, 10, 0):  # the last one comes twice
        receipt = decode_receipt(carrier.send("batch", owl.sent(first, 10)).content)
    assert receipt.progress["observations"] == Progress(20)
    assert receipt.n_conflicts == 0
    assert ingest.wait_archived(10)


@needs_broker
def test_enrolment_and_refusals_come_back(
    intake: MqttIntake, carrier: MqttCarrier, owl: Recorder, registry: Registry
) -> None:
    fox = Recorder("fox/+#1", seed=4)  # a name that would be several topics
    assert cbor2.loads(carrier.send("enrolment", fox.enrolment()).content)["status"] == "pending"
    with pytest.raises(RefusedError, match="enrolled") as refused:
        carrier.send("batch", fox.sent(0, 1))
    assert refused.value.status == 401
    for purpose, body, status in (
        ("batch", Recorder("owl-1", seed=5).sent(0, 1), 401),
        ("batch", owl.signed("batch", b"no batch"), 400),
        ("batch", owl.signed("batch", bytes(60_000)), 413),
        ("clip", owl.clip(0, b"x"), 404),
    ):
        with pytest.raises(RefusedError) as refused:
            carrier.send(purpose, body)  # type: ignore[arg-type]
        assert refused.value.status == status, purpose
    registry.devices.set_status("fox/+#1", "enrolled")
    assert carrier.send("batch", fox.sent(0, 1)).n_line_bytes > len(fox.sent(0, 1))


@needs_broker
def test_what_the_broker_took_is_not_acknowledged(broker: Broker, owl: Recorder) -> None:
    alone = MqttCarrier(broker.url, patience_s=0.2, slowest_bytes_per_s=1e6)
    with closing(alone), pytest.raises(SyncError, match="found none; is it connected"):
        alone.send("batch", owl.sent(0, 1))


@needs_broker
def test_a_broker_that_dies_is_found_again(
    broker: Broker, intake: MqttIntake, carrier: MqttCarrier, owl: Recorder
) -> None:
    carrier.send("batch", owl.sent(0, 5))
    broker.stop()
    broker.start()
    receipt = None
    for _ in range(10):  # as edge-sync does, which waits between attempts
        with (
            suppress(SyncError),
            closing(MqttCarrier(broker.url, patience_s=2, slowest_bytes_per_s=1e6)) as again,
        ):
            receipt = decode_receipt(again.send("batch", owl.sent(5, 5)).content)
            break
    assert receipt is not None
    assert receipt.progress["observations"] == Progress(10)


@needs_broker
def test_an_answer_that_the_hub_has_not_signed_is_not_believed(broker: Broker, owl: Recorder) -> None:
    forger, host, port, _ = new_client(broker.url)
    stranger = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"s" * 32))
    listening, heard = threading.Event(), threading.Event()

    def answer(client: mqtt.Client, _: object, message: mqtt.MQTTMessage) -> None:
        heard.set()
        for invented in (encode_answer(stranger, message.payload[:16], 200, b"kept"), b"", b"x" * 200):
            client.publish(down_topic("owl-1"), invented, 1)

    forger.on_message = answer
    forger.on_subscribe = lambda *_: listening.set()
    forger.connect(host, port)
    forger.subscribe(up_topic("owl-1", "batch"), 1)
    forger.loop_start()
    try:
        assert listening.wait(10)
        strict = MqttCarrier(
            f"{broker.url}?hub={HUB_KEY.public.hex()}", patience_s=0.5, slowest_bytes_per_s=1e6
        )
        with closing(strict), pytest.raises(SyncError, match="found none"):
            strict.send("batch", owl.sent(0, 1))
        assert heard.is_set()
        with closing(MqttCarrier(broker.url, patience_s=20)) as trusting:  # as its warning says
            assert trusting.send("batch", owl.sent(0, 1)).content == b"kept"
    finally:
        forger.disconnect()
        forger.loop_stop()


@needs_broker
def test_noise_at_the_broker_harms_nobody(
    broker: Broker, intake: MqttIntake, carrier: MqttCarrier, owl: Recorder
) -> None:
    client, host, port, _ = new_client(broker.url)
    client.connect(host, port)
    client.loop_start()
    purposes: tuple[Purpose, ...] = ("batch", "clip", "enrolment")
    for payload in (b"", b"short", bytes(16), bytes(200), bytes(16) + owl.sent(0, 1)):
        for topic in (
            up_topic("fox", "batch"),
            *(up_topic("owl-1", each) for each in purposes),
            "fieldcube/up/x/y",
        ):
            client.publish(topic, payload, 1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()
    assert decode_receipt(carrier.send("batch", owl.sent(1, 4)).content).progress["observations"].next == 5


@needs_broker
def test_what_is_too_large_is_refused_before_it_is_read(broker: Broker, intake: MqttIntake) -> None:
    client, host, port, _ = new_client(broker.url)
    answers: queue.Queue[bytes] = queue.Queue()
    client.on_message = lambda _client, _data, message: answers.put(bytes(message.payload))
    listening = threading.Event()
    client.on_subscribe = lambda *_: listening.set()
    client.connect(host, port)
    client.subscribe(down_topic("owl-1"), 1)
    client.loop_start()
    try:
        assert listening.wait(10)
        for body, status in ((bytes(50_001), 413), (bytes(50_000), 400)):
            client.publish(up_topic("owl-1", "batch"), b"r" * 16 + body, 1)
            assert decode_answer(HUB_KEY.public, answers.get(timeout=10))[:2] == (b"r" * 16, status)
    finally:
        client.disconnect()
        client.loop_stop()


def test_no_broker_is_an_error_that_says_so(hub: Hub, owl: Recorder) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        url = f"mqtt://127.0.0.1:{free.getsockname()[1]}"
        with closing(MqttCarrier(url, patience_s=1)) as carrier, pytest.raises(SyncError, match="broker"):
            carrier.send("batch", owl.sent(0, 1))
        with pytest.raises(HubError, match="broker"):
            MqttIntake(url, hub, HUB_KEY)


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "mqtt://",
        "mqtt://h:x",
        "mqtt://h/path",
        "mqtt://h?hub=ab",
        "mqtt://h?hub=zz",
        "mqtt://h?a=b",
    ],
)
def test_urls_of_another_kind_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        MqttCarrier(url)


def test_an_answer_is_read_as_it_was_written() -> None:
    answer = encode_answer(HUB_KEY, b"r" * 16, 429, b"later")
    assert decode_answer(HUB_KEY.public, answer) == (b"r" * 16, 429, b"later")
    for i in range(len(answer)):
        changed = bytearray(answer)
        changed[i] ^= 1
        with pytest.raises(WireError):
            decode_answer(HUB_KEY.public, bytes(changed))
    with pytest.raises(WireError):
        decode_answer(b"", answer[:50])
