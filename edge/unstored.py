"""A store that keeps nothing, for edge-monitor --no-store: it only numbers observations."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from edge.observation import Detection, Observation


class Unstored:
    """Stands where edge.store.ObservationStore would, and forgets. epoch: random 63 bits, None draws one."""

    def __init__(self, device_id: str | None = None, epoch: int | None = None) -> None:
        self.device_id = device_id or "recorder"
        self.epoch = secrets.randbits(63) if epoch is None else epoch
        self.next_seq = 0
        self.put_aside: tuple[Path, ...] = ()

    @property
    def committed_seq(self) -> int:
        """Return next_seq: there is nothing that could be lost."""
        return self.next_seq

    @property
    def failure(self) -> None:
        """Return None: forgetting never fails."""
        return None

    def add(self, observation: Observation, detections: Sequence[Detection] = ()) -> None:  # noqa: ARG002 - a store has it
        """Count an observation."""
        self.next_seq = observation.seq + 1

    def record_gap(
        self, source: str, first_sample: int, n_samples: int, reason: str, *, sample_rate_hz: int
    ) -> None:
        """Forget a gap."""

    def record_skipped(self, source: str, reason: str) -> None:
        """Forget a skipped source."""

    def commit_if_due(self) -> None:
        """Write nothing."""

    def __enter__(self) -> Unstored:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
