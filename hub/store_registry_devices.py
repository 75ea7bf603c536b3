"""Devices of the registry: who may send, where they stand, how they are, and the codes that let new ones in."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edge.errors import HubError
from hub.refusal import OverQuotaError, UnauthorizedError, UnknownError
from hub.store_registry_database import Database

Status = Literal["pending", "enrolled", "revoked"]
STATUSES: tuple[Status, ...] = get_args(Status)

MAX_PENDING = 1000  # recorders that wait for approval; anybody can add one
_PENDING_RETRY_S = 3600.0
_COLUMNS = "number, name, title, status, public, latitude, longitude, added_ns, seen_ns, health_at_ns, health"
_SELECT = f"SELECT {_COLUMNS} FROM device"


@dataclass(frozen=True, slots=True)
class Device:
    """A recorder. number: its id in the archive; name: its device_id; title: what people call it ("" = its name).

    public: 32 bytes; latitude, longitude: degrees, None where unknown; times: UTC in ns since 1970; seen_ns: when
    something new came; health: its last heartbeat, {} = none yet, made at health_at_ns by its own clock.
    """

    number: int
    name: str
    title: str
    status: Status
    public: bytes
    latitude: float | None
    longitude: float | None
    added_ns: int
    seen_ns: int | None
    health_at_ns: int | None
    health: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """Return what a person compares with what the recorder shows before approving it: 16 hexadecimal digits."""
        return hashlib.sha256(self.public).hexdigest()[:16]


class Devices:
    """The table of devices and that of enrolment codes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Device]:
        """Return all devices by name."""
        with self._database.reading() as connection:
            return [_device(row) for row in connection.execute(_SELECT + " ORDER BY name")]

    def named(self, name: str) -> Device:
        """Return the device with a name. Raises UnknownError."""
        found = self.find(name)
        if found is None:
            raise UnknownError(f"device: expected one that the hub knows, found {name!r}")
        return found

    def find(self, name: str) -> Device | None:
        """Return the device with a name, or None."""
        with self._database.reading() as connection:
            return _find(connection, name)

    def numbered(self, number: int) -> Device:
        """Return the device with a number. Raises UnknownError."""
        with self._database.reading() as connection:
            row = connection.execute(_SELECT + " WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise UnknownError(f"device: expected one that the hub knows, found number {number}")
        return _device(row)

    def in_box(self, south: float, west: float, north: float, east: float) -> frozenset[int]:
        """Return the numbers of the devices in a box of degrees; west > east reaches over the 180th meridian."""
        turned = "OR" if west > east else "AND"
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT number FROM device WHERE latitude BETWEEN ? AND ? AND (longitude >= ? {turned} longitude <= ?)",
                (south, north, west, east),
            ).fetchall()
        return frozenset(number for (number,) in rows)

    def add_code(self, digest: bytes, device: str | None, made_ns: int, until_ns: int) -> None:
        """Keep the digest of a single-use code; device: the only name that may use it, None = any new one."""
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO enrolment_code (digest, device, made_ns, until_ns) VALUES (?, ?, ?, ?)",
                (digest, device, made_ns, until_ns),
            )

    def enrol(self, name: str, public: bytes, code_digest: bytes | None, now_ns: int) -> Device:
        """Enter a recorder: enrolled with a valid code, pending without one; a code is used up in the same transaction.

        A key that is known already stays as it is. A name that another key has is given away only by a code that was
        made for this name. Raises UnauthorizedError, and OverQuotaError where too many are pending.
        """
        with self._database.writing() as connection:
            known = _find(connection, name)
            if known is not None and known.public == public and known.status == "enrolled":
                return known
            if code_digest is not None:
                bound = _use_code(connection, code_digest, name, now_ns)
                if known is not None and not bound and known.status != "pending":
                    raise UnauthorizedError(
                        f"device: {name} is {known.status}; it takes a code made for this name"
                    )
                status: Status = "enrolled"
            elif known is None:
                (n,) = connection.execute("SELECT count(*) FROM device WHERE status = 'pending'").fetchone()
                if n >= MAX_PENDING:
                    raise OverQuotaError(f"{n} recorders wait for approval", _PENDING_RETRY_S)
                status = "pending"
            elif known.status == "revoked" or known.public != public:
                raise UnauthorizedError(f"device: the name {name} is taken by another key, or revoked")
            else:
                return known
            if known is None:
                connection.execute(
                    "INSERT INTO device (name, title, status, public, added_ns) VALUES (?, '', ?, ?, ?)",
                    (name, status, public, now_ns),
                )
            else:
                connection.execute(
                    "UPDATE device SET status = ?, public = ? WHERE number = ?",
                    (status, public, known.number),
                )
            entered = _find(connection, name)
        assert entered is not None
        return entered

    def set_status(self, name: str, status: Status) -> Device:
        """Approve (enrolled) or revoke a device. Raises UnknownError."""
        return self._update(name, status=status)

    def set_title(self, name: str, title: str) -> Device:
        """Say what people call a device. Raises UnknownError."""
        return self._update(name, title=title)

    def set_place(self, name: str, latitude: float | None, longitude: float | None) -> Device:
        """Say where a device stands. Raises UnknownError, and HubError for one of both or no degrees."""
        if (latitude is None) != (longitude is None):
            raise HubError("latitude: expected both latitude and longitude or neither, found one of them")
        if (
            latitude is not None
            and longitude is not None
            and not (abs(latitude) <= 90 and abs(longitude) <= 180)
        ):
            raise HubError(f"latitude, longitude: expected degrees, found {latitude}, {longitude}")
        return self._update(name, latitude=latitude, longitude=longitude)

    def _update(self, name: str, **columns: object) -> Device:
        changes = ", ".join(f"{column} = ?" for column in columns)
        with self._database.writing() as connection:
            connection.execute(f"UPDATE device SET {changes} WHERE name = ?", (*columns.values(), name))
            found = _find(connection, name)
        if found is None:
            raise UnknownError(f"device: expected one that the hub knows, found {name!r}")
        return found


def _find(connection: sqlite3.Connection, name: str) -> Device | None:
    row = connection.execute(_SELECT + " WHERE name = ?", (name,)).fetchone()
    return None if row is None else _device(row)


def _device(row: tuple[Any, ...]) -> Device:
    number, name, title, status, public, latitude, longitude, added_ns, seen_ns, health_at_ns, health = row
    facts = (public, latitude, longitude, added_ns, seen_ns, health_at_ns)
    return Device(number, name, title, status, *facts, json.loads(health) if health else {})


def _use_code(connection: sqlite3.Connection, digest: bytes, name: str, now_ns: int) -> bool:
    """Use up a code; return whether it was made for this name. Raises UnauthorizedError."""
    row = connection.execute(
        "SELECT device FROM enrolment_code WHERE digest = ? AND used_ns IS NULL AND until_ns > ?",
        (digest, now_ns),
    ).fetchone()
    if row is None or row[0] not in (None, name):
        raise UnauthorizedError(
            "code: expected an enrolment code that is neither used nor expired nor another recorder's; make one: edge-hub enrol"
        )
    connection.execute("UPDATE enrolment_code SET used_ns = ? WHERE digest = ?", (now_ns, digest))
    return row[0] is not None
