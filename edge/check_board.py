"""Checks of the board: clock, disk, memory, microphone."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from edge.audio_events import CLIP_SUFFIX, AudioEvent, AudioSource, Block
from edge.clock import Clock, SystemClock
from edge.config import Audio, Monitor
from edge.errors import AudioError, FieldcubeError
from edge.store_reader import StoreReader
from edge.store_schema import store_path

MAX_MEMORY_MB = 150  # of edge-monitor: what is left of 512 MB is for the system and its page cache
MIN_DISK_MB = 500  # 100 days of codes at half-window hop are 210 MB; the rest is for the system's logs
_LISTEN_S = 2.0
_MIN_DBFS = -90.0  # below it, 16-bit sound is digital silence


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found, what is required, and what to do about it."""

    name: str
    ok: bool
    value: str | float | None
    unit: str | None = None
    limit: float | None = None
    hint: str | None = None

    def record(self) -> dict[str, Any]:
        """Return a line of --json."""
        keys = ("name", "ok", "value", "unit", "limit", "hint")
        return {"type": "check", **{key: getattr(self, key) for key in keys}}

    def line(self) -> str:
        """Return a line for people."""
        found = "-" if self.value is None else self.value
        if isinstance(found, float):
            found = f"{found:.0f}" if abs(found) >= 100 else f"{found:.4g}"
        limit = "" if self.limit is None else f" (limit {self.limit:g})"
        unit = f" {self.unit}" if self.unit else ""
        hint = f"  {self.hint}" if self.hint else ""
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name:<18}  {found}{unit}{limit}{hint}"


def check_clock(clock: Clock | None = None) -> Check:
    """See what the wall clock is worth. An unset one is no failure: times can be corrected later."""
    state = (clock or SystemClock()).now().clock_state
    hint = "observations will have no UTC until the clock is set: network, GNSS or a battery-backed clock"
    return Check("clock", True, state, hint=hint if state == "unset" else None)


def check_disk(monitor: Monitor, free_bytes: Callable[[Path], int] | None = None) -> Check:
    """See whether the store's folder can be written and has room, also for the clips that lie beside it."""
    folder = _existing(store_path(monitor.store).parent)
    free_mb = (free_bytes or _free_bytes)(folder) / 1e6
    if refused := _refused(folder):
        return Check("disk", False, free_mb, "MB", MIN_DISK_MB, refused)
    hint = None
    if free_mb < MIN_DISK_MB:
        hint = f"make room in {folder}, or give another --store"
    elif (
        monitor.clips and monitor.clips_dir is None and free_mb < MIN_DISK_MB + monitor.clip_quota_bytes / 1e6
    ):
        hint = f"less than clips may take: lower clip_quota_bytes ({monitor.clip_quota_bytes / 1e6:.0f} MB)"
    return Check("disk", free_mb >= MIN_DISK_MB, free_mb, "MB", MIN_DISK_MB, hint)


def check_clips(monitor: Monitor, free_bytes: Callable[[Path], int] | None = None) -> Check:
    """See whether a folder of clips can be written and has room; the clips in it are removed where they must."""
    assert monitor.clips_dir is not None  # asked only then; the store's disk is check_disk's
    folder = _existing(monitor.clips_dir)
    room_mb = ((free_bytes or _free_bytes)(folder) + _clip_bytes(monitor.clips_dir)) / 1e6
    quota_mb = monitor.clip_quota_bytes / 1e6
    limit_mb = min(MIN_DISK_MB, quota_mb)
    if refused := _refused(folder):
        return Check("clips", False, room_mb, "MB", limit_mb, refused)
    hint = None
    if room_mb < limit_mb:
        hint = f"make room in {folder}, or give another clips_dir"
    elif room_mb < quota_mb:
        hint = f"less than clips may take: lower clip_quota_bytes ({quota_mb:.0f} MB)"
    return Check("clips", room_mb >= limit_mb, room_mb, "MB", limit_mb, hint)


def check_store(monitor: Monitor, device_id: str | None) -> Check:
    """See whether a store that is there already would be taken: it is only read, also while a recorder writes it."""
    path = store_path(monitor.store)
    try:
        if not path.exists() or (path.is_file() and path.stat().st_size == 0):
            return Check("store", True, "new")
        with path.open("r+b"):
            pass  # as edge-monitor must open it
        with StoreReader.open(path) as store:
            n_observations, found_id = sum(store.counts().values()), store.device_id
    except OSError as error:
        return Check("store", False, str(path), hint=f"{path}: cannot be written: {error.strerror}")
    except FieldcubeError as error:
        return Check("store", False, str(path), hint=str(error))
    if device_id not in (None, found_id):
        expected = f"expected observations of device {device_id!r}, found those of {found_id!r}"
        hint = f"{path}: {expected}; give another --store, or the store's own device_id"
        return Check("store", False, str(path), hint=hint)
    return Check("store", True, n_observations, "observations")


def picture_memory_mb(total: Path = Path("/proc/meminfo")) -> float:
    """Return what edge-monitor may take with an encoder of pictures, MB: half of the board, as those are larger."""
    try:
        lines = total.read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:")) * 1024 / 2e6
    except (OSError, StopIteration):
        return MAX_MEMORY_MB


def check_memory(status: Path = Path("/proc/self/status"), limit_mb: float = MAX_MEMORY_MB) -> Check:
    """See what this process, with the encoders that are to run, takes of memory."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        used_mb = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6
    except (OSError, StopIteration):
        return Check("memory", True, None, "MB", limit_mb, "this system does not tell")
    ok = used_mb <= limit_mb
    return Check(
        "memory", ok, used_mb, "MB", limit_mb, None if ok else "take a smaller bundle, or one thread"
    )


def check_microphone(audio: Audio, open_source: Callable[[Audio], AudioSource] | None = None) -> Check:
    """Record for two seconds: the device is there, and what it gives is sound."""
    try:
        source = (open_source or _open_microphone)(audio)
        level_dbfs = _level_dbfs(source)
    except (FieldcubeError, _GaveUpError) as error:
        return Check("microphone", False, None, "dBFS", _MIN_DBFS, str(error))
    ok = level_dbfs > _MIN_DBFS
    hint = None if ok else "digital silence: is it muted, or its gain at zero? see alsamixer"
    return Check("microphone", ok, level_dbfs, "dBFS", _MIN_DBFS, hint)


class _GaveUpError(Exception):
    """The device cannot be opened; the recorder would try again for ever."""


def _open_microphone(audio: Audio) -> AudioSource:
    from edge.microphone import MicrophoneSource
    from edge.microphone_devices import find_microphone, list_microphones

    found = list_microphones()
    if find_microphone(audio.microphone or None, found) is None:
        names = "; ".join(f"{each.name} {each.usb}".strip() for each in found) or "none"
        raise AudioError(f"expected {audio.microphone or 'a device that can record'}, found {names}")

    def give_up(_seconds: float) -> NoReturn:
        raise _GaveUpError("the device is there, but cannot be opened or gives no sound; see arecord -l")

    return MicrophoneSource(
        audio.microphone or None,
        48_000,
        rate_in_hz=audio.sample_rate_hz,
        channels=audio.channels,
        sample_format=audio.sample_format,
        wait=give_up,
    )


def _level_dbfs(source: AudioSource) -> float:
    """Return the level of the first seconds without their mean (a constant is no sound), in dB of full scale."""
    heard: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    events: list[AudioEvent] = []
    for event in source.events():
        if isinstance(event, Block):
            heard.append(event.samples)
        events.append(event)
        if sum(map(len, heard)) >= _LISTEN_S * source.sample_rate_hz or len(events) > 100:
            break
    if not heard:
        raise _GaveUpError("the device gave no sound")
    samples = np.concatenate(heard).astype(np.float64)
    return float(20 * np.log10(max(float(samples.std()), 1e-6)))


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists: those that are missing are made."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _refused(folder: Path) -> str | None:
    """Return why no file can be made in a folder, None where one can; nothing is left of the attempt."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        return f"{folder} cannot be written by this user: {error.strerror}"
    return None


def _clip_bytes(folder: Path) -> int:
    n_bytes = 0
    for path in folder.glob(f"*{CLIP_SUFFIX}"):
        with suppress(OSError):  # a recorder that runs has removed it meanwhile
            n_bytes += path.stat().st_size
    return n_bytes


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free
