"""Epochs of a store that an older copy of its card continues: what was recorded since the copy goes by an epoch of its own.

Kept as the numbers where each part begins, in `<stem>-epochs.json` beside the store. The epoch of a part is made of them and
of its first observation, so that a lost file gives the same epoch again, and a part that is not of this store is passed over.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields, replace
from pathlib import Path

from edge.durable import write_file
from edge.errors import StoreError
from edge.observation import MAX_INT, Detection
from edge.store_runs import StoredRun, StoreRuns
from edge.store_schema import Event, store_path

LOG = logging.getLogger(__name__)

FORMAT_VERSION = 1
Numbers = tuple[int, int, int]  # of observations, detections and events


class Section:
    """The part of a store that goes by one epoch, numbered from 0; read as edge.store_runs.StoreRuns is.

    first: where it begins in the store; end: where the next part does, None = it goes on. A part that continues an older
    copy begins with an event that says so.
    """

    def __init__(
        self, store: StoreRuns, epoch: int, first: Numbers = (0, 0, 0), end: Numbers | None = None
    ) -> None:
        self.store, self.epoch, self.first, self.end = store, epoch, first, end
        self.device_id, self.path = store.device_id, store.path
        self._n_notes = int(epoch != store.epoch)

    @property
    def is_open(self) -> bool:
        """Return whether what is recorded from now on belongs to it."""
        return self.end is None

    def made(self) -> Numbers:
        """Return how many observations (also dropped ones), detections and events there are."""
        n, n_detections, n_events = (
            max(0, end - first) for end, first in zip(self.end or self.store.made(), self.first, strict=True)
        )
        return n, n_detections, n_events + self._n_notes

    def runs(self, first_seq: int, n: int) -> Iterator[StoredRun]:
        """Give what there is of n observations from first_seq on, in order."""
        n = min(n, self.made()[0] - first_seq)
        for run in self.store.runs(first_seq + self.first[0], n):
            yield replace(run, first_seq=run.first_seq - self.first[0])

    def detections(self, first: int, n: int) -> Iterator[tuple[int, Detection]]:
        """Give n detections from the first on, each with its number."""
        n = min(n, self.made()[1] - first)
        for number, each in self.store.detections(first + self.first[1], n):
            yield number - self.first[1], replace(each, epoch=self.epoch, seq=each.seq - self.first[0])

    def events(self, first: int, n: int) -> list[Event]:
        """Return what there is of n events from the first on."""
        end = min(first + n, self.made()[2])
        found = [self._note()] if self._n_notes and first == 0 < end else []
        shift = self.first[2] - self._n_notes
        start = max(first, self._n_notes)
        for each in self.store.events(start + shift, max(0, end - start)):
            before = max(0, each.before_seq - self.first[0])
            found.append(replace(each, number=each.number - shift, before_seq=before))
        return found

    def dropped(self) -> list[tuple[int, int, str]]:
        """Return (first_seq, n, reason) of the observations that no longer exist."""
        found, n_made = [], self.made()[0]
        for first, n, reason in self.store.dropped():
            low, high = max(0, first - self.first[0]), min(n_made, first + n - self.first[0])
            if low < high:
                found.append((low, high - low, reason))
        return found

    def clips(self, seq: int) -> list[str]:
        """Return the paths of the sound kept around an observation."""
        return self.store.clips(seq + self.first[0]) if seq < self.made()[0] else []

    def digest(self, stream: str, number: int) -> bytes | None:
        """Return what tells a record from any other, None where there is none."""
        if number < 0:
            return None
        if stream == "observations":
            for run in self.runs(number, 1):
                values = [int(getattr(run.columns, each.name)[0]) for each in fields(run.columns)]
                return _hashed(run.code_space, run.sources, run.boots, values, run.planes.tolist())
            return next(
                (_hashed("dropped", reason) for at, n, reason in self.dropped() if at <= number < at + n),
                None,
            )
        if stream == "detections":
            return next((_hashed(*astuple(each)[2:]) for _, each in self.detections(number, 1)), None)
        return next((_hashed(*astuple(each)) for each in self.events(number, 1)), None)

    def _note(self) -> Event:
        reason = (
            f"this card was restored from an older copy or cloned: what was recorded from number {self.first[0]} of epoch "
            f"{self.store.epoch} on goes by epoch {self.epoch}"
        )
        return Event(0, "recovered", 0, self.path.name, 0, 0, 0, reason)


def epochs_path(store: Path | str | None) -> Path:
    """Return where the parts of a store are kept."""
    chosen = store_path(store)
    return chosen.with_name(f"{chosen.stem}-epochs.json")


def sections(store: StoreRuns) -> list[Section]:
    """Return the parts of a store in order; the last one is open. Most stores have one."""
    found = [Section(store, store.epoch)]
    for first in _read(epochs_path(store.path)):
        known = _continued(found[-1], first)
        if known is None:
            break
        found[-1:] = known
    return found


def begin_epoch(section: Section, at: Numbers) -> tuple[Section, Section] | None:
    """Let what a store has from these numbers on (counted in the store) go by a new epoch; return what ends and begins.

    None where nothing was recorded there yet. Raises StoreError where that cannot be kept.
    """
    parts = _continued(section, at)
    if parts is None:
        return None
    path = epochs_path(section.path)
    kept = [each.first for each in sections(section.store)[1:]]
    table = {"format_version": FORMAT_VERSION, "first": [*kept, at]}
    try:
        write_file(path, json.dumps(table).encode())
    except OSError as error:
        raise StoreError(f"{path}: expected room for where an epoch begins, found {error}") from error
    return parts


def _continued(section: Section, at: Numbers) -> tuple[Section, Section] | None:
    """Return a section up to these numbers, and the one from there on; None where it has no observation there."""
    if any(number < first for number, first in zip(at, section.first, strict=True)):
        return None
    content = section.digest("observations", at[0] - section.first[0])
    if content is None:
        return None
    name = _hashed(section.device_id, section.epoch, *at, content.hex())
    epoch = int.from_bytes(name[:8], "little") & MAX_INT
    return Section(section.store, section.epoch, section.first, at), Section(section.store, epoch, at)


def _read(path: Path) -> Sequence[Numbers]:
    try:
        table = json.loads(path.read_bytes())
        if table["format_version"] != FORMAT_VERSION:
            raise ValueError(f"version {table['format_version']}")
        return [(int(a), int(b), int(c)) for a, b, c in table["first"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        LOG.warning("%s: damaged (%r); the hub is asked where this card differs", path, error)
        return []


def _hashed(*facts: object) -> bytes:
    return hashlib.sha256(repr(facts).encode()).digest()
