"""The live view of edge-monitor: level meter, real-time factor, what the last windows or pictures were nearest to, detections."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge.audio_events import Block, Gap, Skipped
from edge.matcher import Matcher
from edge.monitor_reports import by_name, detection_line, gap_line, marked, place, summary_line
from edge.observation import Detection, Observation
from edge.pipeline_keeper import Totals
from edge.query import Priority
from edge.watchlist import Watchlist

_FLOOR_DBFS = -90.0  # of the meter: below it, 16-bit sound is silent
_LOUD_DBFS = -1.0  # peaks above it are clipped, or nearly
_METER_LETTERS = 40
_N_WINDOWS = 4
_N_NEAREST = 3
_REFRESH_S = 0.1  # a replay is far faster than any eye
_STYLES: dict[Priority, str] = {"high": "bold red", "normal": "bold green", "low": "green"}
_LASTING = ("listening", "looking")  # states that are shown until the next; the others are events


class LiveView:
    """A report that redraws a few lines in place and lets detections scroll by above them."""

    def __init__(
        self,
        matcher: Matcher,
        watchlist: Watchlist,
        totals: Totals,
        speed: Callable[[], float | None],
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._matcher, self._totals, self._speed, self._clock = matcher, totals, speed, clock
        self._asked = by_name(watchlist)
        self._recent: deque[Observation] = deque(maxlen=_N_WINDOWS)
        self._rms_dbfs = self._peak_dbfs = _FLOOR_DBFS
        self._source, self._state = "", "waiting for sound"
        self._drawn_s = -math.inf
        self._console = console or Console(highlight=False, markup=False)  # a source may be called "[1].wav"
        self._live = Live(
            get_renderable=self._view, console=self._console, auto_refresh=False, transient=True
        )
        self._live.start()

    def heard(self, block: Block) -> None:
        """Show the level of a block."""
        self._rms_dbfs, self._peak_dbfs = level_dbfs(block.samples)
        self._source = block.source
        self._draw()

    def observed(self, observation: Observation, detections: Sequence[Detection]) -> None:
        """Show what a window is nearest to; print detections."""
        self._recent.append(observation)
        for detection in detections:
            query = self._asked[detection.query]
            self._print(detection_line(observation, detection, query), _STYLES[query.priority])
        self._draw()

    def lost(self, gap: Gap, sample_rate_hz: int) -> None:
        """Print a gap."""
        self._print(gap_line(gap, sample_rate_hz), "yellow")

    def skipped(self, skipped: Skipped) -> None:
        """Print a skipped file."""
        self._print(f"skipped: {skipped.source}: {skipped.reason}", "yellow")

    def failing(self, reason: str) -> None:
        """Print the state of the store."""
        self._print(reason or "the store can be written again", "bold red" if reason else "green")

    def state(self, name: str, **details: Any) -> None:
        """Show a state that lasts; print one that only happened."""
        shown = ", ".join(f"{key} {value}" for key, value in details.items() if value is not None)
        if name in _LASTING:
            self._state = f"{name}: {shown}"
            self._draw()
        else:
            self._print(f"{name}: {shown}", "yellow")

    def summary(self, totals: Totals, real_time_factor: float | None) -> None:
        """Print the summary in place of the view."""
        self.close()
        self._print(summary_line(totals, real_time_factor), "bold")

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def _print(self, line: str, style: str) -> None:
        """Print a line above the view; styled text, because a style given to print() would colour the view too."""
        self._console.print(Text(line, style))

    def _draw(self) -> None:
        if self._clock() - self._drawn_s < _REFRESH_S:
            return
        self._drawn_s = self._clock()
        self._live.refresh()

    def _view(self) -> Group:
        """Return what is shown now; every line printed above it draws it again."""
        meter = [] if self._totals.n_pictures else [self._meter()]
        return Group(Text(self._state, "dim"), *meter, self._counts(), self._nearest())

    def _meter(self) -> Text:
        n_full = round(_METER_LETTERS * (1 - self._rms_dbfs / _FLOOR_DBFS))
        return Text.assemble(
            ("█" * n_full, "red" if self._peak_dbfs > _LOUD_DBFS else "green"),
            ("░" * (_METER_LETTERS - n_full), "dim"),
            f" {self._rms_dbfs:5.1f} dBFS, peak {self._peak_dbfs:5.1f}",
        )

    def _counts(self) -> Text:
        factor = self._speed()
        speed = "" if factor is None else f", real-time factor {factor:.4f}"
        n_windows, n_detections = self._totals.n_windows, self._totals.n_detections
        return Text(f"{n_windows} windows, {n_detections} detections{speed}  {self._source}")

    def _nearest(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for observation in self._recent:
            cells = [Text(place(observation) or observation.source, style="dim")]
            for near in self._matcher.nearest(observation, _N_NEAREST):
                style = "dim" if near.query.decoy else ""
                cells.append(Text(f"{marked(near.query)} {100 * near.probability:.0f} %", style=style))
            table.add_row(*cells)
        return table


def level_dbfs(samples: np.ndarray[Any, np.dtype[np.float32]]) -> tuple[float, float]:
    """Return (root mean square, peak) of samples float32 [n] in dB of full scale, -90 where it is silent."""
    if not samples.size:
        return _FLOOR_DBFS, _FLOOR_DBFS
    rms, peak = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))), float(np.abs(samples).max())
    return _dbfs(rms), _dbfs(peak)


def _dbfs(amplitude: float) -> float:
    if amplitude <= 0:
        return _FLOOR_DBFS
    return min(0.0, max(_FLOOR_DBFS, 20 * math.log10(amplitude)))
