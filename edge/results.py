"""edge-results: give a store's detections to other programs, as CSV, JSON, Raven tables or Audacity labels; verify them."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from edge import require, results_precision, results_verify
from edge.durable import write_file
from edge.errors import FieldcubeError, UsageError
from edge.observation import Observation, detection_record
from edge.store_reader import Found, Period, StoreReader
from edge.store_schema import store_path
from edge.store_verdicts import read_verdicts
from edge.utf8 import print_utf8
from edge.verdict import Identity, Verdict, identity_of

Format = Callable[[Iterable[Found]], Iterator[str]]

_CSV_COLUMNS = (
    *("query", "text", "source", "offset_s", "duration_s", "started_at", "distance", "probability"),
    *("false_alarms_per_day", "clip", "seq", "verdict", "note"),
)
_RAVEN_COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Begin Path", "File Offset (s)", "Query", "Probability", "Distance"),
)
_EXAMPLE = """example:
  edge-results --store fieldcube.sqlite --format csv --query owl > owl.csv
  edge-results --format raven --output tables/       (one selection table for each recording)

also:
  edge-results verify --help       say of detections whether they are right
  edge-results precision --help    how often each query is right, by what was said"""
_COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "verify": results_verify.run,
    "precision": results_precision.run,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run edge-results; return 0, 1 when it failed, 2 for bad usage."""
    print_utf8(sys.stdout)
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        if given and given[0] in _COMMANDS:
            _COMMANDS[given[0]](given[1:])
        else:
            _run(_parse_arguments(given))
        sys.stdout.flush()
    except FieldcubeError as error:
        print(f"edge-results: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, for example head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("edge-results: stopped", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> None:
    if args.query is not None:
        require.text(UsageError, "--query", args.query)
    period = Period.parse(args.since, args.until)
    with StoreReader.open(args.store) as reader:
        found = reader.detections(period, args.query, args.source)
        if args.format == "csv":
            _write_whole(csv_lines(found, read_verdicts(args.store)), args.output)
        elif args.format == "json":
            _write_whole(json_lines(found), args.output)
        else:
            _export_by_source(found, args.format, args.output)
        if not period.is_always and (n := reader.n_without_time()):
            print(f"edge-results: {n} observations of unknown time are in no period", file=sys.stderr)


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edge-results",
        description="Export the detections of a store.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--store",
        type=store_path,
        metavar="PATH",
        help="file, or folder of observations.sqlite (./fieldcube.sqlite)",
    )
    add("--format", choices=("csv", "raven", "audacity", "json"), default="csv", help="(default: csv)")
    add("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    add(
        "--output",
        type=Path,
        metavar="PATH",
        help="file; a folder for raven and audacity (default: standard output)",
    )
    add("--query", metavar="NAME", help="only this query, by its name or its text")
    add("--source", metavar="NAME", help="only this recording or microphone")
    add("--since", metavar="TIME", help="only from this time on, ISO 8601, UTC where no zone is given")
    add("--until", metavar="TIME", help="only before this time")
    return parser.parse_args(argv)


def csv_lines(found: Iterable[Found], verdicts: Mapping[Identity, Verdict]) -> Iterator[str]:
    """Give CSV (RFC 4180, UTF-8, point as decimal mark), the header first; verdict is empty where nobody gave one."""
    line = io.StringIO()
    writer = csv.DictWriter(line, _CSV_COLUMNS, extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    for observation, detection in found:
        row = {**detection_record(observation, detection), "seq": detection.seq}
        if (verdict := verdicts.get(identity_of(detection))) is not None:
            row |= {"verdict": verdict.answer, "note": verdict.note}
        writer.writerow(row)
        yield line.getvalue()
        line.seek(0)
        line.truncate()
    yield line.getvalue()


def json_lines(found: Iterable[Found]) -> Iterator[str]:
    """Give one JSON object a line, the same as edge-monitor --json."""
    for pair in found:
        yield json.dumps(detection_record(*pair), ensure_ascii=False) + "\n"


def raven_lines(found: Iterable[Found]) -> Iterator[str]:
    """Give a Raven 1.x selection table of one recording: tab-separated, times from the recording's start.

    A detection says nothing about frequency: a selection spans all that the encoder heard, 0 Hz to half its rate.
    """
    yield "\t".join(_RAVEN_COLUMNS) + "\n"
    for number, (observation, detection) in enumerate(found, start=1):
        start, end = _span(observation)
        where = (number, "Spectrogram 1", 1, start, end, "0.0", observation.sample_rate_hz / 2)
        what = (detection.query, f"{detection.probability:.4f}", detection.distance)
        fields = (*where, observation.source, start, *what)
        yield "\t".join(_one_line(str(field)) for field in fields) + "\n"


def audacity_lines(found: Iterable[Found]) -> Iterator[str]:
    """Give an Audacity label track of one recording: start, end, label."""
    for observation, detection in found:
        label = f"{_one_line(detection.query)} {detection.probability:.2f}"
        yield "\t".join((*_span(observation), label)) + "\n"


_PER_SOURCE: dict[str, tuple[Format, str]] = {
    "raven": (raven_lines, ".Table.1.selections.txt"),  # the name that Raven itself gives
    "audacity": (audacity_lines, ".labels.txt"),
}


def _write_whole(lines: Iterable[str], output: Path | None) -> None:
    """Write to output, or to standard output where None."""
    if output is None:
        sys.stdout.writelines(lines)
    else:
        _write(output, lines)


def _export_by_source(found: Iterable[Found], form: str, output: Path | None) -> None:
    """Write a file for each recording to the folder output, or one to standard output where None."""
    make, ending = _PER_SOURCE[form]
    by_source: dict[str, list[Found]] = {}
    n_pictures = 0
    for pair in found:
        if pair[0].is_picture:
            n_pictures += 1
        else:
            by_source.setdefault(pair[0].source, []).append(pair)
    if n_pictures:
        print(f"edge-results: {n_pictures} detections in pictures are not for {form}", file=sys.stderr)
    if output is None:
        if len(by_source) > 1:
            raise UsageError(
                f"--format {form}: expected one recording on standard output, found {len(by_source)}; "
                "give --output FOLDER, or --source NAME"
            )
        sys.stdout.writelines(make(next(iter(by_source.values()), [])))
        return
    for source, name in _file_names(by_source).items():
        _write(output / (name + ending), make(sorted(by_source[source], key=lambda pair: pair[0].offset_s)))
    print(f"edge-results: wrote {len(by_source)} files to {output}", file=sys.stderr)


def _file_names(sources: Iterable[str]) -> dict[str, str]:
    """Return a plain file name for each source, numbered where two would be the same."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for source in sources:
        stem = re.sub(r"[^\w.-]+", "_", Path(source).stem).lstrip(".") or "source"
        name, n = stem, 1
        while name.lower() in taken:
            n += 1
            name = f"{stem}-{n}"
        taken.add(name.lower())
        names[source] = name
    return names


def _write(path: Path, lines: Iterable[str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, "".join(lines).encode("utf-8"))
    except OSError as error:
        found = error.strerror or error
        raise UsageError(
            f"{path}: expected a place that can be written, found {found}; give --output"
        ) from error


def _span(observation: Observation) -> tuple[str, str]:
    """Return start and end in its source, in seconds."""
    start = observation.offset_s
    return f"{start:.6f}", f"{start + observation.duration_s:.6f}"


def _one_line(text: str) -> str:
    """Return text without what would break a tab-separated line."""
    return re.sub(r"[\t\r\n]+", " ", text)


if __name__ == "__main__":
    sys.exit(main())
