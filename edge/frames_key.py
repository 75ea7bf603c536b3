"""The key of a device's frames, which it shares with its hub and with nobody else: X25519 of both sides' Ed25519 keys.

Nothing needs to travel for it: each side knows the other's public key. One key pair for signing and for agreement is safe
for Ed25519 and X25519 (E. Thormarker, "On using the same key pair for Ed25519 and an X25519 based KEM", 2021).
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from edge.device_key import DeviceKey
from edge.errors import WireError

_P = 2**255 - 19


def frame_key(own: DeviceKey, other_public: bytes, device_public: bytes) -> bytes:
    """Return 32 bytes, the same at the device and at the hub. device_public: of whichever side is the device."""
    private = X25519PrivateKey.from_private_bytes(hashlib.sha512(own.seed()).digest()[:32])
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(_montgomery(other_public)))
    except ValueError as error:
        raise WireError("public key: expected one of Ed25519, found another 32 bytes") from error
    hub_public = other_public if own.public == device_public else own.public
    return hashlib.blake2b(
        shared + device_public + hub_public, digest_size=32, person=b"fieldcube frame"
    ).digest()


def _montgomery(public: bytes) -> bytes:
    """Return an Edwards point's u coordinate on the Montgomery curve, u = (1 + y) / (1 - y) (RFC 7748, section 4.1)."""
    if len(public) != 32:
        raise WireError(f"public key: expected 32 bytes, found {len(public)}")
    y = int.from_bytes(public, "little") & (2**255 - 1)
    u = (1 + y) * pow(1 - y, -1, _P) % _P if (1 - y) % _P else 0
    return u.to_bytes(32, "little")
