"""The way to the hub by radio: frames into a file or onto a serial line, where a modem or a program of its own takes them.

Nothing comes back for each of them, so what was written counts as kept until a receipt of the hub, as rare as the link
allows, says what is missing.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import termios
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cbor2

from edge.batch import (
    STREAMS,
    Batch,
    Progress,
    Purpose,
    Range,
    Receipt,
    Stream,
    decode_batch,
    decode_envelope,
    encode_receipt,
)
from edge.device_key import DeviceKey
from edge.durable import write_file
from edge.errors import SyncError, WireError
from edge.frames import DETECTION_RECORD_BYTES, Kind, decode_frame, from_stream, to_stream
from edge.frames_key import frame_key
from edge.frames_link import FrameLink
from edge.frames_receipt import decode_receipt_frame
from edge.observation import Observation
from edge.store_runs import StoreRuns
from edge.sync_airtime import Airtime
from edge.sync_carrier import Answer, RefusedError
from edge.sync_frames_writer import REPEAT_CONTEXT, FrameWriter, Told
from edge.sync_plan import packed

LOG = logging.getLogger(__name__)

FORMAT_VERSION = 2
_FORERUNNERS: tuple[Kind, ...] = ("context", "anchor")  # what other frames rely on
MAX_RANGES = 2000  # of what was written; beyond them the oldest gaps are forgotten


@dataclass(slots=True)
class _Written:
    """What of a batch goes now: all of it, or its beginning where there is not airtime for more.

    left_s: airtime there is; seconds: of it that these frames take.
    """

    airtime: Airtime | None
    left_s: float
    frames: list[bytes] = field(default_factory=list)
    seconds: float = 0.0
    n_detections: int = 0
    is_cut: bool = False
    is_health_told: bool = False

    @property
    def n_bytes(self) -> int:
        return sum(map(len, self.frames))

    def take(self, content: bytes) -> bool:
        """Take a frame; return False where there is no airtime for it, and for none after it."""
        if self.airtime is not None:
            seconds = self.seconds + self.airtime.of(len(content))
            self.is_cut |= seconds > self.left_s
            if self.is_cut:
                return False
            self.seconds = seconds
        frame = decode_frame(content)
        if frame.kind in ("detections", "untimed"):
            self.n_detections += len(frame.body) // DETECTION_RECORD_BYTES
        self.is_health_told |= frame.kind == "heartbeat"
        self.frames.append(content)
        return True


class FrameCarrier:
    """Writes what would go over HTTPS as frames. A Carrier (edge.sync_carrier).

    memory: file of what was told and written, needed for nothing but bytes saved; store: of the recorder; airtime: what may
    be on the air, None = no limit. What is beyond it is not written, and counts neither as sent nor as told.
    """

    def __init__(
        self, link: FrameLink, key: DeviceKey, memory: Path, store: Path, airtime: Airtime | None = None
    ) -> None:
        self._airtime = airtime
        self._waiting: list[bytes] = []  # forerunners of what comes next: told, and not on the air yet
        self._link, self._memory, self._store = link, memory, store
        self._key = frame_key(key, link.hub_public, key.public)
        self._told = Told()
        self._sent: dict[str, list[Range]] = {name: [] for name in STREAMS}
        self._epoch, self._receipt_at_s = -1, 0
        self._load()

    def close(self) -> None:
        """Do nothing: every frame was written as it was made."""

    def send(self, purpose: Purpose, body: bytes) -> Answer:
        """Write the frames of a batch; the receipt says what was written, and after a receipt of the hub what it keeps.

        A recorder that has only a radio is let in at the hub by hand; sound does not go by radio.
        """
        device_id, payload, _ = decode_envelope(body)
        if purpose == "enrolment":
            return Answer(cbor2.dumps({"status": "enrolled"}), 0)
        if purpose == "clip":
            raise RefusedError(f"{self._link.place}: sound does not go by radio", 413)
        batch = decode_batch(payload)
        if batch.epoch != self._epoch:
            self._epoch, self._told, self._waiting = batch.epoch, Told(), []
            self._sent = {name: [] for name in STREAMS}
        self._read_inbox()
        written = self._write(device_id, batch)
        self._note(
            replace(batch, runs=(), detections=batch.detections[: written.n_detections], next=(0, 0, 0))
            if written.is_cut
            else batch
        )
        self._save()
        progress = {name: self._progress(name, n) for name, n in zip(STREAMS, batch.next, strict=True)}
        return Answer(
            encode_receipt(Receipt(batch.epoch, progress)),
            written.n_bytes,
            written.is_cut,
            written.is_health_told,
        )

    def _write(self, device_id: str, batch: Batch) -> _Written:
        """Write the frames of a batch as far as there is airtime; what a failed one told counts as not told."""
        told = replace(self._told, anchors=list(self._told.anchors))
        left_s = 0.0 if self._airtime is None else self._airtime.left_s()
        written, waiting = _Written(self._airtime, left_s), list[bytes]()
        try:
            with StoreRuns.open(self._store) as runs:

                def fact(seq: int) -> Observation | None:
                    for stored in runs.runs(seq, 1):
                        return observation_of(stored, device_id, batch.epoch, seq)
                    return None

                writer = FrameWriter(self._key, device_id, self._link.n_bytes, fact, told)
                for frame in self._waiting:
                    if not written.take(frame):
                        waiting.append(frame)
                for part in () if waiting else self._parts(batch):
                    for frame in writer.frames(part):
                        if written.take(frame):
                            continue
                        if decode_frame(frame).kind not in _FORERUNNERS:
                            break
                        waiting.append(frame)
        except WireError as error:
            raise SyncError(f"{self._link.place}: {error}") from error
        self._put(b"".join(map(to_stream, written.frames)), written.seconds)
        self._told, self._waiting = told, waiting
        return written

    def _parts(self, batch: Batch) -> Iterable[Batch]:
        """Give a batch, parted where airtime may end: how the recorder is must not wait for all detections."""
        if self._airtime is None or not self._told.context:
            return (batch,)
        first = replace(batch, runs=(), detections=(), events=(), dropped=())
        return (first, replace(batch, health=None))

    def _put(self, content: bytes, seconds: float) -> None:
        """Write bytes, all of them on the disk or the line when this returns; from the first on they count as on the air."""
        if not content:
            return
        place = self._link.place
        try:
            is_device = place.is_relative_to(
                "/dev"
            )  # an absent modem must not become a plain file that takes all
            creating = 0 if is_device else os.O_CREAT
            descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | creating | os.O_NOCTTY, 0o640)
            try:
                if is_device and not stat.S_ISCHR(os.fstat(descriptor).st_mode):
                    raise OSError("a plain file where a device should be")
                if self._airtime is not None:
                    self._airtime.spend(seconds)
                if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                    _make_raw(descriptor, self._link.baud)
                    _write_all(descriptor, content)
                    termios.tcdrain(descriptor)
                else:
                    _write_all(descriptor, content)
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except (OSError, termios.error) as error:
            raise SyncError(
                f"{place}: expected a file or a serial line to write to, found {error}"
            ) from error

    def _read_inbox(self) -> None:
        """Take the newest receipt of the hub: what it misses is not sent any more, and so it goes again."""
        if self._link.inbox is None:
            return
        try:
            content = self._link.inbox.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise SyncError(f"{self._link.inbox}: expected what the hub has sent, found {error}") from error
        for each in from_stream(content):
            try:
                frame = decode_frame(each)
                try:
                    found = decode_receipt_frame(self._key, self._epoch, frame)
                except WireError:
                    found = decode_receipt_frame(self._key, None, frame)
            except WireError as error:
                LOG.info("%s: %s", self._link.inbox, error)
                continue
            if found.at_s <= self._receipt_at_s:  # an old one again would only cost bytes
                continue
            self._receipt_at_s = found.at_s
            for gap in found.missing:
                self._sent["detections"] = without(self._sent["detections"], gap)
            if found.missing or not found.next:  # what was lost may have been what they rely on
                self._told.anchors, self._told.n_heartbeats = [], REPEAT_CONTEXT

    def _note(self, batch: Batch) -> None:
        for number, _ in batch.detections:
            self._sent["detections"] = joined(self._sent["detections"], (number, 1))
        for run in batch.runs:
            self._sent["observations"] = joined(self._sent["observations"], (run.first_seq, run.n))
        for first, n, _ in batch.dropped:
            self._sent["observations"] = joined(self._sent["observations"], (first, n))
        if batch.next[2]:
            self._sent["events"] = [(0, batch.next[2])]  # a heartbeat says how many there were, and no more

    def _progress(self, stream: Stream, made: int) -> Progress:
        ranges = [each for each in self._sent[stream] if each[0] < made]
        if not ranges:
            return Progress(0)
        ends = [0, *(first + n for first, n in ranges)]
        gaps = [(end, first - end) for end, (first, _) in zip(ends, ranges, strict=False) if first > end]
        return Progress(min(ends[-1], made), tuple(gaps))

    def _load(self) -> None:
        """Read what was told and sent; without it the context goes again, and what was sent before."""
        try:
            table: Any = json.loads(self._memory.read_bytes())
            if table["format_version"] not in (1, FORMAT_VERSION):
                raise ValueError(f"version {table['format_version']}")
            told = table["told"]
            self._told = Told(
                bytes.fromhex(told["context"]),
                [bytes.fromhex(each) for each in told["anchors"]],
                int(told["n_heartbeats"]),
            )
            self._sent = {name: [(int(a), int(n)) for a, n in table["sent"][name]] for name in STREAMS}
            self._waiting = [bytes.fromhex(each) for each in table.get("waiting", ())]
            self._epoch, self._receipt_at_s = int(table["epoch"]), int(table["receipt_at_s"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            LOG.warning("%s: damaged (%r); everything is told again", self._memory, error)

    def _save(self) -> None:
        told = asdict(self._told)
        told["context"], told["anchors"] = (
            self._told.context.hex(),
            [each.hex() for each in self._told.anchors],
        )
        table = {
            "format_version": FORMAT_VERSION,
            "told": told,
            "sent": self._sent,
            "epoch": self._epoch,
            "receipt_at_s": self._receipt_at_s,
            "waiting": [each.hex() for each in self._waiting],
        }
        try:
            write_file(self._memory, json.dumps(table).encode())
        except OSError as error:
            raise SyncError(f"{self._memory}: expected room for what was sent, found {error}") from error


def observation_of(stored: Any, device_id: str, epoch: int, seq: int) -> Observation:
    """Return one observation of a stored run (edge.store_runs.StoredRun)."""
    run = packed(stored).part(seq - stored.first_seq, seq - stored.first_seq + 1)
    return next(run.observations(device_id, epoch))


def joined(ranges: list[Range], new: Range) -> list[Range]:
    """Return ranges, in order, with one more; where there are too many, the oldest gap is closed."""
    found: list[Range] = []
    for first, n in sorted([*ranges, new]):
        if found and first <= sum(found[-1]):
            start = found[-1][0]
            found[-1] = (start, max(sum(found[-1]), first + n) - start)
        else:
            found.append((first, n))
    if len(found) > MAX_RANGES:
        found[:2] = [(found[0][0], sum(found[1]) - found[0][0])]
    return found


def without(ranges: list[Range], gone: Range) -> list[Range]:
    """Return ranges without some numbers."""
    low, high = gone[0], sum(gone)
    parts = [
        part for first, n in ranges for part in ((first, min(first + n, low)), (max(first, high), first + n))
    ]
    return [(first, end - first) for first, end in parts if end > first]


def _make_raw(descriptor: int, baud: int) -> None:
    """Set a serial line to 8 bits, no parity, one stop bit, nothing interpreted."""
    attributes = termios.tcgetattr(descriptor)
    attributes[0] = attributes[1] = attributes[3] = 0
    attributes[2] = termios.CS8 | termios.CREAD | termios.CLOCAL
    attributes[4] = attributes[5] = getattr(termios, f"B{baud}")
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
