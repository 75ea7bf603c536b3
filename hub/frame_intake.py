"""Intake of radio frames: each becomes a batch for the same ingest that HTTP uses; what comes twice or late changes nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from edge.batch import Batch, Run
from edge.device_key import DeviceKey
from edge.errors import WireError
from edge.frames import (
    NO_DIGEST,
    Frame,
    completed,
    decode_codes,
    decode_detections,
    decode_frame,
    digest_of,
    from_stream,
    is_authentic,
    sender_of,
)
from edge.frames_context import Anchor, Context, decode_heartbeat
from edge.frames_key import frame_key
from edge.frames_receipt import FrameReceipt, encode_receipt_frame
from edge.observation import Detection, Observation
from hub.ingest import Ingest
from hub.store_frames import FrameStore
from hub.store_registry import Registry
from hub.store_registry_devices import Device
from hub.store_registry_frames import settled, tell_times

log = logging.getLogger(__name__)

_NEAREST_ANCHORS = 3  # newer ones may have come before a frame that was late
_NO_CODE = bytes(32)

Outcome = Literal["kept", "waiting"]


@dataclass(frozen=True, slots=True)
class _Known:
    """A context of a device as it is remembered."""

    number: int
    digest: bytes
    context: Context
    last_number: int
    last_seq: int


class FrameIntake:
    """Takes frames of any recorder that is enrolled, from any number of threads. hub_key: whose public key recorders have."""

    def __init__(self, registry: Registry, ingest: Ingest, store: FrameStore, hub_key: DeviceKey) -> None:
        self._registry, self._ingest, self._store, self.hub_key = registry, ingest, store, hub_key
        self._lock = threading.Lock()
        self._keys: dict[bytes, bytes] = {}
        self._downlink_s = 0

    def take(self, content: bytes) -> Outcome:
        """Take one frame: "kept" once it is on the disk, "waiting" for what it relies on.

        Raises WireError for what no enrolled recorder has sent, and what Ingest.take raises.
        """
        frame = decode_frame(content)
        with self._lock:
            devices = [
                each
                for each in self._registry.devices.all()
                if each.status == "enrolled" and sender_of(each.name) == frame.sender
            ]
            for device in devices:
                if self._try(device, frame):
                    if frame.kind in ("context", "anchor"):
                        self._retry(device)
                    return "kept"
            if frame.kind in ("context", "receipt") or not devices:
                raise WireError(
                    f"frame: expected the tag of a recorder that is enrolled, found another ({frame.kind})"
                )
            for device in devices:
                self._store.wait(device.number, content)
        return "waiting"

    def take_stream(self, content: bytes) -> dict[str, int]:
        """Take all frames of a file; return how many were kept, wait, and were refused."""
        counts = {"kept": 0, "waiting": 0, "refused": 0}
        for each in from_stream(content):
            try:
                counts[self.take(each)] += 1
            except WireError as error:
                log.info("%s", error)
                counts["refused"] += 1
        return counts

    def next_downlink_s(self, now_s: int, n: int) -> int:
        """Return the first of n times for downlinks, one a second, later than all before: recorders take none that is not newer."""
        with self._lock:
            first = max(now_s, self._downlink_s + 1)
            self._downlink_s = first + n - 1
        return first

    def receipt(self, device_name: str, frame_bytes: int, at_s: int) -> bytes | None:
        """Return the frame that tells a recorder what is kept of its detections, or asks for what they rely on.

        None where nothing has come that there would be something to say about.
        """
        device = self._registry.devices.named(device_name)
        made = self._store.made(device.number)
        if made is None:
            if not self._store.waiting(device.number):
                return None
            asked = FrameReceipt(at_s, 0, ())
            return encode_receipt_frame(self._key(device), device.name, None, asked, frame_bytes)
        epoch, _, n_detections = made
        kept = settled(self._registry.database, device.number, epoch, "detections")
        missing = list(kept.missing)
        if kept.next < n_detections:
            missing.append((kept.next, n_detections - kept.next))
        told = FrameReceipt(at_s, max(n_detections, kept.next), tuple(missing))
        return encode_receipt_frame(self._key(device), device.name, epoch, told, frame_bytes)

    def _try(self, device: Device, frame: Frame) -> bool:
        """Take a frame as one of a device; return whether it was."""
        if frame.kind == "context":
            return self._context(device, frame)
        return any(self._dependent(device, frame, known) for known in self._contexts(device))

    def _context(self, device: Device, frame: Frame) -> bool:
        place, n = frame.low_seq >> 8, frame.low_seq & 0xFF
        if not is_authentic(self._key(device), frame, frame.low_number, frame.low_seq) or place >= n:
            return False
        whole = self._store.add_part(device.number, frame.low_number, n, place, frame.body)
        if whole is not None and int.from_bytes(digest_of(whole)[:2], "little") == frame.low_number:
            Context.decoded(whole)  # refused before it is kept
            self._store.add_context(device.number, whole)
        return True

    def _dependent(self, device: Device, frame: Frame, known: _Known) -> bool:
        """Take a frame that relies on a context; return whether it does on this one."""
        key, relies_on = self._key(device), known.digest + NO_DIGEST
        if frame.kind == "anchor":
            anchor = Anchor.decoded(frame.body)
            if not is_authentic(key, frame, 0, anchor.seq, relies_on):
                return False
            self._store.add_anchor(known.number, anchor.seq, frame.body)
            self._store.reached(known.number, 0, anchor.seq)
            return True
        if frame.kind == "heartbeat":
            made, health = decode_heartbeat(frame.body)
            at_s = health["at_ns"] // 10**9
            if not is_authentic(key, frame, at_s, 0, relies_on):
                return False
            self._keep(device, Batch(device.name, known.context.epoch, made, health=health))
            now_s = self._ingest.now_ns() // 10**9
            self._store.note_made(device.number, known.context.epoch, at_s, made[0], made[1], now_s)
            return True
        number = completed(frame.low_number, 16, known.last_number)
        seq = completed(frame.low_seq, 24, known.last_seq)
        if frame.kind == "untimed":
            if not is_authentic(key, frame, number, seq, relies_on):
                return False
            self._detections(device, known, frame, number, seq, None)
            return True
        if frame.kind not in ("codes", "detections"):
            return False
        for content in self._store.anchors(known.number, seq, _NEAREST_ANCHORS):
            whole = 0 if frame.kind == "codes" else number
            if is_authentic(key, frame, whole, seq, known.digest + digest_of(content)):
                anchor = Anchor.decoded(content)
                if frame.kind == "codes":
                    self._codes(device, known, frame, seq, anchor)
                else:
                    self._detections(device, known, frame, number, seq, anchor)
                return True
        return False

    def _codes(self, device: Device, known: _Known, frame: Frame, seq: int, anchor: Anchor) -> None:
        context = known.context
        records = decode_codes(frame.body, context.code_bytes)
        observations = [
            anchor.observation(device.name, context, seq + each.offset, each.code)
            for each in sorted(records, key=lambda each: each.offset)
        ]
        last = observations[-1].seq
        runs = tuple(Run.of(each) for each in _contiguous(observations))
        self._keep(device, Batch(device.name, context.epoch, (last + 1, 0, 0), runs))
        self._store.reached(known.number, 0, last)

    def _detections(
        self, device: Device, known: _Known, frame: Frame, number: int, seq: int, anchor: Anchor | None
    ) -> None:
        context = known.context
        records = decode_detections(frame.body)
        if any(each.query >= len(context.queries) for each in records):
            raise WireError("detections: expected queries of their context, found others")
        found = tuple(
            (
                number + i,
                Detection(
                    device.name,
                    context.epoch,
                    seq + each.offset,
                    *context.queries[each.query],
                    each.distance,
                    each.probability,
                    None,
                    None,
                ),
            )
            for i, each in enumerate(records)
        )
        last = max(each.seq for _, each in found)
        self._keep(
            device, Batch(device.name, context.epoch, (last + 1, number + len(found), 0), detections=found)
        )
        if anchor is not None:
            times = [
                (
                    each.seq,
                    anchor.observation(device.name, context, each.seq, _NO_CODE).instant.wall_ns,
                )
                for _, each in found
            ]
            tell_times(self._registry.database, device.number, context.epoch, times, context.code_space)
        self._store.reached(known.number, number + len(found), last)

    def _keep(self, device: Device, batch: Batch) -> None:
        self._ingest.keep(device, batch)

    def _retry(self, device: Device) -> None:
        """Try again what waited, as long as something of it is what others wait for."""
        is_news = True
        while is_news:
            is_news = False
            for number, content in self._store.waiting(device.number):
                frame = decode_frame(content)
                try:
                    if not self._try(device, frame):
                        continue
                    is_news |= frame.kind == "anchor"
                except WireError as error:
                    log.info("%s", error)
                self._store.settle(number)

    def _contexts(self, device: Device) -> Iterator[_Known]:
        for number, content, last_number, last_seq in self._store.contexts(device.number):
            yield _Known(number, digest_of(content), Context.decoded(content), last_number, last_seq)

    def _key(self, device: Device) -> bytes:
        if device.public not in self._keys:
            self._keys[device.public] = frame_key(self.hub_key, device.public, device.public)
        return self._keys[device.public]


def _contiguous(observations: Sequence[Observation]) -> Iterator[list[Observation]]:
    """Give runs of neighbours."""
    for _, group in groupby(enumerate(observations), key=lambda pair: pair[1].seq - pair[0]):
        yield [each for _, each in group]
