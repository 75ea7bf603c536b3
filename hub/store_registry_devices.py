"""Devices of the registry: who may send, where they stand, how they are, and the codes that let new ones in."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edge.device_key import fingerprint
from edge.errors import HubError
from hub.refusal import UnauthorizedError, UnknownError
from hub.store_registry_database import Database

log = logging.getLogger(__name__)

Status = Literal["pending", "enrolled", "revoked"]
STATUSES: tuple[Status, ...] = get_args(Status)

MAX_PENDING = 1000  # recorders that wait for approval; anybody can add one
_ANY_NAME = ""  # what a code is made for that has no name
_NO_CODE = (
    "; its code is used, expired or another recorder's: edge-hub approve, or a new code from edge-hub enrol"
)
_TAKEN = "device: the name {} is taken by another key, or revoked{}"
_KEPT = ("part", "detection", "event", "dropped", "clip")  # of a recorder that is not forgotten
_TOLD = ("epoch", "settled", "conflict", "usage")
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
        return fingerprint(self.public)


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

        A key that is known already stays as it is. A code that is not valid is as none: a hub restored from before the code
        was made must not need a visit to the recorder. A name that another key has is given away only by a code that was made
        for this name. The oldest one pending goes where there are too many. Raises UnauthorizedError.
        """
        with self._database.writing() as connection:
            known = _find(connection, name)
            if known is not None and known.public == public and known.status == "enrolled":
                return known
            code = None if code_digest is None else _find_code(connection, code_digest, name, now_ns)
            status: Status = "pending" if code is None else "enrolled"
            if known is not None and code is None:
                if known.status != "pending" or known.public != public:
                    raise UnauthorizedError(_TAKEN.format(name, "" if code_digest is None else _NO_CODE))
                return known
            if known is not None and code == _ANY_NAME and known.status != "pending":
                raise UnauthorizedError(
                    f"device: {name} is {known.status}; it takes a code made for this name"
                )
            if code is None:
                _make_room(connection)
            else:
                connection.execute(
                    "UPDATE enrolment_code SET used_ns = ? WHERE digest = ?", (now_ns, code_digest)
                )
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
        if code is None and code_digest is not None:
            log.warning("%s waits for approval, as without a code%s", name, _NO_CODE)
        return entered

    def forget(self, name: str) -> None:
        """Remove a recorder that is pending or revoked and of which nothing is kept. Raises UnknownError, HubError."""
        with self._database.writing() as connection:
            device = _find(connection, name)
            if device is None:
                raise UnknownError(f"device: expected one that the hub knows, found {name!r}")
            if device.status == "enrolled":
                raise HubError(
                    f"{name}: expected a recorder that is pending or revoked, found it enrolled; revoke it first"
                )
            for table in _KEPT:
                kept = connection.execute(
                    f"SELECT 1 FROM {table} WHERE device = ? LIMIT 1", (device.number,)
                ).fetchone()
                if kept is not None:
                    raise HubError(
                        f"{name}: expected a recorder of which nothing is kept, found observations, detections or clips; "
                        "revoked it sends no more, and what it sent stays"
                    )
            for table in _TOLD:
                connection.execute(f"DELETE FROM {table} WHERE device = ?", (device.number,))
            connection.execute("DELETE FROM device WHERE number = ?", (device.number,))

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


def _find_code(connection: sqlite3.Connection, digest: bytes, name: str, now_ns: int) -> str | None:
    """Return the name a code was made for, _ANY_NAME for any; None for a code that is used, expired or another's."""
    row = connection.execute(
        "SELECT device FROM enrolment_code WHERE digest = ? AND used_ns IS NULL AND until_ns > ?",
        (digest, now_ns),
    ).fetchone()
    if row is None or row[0] not in (None, name):
        return None
    return name if row[0] is not None else _ANY_NAME


def _make_room(connection: sqlite3.Connection) -> None:
    """Remove those that have been pending longest, until one more may be."""
    (n,) = connection.execute("SELECT count(*) FROM device WHERE status = 'pending'").fetchone()
    connection.execute(
        "DELETE FROM device WHERE number IN"
        " (SELECT number FROM device WHERE status = 'pending' ORDER BY added_ns, number LIMIT ?)",
        (max(0, n - MAX_PENDING + 1),),
    )
