"""The options of a watchlist's lines: units, ranges, and what a wrong one is told."""

from __future__ import annotations

import re
from typing import Any

import pytest

from edge.errors import WatchlistError
from edge.query_options import parse_options

OPTIONS = ("name", "probability", "alarms_per_day", "confirm", "cooldown", "priority", "active", "group")


def refusal(*options: str, decoy: bool = False) -> str:
    """Return what wrong options are told: it has a found, and says what to do after a semicolon."""
    with pytest.raises(WatchlistError) as caught:
        parse_options(options, decoy)
    assert re.fullmatch(r"expected .*, found .*; .+", str(caught.value)), str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("alarms_per_day=2", "alarms_per_day", 2.0),
        ("alarms_per_day=0.001", "alarms_per_day", 0.001),
        ("alarms_per_day = 1000", "alarms_per_day", 1000.0),
        ("confirm=2/3", "confirm", (2, 3)),
        ("confirm=20/20", "confirm", (20, 20)),
        ("cooldown=90s", "cooldown_s", 90.0),
        ("cooldown=10min", "cooldown_s", 600.0),
        ("cooldown=1.5 h", "cooldown_s", 5400.0),
        ("cooldown=0s", "cooldown_s", 0.0),
        ("cooldown=168h", "cooldown_s", 604800.0),
        ("priority=low", "priority", "low"),
        ("priority=high", "priority", "high"),
        ("active=night", "active", "night"),
        ("active=day", "active", "day"),
        ("active=dawn", "active", "dawn"),
        ("active=dusk", "active", "dusk"),
        ("active=06:00-18:30", "active", "06:00-18:30"),
        ("active=22:00-04:30", "active", "22:00-04:30"),
        ("group=owls of the wood", "group", "owls of the wood"),
        ("probability=0", "min_probability", 0.0),
    ],
)
def test_an_option_sets_its_field_and_no_other(option: str, field: str, value: Any) -> None:
    assert parse_options([option], decoy=False) == {field: value}


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("alarms_per_day=0", "alarms_per_day from 0.001 to 1000"),
        ("alarms_per_day=-1", "alarms_per_day from"),
        ("alarms_per_day=1001", "alarms_per_day from"),
        ("alarms_per_day=nan", "alarms_per_day from"),
        ("alarms_per_day=inf", "alarms_per_day from"),
        ("alarms_per_day=few", "alarms_per_day from"),
        ("confirm=3", "confirm=n/m, n of the last m windows, 1 <= n <= m <= 20"),
        ("confirm=0/3", "confirm=n/m"),
        ("confirm=3/2", "confirm=n/m"),
        ("confirm=2/21", "confirm=n/m"),
        ("confirm=-1/3", "confirm=n/m"),
        (f"confirm={'9' * 5000}/3", "confirm=n/m"),
        ("cooldown=10", "a cooldown of up to 7 days (168h) in s, min or h"),
        ("cooldown=10m", "a cooldown"),
        ("cooldown=-1s", "a cooldown"),
        ("cooldown=168.1h", "a cooldown"),
        ("cooldown=min", "a cooldown"),
        ("priority=urgent", "priority low, normal, high"),
        ("priority=High", "priority low, normal, high"),
        ("active=noon", "active night, day, dawn, dusk or HH:MM-HH:MM in UTC"),
        ("active=6:00-7:00", "active night"),
        ("active=06:00", "active night"),
        ("active=06:00-24:00", "active night"),
        ("active=06:60-07:00", "active night"),
        (
            "active=06:00-06:00",
            "active night, day, dawn, dusk or HH:MM-HH:MM in UTC with two different times",
        ),
        ("probability=1.01", "a probability from 0 to 1"),
    ],
)
def test_a_value_out_of_its_range_is_refused(option: str, expected: str) -> None:
    message = refusal(option)
    assert message.startswith(f"expected {expected}")
    assert f"found {option.partition('=')[2]!r}; write " in message


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("alarm_per_day", "did you mean alarms_per_day?"),
        ("confirmed", "did you mean confirm?"),
        ("cooldwn", "did you mean cooldown?"),
        ("prio", "did you mean priority?"),
        ("activ", "did you mean active?"),
        ("groups", "did you mean group?"),
        ("Name", "did you mean name?"),
        ("xyz", "remove it"),
    ],
)
def test_an_unknown_option_is_told_the_nearest(key: str, hint: str) -> None:
    assert refusal(f"{key}=1") == f"expected an option of {', '.join(OPTIONS)}, found {key!r}; {hint}"


@pytest.mark.parametrize("option", ["confirm=2/3", "active=night", "group=a"])
def test_an_option_is_given_once(option: str) -> None:
    key = option.partition("=")[0]
    assert refusal(option, option) == f"expected the option {key} once, found it twice; keep one"


@pytest.mark.parametrize(
    "option",
    [
        "probability=0.5",
        "alarms_per_day=2",
        "confirm=1/1",
        "cooldown=1s",
        "priority=normal",
        "active=night",
        "group=a",
    ],
)
def test_a_decoy_takes_a_name_and_nothing_about_alarms(option: str) -> None:
    assert parse_options(["name=the wind"], decoy=True) == {"name": "the wind"}
    key = option.partition("=")[0]
    assert refusal(option, decoy=True) == (
        f"expected no {key} on a decoy (it never alarms), found {option!r}; remove it"
    )
