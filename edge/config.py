"""Configuration: one deployment and how its recorder runs, read from one TOML file. Keys: firmware_configs/README.md."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from edge import require
from edge.errors import ConfigError
from edge.observation import MAX_RECORDING_HZ, MIN_RECORDING_HZ

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REFERENCE = "firmware_configs/README.md"
Link = Literal["lte", "satellite", "lora"]
STDIN = "-"  # as an input: raw signed 16-bit little-endian sound from standard input


@dataclass(frozen=True, slots=True)
class Deployment:
    """One recorder at one place for one period.

    id: name of the deployment, "" = none; device_id: name of the recorder, None = the one that its store knows;
    latitude, longitude: degrees, WGS 84, given both or neither; start: aware UTC, from when its data count.
    """

    id: str = ""
    device_id: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    start: datetime | None = None

    def __post_init__(self) -> None:
        require.text(ConfigError, "id", self.id, may_be_empty=True)
        if self.device_id is not None:
            require.text(ConfigError, "device_id", self.device_id)
        if (self.latitude is None) != (self.longitude is None):
            raise ConfigError("latitude: expected both latitude and longitude or neither, found one of them")
        if self.latitude is not None and self.longitude is not None:
            require.number(ConfigError, "latitude", self.latitude, -90, 90)
            require.number(ConfigError, "longitude", self.longitude, -180, 180)
        if self.start is not None:
            require.instance(ConfigError, "start", self.start, (datetime,))
            if self.start.tzinfo is None:
                raise require.wrong(
                    ConfigError, "start", "a time with its zone, such as 2026-05-01T04:00:00Z", self.start
                )
            object.__setattr__(self, "start", self.start.astimezone(timezone.utc))


@dataclass(frozen=True, slots=True)
class Audio:
    """Where the sound comes from: files and folders as given, `-` for standard input, or a microphone; one kind at most.

    microphone: part of a name or vid:pid[:serial], "" = the default one; sample_rate_hz and channels are about a
    microphone or standard input, None takes what the device likes best; sample_format is about a microphone. They are
    refused beside inputs that say these things themselves.
    """

    input: tuple[str, ...] = ()
    microphone: str | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    sample_format: Literal["int16", "int32", "float32"] = "int16"

    def __post_init__(self) -> None:
        require.instance(ConfigError, "input", self.input, (tuple,))
        if not all(self.input):
            raise ConfigError('input: expected a path, found ""')
        if self.microphone is not None:
            require.text(ConfigError, "microphone", self.microphone, may_be_empty=True)
            if self.input:
                raise ConfigError("microphone: expected either input or microphone, found both; remove one")
        if STDIN in self.input and len(self.input) > 1:
            raise ConfigError('input: expected "-" (standard input) alone, found other inputs beside it')
        if self.sample_rate_hz is not None:
            rate_hz = self.sample_rate_hz
            require.integer(ConfigError, "sample_rate_hz", rate_hz, MIN_RECORDING_HZ, MAX_RECORDING_HZ)
        if self.channels is not None:
            require.integer(ConfigError, "channels", self.channels, 1, 64)
        require.one_of(ConfigError, "sample_format", self.sample_format, ("int16", "int32", "float32"))
        if self.input:
            self._refuse_idle_keys()

    def _refuse_idle_keys(self) -> None:
        """Refuse what would change nothing: files say their own rate and channels, standard input is int16."""
        is_stdin = STDIN in self.input
        for key in () if is_stdin else ("sample_rate_hz", "channels"):
            if (value := getattr(self, key)) is not None:
                raise ConfigError(f"{key}: expected none, files say their own, found {value}; remove it")
        if self.sample_format != "int16":
            kind = "standard input is int16" if is_stdin else "files say their own"
            raise ConfigError(f"sample_format: expected none, {kind}, found {self.sample_format}; remove it")


@dataclass(frozen=True, slots=True)
class Encoding:
    """Which encoders run, and how. bundle: folder, None = the one that ships with fieldcube."""

    bundle: Path | None = None
    runtime: Literal["auto", "onnx", "tflite"] = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        require.one_of(ConfigError, "runtime", self.runtime, ("auto", "onnx", "tflite"))
        require.integer(ConfigError, "threads", self.threads, 1, 64)


@dataclass(frozen=True, slots=True)
class Monitor:
    """What is listened for, and what is kept.

    hop_s: from the start of a window to the next, None = half a window; store: None = ./fieldcube.sqlite;
    clips_dir: None = a folder beside the store; clip_quota_bytes: budget of all clips, the oldest go first;
    commit_interval_s: longest time that an observation is in memory only; alarms_per_day: false alarms a day that a
    line of the watchlist may give where it does not say how many.
    """

    queries: Path | None = None
    hop_s: float | None = None
    store: Path | None = None
    commit_interval_s: float = 5.0
    alarms_per_day: float = 2.0
    clips: bool = True
    clips_dir: Path | None = None
    clip_pre_s: float = 3.0
    clip_post_s: float = 3.0
    clip_max_s: float = 60.0
    clip_quota_bytes: int = 2_000_000_000

    def __post_init__(self) -> None:
        if self.hop_s is not None:
            require.number(ConfigError, "hop_s", self.hop_s, 0.1, 3600)
        require.number(ConfigError, "commit_interval_s", self.commit_interval_s, 0, 600)
        require.number(ConfigError, "alarms_per_day", self.alarms_per_day, 0.001, 1000)
        require.one_of(ConfigError, "clips", self.clips, (True, False))
        require.number(ConfigError, "clip_pre_s", self.clip_pre_s, 0, 60)
        require.number(ConfigError, "clip_post_s", self.clip_post_s, 0, 60)
        require.number(ConfigError, "clip_max_s", self.clip_max_s, 1, 3600)
        require.integer(ConfigError, "clip_quota_bytes", self.clip_quota_bytes, 0, 2**50)


@dataclass(frozen=True, slots=True)
class Sync:
    """Where codes are sent, and over what.

    hub: its URL, None = nowhere; code: single-use enrolment code, None = a person at the hub approves; key: of this
    device, None = device.key beside the store; ca_file: PEM of who may vouch for the hub, None = as the system says;
    link: what is sent; daily_bytes: None = no limit; batch_bytes: largest batch; interval_s: between visits of
    `edge-sync --follow`; clips: sound that somebody at the hub asks for may leave the device; heartbeat_s: between two
    messages about how the recorder is, over satellite and lora; lora_airtime_s: of frames in any hour, the default is
    1 % of it; lora_spreading_factor, lora_overhead_bytes (of a packet beside its frame): how long a frame is on the air.
    """

    hub: str | None = None
    code: str | None = None
    key: Path | None = None
    ca_file: Path | None = None
    link: Link = "lte"
    daily_bytes: int | None = None
    batch_bytes: int = 262_144
    interval_s: float = 900.0
    clips: bool = False
    heartbeat_s: float = 21_600.0
    lora_airtime_s: float = 36.0
    lora_spreading_factor: int = 12
    lora_overhead_bytes: int = 13

    def __post_init__(self) -> None:
        for name in ("hub", "code"):
            if getattr(self, name) is not None:
                require.text(ConfigError, name, getattr(self, name))
        require.one_of(ConfigError, "link", self.link, get_args(Link))
        if self.daily_bytes is not None:
            require.integer(ConfigError, "daily_bytes", self.daily_bytes, 1_000, 2**50)
        require.integer(ConfigError, "batch_bytes", self.batch_bytes, 1_000, 4_000_000)
        require.number(ConfigError, "interval_s", self.interval_s, 1, 86_400)
        require.one_of(ConfigError, "clips", self.clips, (True, False))
        require.number(ConfigError, "heartbeat_s", self.heartbeat_s, 0, 604_800)
        require.number(ConfigError, "lora_airtime_s", self.lora_airtime_s, 0.1, 3600)
        require.integer(ConfigError, "lora_spreading_factor", self.lora_spreading_factor, 7, 12)
        require.integer(ConfigError, "lora_overhead_bytes", self.lora_overhead_bytes, 0, 64)


@dataclass(frozen=True, slots=True)
class Updates:
    """Bundles and watchlists that a hub publishes for this recorder.

    folder: of the installed ones, None = nothing is taken and what runs is as the other sections say; hub: URL where they
    are published, None = hub of [sync]; root: the hub's root.json, None = only queries by radio are taken; watchlist: its
    name at the hub; restart: command that lets edge-monitor begin anew, None = FOLDER/restart is written for who watches
    it; trial_s: of what was installed; trial_codes: how many it must make in its trial.
    """

    folder: Path | None = None
    hub: str | None = None
    root: Path | None = None
    watchlist: str = "default"
    restart: str | None = None
    trial_s: float = 3600.0
    trial_codes: int = 10

    def __post_init__(self) -> None:
        for name in ("hub", "restart"):
            if getattr(self, name) is not None:
                require.text(ConfigError, name, getattr(self, name))
        require.text(ConfigError, "watchlist", self.watchlist)
        require.number(ConfigError, "trial_s", self.trial_s, 0, 604_800)
        require.integer(ConfigError, "trial_codes", self.trial_codes, 0, 1_000_000)


@dataclass(frozen=True, slots=True)
class Config:
    """All of a configuration file; each field is a [section] of it, each field of those a key."""

    deployment: Deployment = field(default_factory=Deployment)
    audio: Audio = field(default_factory=Audio)
    encoder: Encoding = field(default_factory=Encoding)
    monitor: Monitor = field(default_factory=Monitor)
    sync: Sync = field(default_factory=Sync)
    updates: Updates = field(default_factory=Updates)


Section: TypeAlias = Deployment | Audio | Encoding | Monitor | Sync | Updates
SECTIONS: Mapping[str, type[Section]] = {
    "deployment": Deployment,
    "audio": Audio,
    "encoder": Encoding,
    "monitor": Monitor,
    "sync": Sync,
    "updates": Updates,
}
_PATHS = frozenset({"bundle", "queries", "store", "clips_dir", "key", "ca_file", "folder", "root"})


def read_config(path: Path) -> Config:
    """Return the configuration in a TOML file; relative paths in it start at the file's folder.

    Raises ConfigError, which names the file, the key, what was expected and what was found; an unknown key is
    refused with the nearest known one.
    """
    try:
        sections = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a configuration file, found: {error.strerror}; "
            "copy one of firmware_configs/*.toml"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected UTF-8 text, found {error.reason} at byte {error.start}"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, found: {error}") from error
    built: dict[str, Any] = {}
    for section, table in sections.items():
        if section not in SECTIONS:
            raise _unknown(path, f"[{section}]" if isinstance(table, dict) else section, section, SECTIONS)
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: expected a section [{section}], found {section} = {table!r}")
        built[section] = _section(path, section, table)
    return Config(**built)


def _section(path: Path, section: str, table: Mapping[str, Any]) -> object:
    kind = SECTIONS[section]
    known = [key.name for key in fields(kind)]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise _unknown(path, f"[{section}] {key}", key, known)
        try:
            values[key] = _converted(key, value, path.parent)
        except ConfigError as error:
            raise ConfigError(f"{path}: [{section}] {error}") from error
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: [{section}] {error}") from error


def _converted(key: str, value: object, folder: Path) -> object:
    """Return the value as the section's dataclass takes it; paths and inputs have no type of their own in TOML."""
    if key in _PATHS:
        require.text(ConfigError, key, value)
        return folder / str(value)
    if key == "input":
        inputs = [value] if isinstance(value, str) else value
        if not isinstance(inputs, list) or not all(isinstance(one, str) and one for one in inputs):
            raise require.wrong(ConfigError, key, 'a path, a list of paths, or "-"', value)
        return tuple(STDIN if one == STDIN else str(folder / one) for one in inputs)
    return value


def _unknown(path: Path, shown: str, key: str, known: Mapping[str, Any] | list[str]) -> ConfigError:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    todo = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}."
    return ConfigError(f"{path}: {shown}: unknown key; {todo} All keys: {REFERENCE}")
