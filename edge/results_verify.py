"""edge-results verify: walk through detections, or take answers from a script or a table, and keep the verdicts."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from edge import require
from edge.errors import AudioError, MissingDependencyError, UsageError
from edge.microphone_devices import load_portaudio
from edge.observation import Detection, Observation
from edge.results_answers import given_answers
from edge.results_listen import Evidence, evidence_of, play, save
from edge.results_text import plain
from edge.store_reader import Found, Period, StoreReader
from edge.store_schema import store_path
from edge.store_verdicts import VerdictStore, read_verdicts
from edge.utf8 import shown
from edge.verdict import ANSWERS, Answer, Identity, Verdict, identity_of, verdict_on

_EXAMPLE = """example:
  edge-results verify --query owl --n 40 --play
  edge-results verify --set 1024=right --set 1187=wrong
  edge-results > found.csv; edge-results verify --import found.csv    (after filling in its column verdict)

Each answer is kept at once, and one given again replaces the one before. Of each query, detections are taken evenly over
its probabilities, those without a verdict first, so that they stand for all of them. A note may follow an answer: w a truck."""
_KEYS: Mapping[str, Answer] = {answer[0]: answer for answer in ANSWERS}
_ASK = "right, wrong, unsure, skip, quit, play again [r/w/u/s/q/p]: "


def run(argv: Sequence[str]) -> None:
    """Run edge-results verify. Raises FieldcubeError."""
    args = _parse_arguments(argv)
    if args.query is not None:
        require.text(UsageError, "--query", args.query)
    require.integer(UsageError, "--n", args.n, 1, 1_000_000)
    is_told = bool(args.set or args.table)
    if is_told:
        _refuse_beside_told(args)
    period = Period.parse(args.since, args.until)
    _take_any_bytes(sys.stdin)
    with StoreReader.open(args.store) as reader, VerdictStore.open(args.store) as verdicts:
        if is_told:
            answers = given_answers(reader, args.set, args.table, args.query)
            now_ns = time.time_ns()
            verdicts.keep(verdict_on(*found, answer, now_ns, note) for found, answer, note in answers)
            print(f"edge-results: kept {len(answers)} verdicts in {verdicts.path}", file=sys.stderr)
            return
        known = read_verdicts(args.store)
        chosen = choose(reader, known, args.n, period, args.query, args.source)
        if not period.is_always and (n := reader.n_without_time()):
            print(f"edge-results: {n} observations of unknown time are in no period", file=sys.stderr)
        portaudio = load_portaudio("--play") if args.play else None
        walk = Walk(verdicts, known, reader.path, portaudio, args.save, sys.stdin, sys.stdout)
        n_kept = walk.through(chosen)
        print(f"edge-results: kept {n_kept} verdicts in {verdicts.path}", file=sys.stderr)


def _parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edge-results verify",
        description="Say of detections whether they are right.",
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
    add("--query", metavar="NAME", help="only this query, by its name or its text")
    add("--source", metavar="NAME", help="only this recording or microphone")
    add("--since", metavar="TIME", help="only from this time on, ISO 8601, UTC where no zone is given")
    add("--until", metavar="TIME", help="only before this time")
    add("--n", type=int, default=20, help="how many detections (default: 20)")
    hear = parser.add_mutually_exclusive_group()
    hear.add_argument("--play", action="store_true", help="play each, through the default loudspeaker")
    hear.add_argument("--save", type=Path, metavar="DIR", help="copy each to a folder, to hear it elsewhere")
    add(
        "--set", action="append", default=[], metavar="SEQ=VERDICT", help="keep this verdict, and ask nothing"
    )
    add(
        "--import",
        dest="table",
        type=Path,
        metavar="CSV",
        help="keep the verdicts of a table with the columns seq, verdict and, if it has them, query, note",
    )
    return parser.parse_args(argv)


def _refuse_beside_told(args: argparse.Namespace) -> None:
    """Refuse options that choose or play detections where --set and --import name them."""
    for name in ("source", "since", "until", "play", "save"):
        if getattr(args, name):
            raise UsageError(f"--{name}: expected none beside --set and --import, found one; remove it")


def _take_any_bytes(stream: TextIO) -> None:
    """Make bytes that are no UTF-8 part of an answer or note rather than its end."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="surrogateescape")


def choose(
    reader: StoreReader,
    known: Mapping[Identity, Verdict],
    n: int,
    period: Period,
    query: str | None = None,
    source: str | None = None,
) -> list[Found]:
    """Return n detections to be judged: the queries take turns, each spread over its probabilities, unjudged ones first."""
    by_query: dict[str, list[tuple[float, Identity]]] = {}
    for _, detection in reader.detections(period, query, source):
        by_query.setdefault(detection.query, []).append((detection.probability, identity_of(detection)))
    queues = []
    for name in sorted(by_query):
        ranked = sorted(by_query[name])
        order = [ranked[rank][1] for rank in spread(len(ranked))]
        queues.append(sorted(order, key=lambda identity: identity in known))  # stable: spread among each
    turns = [
        (identity in known, turn, name)
        for name, queue in enumerate(queues)
        for turn, identity in enumerate(queue)
    ]
    picked = [queues[name][turn] for _, turn, name in sorted(turns)[:n]]
    wanted = {identity: place for place, identity in enumerate(picked)}
    found: dict[int, Found] = {}
    for pair in reader.detections(period, query, source):  # again, rather than hold all of them
        if (place := wanted.get(identity_of(pair[1]))) is not None:
            found[place] = pair
    return [found[place] for place in sorted(found)]


def spread(n: int) -> Iterator[int]:
    """Yield 0 .. n-1 so that the first few are even over the whole range (van der Corput's sequence)."""
    n_bits, seen = max(n - 1, 0).bit_length(), set[int]()
    for i in range(1 << n_bits if n else 0):
        rank = int(f"{i:0{n_bits}b}"[::-1], 2) * n >> n_bits if n_bits else 0
        if rank not in seen:
            seen.add(rank)
            yield rank


class Walk:
    """Shows detections one by one, and keeps each answer before it asks for the next.

    portaudio: the module sounddevice to play each, None = only when asked; folder: where copies go, None = none.
    """

    def __init__(
        self,
        verdicts: VerdictStore,
        known: Mapping[Identity, Verdict],
        store: Path,
        portaudio: Any,
        folder: Path | None,
        answers: TextIO,
        out: TextIO,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._verdicts, self._known, self._store, self._now_ns = verdicts, known, store, now_ns
        self._portaudio, self._folder, self._answers, self._out = portaudio, folder, answers, out

    def through(self, chosen: Sequence[Found]) -> int:
        """Walk through the detections until the end, or until told to quit; return how many verdicts were kept."""
        if not chosen:
            self._say("no detections to verify")
        n_kept = 0
        for number, found in enumerate(chosen, start=1):
            self._say("")
            self._say(f"{number} of {len(chosen)}  {found[1].query}: {found[1].text}")
            self._show(*found)
            evidence = evidence_of(*found, self._store)
            self._offer(evidence, found[1])
            answered = self._ask(evidence)
            if answered is None:
                break
            answer, note = answered
            if answer is not None:
                self._verdicts.keep([verdict_on(*found, answer, self._now_ns(), note)])
                n_kept += 1
        return n_kept

    def _show(self, observation: Observation, detection: Detection) -> None:
        when = observation.started_at or "unknown time"
        self._say(f"  {when}  {observation.source} at {observation.offset_s:.1f} s")
        rate = detection.false_alarms_per_day
        expected = "" if rate is None else f", expected false alarms a day {rate:.3g}"
        self._say(f"  distance {detection.distance} bits, probability {detection.probability:.2f}{expected}")
        if (before := self._known.get(identity_of(detection))) is not None:
            self._say(f"  verdict so far: {before.answer} {before.note}".rstrip())

    def _offer(self, evidence: Evidence | None, detection: Detection) -> None:
        """Say where the sound is; play or copy it where that is wanted."""
        if evidence is None:
            self._say(f"  clip: {detection.clip or 'none was kept'}, not found here")
            return
        self._say(f"  clip: {evidence}")
        if self._folder is not None:
            try:
                self._say(f"  saved: {save(evidence, detection.seq, detection.query, self._folder)}")
            except AudioError as error:  # of this one; the next may be heard
                self._say(f"  {error}")
        if self._portaudio is not None:
            self._play(evidence)

    def _play(self, evidence: Evidence | None) -> None:
        try:
            if evidence is None:
                raise AudioError("no sound was kept of this one")
            self._portaudio = self._portaudio or load_portaudio("play")
            play(evidence, self._portaudio)
        except (AudioError, MissingDependencyError) as error:
            self._say(f"  {error}")

    def _ask(self, evidence: Evidence | None) -> tuple[Answer | None, str] | None:
        """Return an answer and its note, (None, "") to skip, None to quit, also at the end of the input."""
        while True:
            print(_ASK, end="", file=self._out, flush=True)
            line = self._answers.readline()
            if not line:
                self._say("")
                return None
            key, _, note = " ".join(line.split()).partition(" ")
            key = key.lower()
            if key in ("q", "quit"):
                return None
            if key in ("s", "skip"):
                return None, ""
            if key in ("p", "play"):
                self._play(evidence)
            elif key[:1] in _KEYS and key in (key[:1], _KEYS[key[:1]]):
                return _KEYS[key[:1]], plain(shown(note)).strip()

    def _say(self, text: str) -> None:
        """Write one line, whatever is stored in it."""
        print(plain(text), file=self._out)
