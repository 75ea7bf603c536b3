"""What a bundle makes of a watchlist that is being written at the hub: its lines read, compiled and explained, by sentences alone."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge.alarms import ALARMS_PER_DAY, Alarms
from edge.encoder import open_text_encoder
from edge.errors import WatchlistError
from edge.explain import Explanation, Ground, explain
from edge.explain_warnings import Known, known_of
from edge.query import Query
from edge.query_grammar import parse_lines
from edge.reference import Reference, load_reference
from edge.watchlist import Watchlist, compile_watchlist

if TYPE_CHECKING:
    from edge.bundle import AudioInput, Bundle
    from edge.encoder import Logits, TextEncoder

_FILE = Path("watchlist.txt")
_AT_LINE = re.compile(r"watchlist\.txt(?::(\d+))?: (.*)", re.DOTALL)
_EXAMPLE = re.compile(r"\s*(decoy\s*:\s*)?(sound|image)\s*:", re.IGNORECASE)
MAX_LINES = 500
MAX_REMEMBERED = 4096  # sentences whose logits are kept


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a list cannot be read. line: counted from 1, None where it is about the whole list."""

    line: int | None
    message: str


def read_lines(text: str) -> list[Query]:
    """Return the queries of a text. Raises WatchlistError; examples are refused: their files would be the hub's."""
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        raise WatchlistError(f"{_FILE}: expected at most {MAX_LINES} lines, found {len(lines)}")
    for number, line in enumerate(lines, start=1):
        if _EXAMPLE.match(line):
            raise WatchlistError(
                f"{_FILE}:{number}: expected a sentence, found an example file; "
                "lists of the hub are of sentences, lists with examples are compiled with edge-queries"
            )
    return parse_lines(text, _FILE)


def trouble_of(error: WatchlistError) -> Trouble:
    """Return the line that an error is about, and what it says."""
    found = _AT_LINE.fullmatch(str(error))
    if found is None:
        return Trouble(None, str(error))
    return Trouble(int(found.group(1)) if found.group(1) else None, found.group(2))


class Explainer:
    """Compiles and explains the lists of a hub; what is the same for all of them is opened once. Thread-safe."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._lock = threading.Lock()
        self._encoder: TextEncoder | None = None
        self._known: Known | None = None
        self._reference: Reference | None = None
        self._logits: dict[str, Logits] = {}

    def explained(self, text: str) -> list[Explanation]:
        """Return what is expected of the lines of a text. Raises WatchlistError, BundleError."""
        queries = read_lines(text)
        with self._lock:
            watchlist = self._compiled(queries)
            # what a line is worth does not hang on the time of the day at which it is asked for
            always = replace(
                watchlist, queries=tuple(replace(each, active=None) for each in watchlist.queries)
            )
            ground = None
            if self._reference is not None:
                alarms = Alarms(always, self._reference, self._half_window_s())
                ground = Ground(alarms, self._reference)
            return explain(watchlist, self._known, ground, ALARMS_PER_DAY)

    def compiled(self, text: str) -> Watchlist:
        """Return the lines of a text with their codes. Raises WatchlistError, BundleError."""
        queries = read_lines(text)
        with self._lock:
            return self._compiled(queries)

    def notes(self) -> list[str]:
        """Return what this bundle cannot tell, for people."""
        with self._lock:
            self._open()
            notes = []
            if self._reference is None:
                notes.append(
                    "The bundle has no reference codes, so there are no thresholds and no expected alarms."
                )
            if self._known is None:
                notes.append(
                    "The bundle does not list the sounds it was trained on, so unknown ones get no warning."
                )
            return notes

    def _compiled(self, queries: Sequence[Query]) -> Watchlist:
        self._open()
        manifest = self._bundle.manifest
        name = f"{manifest.name} {manifest.version}"
        return compile_watchlist(queries, self._encode, None, manifest.code_space, manifest.code_bits, name)

    def _open(self) -> None:
        if self._encoder is not None:
            return
        self._encoder = open_text_encoder(self._bundle)
        self._reference = load_reference(self._bundle)
        classes = self._bundle.manifest.provenance.get("classes")
        if isinstance(classes, (list, tuple)) and classes:
            texts = [str(each) for each in classes]
            self._known = known_of(texts, np.stack([self._encode(each) for each in texts]))

    def _encode(self, text: str) -> Logits:
        found = self._logits.get(text)
        if found is None:
            assert self._encoder is not None
            found = self._encoder.encode(text)
            if len(self._logits) >= MAX_REMEMBERED:
                self._logits.clear()
            self._logits[text] = found
        return found

    def _half_window_s(self) -> float:
        audio: AudioInput = self._bundle.encoder_entry("audio").input  # type: ignore[assignment]
        return audio.window_samples / audio.sample_rate_hz / 2
