"""What edge-monitor says: JSON lines for programs, plain lines for pipes and logs. The live view is edge.monitor_view."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Protocol, TextIO

from edge.audio_events import Block, Gap, Skipped
from edge.observation import Detection, Observation, detection_record
from edge.pipeline_keeper import Listener, Totals
from edge.query import Query
from edge.watchlist import Watchlist


class Report(Listener, Protocol):
    """A listener of the pipeline that also tells how a run begins and ends."""

    def state(self, name: str, **details: Any) -> None:
        """Tell of another state: listening, looking, options_ignored, store_failing, store_recovered, store_begun_anew, alarms_limited."""

    def summary(self, totals: Totals, real_time_factor: float | None) -> None:
        """Tell what the run came to."""

    def close(self) -> None:
        """Give the terminal back."""


class JsonReport:
    """One JSON object a line, in UTF-8, each written out at once (DESIGN.md, "What a program may read")."""

    def __init__(self, out: TextIO, watchlist: Watchlist) -> None:
        self._out, self._asked = out, by_name(watchlist)

    def heard(self, block: Block) -> None:
        """Say nothing of sound alone."""

    def observed(self, observation: Observation, detections: Sequence[Detection]) -> None:
        """Write the detections."""
        for detection in detections:
            query = self._asked[detection.query]
            record = detection_record(observation, detection)
            self._write({**record, "priority": query.priority, "group": query.group})

    def lost(self, gap: Gap, sample_rate_hz: int) -> None:
        """Write a gap."""
        self._write(gap_record(gap, sample_rate_hz))

    def skipped(self, skipped: Skipped) -> None:
        """Write a skipped file."""
        self._write({"type": "skipped", "file": skipped.source, "reason": skipped.reason})

    def failing(self, reason: str) -> None:
        """Write the state of the store."""
        self.state("store_failing" if reason else "store_recovered", reason=reason or None)

    def state(self, name: str, **details: Any) -> None:
        """Write a state."""
        self._write({"type": "state", "state": name, **details})

    def summary(self, totals: Totals, real_time_factor: float | None) -> None:
        """Write the summary, the last line."""
        self._write(summary_record(totals, real_time_factor))

    def close(self) -> None:
        """Leave nothing in a buffer."""
        self._out.flush()

    def _write(self, record: dict[str, Any]) -> None:
        self._out.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._out.flush()


class PlainReport:
    """A line for each detection on out; what went wrong on errors."""

    def __init__(self, out: TextIO, watchlist: Watchlist, errors: TextIO = sys.stderr) -> None:
        self._out, self._asked, self._errors = out, by_name(watchlist), errors

    def heard(self, block: Block) -> None:
        """Say nothing of sound alone."""

    def observed(self, observation: Observation, detections: Sequence[Detection]) -> None:
        """Write a line for each detection."""
        for detection in detections:
            line = detection_line(observation, detection, self._asked[detection.query])
            print(line, file=self._out, flush=True)

    def lost(self, gap: Gap, sample_rate_hz: int) -> None:
        """Write a gap."""
        print(gap_line(gap, sample_rate_hz), file=self._errors)

    def skipped(self, skipped: Skipped) -> None:
        """Write a skipped file."""
        print(f"skipped: {skipped.source}: {skipped.reason}", file=self._errors)

    def failing(self, reason: str) -> None:
        """Write the state of the store."""
        print(f"warning: {reason}" if reason else "the store can be written again", file=self._errors)

    def state(self, name: str, **details: Any) -> None:
        """Write a state with its details."""
        shown = ", ".join(f"{key} {value}" for key, value in details.items() if value is not None)
        print(f"{name}: {shown}", file=self._errors)

    def summary(self, totals: Totals, real_time_factor: float | None) -> None:
        """Write the summary."""
        print(summary_line(totals, real_time_factor), file=self._out, flush=True)

    def close(self) -> None:
        """Leave nothing in a buffer."""
        self._out.flush()


def gap_record(gap: Gap, sample_rate_hz: int) -> dict[str, Any]:
    """Return a gap as a line of --json."""
    return {
        "type": "gap",
        "source": gap.source,
        "offset_s": gap.first_sample / sample_rate_hz,
        "duration_s": gap.n_samples / sample_rate_hz,
        "reason": gap.reason,
    }


def summary_record(totals: Totals, real_time_factor: float | None) -> dict[str, Any]:
    """Return the summary as a line of --json; real_time_factor is None where nothing was heard."""
    return {
        "type": "summary",
        "n_windows": totals.n_windows,
        "n_detections": totals.n_detections,
        "n_skipped": totals.n_skipped,
        "n_gaps": totals.n_gaps,
        "n_clips_lost": totals.n_clips_lost,
        "n_limited": totals.n_limited,
        "n_pictures": totals.n_pictures,
        "seconds_audio": round(totals.seconds_audio, 3),
        "real_time_factor": None if real_time_factor is None else round(real_time_factor, 6),
    }


def by_name(watchlist: Watchlist) -> dict[str, Query]:
    """Return the queries of a list, that say what a report adds to their detections: priority and group."""
    return {query.name: query for query in watchlist.queries}


def marked(query: Query) -> str:
    """Return the name of a query for people, with a `!` before it where its priority is high."""
    return f"! {query.name}" if query.priority == "high" else query.name


def detection_line(observation: Observation, detection: Detection, query: Query) -> str:
    """Return a detection of a query for people: when, where, what, how sure."""
    at = place(observation)
    when = observation.started_at or at or "-"
    sure = f"{100 * detection.probability:.0f} %, {detection.distance} bits"
    if detection.false_alarms_per_day is not None:
        sure += f", {false_alarms(detection.false_alarms_per_day)}"
    clip = f"  {detection.clip}" if detection.clip else ""
    group = f" [{query.group}]" if query.group else ""
    return f"{when}  {marked(query)}{group}  ({sure})  {observation.source}{at and ' at '}{at}{clip}"


def false_alarms(per_day: float) -> str:
    """Return how often the background alone comes as near, for people."""
    return f"{per_day:.2g} false a day" if per_day >= 0.01 else "< 0.01 false a day"


def gap_line(gap: Gap, sample_rate_hz: int) -> str:
    """Return a gap for people."""
    start_s, lost_s = gap.first_sample / sample_rate_hz, gap.n_samples / sample_rate_hz
    return f"gap: {gap.source} at {position(start_s)}: {lost_s:.2f} s missing: {gap.reason}"


def summary_line(totals: Totals, real_time_factor: float | None) -> str:
    """Return the summary for people."""
    speed = "" if not real_time_factor else f", {1 / real_time_factor:.0f} times real time"
    n_heard = totals.n_windows - totals.n_pictures
    parts = []
    if totals.seconds_audio or not totals.n_pictures:
        parts = [f"{totals.seconds_audio:.1f} s of sound{speed}", _count(n_heard, "window")]
    parts += [_count(totals.n_pictures, "picture")] if totals.n_pictures else []
    parts.append(_count(totals.n_detections, "detection"))
    parts += [_count(n, what) for n, what in ((totals.n_gaps, "gap"),) if n]
    parts += [f"{totals.n_skipped} skipped"] if totals.n_skipped else []
    parts += [f"{_count(totals.n_clips_lost, 'clip')} lost"] if totals.n_clips_lost else []
    parts += [f"{_count(totals.n_limited, 'alarm')} held back"] if totals.n_limited else []
    return ", ".join(parts)


def place(observation: Observation) -> str:
    """Return where an observation is in its source, "" for a picture, which is all of it."""
    return "" if observation.is_picture else position(observation.offset_s)


def position(seconds: float) -> str:
    """Return a position in a recording as h:mm:ss.s."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes // 60)}:{int(minutes % 60):02d}:{rest:04.1f}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
