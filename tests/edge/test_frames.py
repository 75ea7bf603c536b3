"""Frames: the radio budget, bytes that stay, numbers that are completed, and damage of every kind."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("cbor2")
pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.device_key import DeviceKey
from edge.errors import WireError
from edge.frames import (
    LORA_BYTES,
    SATELLITE_BYTES,
    CodeRecord,
    DetectionRecord,
    completed,
    decode_codes,
    decode_detections,
    decode_frame,
    digest_of,
    encode_codes,
    encode_detections,
    encode_frame,
    from_stream,
    is_authentic,
    n_fitting,
    sender_of,
    to_stream,
)
from edge.frames_context import (
    ANCHOR_BYTES,
    Anchor,
    Context,
    decode_heartbeat,
    encode_heartbeat,
    part_numbers,
    parts_of,
)
from edge.frames_key import frame_key
from edge.frames_receipt import FrameReceipt, decode_receipt_frame, encode_receipt_frame

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "frames-v1.bin"
KEY = bytes(range(32))
CONTEXT = Context(
    7, "test-0123456789ab", 32, ("microphone:mic",), ("boot",), (("owl", "an owl"), ("saw", "a saw"))
)
ANCHOR = Anchor(1000, 160_000_000, 160_000, 32_000, 160_000, 10**12, 1_777_777_777 * 10**9, 0, 0, 2)
HEALTH = {"at_ns": 1_790_000_000 * 10**9, "uptime_s": 7200, "clock": "ntp", "disk_free_bytes": 32_000_000_000,
          "temperature_c": -4.4, "battery_percent": 71.0, "coverage": 0.98, "last_code_ns": 1_789_999_700 * 10**9}  # fmt: skip


def golden_frames() -> list[bytes]:
    """Return one frame of each kind."""
    content = CONTEXT.encoded()
    digest = digest_of(content)
    bodies = parts_of(content, SATELLITE_BYTES)
    relies_on = digest + ANCHOR.digest
    records = [DetectionRecord(i, i % 2, 60 + i, i / 255) for i in range(3)]
    return [
        encode_frame(KEY, "context", "owl-1", bodies[0], *part_numbers(digest, 0, len(bodies))),
        encode_frame(KEY, "anchor", "owl-1", ANCHOR.encoded(), 0, ANCHOR.seq, digest + bytes(8)),
        encode_frame(KEY, "codes", "owl-1", encode_codes([CodeRecord(2, bytes(range(32)))]), 0, 1000, relies_on),
        encode_frame(KEY, "detections", "owl-1", encode_detections(records), 70_000, 2**33 + 5, relies_on),
        encode_frame(KEY, "untimed", "owl-1", encode_detections(records), 3, 9, digest + bytes(8)),
        encode_frame(
            KEY, "heartbeat", "owl-1", encode_heartbeat((5000, 70, 2), HEALTH), 1_790_000_000, 0, digest + bytes(8)
        ),
        encode_receipt_frame(KEY, "owl-1", 7, FrameReceipt(1_790_000_001, 500, ((3, 4), (499, 1))), LORA_BYTES),
    ]  # fmt: skip


def test_the_bytes_are_those_of_version_1() -> None:
    stream = b"".join(map(to_stream, golden_frames()))
    assert stream == GOLDEN.read_bytes()
    assert list(from_stream(GOLDEN.read_bytes())) == golden_frames()


@pytest.mark.parametrize(
    ("n_bytes", "codes", "detections"), [(340, 9, 65), (51, 1, 7), (115, 3, 20), (222, 6, 42)]
)
def test_the_radio_budget_is_kept(n_bytes: int, codes: int, detections: int) -> None:
    assert n_fitting("codes", n_bytes) == codes
    assert n_fitting("detections", n_bytes) == detections
    frame = encode_frame(
        KEY, "detections", "owl-1", encode_detections([DetectionRecord(0, 0, 0, 0.0)] * detections)
    )
    assert len(frame) <= n_bytes
    assert len(encode_frame(KEY, "codes", "o", encode_codes([CodeRecord(0, bytes(32))] * codes))) <= n_bytes


def test_an_anchor_and_a_heartbeat_fit_into_the_smallest_frame() -> None:
    assert ANCHOR_BYTES + 12 <= LORA_BYTES
    assert len(encode_heartbeat((2**40 - 1, 2**40, 2**40), HEALTH)) + 12 <= LORA_BYTES
    assert all(len(part) + 12 <= LORA_BYTES for part in parts_of(bytes(1000), LORA_BYTES))


def test_records_come_back() -> None:
    codes = [CodeRecord(i * 7, bytes([i]) * 16) for i in range(5)]
    assert decode_codes(encode_codes(codes), 16) == codes
    found = decode_detections(encode_detections([DetectionRecord(65_535, 254, 256, 0.7531)]))
    assert (found[0].offset, found[0].query, found[0].distance) == (65_535, 254, 255)
    assert abs(found[0].probability - 0.7531) <= 1 / 510
    assert Context.decoded(CONTEXT.encoded()) == CONTEXT
    assert Anchor.decoded(ANCHOR.encoded()) == ANCHOR
    made, health = decode_heartbeat(encode_heartbeat((5000, 70, 2), HEALTH))
    assert made == (5000, 70, 2)
    assert health == {
        "at_ns": HEALTH["at_ns"],
        "uptime_s": 7200,
        "clock": "ntp",
        "n_observations": 5000,
        "n_detections": 70,
        "n_events": 2,
        "disk_free_bytes": 32_000_000_000,
        "temperature_c": -4.0,
        "battery_percent": 71.0,
        "coverage": 0.98,
        "last_code_ns": HEALTH["last_code_ns"],
    }
    assert set(decode_heartbeat(encode_heartbeat((0, 0, 0), {"at_ns": 0}))[1]) == {
        *("at_ns", "uptime_s", "clock", "n_observations", "n_detections", "n_events", "disk_free_bytes")
    }


def test_an_anchor_without_a_wall_clock_gives_none() -> None:
    unset = Anchor(0, 0, 8000, 8000, 8000, 5, None, 0, 0, 0)
    found = Anchor.decoded(unset.encoded()).observation("owl-1", CONTEXT, 3, bytes(32))
    assert found.instant.wall_ns is None
    assert (found.first_sample, found.instant.boottime_ns) == (24_000, 5 + 3 * 10**9)


def test_numbers_are_completed_to_the_nearest() -> None:
    assert completed(5, 16, 0) == 5
    assert completed(0xFFFF, 16, 65_536) == 65_535
    assert completed(3, 16, 65_530) == 65_539
    assert completed(3, 16, 2**33 + 1) == 2**33 + 3
    assert completed(0xFFFF, 16, 3) == 65_535  # never below 0
    for near in (0, 1, 70_000, 2**40):
        for number in range(max(0, near - 32_000), near + 32_000, 997):
            assert completed(number & 0xFFFF, 16, near) == number


@pytest.mark.parametrize("kind", range(7))
def test_a_tag_covers_everything(kind: int) -> None:
    content = golden_frames()[kind]
    numbers = [
        (None, None),
        (0, 1000),
        (0, 1000),
        (70_000, 2**33 + 5),
        (3, 9),
        (1_790_000_000, 0),
        (1_790_000_001, 0),
    ]
    digest = digest_of(CONTEXT.encoded())
    both, alone = digest + ANCHOR.digest, digest + bytes(8)
    relies_on = [b"", alone, both, both, alone, alone, (7).to_bytes(8, "little")][kind]
    frame = decode_frame(content)
    number, seq = numbers[kind]
    number, seq = (frame.low_number, frame.low_seq) if number is None or seq is None else (number, seq)
    assert is_authentic(KEY, frame, number, seq, relies_on)
    assert not is_authentic(bytes(32), frame, number, seq, relies_on)
    assert not is_authentic(KEY, frame, number + 65_536, seq, relies_on)
    assert not is_authentic(KEY, frame, number, seq + 2**24, relies_on)
    assert not is_authentic(KEY, frame, number, seq, relies_on + b"\0")
    for i in (0, *range(3, len(content))):  # 1 and 2 only say whose key to try
        for bit in range(8):
            changed = bytearray(content)
            changed[i] ^= 1 << bit
            try:
                other = decode_frame(bytes(changed))
            except WireError:
                continue
            assert not is_authentic(KEY, other, number, seq, relies_on)


def test_both_sides_come_to_the_same_key_and_nobody_else_does() -> None:
    device, hub, other = (DeviceKey(Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32)) for i in (1, 2, 3))
    key = frame_key(device, hub.public, device.public)
    assert key == frame_key(hub, device.public, device.public)
    assert key == bytes.fromhex("18fefe47fff41ff22628554b50a27c548d092cc0b956fa258c737b09c970be11")
    assert key != frame_key(other, hub.public, other.public)
    assert key != frame_key(hub, other.public, other.public)
    for wrong in (bytes(32), b"\1" + bytes(31), bytes(31)):
        with pytest.raises(WireError):
            frame_key(device, wrong, device.public)


def test_a_receipt_is_the_hubs_and_of_the_epoch() -> None:
    told = FrameReceipt(1_790_000_001, 5000, ((3, 4), (100, 600), (4999, 1)))
    content = encode_receipt_frame(KEY, "owl-1", 7, told, LORA_BYTES)
    assert len(content) <= LORA_BYTES
    found = decode_receipt_frame(KEY, 7, decode_frame(content))
    assert found.missing == ((3, 4), (100, 255), (355, 255), (610, 90), (4999, 1))
    with pytest.raises(WireError, match="tag"):
        decode_receipt_frame(KEY, 8, decode_frame(content))
    with pytest.raises(WireError, match="tag"):
        decode_receipt_frame(bytes(32), 7, decode_frame(content))
    many = FrameReceipt(1, 10_000, tuple((i, 1) for i in range(0, 9000, 2)))
    content = encode_receipt_frame(KEY, "owl-1", 7, many, LORA_BYTES)
    assert decode_receipt_frame(KEY, 7, decode_frame(content)).missing == many.missing[:5]


def test_damage_in_a_stream_ends_with_its_frame() -> None:
    frames = golden_frames()
    stream = b"AT+OK\r\n".join(map(to_stream, frames))
    assert [each for each in from_stream(stream) if each in frames] == frames
    for cut in range(0, len(stream), 3):
        whole = [each for each in from_stream(stream[:cut] + stream[cut + 40 :]) if each in frames]
        assert len(whole) >= len(frames) - 3


def test_10_000_frames_of_noise_and_damage_are_refused_and_nothing_else_happens() -> None:
    chance = random.Random(5)
    frames, refused = golden_frames(), 0
    digest = digest_of(CONTEXT.encoded())
    for i in range(10_000):
        if i % 4 == 0:
            content = chance.randbytes(chance.randrange(400))
        else:
            changed = bytearray(chance.choice(frames))
            for _ in range(chance.randrange(1, 4)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            content = bytes(changed[: chance.randrange(len(changed) + 1)] if i % 3 == 0 else changed)
        try:
            frame = decode_frame(content)
            if frame.sender == sender_of("owl-1"):  # of another, no key is tried
                assert content in frames or not is_authentic(KEY, frame, 0, 1000, digest + ANCHOR.digest)
            for decode in (
                lambda body: decode_codes(body, 32),
                decode_detections,
                Context.decoded,
                lambda body: Anchor.decoded(body).observation("owl-1", CONTEXT, 1005, bytes(32)),
                decode_heartbeat,
                lambda _, frame=frame: decode_receipt_frame(KEY, 7, frame),
            ):
                try:
                    decode(frame.body)
                except WireError:
                    refused += 1
        except WireError:
            refused += 1
        list(from_stream(content))
    assert refused > 10_000


def test_a_context_that_blows_up_is_refused() -> None:
    import zlib

    with pytest.raises(WireError, match="at most"):
        Context.decoded(zlib.compress(bytes(10**7), 9))
