"""Downlink: queries for a recorder in one message of a satellite, 270 bytes, signed by the hub. FORMAT_VERSION = 1.

    0     version << 4 | 8, which is no kind of edge.frames
    1     flags: 1 = for every recorder, 2 = the queries of earlier downlinks go
    2-5   UTC in s, little-endian: its number; a recorder takes each once, and none 30 days older than the newest
    then for each query: length of its name | 128 where it is removed, the name in UTF-8, and unless removed a byte of
    false alarms a day (0.001 * 1e6 ** (v / 254), 255 = the recorder's default) and the code
    last  Ed25519 signature over the name of the recorder (none where for all), the code space and everything before
Five queries of 256 bits have room with names of six letters.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from edge import require
from edge.device_key import DeviceKey, is_signed
from edge.errors import FieldcubeError, WireError
from edge.query import MAX_ALARMS_PER_DAY, MIN_ALARMS_PER_DAY

FORMAT_VERSION = 1
MAX_DOWNLINK_BYTES = 270  # of an Iridium SBD message to a device
_FIRST = FORMAT_VERSION << 4 | 8
_HEAD = struct.Struct("<BBI")
_SIGNATURE_BYTES = 64
_FOR_ALL, _REPLACES = 1, 2
_REMOVED = 128
_MAX_NAME = 127
_STEPS = 254
_DEFAULT_RATE = 255
_DECADES = math.log10(MAX_ALARMS_PER_DAY / MIN_ALARMS_PER_DAY)


@dataclass(frozen=True, slots=True)
class DownlinkQuery:
    """One query. code: None = remove the query of this name; alarms_per_day: None = the recorder's default."""

    name: str
    code: bytes | None
    alarms_per_day: float | None = None

    def __post_init__(self) -> None:
        require.text(WireError, "name", self.name)
        require.integer(WireError, "bytes of the name", len(self.name.encode()), 1, _MAX_NAME)
        if self.code is not None:
            require.one_of(WireError, "bytes of the code", len(self.code), (8, 16, 24, 32))
        if self.alarms_per_day is not None:
            low, high = MIN_ALARMS_PER_DAY, MAX_ALARMS_PER_DAY
            require.number(WireError, "alarms_per_day", self.alarms_per_day, low, high)


@dataclass(frozen=True, slots=True)
class Downlink:
    """What one message says. at_s: UTC in s, orders messages; replaces: the queries of earlier ones go."""

    at_s: int
    queries: tuple[DownlinkQuery, ...]
    for_all: bool = False
    replaces: bool = False


def encode_downlink(
    key: DeviceKey,
    device_id: str,
    code_space: str,
    downlink: Downlink,
    max_bytes: int = MAX_DOWNLINK_BYTES,
) -> bytes:
    """Return a signed message. key: the hub's; device_id: ignored where it is for all. Raises WireError where it is too long."""
    flags = downlink.for_all * _FOR_ALL | downlink.replaces * _REPLACES
    content = _HEAD.pack(_FIRST, flags, downlink.at_s) + b"".join(map(_packed, downlink.queries))
    found = len(content) + _SIGNATURE_BYTES
    if found > max_bytes:
        raise WireError(
            f"downlink: expected at most {max_bytes} bytes, found {found}; send fewer queries or shorter names"
        )
    signed = _signed(device_id, code_space, downlink.for_all, content)
    return content + key.sign("downlink", signed)


def decode_downlink(
    hub_public: bytes, device_id: str, code_space: str, code_bytes: int, content: bytes, last_at_s: int
) -> Downlink:
    """Return what a message says to this recorder, in this code space.

    last_at_s: of the last message taken. Raises WireError for a message that the hub has not signed for it, that was
    damaged, or that is not newer.
    """
    if len(content) < _HEAD.size + _SIGNATURE_BYTES or content[0] != _FIRST:
        raise WireError(
            f"downlink: expected a message of version {FORMAT_VERSION}, found {len(content)} other bytes"
        )
    body, signature = content[:-_SIGNATURE_BYTES], content[-_SIGNATURE_BYTES:]
    _, flags, at_s = _HEAD.unpack_from(body)
    signed = _signed(device_id, code_space, bool(flags & _FOR_ALL), body)
    if not is_signed(hub_public, "downlink", signed, signature):
        raise WireError(
            f"downlink: expected the hub's signature for {device_id} and {code_space}, found another; it is ignored"
        )
    if at_s <= last_at_s:
        raise WireError(
            f"downlink: expected one newer than {last_at_s}, found {at_s}: it came before, or too late"
        )
    queries = tuple(_unpacked(body, code_bytes))
    return Downlink(at_s, queries, bool(flags & _FOR_ALL), bool(flags & _REPLACES))


def is_downlink(content: bytes) -> bool:
    """Return whether bytes from the air claim to be a downlink; anything else may be a frame."""
    return content[:1] == bytes([_FIRST])


def split_queries(
    queries: Sequence[DownlinkQuery], max_bytes: int = MAX_DOWNLINK_BYTES
) -> list[tuple[DownlinkQuery, ...]]:
    """Return queries in groups that each fit into one message. Raises WireError for one that does not."""
    groups: list[tuple[DownlinkQuery, ...]] = []
    room = 0
    for query in queries:
        n_bytes = len(_packed(query))
        if n_bytes > max_bytes - _HEAD.size - _SIGNATURE_BYTES:
            raise WireError(f"downlink: expected a shorter name, found {query.name!r}")
        if not groups or n_bytes > room:
            groups.append(())
            room = max_bytes - _HEAD.size - _SIGNATURE_BYTES
        groups[-1] = (*groups[-1], query)
        room -= n_bytes
    return groups


def _signed(device_id: str, code_space: str, for_all: bool, content: bytes) -> bytes:
    """Return what is signed; the lengths keep a part of one name from being read as a part of another."""
    names = [b"" if for_all else device_id.encode(), code_space.encode()]
    return b"".join(struct.pack("<H", len(name)) + name for name in names) + content


def _packed(query: DownlinkQuery) -> bytes:
    name = query.name.encode()
    if query.code is None:
        return bytes([len(name) | _REMOVED]) + name
    rate = _DEFAULT_RATE
    if query.alarms_per_day is not None:
        rate = round(_STEPS * math.log10(query.alarms_per_day / MIN_ALARMS_PER_DAY) / _DECADES)
    return bytes([len(name)]) + name + bytes([rate]) + query.code


def _unpacked(body: bytes, code_bytes: int) -> list[DownlinkQuery]:
    queries, at = [], _HEAD.size
    try:
        while at < len(body):
            length, at = body[at] & ~_REMOVED, at + 1
            is_removed = bool(body[at - 1] & _REMOVED)
            name, at = body[at : at + length].decode(), at + length
            if is_removed:
                queries.append(DownlinkQuery(name, None))
                continue
            rate, code, at = body[at], body[at + 1 : at + 1 + code_bytes], at + 1 + code_bytes
            per_day = None
            if rate != _DEFAULT_RATE:
                per_day = min(MAX_ALARMS_PER_DAY, MIN_ALARMS_PER_DAY * 10 ** (_DECADES * rate / _STEPS))
            queries.append(DownlinkQuery(name, code, per_day))
    except (IndexError, UnicodeDecodeError, FieldcubeError) as error:
        raise WireError(f"downlink: expected queries of {8 * code_bytes} bits, found {error}") from error
    if at != len(body):
        raise WireError(f"downlink: expected whole queries, found {at - len(body)} bytes missing")
    return queries
