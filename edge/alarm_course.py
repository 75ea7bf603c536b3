"""How the windows that alarms are decided on follow each other: whether sound is missing between two, and how much time passed."""

from __future__ import annotations

from dataclasses import dataclass

from edge.observation import Instant, Observation

CLOCK_STEP_S = (
    120.0  # a wall clock that goes back by no more was put right; by more, an earlier recording is heard
)


@dataclass(frozen=True, slots=True)
class Step:
    """From one window to the next. is_continued: one recording, no sound is missing between them.

    passed_s: from the start of one to that of the other, a hop where no clock tells; below 0: the other was made before the one.
    """

    is_continued: bool
    passed_s: float


class Course:
    """Follows the windows of a recorder. hop_s: what passes between two where nothing else is known."""

    def __init__(self, hop_s: float) -> None:
        self._hop_s = hop_s
        self._last: Observation | None = None
        self.instant: Instant | None = None  # of the last window, also of a run before

    def step(self, observation: Observation) -> Step:
        """Take the next window."""
        last, before = self._last, self.instant
        self._last, self.instant = observation, observation.instant
        if last is not None and _is_same_stream(last, observation):
            n_samples = observation.first_sample - last.first_sample
            longest = max(last.n_samples, round(self._hop_s * last.sample_rate_hz))
            passed_s = n_samples / last.sample_rate_hz if n_samples else self._hop_s
            return Step(n_samples <= longest, passed_s)
        passed_s = self._hop_s if before is None else between_s(before, observation.instant, self._hop_s)
        return Step(False, passed_s)


def between_s(before: Instant, after: Instant, unknown_s: float) -> float:
    """Return the seconds between two windows by the wall clock, else by the clock of one boot, else unknown_s."""
    if before.wall_ns is not None and after.wall_ns is not None:
        passed_s = (after.wall_ns - before.wall_ns) / 1e9
        return unknown_s if -CLOCK_STEP_S <= passed_s < 0 else passed_s
    if before.boot_id and before.boot_id == after.boot_id and after.boottime_ns > before.boottime_ns:
        return (after.boottime_ns - before.boottime_ns) / 1e9
    return unknown_s


def _is_same_stream(before: Observation, after: Observation) -> bool:
    """Return whether one counter counts the samples of both."""
    return (
        before.source == after.source
        and before.instant.boot_id == after.instant.boot_id
        and before.sample_rate_hz == after.sample_rate_hz
        and before.first_sample <= after.first_sample
    )
