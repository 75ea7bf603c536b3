"""When the hub is told how the recorder is: at each visit, or seldom over lines where each message is dear."""

from __future__ import annotations

from edge.config import Sync
from edge.observation import Instant
from edge.store_cursor import SyncCursor

_NS = 10**9


class Heartbeats:
    """Remembers when one hub was told. is_seldom: over this link each message is dear."""

    def __init__(self, cursor: SyncCursor, hub: str, settings: Sync) -> None:
        self._cursor, self._hub, self._link = cursor, hub, settings.link
        self._wait_ns = int(settings.heartbeat_s * _NS)
        self.is_seldom = settings.link != "lte"

    def is_due(self, now: Instant) -> bool:
        """Return whether the hub is to be told now."""
        if not self.is_seldom:
            return True
        last = self._cursor.running.heartbeat(self._hub, self._link)
        return last is None or last.passed_ns(self._cursor.running.moment(now)) >= self._wait_ns

    def told(self, now: Instant) -> None:
        """Remember that the hub was told now."""
        if self.is_seldom:
            self._cursor.running.keep_heartbeat(self._hub, self._link, self._cursor.running.moment(now))
