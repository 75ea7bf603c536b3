"""The last start of edge-monitor: which installed pair it runs, and from which observation on. FORMAT_VERSION = 1.

Kept in `<stem>-run.json` beside the store, whose lock lets one process at a time record: what was observed from that number on
was made by this run, or by one that did not say so.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge import require
from edge.durable import write_file
from edge.errors import StoreError

FORMAT_VERSION = 1
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunStart:
    """run: differs with every start; pair: number of the installed pair, None for other files.

    epoch, first_seq: of the store, the first observation that the run may have made.
    """

    run: str
    pair: int | None
    epoch: int
    first_seq: int

    def __post_init__(self) -> None:
        require.text(StoreError, "run", self.run)
        if self.pair is not None:
            require.integer(StoreError, "pair", self.pair, 0, 2**53)
        require.integer(StoreError, "epoch", self.epoch, 0, 2**63)
        require.integer(StoreError, "first_seq", self.first_seq, 0, 2**63)


def start_path(store: Path) -> Path:
    """Return where the last start of who records into a store is kept."""
    return store.with_name(f"{store.stem}-run.json")


def write_start(
    store: Path,
    pair: int | None,
    epoch: int,
    first_seq: int,
    new_run: Callable[[], str] = lambda: secrets.token_hex(8),
) -> None:
    """Tell edge-update of a start; nothing is written where no pair was ever run. What cannot be written is a warning."""
    path = start_path(store)
    if pair is None and not path.exists():
        return
    table = {"format_version": FORMAT_VERSION, **asdict(RunStart(new_run(), pair, epoch, first_seq))}
    try:
        write_file(path, (json.dumps(table) + "\n").encode())
    except OSError as error:
        _LOG.warning("%s: %s; an update cannot be confirmed", path, error)


def read_start(store: Path) -> RunStart | None:
    """Return the last start, None where there was none, or where nobody can tell."""
    path = start_path(store)
    try:
        table: Any = json.loads(path.read_bytes())
        require.version(StoreError, str(path), table, FORMAT_VERSION, "update fieldcube")
        return RunStart(table["run"], table["pair"], table["epoch"], table["first_seq"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError, StoreError) as error:
        _LOG.warning(
            "%s: expected the last start of edge-monitor, found %r; its next one is waited for", path, error
        )
        return None
