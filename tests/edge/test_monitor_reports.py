"""What people read of a detection."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from edge.bundle import Calibration
from edge.matcher import Matcher
from edge.monitor_reports import JsonReport, detection_line, summary_line, summary_record
from edge.monitor_view import LiveView
from edge.observation import Detection, Instant, Observation
from edge.pipeline_keeper import Totals
from edge.watchlist import Query, Watchlist

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
    detection = replace(DETECTION, false_alarms_per_day=per_day)
    assert shown in detection_line(OBSERVATION, detection, Query("dog", "a dog"))


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (Query("dog", "a dog"), "-  dog  ("),
        (Query("dog", "a dog", priority="low"), "-  dog  ("),
        (Query("dog", "a dog", priority="high"), "-  ! dog  ("),
        (Query("dog", "a dog", priority="high", group="pets"), "-  ! dog [pets]  ("),
    ],
)
def test_a_line_for_people_marks_high_priority_and_names_the_group(query: Query, shown: str) -> None:
    picture = replace(OBSERVATION, n_samples=0, sample_rate_hz=1)
    assert detection_line(picture, DETECTION, query).startswith(shown)


def listed(query: Query) -> Watchlist:
    return Watchlist("starter-0123456789ab", 256, "", (replace(query, code=bytes(32)),))


def test_a_line_for_programs_has_priority_and_group() -> None:
    out = io.StringIO()
    for query in (Query("dog", "a dog", priority="high", group="pets"), Query("dog", "a dog")):
        JsonReport(out, listed(query)).observed(OBSERVATION, [DETECTION])
    first, second = map(json.loads, out.getvalue().splitlines())
    assert (first["query"], first["priority"], first["group"]) == ("dog", "high", "pets")
    assert (second["priority"], second["group"]) == ("normal", None)


@pytest.mark.parametrize(("priority", "style"), [("low", "32"), ("normal", "1;32"), ("high", "1;31")])
def test_the_live_view_colours_by_priority_and_prints_what_happened(priority: Any, style: str) -> None:
    watchlist = listed(Query("dog", "a dog", priority=priority))
    out, totals, now = io.StringIO(), Totals(), iter(range(1000))
    console = Console(file=out, force_terminal=True, width=100, color_system="standard", markup=False)
    matcher = Matcher(watchlist, (), Calibration("logistic", -0.1, 7.0, 0, "test"))
    view = LiveView(matcher, watchlist, totals, lambda: None, console, clock=lambda: float(next(now)))
    view.state("listening", hop_s=2.5)
    view.observed(OBSERVATION, [DETECTION])
    view.state("alarms_limited", query="dog", per_hour=120, n_held_back=1)
    view.close()
    shown = out.getvalue()
    mark = "! " if priority == "high" else ""
    assert f"\x1b[{style}m0:00:00.0  {mark}dog  (99 %" in shown
    assert f"{mark}dog 100 %" in shown  # among the nearest, too
    assert "\x1b[33malarms_limited: query dog, per_hour 120, n_held_back 1" in shown
    assert shown.rindex("listening: hop_s 2.5") > shown.index("alarms_limited")


def test_alarms_that_were_held_back_are_in_the_summary() -> None:
    totals = Totals(n_windows=3, n_limited=2, seconds_audio=5.0)
    assert summary_record(totals, None)["n_limited"] == 2
    assert summary_line(totals, None).endswith(", 2 alarms held back")
    assert "held back" not in summary_line(Totals(), None)
