"""Intake over MQTT: the envelopes that recorders publish at a broker, and signed answers; the same ingest as over HTTP."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cbor2
import paho.mqtt.client as mqtt

from edge.batch import decode_envelope, encode_receipt
from edge.batch_mqtt import (
    KEEPALIVE_S,
    QOS,
    REQUEST_BYTES,
    UP_TOPICS,
    answer_topic,
    encode_answer,
    new_client,
    silence,
    up_topic,
)
from edge.device_key import DeviceKey
from edge.errors import FieldcubeError, HubError
from hub.app import status_of
from hub.clips import keep_clip
from hub.enrolment import enrol
from hub.parts import Hub
from hub.refusal import RefusedError, TooLargeError, UnknownError

log = logging.getLogger(__name__)

_WORKERS = 4  # so many messages are being decoded at once
_START_S = 30.0
_RETRY_S = 60.0


class MqttIntake:
    """Answers recorders at one broker. Use it as a context manager or call close().

    key: signs the answers (Publisher.hub_key). Raises HubError where the broker cannot be reached or lets nobody in; later on
    it connects again for ever.
    """

    def __init__(self, url: str, hub: Hub, key: DeviceKey, ca_file: Path | None = None) -> None:
        self._hub, self._key = hub, key
        self._client, self._host, port, options = new_client(url, ca_file)
        if options:
            raise HubError(f"mqtt: expected a URL without options, found {sorted(options)}")
        self._lock = threading.Lock()
        self._n_messages = self._n_bytes = 0  # that wait or are being worked on
        self._workers = ThreadPoolExecutor(_WORKERS, "mqtt")
        self._ready: queue.Queue[str] = queue.Queue()
        self._take: dict[str, Callable[[bytes], bytes]] = {
            "batch": self._batch,
            "enrolment": self._enrolment,
            "clip": self._clip,
        }
        self._client.on_connect = self._connected
        self._client.on_subscribe = self._subscribed
        self._client.on_message = self._came
        try:
            self._client.connect(self._host, port, KEEPALIVE_S)
            self._client.loop_start()
            trouble = self._ready.get(timeout=_START_S)
        except (OSError, queue.Empty, ValueError) as error:
            self.close()
            raise HubError(f"{self._host}:{port}: expected a broker, found {error or 'none'}") from error
        if trouble:
            self.close()
            raise HubError(f"{self._host}:{port}: expected to be let in, found: {trouble}")

    def close(self) -> None:
        """Answer what came, and hang up."""
        self._client.unsubscribe(UP_TOPICS)
        self._workers.shutdown(wait=True)
        self._client.disconnect()
        self._client.loop_stop()
        silence(self._client)

    def __enter__(self) -> MqttIntake:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            log.warning("%s: the broker does not let the hub in: %s", self._host, reason)
            self._ready.put(str(reason))
        else:
            client.subscribe(UP_TOPICS, QOS)

    def _subscribed(
        self, _client: mqtt.Client, _data: Any, _mid: int, reasons: Any, _properties: Any
    ) -> None:
        self._ready.put("".join(str(each) for each in reasons if each.is_failure))

    def _came(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        """Hand a message on; the thread of the connection must neither wait for the disk nor decode what anybody sent."""
        topic, payload = message.topic, bytes(message.payload)
        n_bytes = len(payload) - REQUEST_BYTES
        if n_bytes <= 0:
            return
        most = self._hub.settings.max_body_bytes
        if n_bytes > most:
            self._refuse(
                topic,
                payload[:REQUEST_BYTES],
                TooLargeError(f"body: expected at most {most} bytes, found {n_bytes}"),
            )
            return
        if not self._enter(n_bytes):
            busy = RefusedError("expected fewer messages at once")
            busy.retry_after_s = _RETRY_S
            self._refuse(topic, payload[:REQUEST_BYTES], busy)
            return
        try:
            self._workers.submit(self._work, topic, payload).add_done_callback(lambda _: self._leave(n_bytes))
        except RuntimeError:  # the hub is stopping; the recorder asks again
            self._leave(n_bytes)

    def _enter(self, n_bytes: int) -> bool:
        """Count a message in where there is room for it."""
        with self._lock:
            fits = self._n_bytes + n_bytes <= self._hub.settings.max_bodies_bytes
            if self._n_messages >= self._hub.settings.max_waiting or not fits:
                return False
            self._n_messages, self._n_bytes = self._n_messages + 1, self._n_bytes + n_bytes
            return True

    def _leave(self, n_bytes: int) -> None:
        with self._lock:
            self._n_messages, self._n_bytes = self._n_messages - 1, self._n_bytes - n_bytes

    def _work(self, topic: str, payload: bytes) -> None:
        request, body = payload[:REQUEST_BYTES], payload[REQUEST_BYTES:]
        purpose = topic.rsplit("/", 1)[1]
        try:
            device_id, _, _ = decode_envelope(body)
            if topic != up_topic(device_id, purpose):
                log.info("%s: a message of %r under another's topic is ignored", self._host, device_id)
                return
            if purpose not in self._take:
                raise UnknownError(f"purpose: expected one of {sorted(self._take)}, found {purpose!r}")
            content = self._take[purpose](body)
        except FieldcubeError as error:
            self._refuse(topic, request, error)
        except Exception:  # one bad message must not end the others'
            log.exception("a message on %s failed", topic)
            self._refuse(topic, request, HubError("the hub failed"))
        else:
            self._answer(topic, request, 200, content)

    def _batch(self, body: bytes) -> bytes:
        return encode_receipt(self._hub.ingest.take(body))

    def _enrolment(self, body: bytes) -> bytes:
        device = enrol(self._hub.registry, body, self._hub.now_ns())
        return cbor2.dumps({"status": device.status, "fingerprint": device.fingerprint})

    def _clip(self, body: bytes) -> bytes:
        keep_clip(self._hub.registry, self._hub.settings.clips_folder, body, self._hub.now_ns())
        return cbor2.dumps({"status": "kept"})

    def _refuse(self, topic: str, request: bytes, error: FieldcubeError) -> None:
        table: dict[str, Any] = {"error": str(error)}
        if isinstance(error, RefusedError) and error.retry_after_s is not None:
            table["retry_after_s"] = error.retry_after_s
        self._answer(topic, request, status_of(error), cbor2.dumps(table))

    def _answer(self, topic: str, request: bytes, status: int, content: bytes) -> None:
        self._client.publish(answer_topic(topic), encode_answer(self._key, request, status, content), QOS)
