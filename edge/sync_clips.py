"""The sound that somebody at the hub asks to hear: found on the card, sent as it is."""

from __future__ import annotations

import logging
from pathlib import Path

import cbor2

from edge.batch import FORMAT_VERSION
from edge.store_epochs import Section

LOG = logging.getLogger(__name__)

MAX_CLIP_BYTES = 7_500_000  # the hub takes bodies of 8 MiB


def clip_payload(store: Section, epoch: int, seq: int) -> bytes | None:
    """Return the payload of an envelope of purpose "clip", None where the card has no such sound (any more).

    Only files that the store names as clips are ever read.
    """
    if epoch != store.epoch or seq < 0:
        return None
    for name in store.clips(seq):
        named = Path(name)
        for path in (named, store.path.parent / named.parent.name / named.name):
            try:
                if not path.is_file():
                    continue
                if path.stat().st_size > MAX_CLIP_BYTES:
                    LOG.warning(
                        "%s: asked for, but longer than the hub takes (%d bytes)", path, MAX_CLIP_BYTES
                    )
                    continue
                audio = path.read_bytes()
            except OSError as error:
                LOG.warning("%s: asked for, but not readable: %s", path, error)
                continue
            record = {
                "format_version": FORMAT_VERSION,
                "epoch": epoch,
                "seq": seq,
                "name": path.name,
                "audio": audio,
            }
            return cbor2.dumps(record)
    return None
