"""Query: no value that a line could not have, whoever made it."""

from __future__ import annotations

from typing import Any

import pytest

from edge.errors import WatchlistError
from edge.query import Query, QueryPart

PARTS = (QueryPart("an owl"), QueryPart("rain"))


def test_a_plain_query_has_no_rule_of_its_own() -> None:
    query = Query("owl", "an owl")
    assert (query.alarms_per_day, query.confirm, query.cooldown_s, query.priority) == (
        None,
        (1, 1),
        None,
        "normal",
    )
    assert (query.active, query.group, query.combine, query.parts) == (None, None, None, ())


@pytest.mark.parametrize(
    "values",
    [
        {"alarms_per_day": 0.001},
        {"alarms_per_day": 1000},
        {"confirm": (20, 20)},
        {"cooldown_s": 0.0},
        {"cooldown_s": 604800.0},
        {"priority": "low"},
        {"active": "dusk"},
        {"active": "23:59-00:00"},
        {"group": "owls"},
        {"combine": "and", "parts": PARTS},
        {"combine": "or", "parts": (*PARTS, QueryPart("wind"))},
    ],
)
def test_values_at_the_limits_are_taken(values: dict[str, Any]) -> None:
    query = Query("owl", "an owl", **values)
    assert {key: getattr(query, key) for key in values} == values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alarms_per_day": 0}, "alarms_per_day: expected a number from 0.001 to 1000.0, found 0"),
        ({"alarms_per_day": 1000.1}, "alarms_per_day: expected a number from 0.001 to 1000.0, found 1000.1"),
        ({"alarms_per_day": float("nan")}, "alarms_per_day: expected a number"),
        ({"confirm": [2, 3]}, "confirm: expected tuple, found [2, 3]"),
        ({"confirm": (2,)}, "confirm: expected two whole numbers, found (2,)"),
        ({"confirm": (True, 3)}, "confirm: expected two whole numbers, found (True, 3)"),
        ({"confirm": (0, 3)}, "confirm: expected 1 <= n <= m <= 20, found (0, 3)"),
        ({"confirm": (4, 3)}, "confirm: expected 1 <= n <= m <= 20, found (4, 3)"),
        ({"confirm": (2, 21)}, "confirm: expected 1 <= n <= m <= 20, found (2, 21)"),
        ({"cooldown_s": -1}, "cooldown_s: expected a number from 0.0 to 604800.0, found -1"),
        ({"cooldown_s": 604801}, "cooldown_s: expected a number from 0.0 to 604800.0, found 604801"),
        ({"priority": "urgent"}, "priority: expected one of low, normal, high, found 'urgent'"),
        ({"active": "noon"}, "active: expected night, day, dawn, dusk or HH:MM-HH:MM in UTC"),
        ({"active": "8:00-9:00"}, "active: expected night"),
        ({"active": "08:00-24:00"}, "active: expected night"),
        ({"active": "08:00-08:00"}, "with two different times, found '08:00-08:00'"),
        ({"active": 7}, "active: expected night"),
        ({"group": ""}, "group: expected non-empty text, found ''"),
        ({"combine": "xor", "parts": PARTS}, "combine: expected one of None, and, or, found 'xor'"),
        ({"combine": "and"}, "parts: expected two or more with combine, none without, found 0"),
        (
            {"combine": "and", "parts": PARTS[:1]},
            "parts: expected two or more with combine, none without, found 1",
        ),
        ({"parts": PARTS}, "parts: expected two or more with combine, none without, found 2"),
        ({"parts": PARTS[:1]}, "parts: expected two or more with combine, none without, found 1"),
        ({"combine": "or", "parts": ("an owl", "rain")}, "parts: expected QueryPart, found 'an owl'"),
        ({"combine": "or", "parts": list(PARTS)}, "parts: expected tuple"),
        (
            {"combine": "or", "parts": PARTS, "kind": "sound"},
            "combine: expected none on a decoy or an example",
        ),
        ({"combine": "or", "parts": PARTS, "decoy": True}, "combine: expected none on a decoy or an example"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(WatchlistError) as caught:
        Query("owl", "an owl", **values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("min_probability", 0.5),
        ("alarms_per_day", 2.0),
        ("confirm", (2, 3)),
        ("cooldown_s", 60.0),
        ("priority", "high"),
        ("active", "night"),
        ("group", "owls"),
    ],
)
def test_a_decoy_has_no_alarm_to_rule(key: str, value: Any) -> None:
    rule: dict[str, Any] = {key: value}
    with pytest.raises(WatchlistError, match=rf"^{key}: expected none on a decoy, found "):
        Query("wind", "wind", decoy=True, **rule)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": ""}, "text: expected non-empty text, found ''"),
        ({"text": "owl", "code": "00"}, "code: expected bytes, found '00'"),
        ({"text": "owl", "logits": [1.0]}, "logits: expected tuple"),
        ({"text": "owl", "logits": (float("nan"),)}, "logits: expected a number"),
    ],
)
def test_a_part_is_checked_like_a_query(values: dict[str, Any], message: str) -> None:
    with pytest.raises(WatchlistError) as caught:
        QueryPart(**values)
    assert message in str(caught.value)
