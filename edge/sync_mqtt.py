"""The way to the hub over MQTT: the same envelopes through a broker, and answers of the hub, not of the broker.

That the broker took a message means nothing: what counts is the hub's answer to it (edge.batch_mqtt).
URL: mqtts://user:password@broker:8883?hub=<64 hexadecimal digits>; without hub, answers of anybody at the broker are believed.
"""

from __future__ import annotations

import logging
import queue
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import paho.mqtt.client as mqtt

from edge.batch import Purpose, decode_envelope
from edge.batch_mqtt import (
    ANSWER_HEAD_BYTES,
    KEEPALIVE_S,
    QOS,
    REQUEST_BYTES,
    decode_answer,
    down_topic,
    new_client,
    silence,
    up_topic,
)
from edge.errors import ConfigError, SyncError, WireError
from edge.sync_carrier import Answer, RefusedError
from edge.urls import without_password

LOG = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 1 << 20
_PATIENCE_S, _SLOWEST_BYTES_PER_S = 90.0, 20.0
_CONNECT_S = 30.0
_PACKET_BYTES = 120  # of MQTT, TCP and IP beside the content of a message, both ways
_MAX_SHOWN = 200


class MqttCarrier:
    """Delivers envelopes through a broker. A Carrier (edge.sync_carrier), not thread-safe; call close() at the end.

    Raises ConfigError for a URL of another kind.
    """

    def __init__(
        self,
        url: str,
        ca_file: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float = _PATIENCE_S,
        slowest_bytes_per_s: float = _SLOWEST_BYTES_PER_S,
    ) -> None:
        self._url, self._ca_file = url, ca_file
        options = self._begin()
        try:
            self._hub_public = bytes.fromhex(options.pop("hub", ""))
        except ValueError as error:
            raise ConfigError("hub: expected 64 hexadecimal digits, found others") from error
        if options or len(self._hub_public) not in (0, 32):
            raise ConfigError(
                f"hub: expected ?hub=<64 hexadecimal digits> and no more, found {without_password(url)!r}"
            )
        if not self._hub_public:
            LOG.warning(
                "%s: no hub= in its URL: whoever may publish at the broker can answer as the hub", self._host
            )
        self._clock, self._patience_s, self._slowest_bytes_per_s = clock, patience_s, slowest_bytes_per_s
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._subscribed: queue.Queue[bool] = queue.Queue()
        self._topic: str | None = None
        self._is_running = False

    def close(self) -> None:
        """Hang up; the carrier cannot be used again."""
        self._hang_up()
        silence(self._client)

    def _begin(self) -> dict[str, str]:
        """Make a client and return the options of its URL."""
        self._client, self._host, self._port, options = new_client(self._url, self._ca_file)
        self._client.on_connect = self._connected
        self._client.on_subscribe = self._told_subscribed
        self._client.on_message = self._came
        return options

    def _hang_up(self) -> None:
        if self._is_running:
            self._client.disconnect()
            self._client.loop_stop()
            self._is_running = False
            silence(self._client)
            self._begin()  # paho's loop is not begun twice: it loses sockets

    def send(self, purpose: Purpose, body: bytes) -> Answer:
        """Publish an envelope; return the hub's answer to it. Raises RefusedError, SyncError."""
        device_id, _, _ = decode_envelope(body)
        self._listen(down_topic(device_id))
        request = secrets.token_bytes(REQUEST_BYTES)
        published = self._client.publish(up_topic(device_id, purpose), request + body, QOS)
        if published.rc not in (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_NO_CONN):
            raise SyncError(f"{self._host}: expected to publish, found {mqtt.error_string(published.rc)}")
        status, content = self._answer(
            request, self._clock() + self._patience_s + len(body) / self._slowest_bytes_per_s
        )
        if status != 200:
            raise _refused(self._host, status, content)
        return Answer(content, len(body) + len(content) + ANSWER_HEAD_BYTES + REQUEST_BYTES + _PACKET_BYTES)

    def _listen(self, topic: str) -> None:
        """Connect and subscribe, once; paho connects again by itself where the line breaks."""
        if self._topic == topic and self._is_running:
            return
        self._hang_up()
        self._topic = topic
        try:
            self._client.connect(self._host, self._port, KEEPALIVE_S)
            self._client.loop_start()
            self._is_running = True
            if not self._subscribed.get(timeout=min(_CONNECT_S, self._patience_s)):
                raise SyncError(f"{self._host}: expected to be let in by the broker, found a refusal")
        except (OSError, queue.Empty, ValueError) as error:
            self._hang_up()
            self._topic = None
            raise SyncError(
                f"{self._host}:{self._port}: expected a broker, found: {error or 'none'}"
            ) from error
        except SyncError:
            self._hang_up()
            self._topic = None
            raise

    def _answer(self, request: bytes, deadline_s: float) -> tuple[int, bytes]:
        """Return status and content of the answer to a request; others, late or invented, are passed over."""
        while True:
            left_s = deadline_s - self._clock()
            try:
                if left_s <= 0:
                    raise queue.Empty
                found = self._answers.get(timeout=left_s)
            except queue.Empty as error:
                raise SyncError(
                    f"{self._host}: expected an answer of the hub, found none; is it connected to this broker?"
                ) from error
            try:
                to, status, content = decode_answer(self._hub_public, found)
            except WireError as error:
                LOG.warning("%s: %s; it is ignored", self._host, error)
                continue
            if to == request:
                return status, content

    def _connected(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._subscribed.put(False)
        elif self._topic is not None:
            client.subscribe(self._topic, QOS)

    def _told_subscribed(
        self, _client: mqtt.Client, _data: Any, _mid: int, reasons: Any, _properties: Any
    ) -> None:
        self._subscribed.put(not any(each.is_failure for each in reasons))

    def _came(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        if len(message.payload) <= MAX_ANSWER_BYTES:
            self._answers.put(bytes(message.payload))


def _refused(host: str, status: int, content: bytes) -> RefusedError:
    """Return the hub's refusal, as plain text."""
    reason, after_s = "", None
    try:
        table = cbor2.loads(content)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError):
        table = None
    if isinstance(table, dict):
        told, after = table.get("error"), table.get("retry_after_s")
        reason = (
            "".join(c if c.isprintable() else " " for c in told[:_MAX_SHOWN]) if isinstance(told, str) else ""
        )
        after_s = float(after) if isinstance(after, (int, float)) and 0 <= after < 1e9 else None
    return RefusedError(f"{host}: the hub answers {status}: {reason}", status, after_s)
