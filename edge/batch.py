"""Batch and Receipt: what a recorder sends home, and what the hub answers. CBOR, signed. FORMAT_VERSION = 1.

A batch is about one device and epoch. It has three numbered streams, each contiguous from 0 in an epoch: observations
by seq, detections and events by number. The hub stores each number once, whatever comes twice, and answers with a
receipt: everything below `next` is kept, except the missing ranges below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cbor2

from edge import require
from edge.batch_calibration import SiteCalibrations, decode_calibrations, encode_calibrations
from edge.batch_cbor import FORMAT_VERSION as FORMAT_VERSION
from edge.batch_cbor import decode_mapping
from edge.errors import ObservationError, StoreError, WireError
from edge.observation import CLOCK_STATES, MAX_INT, Detection, Instant, Observation
from edge.store_blocks import (
    UNKNOWN_WALL_NS,
    Columns,
    pack_codes,
    pack_columns,
    planes_of,
    unpack_codes,
    unpack_columns,
)
from edge.store_schema import Event

MAX_RUN = 8192  # observations of one run
MAX_RECORDS = 16_384  # observations, and detections, and events, of one batch
MAX_DEVICE_CHARACTERS = 1000  # of a name in an envelope, which anybody can make

Stream = Literal["observations", "detections", "events"]
STREAMS: tuple[Stream, ...] = get_args(Stream)
Range = tuple[int, int]  # first, n
Purpose = Literal["batch", "enrolment", "clip", "downlink", "receipt"]

_BATCH_KEYS = ("device", "epoch", "next", "runs", "detections", "events", "dropped", "health")


@dataclass(frozen=True, slots=True)
class Run:
    """Observations with contiguous seq, of one code space and width, as packed columns.

    columns: edge.store_blocks.pack_columns, whose source and boot are indices in `sources` and `boots`;
    codes: edge.store_blocks.pack_codes. 1 <= n <= MAX_RUN.
    """

    first_seq: int
    n: int
    code_space: str
    sources: tuple[str, ...]
    boots: tuple[str, ...]
    columns: bytes
    codes: bytes

    def __post_init__(self) -> None:
        require.integer(WireError, "first", self.first_seq, 0, MAX_INT - MAX_RUN)
        require.integer(WireError, "n", self.n, 1, MAX_RUN)
        require.text(WireError, "space", self.code_space)
        for name in ("sources", "boots"):
            for value in getattr(self, name):
                require.text(WireError, name, value, may_be_empty=name == "boots")
        require.instance(WireError, "columns", self.columns, (bytes,))
        require.instance(WireError, "codes", self.codes, (bytes,))
        if len(self.codes) not in (8 * self.n, 16 * self.n, 24 * self.n, 32 * self.n):
            raise WireError(
                f"codes: expected 8, 16, 24 or 32 bytes for each of {self.n}, found {len(self.codes)}"
            )

    @classmethod
    def of(cls, observations: Sequence[Observation]) -> Run:
        """Pack observations that belong to one run: contiguous, one code space, one width."""
        sources: dict[str, int] = {}
        boots: dict[str, int] = {}
        rows = [
            (
                sources.setdefault(each.source, len(sources)),
                each.first_sample,
                each.n_samples,
                each.sample_rate_hz,
                boots.setdefault(each.instant.boot_id, len(boots)),
                each.instant.boottime_ns,
                each.instant.wall_ns,
                CLOCK_STATES.index(each.instant.clock_state),
            )
            for each in observations
        ]
        first = observations[0]
        return cls(
            first.seq,
            len(rows),
            first.code_space,
            tuple(sources),
            tuple(boots),
            pack_columns(Columns.of_rows(rows)),
            pack_codes([each.code for each in observations]),
        )

    def unpacked(self) -> Columns:
        """Return the columns, every value checked. Raises WireError."""
        try:
            columns = unpack_columns(self.columns, self.n)
        except StoreError as error:
            raise WireError(f"run of seq {self.first_seq}: {error}") from error
        for name, low, high in (
            ("source", 0, len(self.sources) - 1),
            ("boot", 0, len(self.boots) - 1),
            ("clock_state", 0, len(CLOCK_STATES) - 1),
            ("sample_rate_hz", 1, MAX_INT),
            ("first_sample", 0, MAX_INT),
            ("n_samples", 0, MAX_INT),
            ("boottime_ns", 0, MAX_INT),
        ):
            values = getattr(columns, name)
            if int(values.min()) < low or int(values.max()) > high:
                raise WireError(
                    f"run of seq {self.first_seq}: expected {name} from {low} to {high}, "
                    f"found {values.min()} to {values.max()}"
                )
        known = columns.wall_ns[columns.wall_ns != UNKNOWN_WALL_NS]
        if known.size and int(known.min()) < 0:
            raise WireError(f"run of seq {self.first_seq}: expected wall_ns from 0, found {known.min()}")
        return columns

    def observations(self, device_id: str, epoch: int) -> Iterator[Observation]:
        """Give its observations one by one. Raises WireError."""
        columns = self.unpacked()
        codes = unpack_codes(self.codes, self.n)
        for i, code in enumerate(codes):
            wall_ns = int(columns.wall_ns[i])
            yield Observation(
                device_id=device_id,
                epoch=epoch,
                seq=self.first_seq + i,
                code=code,
                code_space=self.code_space,
                source=self.sources[columns.source[i]],
                first_sample=int(columns.first_sample[i]),
                sample_rate_hz=int(columns.sample_rate_hz[i]),
                n_samples=int(columns.n_samples[i]),
                instant=Instant(
                    self.boots[columns.boot[i]],
                    int(columns.boottime_ns[i]),
                    None if wall_ns == UNKNOWN_WALL_NS else wall_ns,
                    CLOCK_STATES[columns.clock_state[i]],
                ),
            )

    def part(self, start: int, stop: int) -> Run:
        """Return its observations [start, stop), counted from its first, as a run of their own. Raises WireError."""
        if (start, stop) == (0, self.n):
            return self
        columns = self.unpacked()
        cut = Columns(*(getattr(columns, name)[start:stop] for name in Columns.__dataclass_fields__))
        planes = planes_of(self.codes, self.n)[:, start:stop]
        return Run(
            self.first_seq + start,
            stop - start,
            self.code_space,
            self.sources,
            self.boots,
            pack_columns(cut),
            planes.astype("<u8").tobytes(),
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """What is sent at once. next: how many of each stream the device has made, STREAMS' order.

    detections, events: with their numbers; dropped: (first_seq, n, reason) of observations that no longer exist;
    health: what a heartbeat tells, {} = none; its "at_ns" orders it; calibrations: what was learnt of the site.
    """

    device_id: str
    epoch: int
    next: tuple[int, int, int]
    runs: tuple[Run, ...] = ()
    detections: tuple[tuple[int, Detection], ...] = ()
    events: tuple[Event, ...] = ()
    dropped: tuple[tuple[int, int, str], ...] = ()
    health: Mapping[str, Any] | None = None
    calibrations: SiteCalibrations | None = None

    def __post_init__(self) -> None:
        require.text(WireError, "device", self.device_id)
        require.integer(WireError, "epoch", self.epoch, 0, MAX_INT)
        for name, value in zip(STREAMS, self.next, strict=True):
            require.integer(WireError, f"next of {name}", value, 0, MAX_INT)
        for name, n in (
            ("observations", sum(run.n for run in self.runs)),
            ("detections", len(self.detections)),
            ("events", len(self.events)),
            ("dropped ranges", len(self.dropped)),
        ):
            require.integer(WireError, f"number of {name}", n, 0, MAX_RECORDS)
        for first, n, reason in self.dropped:
            require.integer(WireError, "dropped: first", first, 0, MAX_INT // 2)
            require.integer(WireError, "dropped: n", n, 1, MAX_INT // 2)
            require.text(WireError, "dropped: reason", reason, may_be_empty=True)


@dataclass(frozen=True, slots=True)
class Progress:
    """What the hub keeps of one stream: all numbers below next, but for the missing ranges (below next, in order)."""

    next: int
    missing: tuple[Range, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The hub's answer: committed and synced. n_conflicts: records that differ from what was kept before.

    clips: (epoch, seq) of the sound that somebody at the hub wants to hear.
    """

    epoch: int
    progress: Mapping[Stream, Progress]
    n_conflicts: int = 0
    clips: tuple[tuple[int, int], ...] = ()


def encode_batch(batch: Batch) -> bytes:
    """Return a batch as CBOR."""
    told = {} if batch.calibrations is None else {"calibrations": encode_calibrations(batch.calibrations)}
    return cbor2.dumps(
        {
            "format_version": FORMAT_VERSION,
            "device": batch.device_id,
            "epoch": batch.epoch,
            "next": list(batch.next),
            "runs": [
                [
                    run.first_seq,
                    run.n,
                    run.code_space,
                    list(run.sources),
                    list(run.boots),
                    run.columns,
                    run.codes,
                ]
                for run in batch.runs
            ],
            "detections": [
                [
                    number,
                    each.seq,
                    each.query,
                    each.text,
                    each.distance,
                    each.probability,
                    each.false_alarms_per_day,
                    each.clip,
                ]
                for number, each in batch.detections
            ],
            "events": [
                [
                    each.number,
                    each.kind,
                    each.before_seq,
                    each.source,
                    each.first_sample,
                    each.n_samples,
                    each.sample_rate_hz,
                    each.reason,
                ]
                for each in batch.events
            ],
            "dropped": [list(each) for each in batch.dropped],
            "health": None if batch.health is None else dict(batch.health),
            **told,
        }
    )


def decode_batch(payload: bytes) -> Batch:
    """Return the batch in CBOR bytes; unknown keys are ignored. Raises WireError for anything else, and nothing else."""
    table = decode_mapping("batch", payload, _BATCH_KEYS)
    try:
        device_id, epoch = table["device"], table["epoch"]
        return Batch(
            device_id,
            epoch,
            tuple(table["next"]),
            tuple(_run(each) for each in table["runs"]),
            tuple(
                (each[0], Detection(device_id, epoch, *each[1:8])) for each in _numbered(table["detections"])
            ),
            tuple(_event(each) for each in _numbered(table["events"])),
            tuple((first, n, reason) for first, n, reason in table["dropped"]),
            _health(table["health"]),
            decode_calibrations(table.get("calibrations")),
        )
    except (TypeError, ValueError, KeyError, IndexError, OverflowError, ObservationError) as error:
        raise WireError(f"batch: expected the records of format {FORMAT_VERSION}, found: {error}") from error


def encode_receipt(receipt: Receipt) -> bytes:
    """Return a receipt as CBOR."""
    progress = {
        name: [each.next, [list(gap) for gap in each.missing]] for name, each in receipt.progress.items()
    }
    return cbor2.dumps(
        {
            "format_version": FORMAT_VERSION,
            "epoch": receipt.epoch,
            "progress": progress,
            "conflicts": receipt.n_conflicts,
            "clips": [list(each) for each in receipt.clips],
        }
    )


def decode_receipt(payload: bytes) -> Receipt:
    """Return the receipt in CBOR bytes; unknown keys are ignored. Raises WireError."""
    table = decode_mapping("receipt", payload, ("epoch", "progress", "conflicts", "clips"))
    try:
        progress = {name: _progress(table["progress"][name]) for name in STREAMS}
        clips = tuple((int(epoch), int(seq)) for epoch, seq in table["clips"])
        return Receipt(int(table["epoch"]), progress, int(table["conflicts"]), clips)
    except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise WireError(f"receipt: expected one of format {FORMAT_VERSION}, found: {error}") from error


def signed_bytes(purpose: Purpose, payload: bytes) -> bytes:
    """Return what a device signs: the purpose keeps a signature of one kind from being used as another."""
    return b"fieldcube " + purpose.encode() + b"\0" + payload


def encode_envelope(device_id: str, payload: bytes, signature: bytes) -> bytes:
    """Return a signed payload as it travels, over HTTPS, MQTT or on a memory card."""
    return cbor2.dumps(
        {"format_version": FORMAT_VERSION, "device": device_id, "payload": payload, "signature": signature}
    )


def decode_envelope(body: bytes) -> tuple[str, bytes, bytes]:
    """Return (device_id, payload, signature) of an envelope, nothing of it checked yet but its shape. Raises WireError."""
    table = decode_mapping("envelope", body, ("device", "payload", "signature"), is_flat=True)
    device_id, payload, signature = table["device"], table["payload"], table["signature"]
    require.text(WireError, "device", device_id)
    require.integer(WireError, "characters of device", len(device_id), 1, MAX_DEVICE_CHARACTERS)
    require.instance(WireError, "payload", payload, (bytes,))
    require.instance(WireError, "signature", signature, (bytes,))
    if len(signature) != 64:
        raise WireError(f"signature: expected 64 bytes of Ed25519, found {len(signature)}")
    return device_id, payload, signature


def _run(each: Sequence[Any]) -> Run:
    first, n, space, sources, boots, columns, codes = each
    return Run(first, n, space, tuple(sources), tuple(boots), columns, codes)


def _numbered(records: Sequence[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    for each in records:
        if len(each) != 8:
            raise WireError(f"record: expected 8 values, found {len(each)}")
        require.integer(WireError, "number", each[0], 0, MAX_INT)
        yield each


def _event(each: Sequence[Any]) -> Event:
    for position, name in ((2, "before_seq"), (4, "first_sample"), (5, "n_samples"), (6, "sample_rate_hz")):
        require.integer(WireError, f"event: {name}", each[position], 0, MAX_INT)
    for position, name in ((1, "kind"), (3, "source"), (7, "reason")):
        require.text(WireError, f"event: {name}", each[position], may_be_empty=True)
    return Event(*each)


def _health(table: object) -> Mapping[str, Any] | None:
    """Require a flat table of plain values whose at_ns says when it was."""
    if table is None:
        return None
    checked = require.keys(WireError, "health", table, ("at_ns",))
    require.integer(WireError, "health: at_ns", checked["at_ns"], 0, MAX_INT)
    for name, value in checked.items():
        require.text(WireError, "health: key", name)
        require.instance(WireError, f"health: {name}", value, (int, float, str, bool, type(None)))
    return checked


def _progress(each: Sequence[Any]) -> Progress:
    next_number, missing = each
    return Progress(int(next_number), tuple((int(first), int(n)) for first, n in missing))
