"""One training run as one TOML preset."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from edge.errors import ConfigError
from train.augment import AugmentSettings
from train.losses import DiversityForm
from train.model import AudioSettings


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Which recordings train."""

    datasets: tuple[str, ...] = (
        "esc10",
        "phoebe_audio",
        "birdguess_audio",
        "britbird_audio",
        "frogs_audio",
        "maad_soundscapes",
    )
    licences: Literal["all", "open"] = "all"  # open = CC0, CC BY and BSD alone
    fold: int = 0  # 0..4: which fifth of the multi-recording sets is validation
    leave_out: tuple[
        str, ...
    ] = ()  # sets whose recordings, and copies of them in other sets, are not used at all
    background: str = "soundscape"  # class whose recordings are mixed under the others


@dataclass(frozen=True, slots=True)
class ObjectiveSettings:
    """Terms of the loss. The first phase trains the towers contrastively; the second adds the hash terms."""

    form: DiversityForm = "code"
    diversity: float = (
        0.2  # on the text codes and on the audio codes each; lambda of the paper's Eq. 12 is twice this
    )
    alignment: float = 4.0  # at 1.0 it hardly moves in 1000 steps: 0.66 -> 0.63 of ln 2
    code_contrast: float = 1.0  # contrastive term on the signs (straight-through), hash phase
    contrast: float = 1.0  # contrastive term on the continuous logits, first phase
    hash_contrast: float = 0.0  # the same in the hash phase
    temperature: float = 0.07
    code_temperature: float = 0.05
    group_share: float = 0.15  # how often a class is described by a group sentence
    structure: float = 0.5  # keeps the sentence encoder's own similarities in the text codes
    text_noise: float = 0.02  # standard deviation per dimension added to unit-length sentence embeddings


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """Steps, batch and rates."""

    pretrain_steps: int = 2500
    hash_steps: int = 2000
    batch: int = 64
    pretrain_rate: float = 2e-3
    hash_rate: float = 1e-3
    tower_share: float = 0.5  # learning rate of the tower in the hash phase, as a share of the heads' rate
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    ema: float = 0.998  # decay of the averaged weights, which are the ones that are evaluated and kept
    checkpoint_every: int = 500
    shared_steps: int = 0  # of the phase that all folds of `python -m train folds` share


@dataclass(frozen=True, slots=True)
class RunSettings:
    """All of a preset."""

    name: str
    n_bits: int = 256
    seed: int = 1
    text_tower: str = "carrier"
    data: DataSettings = field(default_factory=DataSettings)
    audio: AudioSettings = field(default_factory=AudioSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)


SECTIONS = {
    "data": DataSettings,
    "audio": AudioSettings,
    "augment": AugmentSettings,
    "objective": ObjectiveSettings,
    "schedule": ScheduleSettings,
}


def _build(kind: type, values: dict[str, Any], where: str) -> Any:
    known = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; expected one of {', '.join(sorted(known))}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def settings_from(values: dict[str, Any], where: str) -> RunSettings:
    """Build settings from nested dicts; an unknown key or a section of another kind is a ConfigError."""
    values = dict(values)
    for section, kind in SECTIONS.items():
        if section in values:
            if not isinstance(values[section], dict):
                raise ConfigError(f"{where}: expected a table [{section}], found {values[section]!r}")
            values[section] = _build(kind, values[section], f"{where} [{section}]")
    if "name" not in values:
        raise ConfigError(f"{where}: expected the key name, found none")
    settings: RunSettings = _build(RunSettings, values, where)
    if settings.data.fold not in range(5):
        raise ConfigError(f"{where} [data] fold: expected 0..4, found {settings.data.fold}")
    return settings


def read_preset(preset: str) -> RunSettings:
    """Read a preset by name (a file of train/presets) or by path."""
    path = (
        Path(preset)
        if "/" in preset or preset.endswith(".toml")
        else Path(__file__).parent / "presets" / f"{preset}.toml"
    )
    if not path.is_file():
        names = sorted(p.stem for p in (Path(__file__).parent / "presets").glob("*.toml"))
        raise ConfigError(f"{path}: expected a preset, found none; presets here: {', '.join(names)}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, found: {error}") from error
    return settings_from(values, str(path))
