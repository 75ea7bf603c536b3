"""Which sound card is meant: by name or USB identity, never by an index, which changes."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import AudioError, MissingDependencyError

_USB = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})(?::(.+))?", re.IGNORECASE)
_CARD = re.compile(r"\(hw:(\d+),")


@dataclass(frozen=True, slots=True)
class Microphone:
    """A device that can record.

    index: PortAudio's, good until devices change; usb: vid:pid[:serial], or "".
    """

    index: int
    name: str
    n_channels: int
    default_rate_hz: int
    usb: str


def load_portaudio(wanted_by: str = "microphone") -> Any:
    """Return the module sounddevice. Raises MissingDependencyError where it or PortAudio is not installed."""
    try:
        return importlib.import_module("sounddevice")
    except ImportError as error:
        raise MissingDependencyError(
            f"{wanted_by}: expected the package sounddevice, found none; run: pip install sounddevice"
        ) from error
    except OSError as error:
        raise MissingDependencyError(
            f"{wanted_by}: expected the PortAudio library, found none ({error}); "
            "run: sudo apt install libportaudio2"
        ) from error


def list_microphones(
    portaudio: Any = None, proc: Path = Path("/proc/asound"), sys: Path = Path("/sys/class/sound")
) -> list[Microphone]:
    """Return the devices that can record, as PortAudio sees them now.

    proc, sys: where the kernel tells the USB identity of cards. Raises MissingDependencyError.
    """
    portaudio = portaudio or load_portaudio()
    devices: Sequence[Mapping[str, Any]] = list(portaudio.query_devices())
    return [
        Microphone(
            index=index,
            name=str(device["name"]),
            n_channels=int(device["max_input_channels"]),
            default_rate_hz=round(device["default_samplerate"]),
            usb=_usb_identity(str(device["name"]), proc, sys),
        )
        for index, device in enumerate(devices)
        if device["max_input_channels"] > 0
    ]


def find_microphone(wanted: str | None, microphones: Sequence[Microphone]) -> Microphone | None:
    """Return the device meant by a part of its name or by `vid:pid[:serial]`; None where it is not there.

    wanted None: the one called "default", else the first. A whole name goes before a part of one.
    Raises AudioError where several devices fit.
    """
    if wanted is None:
        named = [m for m in microphones if m.name == "default"]
        return next(iter([*named, *microphones]), None)
    found = [m for m in microphones if m.name == wanted]
    if not found and _USB.fullmatch(wanted):
        usb = wanted.lower()
        found = [m for m in microphones if m.usb.lower() == usb or m.usb.lower().startswith(f"{usb}:")]
        cards = {match.group(1) for m in found if (match := _CARD.search(m.name))}
        found = found[:1] if len(cards) == 1 else found  # one card may have several inputs: take the first
    if not found:
        found = [m for m in microphones if wanted.lower() in m.name.lower()]
    if len(found) > 1:
        names = "; ".join(f"{m.name} {m.usb}".strip() for m in found)
        raise AudioError(
            f"microphone {wanted!r}: expected one device, found {len(found)}: {names}; "
            "give its whole name, or vid:pid:serial"
        )
    return found[0] if found else None


def _usb_identity(name: str, proc: Path, sys: Path) -> str:
    """Return vid:pid[:serial] of the ALSA card in a PortAudio name such as `USB Audio (hw:1,0)`, or ""."""
    match = _CARD.search(name)
    if match is None:
        return ""
    identity = _first_line(proc / f"card{match.group(1)}" / "usbid")
    serial = _first_line(sys / f"card{match.group(1)}" / "device" / ".." / "serial")
    return f"{identity}:{serial}" if identity and serial else identity


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
