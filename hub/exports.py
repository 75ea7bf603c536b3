"""Exports: detections as rows that other programs read: CSV, Parquet, selection tables of Raven, label tracks of Audacity."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from edge.errors import MissingDependencyError
from edge.verdict import Verdict
from hub.answers import iso_ns
from hub.store_registry_devices import Device
from hub.store_registry_views import Judged

COLUMNS = (
    *("recorder", "title", "latitude", "longitude", "query", "text", "started_at", "source", "offset_s", "duration_s"),
    *("distance", "probability", "false_alarms_per_day", "verdict", "note", "observation", "uid", "code_space"),
)  # fmt: skip
_RAVEN_COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Begin Path", "File Offset (s)", "Query", "Probability", "Distance", "Verdict"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run instead of show
_PARQUET_ROWS = 50_000  # of one group


@dataclass(frozen=True, slots=True)
class Row:
    """A detection with its recorder and what was said of it. file: of its clip in the hub's folder, None where it is not here."""

    device: Device
    judged: Judged
    file: str | None

    @property
    def observation(self) -> str:
        """Return the identity of its observation as text: no program rounds it."""
        found = self.judged.detection
        return f"{self.device.name}/{found.epoch}/{found.seq}"

    @property
    def started_ns(self) -> int | None:
        """Return UTC of its first sample in ns since 1970, None where it is not known."""
        return self.judged.detection.wall_ns

    @property
    def offset_s(self) -> float | None:
        """Return where it starts in its source, None until its observation has come."""
        found = self.judged.detection
        known = found.first_sample is not None and found.sample_rate_hz is not None
        return found.first_sample / found.sample_rate_hz if known else None  # type: ignore[operator]

    @property
    def duration_s(self) -> float | None:
        """Return how long it lasts, 0 for a picture, None until its observation has come."""
        found = self.judged.detection
        known = found.n_samples is not None and found.sample_rate_hz is not None
        return found.n_samples / found.sample_rate_hz if known else None  # type: ignore[operator]

    @property
    def verdict(self) -> Verdict | None:
        """Return what was said of it."""
        return self.judged.verdict

    def values(self) -> dict[str, Any]:
        """Return its values by COLUMNS; started_at in ns."""
        found, device, verdict = self.judged.detection, self.device, self.judged.verdict
        return {
            "recorder": device.name,
            "title": device.title or None,
            "latitude": device.latitude,
            "longitude": device.longitude,
            "query": found.query,
            "text": found.text,
            "started_at": found.wall_ns,
            "source": found.source,
            "offset_s": self.offset_s,
            "duration_s": self.duration_s,
            "distance": found.distance,
            "probability": found.probability,
            "false_alarms_per_day": found.false_alarms_per_day,
            "verdict": None if verdict is None else verdict.answer,
            "note": None if verdict is None else verdict.note or None,
            "observation": self.observation,
            "uid": found.uid,
            "code_space": found.code_space,
        }


def csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Give CSV (RFC 4180, UTF-8, point as decimal mark, empty = not known), the header first."""
    yield from table_lines(COLUMNS, ({**row.values(), "started_at": iso_ns(row.started_ns)} for row in rows))


def table_lines(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Give a table of any columns as CSV; a text that a spreadsheet would run is led in by an apostrophe."""
    line = io.StringIO()
    writer = csv.DictWriter(line, columns, lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _shown(value) for name, value in row.items()})
        yield line.getvalue()
        line.seek(0)
        line.truncate()
    yield line.getvalue()


def _shown(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def write_parquet(rows: Iterable[Row], path: Path) -> None:
    """Write Parquet: times as timestamps in UTC, absent values as nulls. Raises MissingDependencyError, OSError."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet: expected the package pyarrow, found none; run: pip install 'fieldcube[hub]'"
        ) from error
    text, number, whole = pa.string(), pa.float64(), pa.int64()
    kinds = {
        "latitude": number,
        "longitude": number,
        "started_at": pa.timestamp("ns", "UTC"),
        "offset_s": number,
    }
    kinds |= {
        "duration_s": number,
        "distance": pa.int16(),
        "probability": number,
        "false_alarms_per_day": number,
    }
    kinds |= {
        "query": pa.dictionary(pa.int32(), text),
        "recorder": pa.dictionary(pa.int32(), text),
        "uid": whole,
    }
    schema = pa.schema([(name, kinds.get(name, text)) for name in COLUMNS])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        group: list[dict[str, Any]] = []
        for row in rows:
            group.append(row.values())
            if len(group) == _PARQUET_ROWS:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))


def raven_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Give a Raven 1.x selection table of one recording: tab-separated, times from the recording's start.

    A detection says nothing about frequency: a selection spans all that there is, 0 Hz to half the recording's rate.
    """
    yield "\t".join(_RAVEN_COLUMNS) + "\n"
    for number, row in enumerate(rows, start=1):
        found = row.judged.detection
        start, end = _span(row)
        said = "" if row.verdict is None else row.verdict.answer
        where = (number, "Spectrogram 1", 1, start, end, "0.0", (found.sample_rate_hz or 0) / 2)
        what = (found.query, f"{found.probability:.4f}", found.distance, said)
        fields = (*where, found.source, start, *what)
        yield "\t".join(_one_line(str(field)) for field in fields) + "\n"


def audacity_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Give an Audacity label track of one recording: start, end, label."""
    for row in rows:
        found = row.judged.detection
        yield "\t".join((*_span(row), f"{_one_line(found.query)} {found.probability:.2f}")) + "\n"


def write_raven(rows: Iterable[Row], file: IO[bytes]) -> None:
    """Write a zip with a selection table for each recording of each recorder."""
    _write_by_source(rows, file, raven_lines, ".Table.1.selections.txt")  # the name that Raven itself gives


def write_audacity(rows: Iterable[Row], file: IO[bytes]) -> None:
    """Write a zip with a label track for each recording of each recorder."""
    _write_by_source(rows, file, audacity_lines, ".labels.txt")


def _write_by_source(
    rows: Iterable[Row], file: IO[bytes], lines: Callable[[Sequence[Row]], Iterator[str]], ending: str
) -> None:
    by_source: dict[tuple[str, int, str], list[Row]] = {}
    n_left_out = 0
    for row in rows:
        source = row.judged.detection.source
        if source is None or not row.duration_s:  # its observation has not come, or it is a picture
            n_left_out += 1
            continue
        by_source.setdefault((row.device.name, row.judged.detection.epoch, source), []).append(row)
    taken: set[str] = set()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for (device, _, source), found in sorted(by_source.items()):
            name = _new_name(f"{_plain(device)}/{_plain(PurePosixPath(source).stem)}", taken)
            found.sort(key=lambda row: row.offset_s or 0.0)
            archive.writestr(name + ending, "".join(lines(found)))
        if n_left_out:
            text = f"{n_left_out} detections are not here: they are pictures, or their observations have not come yet.\n"
            archive.writestr("left-out.txt", text)


def _new_name(name: str, taken: set[str]) -> str:
    """Return a name that nothing has yet, numbered where it must be."""
    found, n = name, 1
    while found.lower() in taken:
        n += 1
        found = f"{name}-{n}"
    taken.add(found.lower())
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).lstrip(".")[:100] or "source"


def _span(row: Row) -> tuple[str, str]:
    start = row.offset_s or 0.0
    return f"{start:.6f}", f"{start + (row.duration_s or 0.0):.6f}"


def _one_line(text: str) -> str:
    """Return text without what would break a tab-separated line."""
    return re.sub(r"[\t\r\n]+", " ", text)
