"""Publishing: every watchlist that is kept at the hub is compiled with its bundle, and the pair is signed for the recorders.

A thread looks for lists that have changed, whoever changed them, and signs again what grows old. What cannot be compiled is
told once in the log and leaves what was published before as it is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.encoder import compile_queries
from edge.errors import FieldcubeError
from hub.watchlist_explain import read_lines

if TYPE_CHECKING:
    from edge.bundle import Bundle
    from hub.publisher import Publisher
    from hub.store_registry import Registry
    from hub.store_registry_people import KeptWatchlist

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_RENEW_EVERY_S = 3600.0


class Publishing:
    """Publishes until close(). Use it as a context manager. clock: monotonic, s."""

    def __init__(
        self, registry: Registry, publisher: Publisher, bundle: Bundle, clock: Callable[[], float]
    ) -> None:
        self._registry, self._publisher, self._bundle, self._clock = registry, publisher, bundle, clock
        self._done: dict[str, int] = {}  # version by name, published or given up
        self._renewed_s: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publishing", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; a list that is being published is finished."""
        self._stopping.set()
        self._thread.join()

    def __enter__(self) -> Publishing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            try:
                self._look()
            except Exception as error:  # the thread must live on; the next look tries again
                log.warning("nothing is published now: %r", error)
            if self._stopping.wait(_LOOK_EVERY_S):
                return

    def _look(self) -> None:
        for kept in self._registry.people.watchlists():
            if self._done.get(kept.name) != kept.version:
                self._publish(kept)
                self._done[kept.name] = kept.version
        if self._renewed_s is None or self._clock() - self._renewed_s > _RENEW_EVERY_S:
            self._publisher.renew()
            self._renewed_s = self._clock()

    def _publish(self, kept: KeptWatchlist) -> None:
        try:
            watchlist = compile_queries(self._bundle, read_lines(kept.text))
            pair = self._publisher.publish(self._bundle, watchlist, kept.name, kept.version)
        except FieldcubeError as error:
            log.warning("watchlist %s, version %d, is not published: %s", kept.name, kept.version, error)
        else:
            log.info(
                "watchlist %s, version %d, is published as pair %d", kept.name, kept.version, pair.number
            )
