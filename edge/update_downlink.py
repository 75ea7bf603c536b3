"""Queries that came by radio: remembered, each message once, for the watchlist of the running pair."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from edge.bundle import Bundle
from edge.config_installed import BUNDLE
from edge.downlink import decode_downlink, is_downlink
from edge.downlink_memory import read_memory, write_memory
from edge.errors import WireError
from edge.update_install import Installed
from edge.update_radio import MEMORY, published_list

LOG = logging.getLogger(__name__)


def take_downlinks(
    installed: Installed, device_id: str, hub_public: bytes, messages: Iterable[bytes]
) -> tuple[int, list[str]]:
    """Remember what is new of messages, in the order of their time; return how many, and why others were refused.

    edge.update_radio.settle brings it into the list. Raises BundleError, StoreError.
    """
    path = installed.folder / MEMORY
    manifest = Bundle.load(installed.current / BUNDLE).manifest
    published = published_list(installed.current)
    memory, n_taken, refused, n_old = read_memory(path), 0, list[str](), 0
    facts = (hub_public, device_id, manifest.code_space, manifest.code_bits // 8)
    found = []
    for each in downlinks_in(messages):
        try:
            found.append(decode_downlink(*facts, each, last_at_s=-1))
        except WireError as error:
            refused.append(str(error))
    for downlink in sorted(found, key=lambda each: each.at_s):
        if not memory.is_new(downlink.at_s):  # an inbox may keep everything that ever came
            n_old += 1
            continue
        after = memory.with_downlink(downlink, published)
        try:
            after.applied_to(published)
        except WireError as error:
            refused.append(str(error))
            memory = memory.with_number(downlink.at_s)
        else:
            n_taken += 1
            memory = after
        write_memory(path, memory)
    if n_old:
        LOG.info("%d messages came before, or too late", n_old)
    return n_taken, refused


def downlinks_in(messages: Iterable[bytes]) -> list[bytes]:
    """Return those of the messages from the air that claim to be downlinks."""
    return [each for each in messages if is_downlink(each)]
