"""The recorder's own Ed25519 key: made on first use, readable by its user alone, never leaves the board."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from edge.batch import Purpose, signed_bytes
from edge.durable import sync_folder
from edge.errors import ConfigError


class DeviceKey:
    """Signs what the recorder sends. public: 32 bytes, what the hub knows the recorder by."""

    @classmethod
    def open(cls, path: Path) -> DeviceKey:
        """Return the key in a PEM file (PKCS 8); make one, mode 0600, where there is no file.

        Raises ConfigError: a file that others may read, that is no Ed25519 key, or a place that cannot be written.
        """
        try:
            if not path.exists():
                _write_new(path)
            mode = stat.S_IMODE(path.stat().st_mode)
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: expected a place for the device's key, found {error}") from error
        if mode & 0o077:
            raise ConfigError(
                f"{path}: expected a key that only its user may read, found mode {mode:04o}; run: chmod 600 {path}"
            )
        try:
            key = load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(
                f"{path}: expected an Ed25519 key in PEM, found {error}; move it away, and a new one is made, "
                "which the hub must enrol"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"{path}: expected an Ed25519 key, found {type(key).__name__}")
        return cls(key)

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, purpose: Purpose, payload: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._key.sign(signed_bytes(purpose, payload))

    def seed(self) -> bytes:
        """Return the 32 secret bytes, to derive other keys from; they must not leave the process."""
        return self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())


def fingerprint(public: bytes) -> str:
    """Return what a person compares at recorder and hub before approving a key: 16 hexadecimal digits."""
    return hashlib.sha256(public).hexdigest()[:16]


def is_signed(public: bytes, purpose: Purpose, payload: bytes, signature: bytes) -> bool:
    """Return whether the signature is that of the owner of a public key, 32 bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed_bytes(purpose, payload))
    except (InvalidSignature, ValueError):
        return False
    return True


def _write_new(path: Path) -> None:
    """Write a new key: whole or absent after a power cut, and never replacing one that another process made meanwhile."""
    content = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
