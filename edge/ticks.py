"""Ticks of a live source: moments in which nothing is heard, so that what must be done in time is still done."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")
_N_AHEAD = 2  # events read before they are asked for: the rest waits where it always did, in the source
_CLOSING_S = 1.0


@dataclass(frozen=True, slots=True)
class _Last:
    """Follows the last event; error: what ended the source before its time."""

    error: BaseException | None


def with_ticks(events: Iterator[_T], every_s: float = 1.0) -> Iterator[_T | None]:
    """Pass the events of a live source on, and None, a tick, whenever none came for every_s.

    events is read in a thread; what it raises is raised here. When this ends first, the thread closes events
    after the next one, or ends with the process where there is no next one (a silent pipe).
    """
    ahead: queue.Queue[_T | _Last] = queue.Queue(_N_AHEAD)
    is_closed = threading.Event()

    def put(item: _T | _Last) -> bool:
        while not is_closed.is_set():
            try:
                ahead.put(item, timeout=every_s)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        error = None
        try:
            for event in events:
                if not put(event):
                    break
            if isinstance(events, Generator):
                events.close()
        except BaseException as raised:  # for the thread that asks
            error = raised
        put(_Last(error))

    thread = threading.Thread(target=read, name="source of sound", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = ahead.get(timeout=every_s)
            except queue.Empty:
                yield None
                continue
            if isinstance(item, _Last):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        is_closed.set()
        thread.join(_CLOSING_S)
