"""Enrolment: how a recorder's key becomes known to the hub, by a single-use code or by a person's approval."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any

from edge import require
from edge.batch import decode_envelope
from edge.batch_cbor import decode_mapping
from edge.device_key import is_signed
from edge.errors import WireError
from hub.refusal import TooLargeError, UnauthorizedError
from hub.store_registry import Registry
from hub.store_registry_devices import Device

CODE_CHARACTERS = 16  # base32: 80 bits, so that guessing needs no limit of attempts
DEFAULT_VALID_S = 7 * 86_400.0
MAX_NAME_CHARACTERS = 200
MAX_REQUEST_BYTES = 8192


def new_code(registry: Registry, device: str | None, now_ns: int, valid_s: float = DEFAULT_VALID_S) -> str:
    """Return a new single-use code; the registry keeps only its digest. device: the only name that may use it."""
    code = base64.b32encode(secrets.token_bytes(10)).decode().lower()
    registry.devices.add_code(code_digest(code), device, now_ns, now_ns + int(valid_s * 1e9))
    return "-".join(code[i : i + 4] for i in range(0, CODE_CHARACTERS, 4))


def code_digest(code: str) -> bytes:
    """Return what is kept of a code; dashes, spaces and capitals do not matter."""
    plain = "".join(character for character in code.lower() if character.isalnum())
    return hashlib.sha256(b"fieldcube enrolment " + plain.encode()).digest()


def enrol(registry: Registry, body: bytes, now_ns: int) -> Device:
    """Enter the recorder that signed an envelope with its public key; return it, enrolled or pending.

    Raises WireError for a damaged request, TooLargeError; UnauthorizedError for one that its key has not signed, or a name that
    another key has.
    """
    if len(body) > MAX_REQUEST_BYTES:
        raise TooLargeError(f"enrolment: expected at most {MAX_REQUEST_BYTES} bytes, found {len(body)}")
    name, payload, signature = decode_envelope(body)
    table = _request(payload)
    if table["device"] != name:
        raise WireError(f"device: expected the request of {name!r}, found that of {table['device']!r}")
    if not is_signed(table["public"], "enrolment", payload, signature):
        raise UnauthorizedError(
            f"device {name!r}: expected a request signed with the key it brings, found another"
        )
    code = table["code"]
    return registry.devices.enrol(name, table["public"], None if code is None else code_digest(code), now_ns)


def _request(payload: bytes) -> dict[str, Any]:
    checked = decode_mapping("enrolment", payload, ("device", "public", "code"), is_flat=True)
    require.text(WireError, "device", checked["device"])
    if len(checked["device"]) > MAX_NAME_CHARACTERS or not checked["device"].isprintable():
        raise WireError(f"device: expected at most {MAX_NAME_CHARACTERS} printable characters")
    require.instance(WireError, "public", checked["public"], (bytes,))
    if len(checked["public"]) != 32:
        raise WireError(f"public: expected 32 bytes of Ed25519, found {len(checked['public'])}")
    if checked["code"] is not None:
        require.text(WireError, "code", checked["code"])
    return dict(checked)
