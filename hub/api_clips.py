"""/api/clips: sound and pictures of observations, their spectrograms, and asking recorders for them.

The key of an observation is its uid, or `epoch-seq@device` where its code has not come.
"""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from edge.errors import UsageError
from edge.observation import MAX_INT
from hub.parts import Hub, hub_of
from hub.refusal import UnknownError
from hub.spectrogram import facts, spectrogram_png
from hub.store_registry_devices import Device
from hub.store_registry_people import Clip

router = APIRouter(prefix="/api/clips", tags=["clips"])

Key = tuple[Device, int, int]  # whose, epoch, seq: an observation
_KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}  # a clip never changes


@router.get("/{key:path}/spectrogram", response_class=Response)
def spectrogram(request: Request, key: str) -> Response:
    """Return the spectrogram of an observation's clip as PNG."""
    path = clip_path(hub_of(request), key)
    return Response(spectrogram_png(path), media_type="image/png", headers=_KEPT)


@router.get("/{key:path}/facts")
def clip_facts(request: Request, key: str) -> dict[str, Any]:
    """Return rate and duration of an observation's clip."""
    known = facts(clip_path(hub_of(request), key))
    return {"rate_hz": known.rate_hz, "duration_s": known.duration_s}


@router.post("/{key:path}/request")
def ask_for_clip(request: Request, key: str) -> dict[str, Any]:
    """Ask the recorder for the clip of an observation; it comes with a later delivery, where it still has it."""
    hub = hub_of(request)
    device, epoch, seq = key_of(hub, key)
    return {"clip": clip_state(hub.registry.people.want_clip(device.number, epoch, seq, hub.now_ns()))}


@router.get("/{key:path}", response_class=FileResponse)
def clip(request: Request, key: str) -> Response:
    """Return the sound or the picture of an observation."""
    path = clip_path(hub_of(request), key)
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return FileResponse(path, media_type=kind, headers={**_KEPT, "X-Content-Type-Options": "nosniff"})


def clip_state(found: Clip | None) -> str:
    """Return none (nobody asked for it), wanted or here."""
    if found is None:
        return "none"
    return "wanted" if found.file is None else "here"


def clip_path(hub: Hub, key: str) -> Path:
    """Return the file of an observation's clip. Raises UnknownError where there is none."""
    device, epoch, seq = key_of(hub, key)
    found = hub.registry.people.clip(device.number, epoch, seq)
    if found is None or found.file is None:
        raise UnknownError("clip: expected one that is here, found none; ask the recorder for it")
    path = hub.settings.clips_folder / found.file
    if not path.is_file():
        raise UnknownError(f"clip: expected {path}, found no such file; somebody removed it")
    return path


def key_of(hub: Hub, key: str) -> Key:
    """Return the observation of a key. Raises UnknownError, UsageError."""
    if key.isdecimal() and len(key) < 19:
        return key_of_uid(hub, int(key))
    numbers, _, name = key.partition("@")
    epoch, _, seq = numbers.partition("-")
    return key_of_name(hub, name, epoch, seq)


def key_of_uid(hub: Hub, uid: int) -> Key:
    """Return the observation of a uid. Raises UnknownError."""
    identity = hub.registry.results.identity_of(uid) if 0 <= uid <= MAX_INT else None
    if identity is None:
        raise UnknownError(f"uid: expected that of an observation that is here, found {uid}")
    number, epoch, seq = identity
    return hub.registry.devices.numbered(number), epoch, seq


def key_of_name(hub: Hub, name: str, epoch: str, seq: str) -> Key:
    """Return an observation by the name of its device; epoch, seq as text. Raises UnknownError, UsageError."""
    numbers = [int(each) if each.isdecimal() and len(each) < 20 else -1 for each in (epoch, seq)]
    if not all(0 <= number <= MAX_INT for number in numbers):
        raise UsageError(f"observation: expected a uid, or epoch-seq@device, found {epoch}-{seq}@{name}")
    return hub.registry.devices.named(name), numbers[0], numbers[1]
