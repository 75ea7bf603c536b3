"""The list of an installed pair as it was published, and as it runs: with the queries that came by radio."""

from __future__ import annotations

import logging
from pathlib import Path

from edge.config_installed import WATCHLIST
from edge.downlink_memory import read_memory
from edge.durable import write_file
from edge.errors import BundleError, StoreError, WireError
from edge.run_start import RunStart
from edge.update_install import Installed
from edge.watchlist import Watchlist, format_watchlist, load_watchlist

LOG = logging.getLogger(__name__)

MEMORY = "downlink.json"  # in the folder of updates
_PUBLISHED = "published.json"  # in the folder of a pair, where what runs is another list


def published_list(pair: Path) -> Watchlist:
    """Return the list of a pair as it came from the hub."""
    path = pair / _PUBLISHED
    path = path if path.is_file() else pair / WATCHLIST
    listed = load_watchlist(path)
    if not isinstance(listed, Watchlist):
        raise BundleError(f"{path}: expected a compiled watchlist, found a text")
    return listed


def carry(folder: Path, pair: Path) -> None:
    """Put what came by radio into the list of a pair that does not run yet. folder: of updates. Raises StoreError."""
    memory = read_memory(folder / MEMORY)
    published = published_list(pair)
    try:
        wanted = format_watchlist(memory.applied_to(published))
    except WireError as error:
        LOG.warning("what came by radio is left out: %s", error)
        return
    try:
        if (pair / WATCHLIST).read_bytes() != wanted:
            if not (pair / _PUBLISHED).exists():
                write_file(pair / _PUBLISHED, format_watchlist(published))
            write_file(pair / WATCHLIST, wanted)
    except OSError as error:
        raise StoreError(f"{pair}: expected room for a watchlist, found {error}") from error


def settle(installed: Installed, start: RunStart | None) -> None:
    """Let the running pair's list be what it is to be, and await a start where it was another. start: the last one."""
    pair = installed.current.resolve()
    if not (installed.folder / MEMORY).exists():
        return
    before = (pair / WATCHLIST).read_bytes()
    carry(installed.folder, pair)
    if (pair / WATCHLIST).read_bytes() != before:
        installed.await_start(start)
