from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.errors import ObservationError
from edge.observation import (
    FORMAT_VERSION,
    Detection,
    Instant,
    Observation,
    detection_from_wire,
    detection_record,
    detection_to_wire,
    from_wire,
    to_wire,
)

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / f"observation-v{FORMAT_VERSION}.json"

INSTANT = Instant("0f6c2c5e-boot", 81_000_000_000, 1_777_863_721_987_654_321, "gnss")
OBSERVATION = Observation(
    device_id="meadow-3",
    epoch=2**63 - 1,
    seq=41,
    code=bytes(range(32)),
    code_space="starter-0123456789ab",
    source="recordings/dawn é.wav",
    first_sample=80_000,
    sample_rate_hz=32_000,
    n_samples=160_000,
    instant=INSTANT,
)
DETECTION = Detection("meadow-3", 2**63 - 1, 41, "raven", "a raven calling", 71, 0.875, None, "clips/1.flac")


def as_bytes(wires: list[dict[str, Any]]) -> bytes:
    """Write wire mappings with their order of keys; bytes as hexadecimal."""
    text = json.dumps(wires, indent=1, ensure_ascii=False, default=lambda value: {"bytes": value.hex()})
    return (text + "\n").encode("utf-8")


def test_the_wire_form_is_the_golden_one() -> None:
    unset = replace(OBSERVATION, instant=Instant("", 0, None, "unset"))
    wires = [to_wire(OBSERVATION), to_wire(unset), detection_to_wire(DETECTION)]
    assert as_bytes(wires) == GOLDEN.read_bytes()


def test_wire_and_back_changes_nothing() -> None:
    unset = replace(OBSERVATION, instant=Instant("", 0, None, "unset"))
    assert from_wire(to_wire(OBSERVATION)) == OBSERVATION
    assert from_wire(to_wire(unset)) == unset
    assert detection_from_wire(detection_to_wire(DETECTION)) == DETECTION


def test_unknown_keys_are_ignored() -> None:
    assert from_wire({**to_wire(OBSERVATION), "later": 1}) == OBSERVATION
    assert detection_from_wire({**detection_to_wire(DETECTION), "later": 1}) == DETECTION


def test_missing_keys_are_one_error_that_names_them_all() -> None:
    wire = to_wire(OBSERVATION)
    del wire["code"], wire["clock"]
    with pytest.raises(ObservationError, match=r"observation: expected the keys .*; missing code, clock"):
        from_wire(wire)
    with pytest.raises(ObservationError, match="missing format_version, device"):
        detection_from_wire({})
    with pytest.raises(ObservationError, match="expected a mapping, found list"):
        from_wire([])  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_another_version_is_refused(version: object) -> None:
    with pytest.raises(ObservationError, match="observation: expected format_version 1, found"):
        from_wire({**to_wire(OBSERVATION), "format_version": version})
    with pytest.raises(ObservationError, match="detection: expected format_version 1, found"):
        detection_from_wire({"format_version": version})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("device", "", "device_id: expected non-empty text, found ''"),
        ("epoch", -1, "epoch: expected an integer from 0 to"),
        ("epoch", 2**63, "epoch: expected an integer from 0 to"),
        ("seq", True, "seq: expected an integer"),
        ("seq", 1.0, "seq: expected an integer"),
        ("code", bytes(31), "code: expected 8, 16, 24 or 32 bytes"),
        ("code", "00" * 16, "code: expected 8, 16, 24 or 32 bytes"),
        ("space", None, "code_space: expected non-empty text, found None"),
        ("first", -1, "first_sample: expected an integer from 0"),
        ("rate", 0, "sample_rate_hz: expected an integer from 1"),
        ("n", -1, "n_samples: expected an integer from 0"),
        ("boottime", -5, "boottime_ns: expected an integer from 0"),
        ("wall", 2**63, "wall_ns: expected an integer from 0"),
        ("clock", "sundial", "clock_state: expected one of unset, rtc, ntp, gnss, found 'sundial'"),
        ("clock", ["ntp"], "clock_state: expected one of unset, rtc, ntp, gnss"),
    ],
)
def test_impossible_values_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ObservationError, match=f"observation: {message}"):
        from_wire({**to_wire(OBSERVATION), key: value})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("query", "", "query: expected non-empty text"),
        ("distance", 257, "distance: expected an integer from 0 to 256, found 257"),
        ("probability", 1.01, "probability: expected a number from 0.0 to 1.0"),
        ("probability", float("nan"), "probability: expected a number from 0.0 to 1.0, found nan"),
        ("alarms_per_day", -1, "false_alarms_per_day: expected a number from 0.0"),
        ("clip", "", "clip: expected non-empty text"),
    ],
)
def test_impossible_detections_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ObservationError, match=f"detection: {message}"):
        detection_from_wire({**detection_to_wire(DETECTION), key: value})


def test_times_come_from_the_sample_counter() -> None:
    assert OBSERVATION.offset_s == 2.5
    assert OBSERVATION.duration_s == 5.0
    assert OBSERVATION.started_at == "2026-05-04T03:02:01.987Z"
    assert replace(OBSERVATION, instant=Instant("", 0, None, "unset")).started_at is None
    assert replace(OBSERVATION, instant=Instant("", 0, 0, "rtc")).started_at == "1970-01-01T00:00:00.000Z"
    latest = replace(OBSERVATION, instant=Instant("", 0, 2**63 - 1, "rtc"))
    assert latest.started_at == "2262-04-11T23:47:16.854Z"


def test_a_detection_is_printed_with_the_keys_that_programs_read() -> None:
    assert detection_record(OBSERVATION, DETECTION) == {
        "type": "detection",
        "query": "raven",
        "text": "a raven calling",
        "source": "recordings/dawn é.wav",
        "offset_s": 2.5,
        "duration_s": 5.0,
        "started_at": "2026-05-04T03:02:01.987Z",
        "distance": 71,
        "probability": 0.875,
        "false_alarms_per_day": None,
        "clip": "clips/1.flac",
    }


def test_a_detection_of_another_observation_is_refused() -> None:
    with pytest.raises(
        ObservationError, match=r"expected one of observation \('meadow-3', .*, 41\), found .* 42"
    ):
        detection_record(OBSERVATION, replace(DETECTION, seq=42))
