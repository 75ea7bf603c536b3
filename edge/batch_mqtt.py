"""Batches over MQTT: topics, and the form of requests and answers; the hub's acknowledgement, not the broker's. FORMAT_VERSION = 1.

A message is asked on fieldcube/up/<name>/<purpose> and answered on fieldcube/down/<name>, <name> being the digest of the
device's name. A request is 16 bytes of its own and the envelope; an answer is those 16 bytes, a status as of HTTP (2 bytes,
big-endian), the hub's Ed25519 signature over request, status and content, and the content.
"""

from __future__ import annotations

import hashlib
import secrets
import ssl
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge.device_key import DeviceKey, is_signed
from edge.errors import ConfigError, WireError

FORMAT_VERSION = 1
UP_TOPICS = "fieldcube/up/+/+"
REQUEST_BYTES = 16
ANSWER_HEAD_BYTES = REQUEST_BYTES + 2 + 64
QOS = 1
KEEPALIVE_S = 60
_PORTS = {"mqtt": 1883, "mqtts": 8883}


def up_topic(device_id: str, purpose: str) -> str:
    """Return where a device asks."""
    return f"fieldcube/up/{_topic_name(device_id)}/{purpose}"


def down_topic(device_id: str) -> str:
    """Return where a device is answered."""
    return f"fieldcube/down/{_topic_name(device_id)}"


def answer_topic(topic: str) -> str:
    """Return where a message is answered that came on a topic of UP_TOPICS."""
    return f"fieldcube/down/{topic.split('/')[2]}"


def encode_answer(key: DeviceKey, request: bytes, status: int, content: bytes) -> bytes:
    """Return an answer, signed with the hub's key."""
    head = request + status.to_bytes(2, "big")
    return head + key.sign("receipt", head + content) + content


def decode_answer(hub_public: bytes, answer: bytes) -> tuple[bytes, int, bytes]:
    """Return request, status and content of an answer. hub_public: 32 bytes, b"" = anybody's is believed. Raises WireError."""
    if len(answer) < ANSWER_HEAD_BYTES:
        raise WireError(f"answer: expected at least {ANSWER_HEAD_BYTES} bytes, found {len(answer)}")
    head, content = answer[: REQUEST_BYTES + 2], answer[ANSWER_HEAD_BYTES:]
    signature = answer[REQUEST_BYTES + 2 : ANSWER_HEAD_BYTES]
    if hub_public and not is_signed(hub_public, "receipt", head + content, signature):
        raise WireError("answer: expected the hub's signature, found another")
    return head[:REQUEST_BYTES], int.from_bytes(head[REQUEST_BYTES:], "big"), content


def new_client(url: str, ca_file: Path | None = None) -> tuple[mqtt.Client, str, int, dict[str, str]]:
    """Return a client for a broker, not connected yet, with host, port and options of the URL. Raises ConfigError."""
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # its password belongs in no journal
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"hub: expected a port from 0 to 65535, found {shown!r}") from error
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise ConfigError(f"hub: expected a URL such as mqtts://broker.example.org:8883, found {shown!r}")
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"fieldcube-{secrets.token_hex(8)}")
    if parts.username is not None:
        client.username_pw_set(
            unquote(parts.username), None if parts.password is None else unquote(parts.password)
        )
    if parts.scheme == "mqtts":
        try:
            context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{ca_file}: expected certificates in PEM, found {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        client.tls_set_context(context)
    return client, parts.hostname, port or _PORTS[parts.scheme], dict(parse_qsl(parts.query))


def silence(client: mqtt.Client) -> None:
    """Take the callbacks off a client that hung up: it closes what it has when nobody refers to it any more."""
    client.on_connect = client.on_subscribe = client.on_message = None


def _topic_name(device_id: str) -> str:
    return hashlib.blake2s(device_id.encode(), digest_size=8).hexdigest()
