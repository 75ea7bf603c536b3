"""Observation and Detection: the fact, the conclusion, and their wire form. FORMAT_VERSION = 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, TypeVar, cast, get_args

from edge import require
from edge.errors import ObservationError

FORMAT_VERSION = 1

ClockState = Literal["unset", "rtc", "ntp", "gnss"]
CLOCK_STATES: tuple[ClockState, ...] = get_args(ClockState)

MAX_INT = 2**63 - 1  # what SQLite and every wire format can hold
MIN_RECORDING_HZ, MAX_RECORDING_HZ = 1_000, 2_000_000  # of what is listened to, before it is resampled
PICTURE_RATE_HZ = 1  # what stands where a rate must: 0 samples last 0 s at any
_EPOCH_START = datetime(1970, 1, 1, tzinfo=timezone.utc)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Instant:
    """When the first audio sample of a window was recorded, or a picture taken, by two clocks.

    boot_id: id of the boot in which boottime_ns counts (may be empty where the system has none).
    boottime_ns: CLOCK_BOOTTIME in ns of the first sample; for files, of the moment of reading.
    wall_ns: UTC in ns since 1970 of the first sample, None where unknown.
    clock_state: what the wall clock was worth: unset, rtc, ntp or gnss.
    Raises ObservationError on an impossible value.
    """

    boot_id: str
    boottime_ns: int
    wall_ns: int | None
    clock_state: ClockState

    def __post_init__(self) -> None:
        require.text(ObservationError, "boot_id", self.boot_id, may_be_empty=True)
        require.integer(ObservationError, "boottime_ns", self.boottime_ns, 0, MAX_INT)
        if self.wall_ns is not None:
            require.integer(ObservationError, "wall_ns", self.wall_ns, 0, MAX_INT)
        require.one_of(ObservationError, "clock_state", self.clock_state, CLOCK_STATES)


@dataclass(frozen=True, slots=True)
class Observation:
    """One encoded window: a fact, never changed. Identity is (device_id, epoch, seq).

    epoch: random 63-bit integer, new whenever the database is created anew; seq: contiguous from 0 within it.
    code: packed bits (edge.codes), 8..32 bytes; code_space: id of the encoders that made it.
    source: path as given, "microphone:<name>" or "stdin".
    first_sample: index of the window's first sample from the start of source, at sample_rate_hz.
    n_samples: real samples in the window (fewer than the encoder takes when a short sound was repeated);
    0 for a picture, which has no length: first_sample is then 0 and sample_rate_hz PICTURE_RATE_HZ.
    Raises ObservationError on an impossible value.
    """

    device_id: str
    epoch: int
    seq: int
    code: bytes
    code_space: str
    source: str
    first_sample: int
    sample_rate_hz: int
    n_samples: int
    instant: Instant

    def __post_init__(self) -> None:
        _require_identity(self.device_id, self.epoch, self.seq)
        if not isinstance(self.code, bytes) or len(self.code) not in (8, 16, 24, 32):
            raise require.wrong(ObservationError, "code", "8, 16, 24 or 32 bytes", self.code)
        require.text(ObservationError, "code_space", self.code_space)
        require.text(ObservationError, "source", self.source)
        require.integer(ObservationError, "first_sample", self.first_sample, 0, MAX_INT)
        require.integer(ObservationError, "sample_rate_hz", self.sample_rate_hz, 1, MAX_INT)
        require.integer(ObservationError, "n_samples", self.n_samples, 0, MAX_INT)
        require.instance(ObservationError, "instant", self.instant, (Instant,))

    @property
    def is_picture(self) -> bool:
        """Return whether it is a picture, not a window of sound."""
        return self.n_samples == 0

    @property
    def offset_s(self) -> float:
        """Return where the window starts, in seconds from the start of its source; 0 for a picture."""
        return self.first_sample / self.sample_rate_hz

    @property
    def duration_s(self) -> float:
        """Return the length of the real audio in the window, in seconds; 0 for a picture."""
        return self.n_samples / self.sample_rate_hz

    @property
    def started_at(self) -> str | None:
        """Return UTC of the first sample as ISO 8601 with ms and Z, or None where no wall clock was known."""
        return None if self.instant.wall_ns is None else iso_utc(self.instant.wall_ns)


@dataclass(frozen=True, slots=True)
class Detection:
    """An observation and a query that the alarm rule accepted: a conclusion, recomputable.

    query: name of the query; text: its sentence (or example file); distance: Hamming, in bits.
    probability: 0..1 from the bundle's calibration; false_alarms_per_day: None until calibrated per query.
    clip: path of the audio kept around it, or None. Raises ObservationError on an impossible value.
    """

    device_id: str
    epoch: int
    seq: int
    query: str
    text: str
    distance: int
    probability: float
    false_alarms_per_day: float | None
    clip: str | None

    def __post_init__(self) -> None:
        _require_identity(self.device_id, self.epoch, self.seq)
        require.text(ObservationError, "query", self.query)
        require.text(ObservationError, "text", self.text)
        require.integer(ObservationError, "distance", self.distance, 0, 256)
        require.number(ObservationError, "probability", self.probability, 0.0, 1.0)
        if self.false_alarms_per_day is not None:
            require.number(ObservationError, "false_alarms_per_day", self.false_alarms_per_day, 0.0, math.inf)
        if self.clip is not None:
            require.text(ObservationError, "clip", self.clip)


def iso_utc(wall_ns: int) -> str:
    """Return UTC ns since 1970 as `2026-05-04T03:02:01.000Z`, truncated to ms."""
    time = _EPOCH_START + timedelta(milliseconds=wall_ns // 1_000_000)
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z"


def detection_record(observation: Observation, detection: Detection) -> dict[str, Any]:
    """Return a detection as commands print it with --json (DESIGN.md, "What a program may read").

    Raises ObservationError when the two do not belong together.
    """
    ours = (observation.device_id, observation.epoch, observation.seq)
    theirs = (detection.device_id, detection.epoch, detection.seq)
    if ours != theirs:
        raise ObservationError(f"detection: expected one of observation {ours}, found one of {theirs}")
    return {
        "type": "detection",
        "query": detection.query,
        "text": detection.text,
        "source": observation.source,
        "offset_s": observation.offset_s,
        "duration_s": observation.duration_s,
        "started_at": observation.started_at,
        "distance": detection.distance,
        "probability": detection.probability,
        "false_alarms_per_day": detection.false_alarms_per_day,
        "clip": detection.clip,
    }


def to_wire(observation: Observation) -> dict[str, Any]:
    """Return an observation as plain ints, strings and bytes, ready for CBOR or any other encoding."""
    instant = observation.instant
    return {
        "format_version": FORMAT_VERSION,
        "device": observation.device_id,
        "epoch": observation.epoch,
        "seq": observation.seq,
        "code": observation.code,
        "space": observation.code_space,
        "source": observation.source,
        "first": observation.first_sample,
        "rate": observation.sample_rate_hz,
        "n": observation.n_samples,
        "boot": instant.boot_id,
        "boottime": instant.boottime_ns,
        "wall": instant.wall_ns,
        "clock": instant.clock_state,
    }


def from_wire(wire: Mapping[str, Any]) -> Observation:
    """Return the observation in a wire mapping; unknown keys are ignored.

    Raises ObservationError for a missing key, another format_version or an impossible value.
    """
    keys = ("device", "epoch", "seq", "code", "space", "source", "first", "rate", "n")
    _require_wire(wire, "observation", (*keys, "boot", "boottime", "wall", "clock"))
    return _named(
        "observation",
        lambda: Observation(
            device_id=wire["device"],
            epoch=wire["epoch"],
            seq=wire["seq"],
            code=wire["code"],
            code_space=wire["space"],
            source=wire["source"],
            first_sample=wire["first"],
            sample_rate_hz=wire["rate"],
            n_samples=wire["n"],
            instant=Instant(wire["boot"], wire["boottime"], wire["wall"], cast(ClockState, wire["clock"])),
        ),
    )


def detection_to_wire(detection: Detection) -> dict[str, Any]:
    """Return a detection as plain ints, floats and strings."""
    return {
        "format_version": FORMAT_VERSION,
        "device": detection.device_id,
        "epoch": detection.epoch,
        "seq": detection.seq,
        "query": detection.query,
        "text": detection.text,
        "distance": detection.distance,
        "probability": detection.probability,
        "alarms_per_day": detection.false_alarms_per_day,
        "clip": detection.clip,
    }


def detection_from_wire(wire: Mapping[str, Any]) -> Detection:
    """Return the detection in a wire mapping; unknown keys are ignored. Errors as from_wire."""
    keys = ("device", "epoch", "seq", "query", "text", "distance", "probability", "alarms_per_day", "clip")
    _require_wire(wire, "detection", keys)
    return _named(
        "detection",
        lambda: Detection(
            device_id=wire["device"],
            epoch=wire["epoch"],
            seq=wire["seq"],
            query=wire["query"],
            text=wire["text"],
            distance=wire["distance"],
            probability=wire["probability"],
            false_alarms_per_day=wire["alarms_per_day"],
            clip=wire["clip"],
        ),
    )


def _require_wire(wire: object, what: str, keys: tuple[str, ...]) -> None:
    """Raise one ObservationError naming the version or every missing key."""
    require.version(ObservationError, what, wire, FORMAT_VERSION, "update whichever side is older")
    require.keys(ObservationError, what, wire, ("format_version", *keys))


def _named(what: str, build: Callable[[], _T]) -> _T:
    """Build a record and say in the error which kind of record it was."""
    try:
        return build()
    except ObservationError as error:
        raise ObservationError(f"{what}: {error}") from error


def _require_identity(device_id: str, epoch: int, seq: int) -> None:
    require.text(ObservationError, "device_id", device_id)
    require.integer(ObservationError, "epoch", epoch, 0, MAX_INT)
    require.integer(ObservationError, "seq", seq, 0, MAX_INT)
