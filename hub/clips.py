"""Clips at the hub: sound that somebody asked for, kept as files in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from edge import require
from edge.batch_cbor import decode_mapping
from edge.durable import write_file
from edge.errors import WireError
from edge.observation import MAX_INT
from hub.ingest import opened
from hub.refusal import NoRoomError, UnknownError
from hub.store_registry import Registry

SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".jpg", ".jpeg", ".png")
_ENOSPC = 28


def keep_clip(registry: Registry, folder: Path, body: bytes, now_ns: int) -> Path:
    """Keep the clip in a signed envelope and return its file; sent again, it replaces itself.

    Raises WireError, UnauthorizedError, UnknownError where nobody asked for it, NoRoomError.
    """
    device, payload = opened(registry, "clip", body)
    table = _request(payload)
    epoch, seq, name = table["epoch"], table["seq"], table["name"]
    wanted = registry.people.clip(device.number, epoch, seq)
    if wanted is None:
        raise UnknownError(f"clip: expected one that somebody asked for, found seq {seq} of epoch {epoch}")
    if wanted.file is not None:
        return folder / wanted.file
    # nothing of a path that came from outside but its suffix
    file = f"{device.number}_{epoch}_{seq}{PurePosixPath(name).suffix.lower()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / file, table["audio"])
    except OSError as error:
        kind = NoRoomError if error.errno == _ENOSPC else UnknownError
        raise kind(f"{folder}: expected a folder to keep a clip in, found {error}") from error
    registry.people.keep_clip(device.number, epoch, seq, PurePosixPath(name).name, file, now_ns)
    return folder / file


def _request(payload: bytes) -> Mapping[str, Any]:
    checked = decode_mapping("clip", payload, ("epoch", "seq", "name", "audio"), is_flat=True)
    require.integer(WireError, "epoch", checked["epoch"], 0, MAX_INT)
    require.integer(WireError, "seq", checked["seq"], 0, MAX_INT)
    require.text(WireError, "name", checked["name"])
    require.one_of(WireError, "suffix of name", PurePosixPath(checked["name"]).suffix.lower(), SUFFIXES)
    require.instance(WireError, "audio", checked["audio"], (bytes,))
    return checked
