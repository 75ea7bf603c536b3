"""How windows follow each other: sound that is missing between them, and the time that passed."""

from __future__ import annotations

import pytest

from edge.alarm_course import Course, Step, between_s
from edge.observation import Instant, Observation

HOP_S, RATE_HZ = 2.5, 8_000
HOUR_NS = 3600 * 10**9


def window(
    at_s: float, source: str = "microphone:a", boot_id: str = "one", wall_ns: int | None = None, boottime_ns: int = 0, n_s: float = 5.0
) -> Observation:  # fmt: skip
    instant = Instant(boot_id, boottime_ns, wall_ns, "unset")
    first, n_samples = round(at_s * RATE_HZ), round(n_s * RATE_HZ)
    return Observation("dev", 1, 0, bytes(32), "space", source, first, RATE_HZ, n_samples, instant)


def steps(*windows: Observation) -> list[Step]:
    course = Course(HOP_S)
    return [course.step(each) for each in windows]


def test_windows_of_one_recording_are_a_hop_apart() -> None:
    assert steps(window(0.0), window(2.5), window(5.0))[1:] == [Step(True, 2.5)] * 2
    assert not steps(window(0.0))[0].is_continued


@pytest.mark.parametrize(("at_s", "is_continued"), [(5.0, True), (5.01, False), (70 * 3600.0, False)])
def test_sound_is_missing_where_a_window_begins_after_the_end_of_the_last(at_s: float, is_continued: bool) -> None:  # fmt: skip
    assert steps(window(0.0), window(at_s))[1] == Step(is_continued, at_s)


def test_a_short_window_that_was_repeated_ends_with_its_sound() -> None:
    assert steps(window(0.0, n_s=1.0), window(2.6))[1].is_continued is False
    assert steps(window(0.0, n_s=1.0), window(2.5))[1].is_continued is True


@pytest.mark.parametrize("other", [{"source": "microphone:b"}, {"boot_id": "two"}])
def test_another_source_or_boot_is_another_recording(other: dict[str, str]) -> None:
    assert steps(window(0.0), window(2.5, **other))[1] == Step(False, HOP_S)  # type: ignore[arg-type]


def test_a_source_that_begins_anew_is_another_recording() -> None:
    assert steps(window(10.0), window(7.5))[1] == Step(False, HOP_S)


def test_in_one_recording_the_samples_tell_the_time_whatever_the_clock_does() -> None:
    found = steps(window(0.0, wall_ns=9 * HOUR_NS), window(2.5, wall_ns=2 * HOUR_NS))
    assert found[1] == Step(True, 2.5)


def test_between_recordings_the_wall_clock_tells_the_time() -> None:
    first = window(0.0, wall_ns=9 * HOUR_NS, boottime_ns=HOUR_NS)
    later = window(0.0, boot_id="two", wall_ns=12 * HOUR_NS)
    earlier = window(0.0, source="b", wall_ns=2 * HOUR_NS, boottime_ns=2 * HOUR_NS)
    assert steps(first, later)[1].passed_s == 3 * 3600
    assert steps(first, earlier)[1].passed_s == -7 * 3600
    put_right = window(0.0, source="b", wall_ns=9 * HOUR_NS - 60 * 10**9)
    assert steps(first, put_right)[1].passed_s == HOP_S


def test_without_a_wall_clock_that_of_one_boot_tells_the_time() -> None:
    first, later = Instant("one", HOUR_NS, None, "unset"), Instant("one", 3 * HOUR_NS, HOUR_NS, "ntp")
    assert between_s(first, later, HOP_S) == 2 * 3600
    assert between_s(later, first, HOP_S) == HOP_S
    assert between_s(first, Instant("two", 3 * HOUR_NS, None, "unset"), HOP_S) == HOP_S
    assert between_s(Instant("", 0, None, "unset"), Instant("", 3, None, "unset"), HOP_S) == HOP_S


def test_time_goes_on_from_the_last_window_of_a_run_before() -> None:
    course = Course(HOP_S)
    course.instant = Instant("one", 0, 5 * HOUR_NS, "unset")
    assert course.step(window(0.0, boot_id="two", wall_ns=6 * HOUR_NS)) == Step(False, 3600.0)
