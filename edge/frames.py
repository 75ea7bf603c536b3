"""Frames: records small enough for a satellite message (340 bytes) or a LoRa packet (51 bytes). FORMAT_VERSION = 1.

12 bytes of header, then a body (integers little-endian):
    0     version << 4 | kind
    1-2   sender: 2 bytes of the digest of the device's name, so that a receiver need not try every key
    3-4   number, low 16 bits
    5-7   seq, low 24 bits
    8-11  tag: BLAKE2s keyed with the device's frame key over the kind, the whole numbers, what the frame relies on, and the body
A receiver completes the numbers from what it knows; a wrong guess, a frame of another recorder or context, damage and forgery
all end in a wrong tag (a forged one passes once in 4e9 attempts). What a code or a detection needs beside its few bytes is
sent once, in a context and in anchors, and the tag covers their digests: nothing is ever read with the wrong ones.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from edge import require
from edge.errors import WireError
from edge.observation import MAX_INT

FORMAT_VERSION = 1
HEADER_BYTES = 12
SATELLITE_BYTES, LORA_BYTES = 340, 51  # Iridium SBD, and LoRaWAN at its slowest
MIN_FRAME_BYTES, MAX_FRAME_BYTES = LORA_BYTES, 1024
DIGEST_BYTES = 8
CODE_RECORD_BYTES, DETECTION_RECORD_BYTES = 34, 5
MAX_OFFSET = 2**16 - 1  # of a record's seq from that of its frame
NO_DIGEST = b"\0" * DIGEST_BYTES
_TAG_BYTES = 4

Kind = Literal["context", "anchor", "codes", "detections", "untimed", "heartbeat", "receipt"]
_KINDS: dict[Kind, int] = {
    "context": 1,
    "anchor": 2,
    "codes": 3,
    "detections": 4,
    "untimed": 5,
    "heartbeat": 6,
    "receipt": 7,
}
_NAMES = {number: name for name, number in _KINDS.items()}
_HEADER = struct.Struct("<BHHHB")  # seq in 16 and 8 bits
_DETECTION = struct.Struct("<HBBB")


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as it came; number and seq are only their low bits until the tag was checked."""

    kind: Kind
    sender: int
    low_number: int
    low_seq: int
    tag: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class CodeRecord:
    """A code and how far its seq is from that of its frame."""

    offset: int
    code: bytes


@dataclass(frozen=True, slots=True)
class DetectionRecord:
    """A detection: offset of its seq, query = its place in the context, distance in bits (255 also for 256), probability 0..1 in steps of 1/255."""

    offset: int
    query: int
    distance: int
    probability: float


def sender_of(device_id: str) -> int:
    """Return the two bytes by which a frame names its device."""
    return int.from_bytes(hashlib.blake2s(device_id.encode(), digest_size=2).digest(), "little")


def digest_of(content: bytes) -> bytes:
    """Return the digest of a context or an anchor, by which frames rely on it."""
    return hashlib.blake2s(content, digest_size=DIGEST_BYTES).digest()


def encode_frame(
    key: bytes,
    kind: Kind,
    device_id: str,
    body: bytes,
    number: int = 0,
    seq: int = 0,
    relies_on: bytes = b"",
) -> bytes:
    """Return a frame. key: 32 bytes; relies_on: digests of what it is to be read with."""
    require.integer(WireError, "number", number, 0, MAX_INT)
    require.integer(WireError, "seq", seq, 0, MAX_INT)
    low = seq & 0xFFFFFF
    head = _HEADER.pack(
        FORMAT_VERSION << 4 | _KINDS[kind], sender_of(device_id), number & 0xFFFF, low & 0xFFFF, low >> 16
    )
    frame = head + _tag(key, kind, number, seq, relies_on, body) + body
    if len(frame) > MAX_FRAME_BYTES:
        raise WireError(f"frame: expected at most {MAX_FRAME_BYTES} bytes, found {len(frame)}")
    return frame


def decode_frame(content: bytes) -> Frame:
    """Return a frame whose tag is not checked yet. Raises WireError for what is none."""
    if not HEADER_BYTES < len(content) <= MAX_FRAME_BYTES:
        raise WireError(
            f"frame: expected {HEADER_BYTES + 1} to {MAX_FRAME_BYTES} bytes, found {len(content)}"
        )
    first, sender, number, low, high = _HEADER.unpack_from(content)
    if first >> 4 != FORMAT_VERSION or first & 15 not in _NAMES:
        raise WireError(
            f"frame: expected version {FORMAT_VERSION} and a known kind, found 0x{first:02x}; "
            "update whichever side is older"
        )
    return Frame(
        _NAMES[first & 15],
        sender,
        number,
        high << 16 | low,
        content[_HEADER.size : HEADER_BYTES],
        content[HEADER_BYTES:],
    )


def is_authentic(key: bytes, frame: Frame, number: int, seq: int, relies_on: bytes = b"") -> bool:
    """Return whether a frame was made with a key, these whole numbers and what it relies on."""
    if (number & 0xFFFF, seq & 0xFFFFFF) != (frame.low_number, frame.low_seq):
        return False
    expected = _tag(key, frame.kind, number, seq, relies_on, frame.body)
    return hmac.compare_digest(expected, frame.tag)


def completed(low: int, bits: int, near: int) -> int:
    """Return the number that ends in these low bits and is nearest to one that is expected."""
    span = 1 << bits
    base = near - near % span + low
    return max(low, min((base - span, base, base + span), key=lambda each: (abs(each - near), -each)))


def encode_codes(records: Sequence[CodeRecord]) -> bytes:
    """Return the body of a frame of codes, all of one width."""
    return b"".join(struct.pack("<H", each.offset) + each.code for each in records)


def decode_codes(body: bytes, code_bytes: int) -> list[CodeRecord]:
    """Return the codes in a body, each of code_bytes. Raises WireError."""
    size = 2 + code_bytes
    return [
        CodeRecord(int.from_bytes(body[at : at + 2], "little"), body[at + 2 : at + size])
        for at in _starts("codes", body, size)
    ]


def encode_detections(records: Sequence[DetectionRecord]) -> bytes:
    """Return the body of a frame of detections."""
    return b"".join(
        _DETECTION.pack(each.offset, each.query, min(each.distance, 255), round(each.probability * 255))
        for each in records
    )


def decode_detections(body: bytes) -> list[DetectionRecord]:
    """Return the detections in a body. Raises WireError."""
    found = (_DETECTION.unpack_from(body, at) for at in _starts("detections", body, DETECTION_RECORD_BYTES))
    return [
        DetectionRecord(offset, query, distance, probability / 255)
        for offset, query, distance, probability in found
    ]


def n_fitting(kind: Kind, frame_bytes: int, code_bytes: int = 32) -> int:
    """Return how many records fit into a frame."""
    size = DETECTION_RECORD_BYTES if kind != "codes" else 2 + code_bytes
    return (frame_bytes - HEADER_BYTES) // size


def to_stream(frame: bytes) -> bytes:
    """Return a frame as it stands in a file or on a serial line: SLIP (RFC 1055), so that damage ends with the frame."""
    return b"\xc0" + frame.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


def from_stream(content: bytes) -> Iterator[bytes]:
    """Give the frames in a stream; what stands between is passed over, what is damaged fails at its tag."""
    for part in content.split(b"\xc0"):
        if HEADER_BYTES < len(part) <= 2 * MAX_FRAME_BYTES:
            yield part.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")


def _starts(what: str, body: bytes, size: int) -> range:
    if not body or len(body) % size:
        raise WireError(f"{what}: expected records of {size} bytes, found {len(body)} bytes")
    return range(0, len(body), size)


def _tag(key: bytes, kind: Kind, number: int, seq: int, relies_on: bytes, body: bytes) -> bytes:
    covered = struct.pack("<BBQQH", FORMAT_VERSION, _KINDS[kind], number, seq, len(relies_on))
    return hashlib.blake2s(
        covered + relies_on + body, key=key, digest_size=_TAG_BYTES, person=b"fc frame"
    ).digest()
