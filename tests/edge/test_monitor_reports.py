"""What people read of a detection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.monitor_reports import detection_line
from edge.observation import Detection, Instant, Observation

OBSERVATION = Observation(
    "recorder",
    1,
    0,
    bytes(32),
    "starter-0123456789ab",
    "a.wav",
    0,
    32_000,
    160_000,
    Instant("", 0, None, "unset"),
)
DETECTION = Detection("recorder", 1, 0, "dog", "a dog", 49, 0.99, None, None)


@pytest.mark.parametrize(
    ("per_day", "shown"),
    [
        (None, "(99 %, 49 bits)"),
        (0.2345, "(99 %, 49 bits, 0.23 false a day)"),
        (0.001, "(99 %, 49 bits, < 0.01 false a day)"),
    ],
)
def test_a_detection_says_how_often_the_background_comes_as_near(per_day: float | None, shown: str) -> None:
    assert shown in detection_line(OBSERVATION, replace(DETECTION, false_alarms_per_day=per_day))
