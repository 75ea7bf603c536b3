"""When a line is asked for: hours in UTC, and the sun at the deployment's place."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone

import pytest

from edge.alarm_schedule import activity, is_sun
from edge.errors import ConfigError, MissingDependencyError
from edge.query import SUN_WORDS, Query, hours_of

DELFT = (52.0, 4.4)
MIDSUMMER = datetime(2026, 6, 21, tzinfo=timezone.utc)  # sun up 3:20, down 20:04 UTC in Delft


def at(clock: str, day: datetime = MIDSUMMER) -> datetime:
    hour, minute = map(int, clock.split(":"))
    return day + timedelta(hours=hour, minutes=minute)


def is_active(active: str | None, time: datetime | None, place: tuple[float, float] | None = DELFT) -> bool:
    query = Query("q", "q", active=active)
    return activity((query,), *(place or (None, None)))(query, time)


@pytest.mark.parametrize(
    ("active", "inside", "outside"),
    [
        ("08:30-17:00", ("8:30", "12:00", "16:59"), ("8:29", "17:00", "23:00", "0:00")),
        ("21:30-05:00", ("21:30", "23:59", "0:00", "4:59"), ("21:29", "5:00", "12:00")),
    ],
)
def test_hours_begin_and_end_to_the_minute_and_cross_midnight(
    active: str, inside: tuple[str, ...], outside: tuple[str, ...]
) -> None:
    assert [is_active(active, at(clock), None) for clock in inside] == [True] * len(inside)
    assert [is_active(active, at(clock), None) for clock in outside] == [False] * len(outside)


def test_hours_are_minutes_of_the_day() -> None:
    assert hours_of("21:30-05:00") == (1290, 300)
    assert [hours_of(other) for other in ("night", "1:00-2:00", "24:00-01:00", "01:60-02:00")] == [None] * 4


def test_the_sun_divides_the_day() -> None:
    pytest.importorskip("astral")
    words = {
        clock: {word for word in SUN_WORDS if is_active(word, at(clock))}
        for clock in ("0:00", "2:40", "3:10", "3:50", "12:00", "19:40", "20:20", "23:30")
    }
    assert words == {
        "0:00": {"night"},
        "2:40": {"night", "dawn"},
        "3:10": {"night", "dawn"},
        "3:50": {"day", "dawn"},
        "12:00": {"day"},
        "19:40": {"day", "dusk"},
        "20:20": {"night", "dusk"},
        "23:30": {"night"},
    }


def test_the_sun_is_that_of_the_place() -> None:
    pytest.importorskip("astral")
    auckland = (-36.8, 174.8)
    assert is_active("night", at("12:00"), auckland)
    assert is_active("day", at("0:00"), auckland)


def test_a_polar_day_has_no_night_and_a_polar_night_no_day() -> None:
    pytest.importorskip("astral")
    tromso, midwinter = (69.6, 18.9), datetime(2026, 12, 21, tzinfo=timezone.utc)
    for hour in range(24):
        assert is_active("day", at(f"{hour}:00"), tromso)
        assert is_active("night", at(f"{hour}:00", midwinter), tromso)


def test_dawn_and_dusk_differ_by_whether_the_sun_rises() -> None:
    hours_of_noon = 12.0

    def elevation(time: datetime) -> float:
        return 6.0 - abs(time.hour + time.minute / 60 - hours_of_noon) * 2

    assert is_sun("dawn", at("9:00"), elevation)
    assert not is_sun("dusk", at("9:00"), elevation)
    assert is_sun("dusk", at("15:00"), elevation)
    assert not is_sun("dawn", at("15:00"), elevation)
    assert not is_sun("dawn", at("2:00"), elevation)  # 14 degrees below


@pytest.mark.parametrize("active", ["night", "day", "08:30-08:31"])
def test_a_recorder_that_does_not_know_the_time_listens_always(active: str) -> None:
    if active in SUN_WORDS:
        pytest.importorskip("astral")
    assert is_active(active, None)


def test_a_line_without_a_time_is_always_asked_for() -> None:
    assert all(is_active(None, at(f"{hour}:00"), None) for hour in range(24))


@pytest.mark.parametrize("place", [(None, 4.4), (52.0, None), (None, None)])
def test_the_sun_needs_a_place(place: tuple[float | None, float | None]) -> None:
    queries = (Query("frogs", "frogs"), Query("owl", "an owl", active="night"))
    with pytest.raises(ConfigError, match=r"'owl': active=night .*latitude and longitude in \[deployment\]"):
        activity(queries, *place)


def test_the_sun_needs_astral_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "astral", None)
    assert is_active("08:30-17:00", at("9:00"))
    with pytest.raises(MissingDependencyError, match="pip install 'fieldcube\\[field\\]'"):
        is_active("night", at("9:00"))
