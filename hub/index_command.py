"""The arguments of edge-hub index, and what it says while it works: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from edge.bundle import default_bundle
from edge.errors import HubError, UsageError
from edge.utf8 import shown
from hub.index import FILE_TIMEOUT_S, Indexed, IndexJob, index
from hub.index_delivery import Deliver, FolderDelivery, UrlDelivery
from hub.index_encoding import Encoded
from hub.index_files import place_id
from hub.settings import Settings
from hub.store_index import Task, Totals

_LINE_EVERY_S = 30.0
_SPEED_OVER_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what edge-hub index takes."""
    add = parser.add_argument
    add("place", help="folder of recordings and pictures, or a URL of one (s3://bucket/prefix)")
    add("--bundle", type=Path, help="folder of the bundle that encodes (default: the one that comes along)")
    add("--name", default="", help="of the archive at the hub (default: made of its folder's name and place)")
    add("--hub", metavar="URL", help="of a hub that runs (default: into the files of one that does not)")
    add("--code", help="enrolment code, for --hub")
    add(
        "--archive",
        metavar="PLACE",
        default="",
        help="of the hub's codes (default: sqlite:FOLDER/archive.sqlite)",
    )
    add("--workers", type=int, default=0, help="processes that encode (default: one for each CPU)")
    add("--ray", metavar="ADDRESS", default="", help="encode on a Ray cluster instead, such as 10.0.0.5:6379")
    add("--hop", type=float, metavar="S", help="from one window to the next, s (default: half a window)")
    add("--runtime", choices=("auto", "onnx", "tflite"), default="auto", help="what runs the encoders")
    add(
        "--file-timeout", type=float, metavar="S", default=FILE_TIMEOUT_S, help="for one file (default: 3600)"
    )
    add("--retry", action="store_true", help="try files again that gave nothing")
    add("--json", action="store_true", help="one object a line: each file with a problem, then a summary")


def run_index(args: argparse.Namespace, settings: Settings, out: TextIO | None = None) -> int:
    """Index an archive as the arguments say; return 0, 1 where no file of it could be encoded. Raises FieldcubeError."""
    if args.workers < 0 or args.file_timeout <= 0:
        raise UsageError("--workers, --file-timeout: expected more than 0")
    job = IndexJob(
        args.place,
        args.bundle or default_bundle(),
        args.name,
        args.runtime,
        args.hop,
        args.workers,
        args.ray,
        args.retry,
        args.file_timeout,
    )
    settings.folder.mkdir(parents=True, exist_ok=True)
    progress_of = f"-{place_id(args.hub)}" if args.hub else ""  # what one hub has says nothing of another
    with ExitStack() as opened:
        deliver: Deliver
        if args.hub:
            deliver = opened.enter_context(UrlDelivery(args.hub, settings.folder / "index.key", args.code))
        else:
            deliver = opened.enter_context(FolderDelivery(settings, args.archive))
        progress: Bar | Lines = Bar(sys.stderr) if sys.stderr.isatty() else Lines(sys.stderr)
        opened.enter_context(progress)
        try:
            done = index(job, settings.folder / f"index{progress_of}.sqlite", deliver, progress)
        except KeyboardInterrupt:
            raise HubError("stopped; what was encoded is kept: run the same command again to go on") from None
    _tell(done, out or sys.stdout, as_json=args.json)
    return int(done.totals.n_files > 0 and done.totals.n_observations == 0)


class Speed:
    """Hours of sound in a second, over the last minute. clock: monotonic, s."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: deque[tuple[float, float]] = deque([(clock(), 0.0)])
        self._total_s = 0.0

    def add(self, seconds_audio: float) -> None:
        """Count sound that was encoded."""
        self._total_s += seconds_audio
        self._heard.append((self._clock(), self._total_s))
        while len(self._heard) > 2 and self._heard[-1][0] - self._heard[0][0] > _SPEED_OVER_S:
            self._heard.popleft()

    def hours_per_s(self) -> float:
        """Return the speed, 0 before anything was heard."""
        (began_s, before), (ended_s, after) = self._heard[0], self._heard[-1]
        return (after - before) / 3600 / (ended_s - began_s) if ended_s > began_s else 0.0


class Bar:
    """A progress bar by bytes, for a terminal."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._speed = stream, Speed(clock)
        self._bar: tqdm[Any] | None = None
        self._n_files = self._n_problems = 0
        self._hours = 0.0

    def begun(self, totals: Totals, n_workers: int) -> None:
        """Show the bar from where the last run had come to."""
        self._n_files, self._n_problems = totals.n_done, totals.n_problems
        self._hours = totals.seconds_audio / 3600
        self._bar = tqdm(
            total=totals.n_bytes,
            initial=totals.n_bytes_done,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            desc=f"{n_workers} workers",
            file=self._stream,
            dynamic_ncols=True,
        )

    def encoded(self, task: Task, encoded: Encoded) -> None:
        """Move on by a file."""
        assert self._bar is not None  # begun() comes first
        self._n_files += 1
        self._n_problems += bool(encoded.problem)
        self._hours += encoded.seconds_audio / 3600
        self._speed.add(encoded.seconds_audio)
        self._bar.set_postfix_str(
            f"{self._n_files} files, {self._n_problems} problems, {self._hours:.1f} h of sound, "
            f"{self._speed.hours_per_s():.3g} h/s",
            refresh=False,
        )
        self._bar.update(task.size_bytes)

    def waited(self) -> None:
        """Show that time passes."""
        assert self._bar is not None  # begun() comes first
        self._bar.refresh()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


class Lines:
    """A line every 30 s, for a log."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock, self._speed = stream, clock, Speed(clock)
        self._told_s = clock()
        self._n_files = self._n_done = 0
        self._hours = 0.0
        self._last = ""

    def begun(self, totals: Totals, n_workers: int) -> None:
        """Say how much there is."""
        self._n_files, self._n_done, self._hours = totals.n_files, totals.n_done, totals.seconds_audio / 3600
        left = totals.n_files - totals.n_done
        print(
            f"{totals.n_files} files, {left} to encode with {n_workers} workers",
            file=self._stream,
            flush=True,
        )

    def encoded(self, task: Task, encoded: Encoded) -> None:
        """Count a file."""
        self._n_done += 1
        self._last = task.name
        self._hours += encoded.seconds_audio / 3600
        self._speed.add(encoded.seconds_audio)
        self.waited()

    def waited(self) -> None:
        """Say how far it is, where it is time."""
        if self._clock() - self._told_s < _LINE_EVERY_S:
            return
        self._told_s = self._clock()
        print(
            f"{self._n_done} of {self._n_files} files, {self._hours:.1f} h of sound, {self._speed.hours_per_s():.3g} h/s; {self._last}",
            file=self._stream,
            flush=True,
        )

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return


def _tell(done: Indexed, out: TextIO, *, as_json: bool) -> None:
    """Say which files had problems, and what it came to."""
    lines: list[dict[str, Any]] = [
        {"type": "problem", "source": each.name, "reason": each.reason, "n_observations": each.n_observations}
        for each in done.problems
    ]
    lines += [
        {"type": "problem", "source": each.name, "reason": each.reason, "n_observations": 0}
        for each in done.unlisted
    ]
    totals = done.totals
    summary = {
        "type": "summary",
        "device": done.device_id,
        "epoch": done.epoch,
        "n_files": totals.n_files,
        "n_new": done.n_new,
        "n_problems": len(lines),
        "n_observations": totals.n_observations,
        "seconds_audio": round(totals.seconds_audio, 3),
    }
    if as_json:
        for each in (*lines, summary):
            print(json.dumps(each, ensure_ascii=False), file=out)
    else:
        for each in lines:
            print(
                f"{shown(each['source'])}: {each['reason']} ({each['n_observations']} observations)", file=out
            )
        print(
            f"{done.device_id}: {totals.n_files} files, {done.n_new} of them new, {totals.seconds_audio / 3600:.2f} h of sound, "
            f"{totals.n_observations} observations, {len(lines)} problems",
            file=out,
        )
    out.flush()
