"""What frames rely on: the context of a recorder (epoch, names, queries) and anchors, from which facts follow by the sample counter."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cbor2

from edge import require
from edge.errors import ObservationError, WireError
from edge.frames import HEADER_BYTES, digest_of
from edge.observation import CLOCK_STATES, MAX_INT, Instant, Observation

MAX_PARTS = 255
MAX_QUERIES, MAX_NAMES = 255, 200
_MAX_BYTES = 1 << 16  # of a context, unpacked
_MAX_DEPTH = 4
_NS = 10**9
_UNKNOWN_WALL = -(2**63)
_ANCHOR = struct.Struct("<qqBBB")  # after seq 5, first_sample 6, n_samples 3, rate 3, hop 3 bytes
_ANCHOR_NUMBERS = ((0, 5), (5, 11), (11, 14), (14, 17), (17, 20))
ANCHOR_BYTES = 20 + _ANCHOR.size
_HEARTBEAT = struct.Struct("<IIbBHBHHB")  # after at_s 5 and n_observations 5 bytes
_NO_BYTE, _NO_SHORT = 255, 65_535
_DISK_STEP = 16_000_000
_COVERAGE_STEPS = 250


@dataclass(frozen=True, slots=True)
class Context:
    """What every frame of some days needs and none can carry. queries: name and text, by their place.

    sources, boots: as of edge.observation; code_bytes: 8..32.
    """

    epoch: int
    code_space: str
    code_bytes: int
    sources: tuple[str, ...]
    boots: tuple[str, ...]
    queries: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        require.integer(WireError, "epoch", self.epoch, 0, MAX_INT)
        require.text(WireError, "code_space", self.code_space)
        require.one_of(WireError, "code_bytes", self.code_bytes, (8, 16, 24, 32))
        for names, limit, empty in (
            (self.sources, MAX_NAMES, False),
            (self.boots, MAX_NAMES, True),
            (tuple(text for query in self.queries for text in query), 2 * MAX_QUERIES, False),
        ):
            require.integer(WireError, "number of names", len(names), 0, limit)
            for name in names:
                require.text(WireError, "name", name, may_be_empty=empty)

    def encoded(self) -> bytes:
        """Return its bytes, packed."""
        table = [
            self.epoch,
            self.code_space,
            self.code_bytes,
            list(self.sources),
            list(self.boots),
            [list(query) for query in self.queries],
        ]
        return zlib.compress(cbor2.dumps(table), 9)

    @classmethod
    def decoded(cls, content: bytes) -> Context:
        """Return the context in bytes. Raises WireError."""
        try:
            unpacker = zlib.decompressobj()
            raw = unpacker.decompress(content, _MAX_BYTES)
            if not unpacker.eof:
                raise WireError(f"context: expected at most {_MAX_BYTES} bytes, found more or an end missing")
            epoch, space, code_bytes, sources, boots, queries = cbor2.loads(raw, max_depth=_MAX_DEPTH)
            pairs = tuple((name, text) for name, text in queries)
            return cls(epoch, space, code_bytes, tuple(sources), tuple(boots), pairs)
        except (
            zlib.error, cbor2.CBORError, ValueError, TypeError, OverflowError, MemoryError, RecursionError,
        ) as error:  # fmt: skip
            raise WireError(f"context: expected its names, found damaged bytes ({error})") from error


def parts_of(content: bytes, frame_bytes: int) -> list[bytes]:
    """Return the bodies that carry a packed context. Raises WireError where it is too long."""
    size = frame_bytes - HEADER_BYTES
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    if len(parts) > MAX_PARTS:
        raise WireError(
            f"context: expected at most {MAX_PARTS} frames, found {len(parts)}; shorten the watchlist"
        )
    return parts


def part_numbers(digest: bytes, index: int, n: int) -> tuple[int, int]:
    """Return what stands as number and seq in the header of a part: two bytes of the digest, index and how many."""
    return int.from_bytes(digest[:2], "little"), index << 8 | n


@dataclass(frozen=True, slots=True)
class Anchor:
    """An observation in full but for its code; those after it follow as long as sound comes steadily.

    source, boot: places in the context; hop: samples from one to the next; origin_*_ns: of sample 0 of the source, by
    the sample counter; wall None = unknown.
    """

    seq: int
    first_sample: int
    n_samples: int
    sample_rate_hz: int
    hop_samples: int
    origin_boottime_ns: int
    origin_wall_ns: int | None
    source: int
    boot: int
    clock_state: int

    @classmethod
    def of(cls, observation: Observation, hop_samples: int, context: Context) -> Anchor:
        """Return the anchor at an observation. Raises WireError for numbers that it has no room for."""
        instant = observation.instant
        passed_ns = observation.first_sample * _NS // observation.sample_rate_hz
        for name, value, limit in (
            ("seq", observation.seq, 2**40),
            ("first_sample", observation.first_sample, 2**48),
            ("n_samples", observation.n_samples, 2**24),
            ("sample_rate_hz", observation.sample_rate_hz, 2**24),
            ("hop", hop_samples, 2**24),
        ):
            require.integer(WireError, name, value, 0, limit - 1)
        return cls(
            observation.seq,
            observation.first_sample,
            observation.n_samples,
            observation.sample_rate_hz,
            hop_samples,
            instant.boottime_ns - passed_ns,
            None if instant.wall_ns is None else instant.wall_ns - passed_ns,
            context.sources.index(observation.source),
            context.boots.index(instant.boot_id),
            CLOCK_STATES.index(instant.clock_state),
        )

    def observation(self, device_id: str, context: Context, seq: int, code: bytes) -> Observation:
        """Return the observation with a seq, as the recorder has it. Raises WireError."""
        first_sample = self.first_sample + (seq - self.seq) * self.hop_samples
        passed_ns = first_sample * _NS // self.sample_rate_hz
        wall_ns = None if self.origin_wall_ns is None else self.origin_wall_ns + passed_ns
        try:
            instant = Instant(
                context.boots[self.boot],
                self.origin_boottime_ns + passed_ns,
                wall_ns,
                CLOCK_STATES[self.clock_state],
            )
            return Observation(
                device_id,
                context.epoch,
                seq,
                code,
                context.code_space,
                context.sources[self.source],
                first_sample,
                self.sample_rate_hz,
                self.n_samples,
                instant,
            )
        except (IndexError, ObservationError) as error:
            raise WireError(
                f"anchor: expected names of its context and possible numbers, found {error}"
            ) from error

    def encoded(self) -> bytes:
        """Return its bytes."""
        numbers = (
            self.seq,
            self.first_sample,
            self.n_samples,
            self.sample_rate_hz,
            self.hop_samples,
        )
        head = b"".join(
            value.to_bytes(stop - start, "little")
            for value, (start, stop) in zip(numbers, _ANCHOR_NUMBERS, strict=True)
        )
        wall_ns = _UNKNOWN_WALL if self.origin_wall_ns is None else self.origin_wall_ns
        return head + _ANCHOR.pack(self.origin_boottime_ns, wall_ns, self.source, self.boot, self.clock_state)

    @classmethod
    def decoded(cls, body: bytes) -> Anchor:
        """Return the anchor in bytes. Raises WireError."""
        if len(body) != ANCHOR_BYTES:
            raise WireError(f"anchor: expected {ANCHOR_BYTES} bytes, found {len(body)}")
        seq, first_sample, n_samples, rate_hz, hop = (
            int.from_bytes(body[start:stop], "little") for start, stop in _ANCHOR_NUMBERS
        )
        boottime_ns, wall_ns, source, boot, clock = _ANCHOR.unpack_from(body, _ANCHOR_NUMBERS[-1][1])
        if not rate_hz:
            raise WireError("anchor: expected a sample rate, found 0")
        known_ns = None if wall_ns == _UNKNOWN_WALL else wall_ns
        return cls(seq, first_sample, n_samples, rate_hz, hop, boottime_ns, known_ns, source, boot, clock)

    @property
    def digest(self) -> bytes:
        """Return what frames rely on."""
        return digest_of(self.encoded())


def encode_heartbeat(made: Sequence[int], health: Mapping[str, Any]) -> bytes:
    """Return the body of a heartbeat. made: how many observations, detections and events there have been."""
    at_s = min(int(health.get("at_ns", 0)) // _NS, 2**40 - 1)
    age_min = _NO_SHORT
    if "last_code_ns" in health:
        age_min = min(max(0, (at_s * _NS - int(health["last_code_ns"])) // (60 * _NS)), _NO_SHORT - 1)
    temperature, coverage = health.get("temperature_c"), health.get("coverage")
    battery, clock = health.get("battery_percent"), health.get("clock", CLOCK_STATES[0])
    return (
        at_s.to_bytes(5, "little")
        + made[0].to_bytes(5, "little")
        + _HEARTBEAT.pack(
            min(made[1], 2**32 - 1),
            min(made[2], 2**32 - 1),
            -128 if temperature is None else max(-127, min(127, round(temperature))),
            _NO_BYTE if battery is None else max(0, min(100, round(battery))),
            min(int(health.get("disk_free_bytes", 0)) // _DISK_STEP, _NO_SHORT),
            _NO_BYTE if coverage is None else max(0, min(_COVERAGE_STEPS, round(coverage * _COVERAGE_STEPS))),
            min(int(health.get("uptime_s", 0)) // 3600, _NO_SHORT),
            age_min,
            CLOCK_STATES.index(clock),
        )
    )


def decode_heartbeat(body: bytes) -> tuple[tuple[int, int, int], dict[str, Any]]:
    """Return how many of each stream were made, and the health. Raises WireError."""
    if len(body) != 10 + _HEARTBEAT.size:
        raise WireError(f"heartbeat: expected {10 + _HEARTBEAT.size} bytes, found {len(body)}")
    at_s, n = int.from_bytes(body[:5], "little"), int.from_bytes(body[5:10], "little")
    found = _HEARTBEAT.unpack_from(body, 10)
    n_detections, n_events, temperature, battery, disk, coverage, uptime_h, age_min, clock = found
    if clock >= len(CLOCK_STATES) or at_s * _NS > MAX_INT:
        raise WireError("heartbeat: expected a clock state and a time, found neither")
    health: dict[str, Any] = {
        "at_ns": at_s * _NS,
        "uptime_s": uptime_h * 3600,
        "clock": CLOCK_STATES[clock],
        "n_observations": n,
        "n_detections": n_detections,
        "n_events": n_events,
        "disk_free_bytes": disk * _DISK_STEP,
    }
    if temperature != -128:
        health["temperature_c"] = float(temperature)
    if battery != _NO_BYTE:
        health["battery_percent"] = float(battery)
    if coverage != _NO_BYTE:
        health["coverage"] = coverage / _COVERAGE_STEPS
    if age_min != _NO_SHORT:
        health["last_code_ns"] = max(0, at_s * _NS - age_min * 60 * _NS)
    return (n, n_detections, n_events), health
