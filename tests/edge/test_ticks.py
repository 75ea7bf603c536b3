"""Ticks come while a source is silent; its events, its end and its errors come through unchanged."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from edge.errors import AudioError
from edge.ticks import with_ticks


def test_events_pass_in_order_and_end() -> None:
    assert list(with_ticks(iter(range(100)), 60)) == list(range(100))


def test_a_silent_source_gives_ticks() -> None:
    sound = threading.Event()

    def events() -> Iterator[int]:
        yield 1
        assert sound.wait(60)
        yield 2

    ticking = with_ticks(events(), 0.01)
    assert [next(ticking) for _ in range(4)] == [1, None, None, None]
    sound.set()
    assert [each for each in ticking if each is not None] == [2]


def test_an_error_of_the_source_is_raised() -> None:
    def events() -> Iterator[int]:
        yield 1
        raise AudioError("several devices fit")

    ticking = with_ticks(events(), 60)
    assert next(ticking) == 1
    with pytest.raises(AudioError, match="several devices fit"):
        next(ticking)


def test_the_source_is_closed_when_the_reader_ends_first() -> None:
    closed = threading.Event()

    def events() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    ticking = with_ticks(events(), 0.01)
    next(ticking)
    del ticking
    assert closed.wait(60)
