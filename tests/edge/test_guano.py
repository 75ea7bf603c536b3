"""GUANO text survives a round trip, and what is not GUANO is nothing."""

from __future__ import annotations

import pytest

from edge.guano import compose, parse


def test_fields_survive_a_round_trip() -> None:
    fields = {"Timestamp": "2026-05-04T03:02:01Z", "Fieldcube|query": "an owl: who?", "Note": "größe"}
    assert compose(fields).startswith("GUANO|Version: 1.0\n")
    assert parse(compose(fields)) == fields


def test_a_line_break_cannot_begin_another_field() -> None:
    assert parse(compose({"Note": "a\nTimestamp: 1"})) == {"Note": "a\\nTimestamp: 1"}


@pytest.mark.parametrize("text", ["", "a comment", "Timestamp: 2026-05-04T03:02:01Z", "\0\0"])
def test_other_text_is_nothing(text: str) -> None:
    assert parse(text) == {}


def test_padding_and_windows_line_ends_are_left_out() -> None:
    assert parse("GUANO|Version: 1.0\r\nMake:  Wildlife\r\nno colon\r\n\0") == {"Make": "Wildlife"}


def test_a_key_with_a_colon_is_refused() -> None:
    with pytest.raises(ValueError, match="found 'a:b'"):
        compose({"a:b": "c"})
