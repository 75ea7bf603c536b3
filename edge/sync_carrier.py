"""Carrier: what takes signed envelopes to the hub and brings its answers; and what a refusal is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edge.batch import Purpose
from edge.errors import SyncError


class RefusedError(SyncError):
    """The hub answered, and did not take it. status: as of HTTP; retry_after_s: when it wants to be asked again."""

    def __init__(self, message: str, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. n_line_bytes: estimate of all that went over the line, both ways, for this request.

    is_full: the line takes no more for now, and the receipt says what of the batch went; is_health_told: how the recorder
    is went, where the batch says it.
    """

    content: bytes
    n_line_bytes: int
    is_full: bool = False
    is_health_told: bool = True


class Carrier(Protocol):
    """One way to a hub. Raises SyncError where nothing comes back, RefusedError where the hub says no."""

    def send(self, purpose: Purpose, body: bytes) -> Answer:
        """Deliver an envelope (edge.batch.encode_envelope) and return the hub's answer to it."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...
