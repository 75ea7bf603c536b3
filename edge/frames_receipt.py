"""A receipt as a frame: what the hub keeps of a recorder's detections, so that what was lost on the air goes again."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edge.batch import Range
from edge.errors import WireError
from edge.frames import HEADER_BYTES, Frame, encode_frame, is_authentic

_HEAD = struct.Struct("<IQ")  # at_s, next
_GAP = struct.Struct("<IB")  # how far below next, how many
_MOST = 255


@dataclass(frozen=True, slots=True)
class FrameReceipt:
    """at_s: UTC in s, orders receipts; next: of the detections; missing: ranges below it, the earliest first.

    Made without an epoch, with next 0, it asks for the context: the hub knows none yet.
    """

    at_s: int
    next: int
    missing: tuple[Range, ...]


def encode_receipt_frame(
    key: bytes, device_id: str, epoch: int | None, receipt: FrameReceipt, frame_bytes: int
) -> bytes:
    """Return a receipt as a frame; as many of the missing ranges as have room, the earliest first."""
    room = (frame_bytes - HEADER_BYTES - _HEAD.size) // _GAP.size
    gaps = [
        _GAP.pack(receipt.next - start, min(_MOST, first + n - start))
        for first, n in receipt.missing
        for start in range(first, first + n, _MOST)
        if receipt.next - start < 2**32
    ]
    body = _HEAD.pack(receipt.at_s, receipt.next) + b"".join(gaps[:room])
    return encode_frame(key, "receipt", device_id, body, receipt.at_s, 0, _epoch_bytes(epoch))


def decode_receipt_frame(key: bytes, epoch: int | None, frame: Frame) -> FrameReceipt:
    """Return the receipt in a frame for an epoch. Raises WireError for a damaged one, or one that the hub has not made."""
    gaps = len(frame.body) - _HEAD.size
    if frame.kind != "receipt" or gaps < 0 or gaps % _GAP.size:
        raise WireError(f"receipt: expected a frame of it, found {len(frame.body)} bytes of {frame.kind}")
    at_s, next_number = _HEAD.unpack_from(frame.body)
    if not is_authentic(key, frame, at_s, 0, _epoch_bytes(epoch)):
        raise WireError("receipt: expected the hub's tag, found another")
    missing = []
    for back, n in _GAP.iter_unpack(frame.body[_HEAD.size :]):
        if not n <= back <= next_number:
            raise WireError("receipt: expected ranges below next, found others")
        missing.append((next_number - back, n))
    return FrameReceipt(at_s, next_number, tuple(missing))


def _epoch_bytes(epoch: int | None) -> bytes:
    return b"" if epoch is None else epoch.to_bytes(8, "little")
