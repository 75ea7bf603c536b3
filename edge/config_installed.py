"""What runs on a recorder: what was installed from the hub, where something was, else what its configuration names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge.config import Config

BUNDLE, WATCHLIST = "bundle", "watchlist.json"  # names in the folder of a pair
PAIRS = "pairs"  # the folder of those folders


def current_pair(folder: Path) -> Path:
    """Return the link to the pair that runs, in the folder of updates; it is replaced as one."""
    return folder / "current"


def with_installed(config: Config) -> Config:
    """Return a configuration whose bundle and queries are the installed pair's, where [updates] has a folder and a pair is in it.

    Both paths begin with the folder that the link names now, so that they are of one pair whatever happens meanwhile.
    """
    folder = config.updates.folder
    if folder is None or not current_pair(folder).is_symlink():
        return config
    pair = current_pair(folder).resolve()
    return replace(
        config,
        encoder=replace(config.encoder, bundle=pair / BUNDLE),
        monitor=replace(config.monitor, queries=pair / WATCHLIST),
    )


def pair_of(bundle: Path | None, queries: Path | None) -> int | None:
    """Return the number of the installed pair that a bundle and a watchlist are of, None where they are no such pair."""
    if bundle is None or queries is None:
        return None
    bundle, queries = bundle.resolve(), queries.resolve()
    folder = bundle.parent
    is_pair = (bundle.name, queries) == (BUNDLE, folder / WATCHLIST) and folder.parent.name == PAIRS
    return int(folder.name) if is_pair and folder.name.isdecimal() else None
