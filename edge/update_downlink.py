"""Queries that came by radio: into the watchlist of the running pair, each message once."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from edge.bundle import Bundle
from edge.config_installed import BUNDLE, WATCHLIST
from edge.downlink import apply_downlink, decode_downlink, is_downlink
from edge.durable import write_file
from edge.errors import BundleError, StoreError, WireError
from edge.update_install import Installed
from edge.watchlist import Watchlist, load_watchlist

LOG = logging.getLogger(__name__)


def take_downlinks(
    installed: Installed, device_id: str, hub_public: bytes, messages: Iterable[bytes]
) -> tuple[int, list[str]]:
    """Take what is new of messages, in the order of their time; return how many, and why others were refused.

    The list is written before it is remembered that a message was taken: a power cut between lets it be taken again,
    which changes nothing. Raises BundleError, StoreError.
    """
    memory = installed.folder / "downlink.json"
    manifest = Bundle.load(installed.current / BUNDLE).manifest
    last_at_s, n_taken, refused = _last(memory), 0, []
    facts = (hub_public, device_id, manifest.code_space, manifest.code_bits // 8)
    found, n_old = [], 0
    for each in downlinks_in(messages):
        try:
            found.append(decode_downlink(*facts, each, last_at_s=-1))
        except WireError as error:
            refused.append(str(error))
    for downlink in sorted(found, key=lambda each: each.at_s):
        if downlink.at_s <= last_at_s:  # an inbox may keep everything that ever came
            n_old += 1
            continue
        path = installed.current / WATCHLIST
        listed = load_watchlist(path, manifest.code_space, manifest.code_bits)
        if not isinstance(listed, Watchlist):
            raise BundleError(f"{path}: expected a compiled watchlist, found a text")
        try:
            installed.amend(apply_downlink(listed, downlink))
        except WireError as error:
            refused.append(str(error))
        else:
            n_taken += 1
        last_at_s = downlink.at_s
        _remember(memory, last_at_s)
    if n_old:
        LOG.info("%d messages came before, or after a newer one", n_old)
    return n_taken, refused


def downlinks_in(messages: Iterable[bytes]) -> list[bytes]:
    """Return those of the messages from the air that claim to be downlinks."""
    return [each for each in messages if is_downlink(each)]


def _last(memory: Path) -> int:
    """Return when the last message was made that was taken, 0 = none."""
    try:
        return int(json.loads(memory.read_bytes())["last_at_s"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{memory}: expected when the last message came, found {error!r}; remove it only where no old message "
            "may come again"
        ) from error


def _remember(memory: Path, last_at_s: int) -> None:
    try:
        write_file(memory, json.dumps({"last_at_s": last_at_s}).encode())
    except OSError as error:
        raise StoreError(f"{memory}: expected room for a few bytes, found {error}") from error
