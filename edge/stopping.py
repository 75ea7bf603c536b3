"""Ending on Ctrl-C and SIGTERM between two events, so that nothing is left half done."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

_T = TypeVar("_T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Ends a stream of events on the first signal; a second one interrupts at once.

    A signal that comes while a source is waited for interrupts the waiting; one that comes while an event is
    worked on lets that finish.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._is_waiting = False

    @contextmanager
    def on_signals(self) -> Iterator[Stop]:
        """Take SIGINT and SIGTERM inside a with block; only in the main thread."""
        before = [(number, signal.signal(number, self.ask)) for number in _SIGNALS]
        try:
            yield self
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    def ask(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Ask for the end, as a signal does. Raises KeyboardInterrupt where that is safe or asked for twice."""
        again, self.is_asked = self.is_asked, True
        if self._is_waiting or again:
            self._is_waiting = False  # once: what is interrupted may clean up
            raise KeyboardInterrupt

    def until_asked(self, events: Iterable[_T]) -> Iterator[_T]:
        """Pass events on until the end is asked for."""
        iterator = iter(events)
        while True:
            try:
                self._is_waiting = True  # before the question: a signal after it interrupts next()
                if self.is_asked:
                    return
                event = next(iterator)
            except (StopIteration, KeyboardInterrupt):
                return
            finally:
                self._is_waiting = False
            yield event
