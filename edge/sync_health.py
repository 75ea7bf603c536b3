"""How the recorder is, in a few plain values that travel with each visit to the hub."""

from __future__ import annotations

import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edge
from edge.config import Link
from edge.observation import Instant
from edge.store_blocks import UNKNOWN_WALL_NS
from edge.store_runs import StoreRuns

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NS = 10**9
_DAY_S = 86_400
_MAX_WALKED = 100_000  # observations of the last two days: 1.7 s apart, closer ones are told of in part
_SYSTEM = Path("/sys/class")


def health(store: StoreRuns, now: Instant, now_ns: int, link: Link, system: Path = _SYSTEM) -> dict[str, Any]:
    """Return what the hub is told. now: by both clocks; now_ns: the wall clock, right or not, which orders them.

    at_ns, uptime_s, clock, version; n_observations, n_detections, n_events: made in this epoch; last_code_ns: UTC of the
    newest observation; coverage: share of the last 24 h that was listened to, 0..1; disk_free_bytes beside the store;
    temperature_c, battery_percent where the board tells. Over a satellite also `listened_s <day>`: seconds in each hour,
    UTC, of yesterday and today.
    """
    made = store.made()
    told: dict[str, Any] = {
        "at_ns": now_ns,
        "uptime_s": now.boottime_ns // _NS,
        "clock": now.clock_state,
        "version": edge.__version__,
        "n_observations": made[0],
        "n_detections": made[1],
        "n_events": made[2],
        "disk_free_bytes": shutil.disk_usage(store.path.parent).free,
    }
    of_board = {"temperature_c": _temperature_c(system), "battery_percent": _battery_percent(system)}
    told |= {name: value for name, value in of_board.items() if value is not None}
    spans = _heard(store, made[0])
    if len(spans):
        told["last_code_ns"] = int(spans[-1, 0])
        spans = _without_overlaps(spans)
        if now.wall_ns is not None:
            day = _clipped(spans, now_ns - _DAY_S * _NS, now_ns)
            told["coverage"] = round(float((day[:, 1] - day[:, 0]).sum()) / (_DAY_S * _NS), 4)
            if link == "satellite":
                told |= _by_hour(spans, now_ns)
    return told


def _heard(store: StoreRuns, n_made: int) -> NDArray[np.int64]:
    """Return [n, 2] start and end of the windows of late, UTC in ns, in the order of their starts."""
    first = max(0, n_made - _MAX_WALKED)
    found = [np.zeros((0, 2), np.int64)]
    for run in store.runs(first, n_made - first):
        columns = run.columns
        known = columns.wall_ns != UNKNOWN_WALL_NS
        starts = columns.wall_ns[known]
        lengths = columns.n_samples[known] / columns.sample_rate_hz[known] * _NS
        found.append(np.stack([starts, starts + lengths.astype(np.int64)], axis=1))
    spans = np.concatenate(found)
    return spans[np.argsort(spans[:, 0], kind="stable")]


def _without_overlaps(spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return spans that begin where those before have ended: none of negative length."""
    cut = spans.copy()
    ends = np.maximum.accumulate(spans[:, 1])
    cut[1:, 0] = np.maximum(spans[1:, 0], np.minimum(ends[:-1], spans[1:, 1]))
    return cut


def _clipped(spans: NDArray[np.int64], since_ns: int, until_ns: int) -> NDArray[np.int64]:
    return np.clip(spans, since_ns, until_ns)


def _by_hour(spans: NDArray[np.int64], now_ns: int) -> dict[str, str]:
    told = {}
    today = now_ns // (_DAY_S * _NS)
    for day in (today - 1, today):
        hours = []
        for hour in range(24):
            since_ns = (day * 24 + hour) * 3600 * _NS
            part = _clipped(spans, since_ns, since_ns + 3600 * _NS)
            hours.append(round(float((part[:, 1] - part[:, 0]).sum()) / _NS))
        if any(hours):
            name = f"{datetime.fromtimestamp(day * _DAY_S, timezone.utc):%Y-%m-%d}"
            told[f"listened_s {name}"] = ",".join(str(hour) for hour in hours)
    return told


def _temperature_c(system: Path) -> float | None:
    """Return the hottest thermal zone, degrees Celsius."""
    found = [_number(path) for path in system.glob("thermal/thermal_zone*/temp")]
    known = [value / 1000 for value in found if value is not None]
    return round(max(known), 1) if known else None


def _battery_percent(system: Path) -> float | None:
    found = [_number(path) for path in sorted(system.glob("power_supply/*/capacity"))]
    return next((value for value in found if value is not None), None)


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
