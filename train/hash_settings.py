"""One hashing run as one TOML preset: which encoder, which data, LoRA, objective, schedule."""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import ConfigError
from train.datasets.prompts import FORMATS
from train.objectives import HashObjective

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WIDTHS = (16, 32, 64, 128, 192, 256)  # of a code


def _require(section: str, **found: tuple[float, float]) -> None:
    """Raise ConfigError for a value (first) below its least one (second)."""
    for name, (value, least) in found.items():
        if not value >= least:
            raise ConfigError(f"{section} {name}: expected {least:g} or more, found {value}")


@dataclass(frozen=True, slots=True)
class LoraOverrides:
    """LoRA of the live phase; targets "" = the tower's own preset."""

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.1
    observation_targets: str = ""
    text_targets: str = ""

    def __post_init__(self) -> None:
        _require("lora", rank=(self.rank, 1), alpha=(self.alpha, 1e-6), dropout=(self.dropout, 0))
        if self.dropout >= 1:
            raise ConfigError(f"lora dropout: expected less than 1, found {self.dropout}")


@dataclass(frozen=True, slots=True)
class HashSchedule:
    """Epochs, batch and rates (METHOD's defaults: 5 epochs, the first with frozen towers)."""

    frozen_epochs: int = 1  # heads alone, from cached features
    epochs: int = 4  # heads and LoRA, live
    batch: int = 256  # items of all processes together
    part: int = (
        0  # items that are in a tower at once, 0 = all; loss and statistics stay those of the whole batch
    )
    rate: float = 1e-3
    final_rate: float = 1e-6
    weight_decay: float = 1e-2
    views: int = 2  # augmented views of each item in the feature cache
    balanced: bool = True  # species are drawn evenly
    checkpoint_every: int = 200  # steps
    workers: int = 2  # processes that read and decode
    bf16: bool = True
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        _require("schedule", frozen_epochs=(self.frozen_epochs, 0), epochs=(self.epochs, 0))
        _require("schedule", batch=(self.batch, 2), part=(self.part, 0), views=(self.views, 1))
        _require("schedule", checkpoint_every=(self.checkpoint_every, 1), workers=(self.workers, 0))
        _require("schedule", rate=(self.rate, 1e-12), final_rate=(self.final_rate, 0))
        _require("schedule", weight_decay=(self.weight_decay, 0))
        if not self.frozen_epochs + self.epochs:
            raise ConfigError("schedule: expected frozen_epochs or epochs of 1 or more, found 0 of both")


@dataclass(frozen=True, slots=True)
class HashRunSettings:
    """All of a preset."""

    name: str
    encoder: str
    dataset: str = ""
    n_bits: int = 256
    large_head: bool = False
    prompts: tuple[
        str, ...
    ] = ()  # wordings of a species (train/datasets/prompts.py), drawn evenly; () = all of them
    seed: int = 1
    objective: HashObjective = field(default_factory=HashObjective)
    lora: LoraOverrides = field(default_factory=LoraOverrides)
    schedule: HashSchedule = field(default_factory=HashSchedule)

    def __post_init__(self) -> None:
        if self.n_bits not in WIDTHS:
            raise ConfigError(f"n_bits: expected {', '.join(map(str, WIDTHS))}, found {self.n_bits}")


SECTIONS = {"objective": HashObjective, "lora": LoraOverrides, "schedule": HashSchedule}


def _build(kind: type, values: dict[str, Any], where: str) -> Any:
    fields = {each.name: each for each in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; expected one of {', '.join(sorted(fields))}")
    for name, value in values.items():
        default = fields[name].default
        if fields[name].default_factory is dataclasses.MISSING and not _is_like(value, default):
            wanted = "text" if default is dataclasses.MISSING else f"a value like {default!r}"
            wanted = "a list" if isinstance(default, tuple) else wanted
            raise ConfigError(f"{where} {name}: expected {wanted}, found {value!r}")
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _is_like(value: object, default: object) -> bool:
    """Whether a value of a preset is of the kind of its default: TOML says 16 where 16.0 is meant, but never "16" or true."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float) and math.isfinite(value)
    if isinstance(default, int):
        return isinstance(value, int)
    if isinstance(default, tuple):
        return isinstance(value, list | tuple)
    return isinstance(value, str)


def hash_settings_from(values: dict[str, Any], where: str) -> HashRunSettings:
    """Build settings from nested dicts; an unknown key, a missing one or a section of another kind is a ConfigError."""
    values = dict(values)
    for section, kind in SECTIONS.items():
        if section in values:
            if not isinstance(values[section], dict):
                raise ConfigError(f"{where}: expected a table [{section}], found {values[section]!r}")
            values[section] = _build(kind, values[section], f"{where} [{section}]")
    for key in ("name", "encoder"):
        if key not in values:
            raise ConfigError(f"{where}: expected the key {key}, found none")
    settings: HashRunSettings = _build(HashRunSettings, values, where)
    wide = [bits for bits in settings.objective.prefixes if bits >= settings.n_bits]
    if wide:
        raise ConfigError(
            f"{where} prefixes: expected fewer bits than the {settings.n_bits} of the code, found {wide[0]}"
        )
    unknown = sorted(set(settings.prompts) - set(FORMATS))
    if unknown:
        raise ConfigError(f"{where} prompts: expected some of {', '.join(FORMATS)}, found {unknown[0]!r}")
    return settings


def read_hash_preset(preset: str) -> HashRunSettings:
    """Read a preset by name (a file of train/presets with an encoder in it) or by path."""
    folder = Path(__file__).parent / "presets"
    path = Path(preset) if "/" in preset or preset.endswith(".toml") else folder / f"{preset}.toml"
    if not path.is_file():
        names = sorted(p.stem for p in folder.glob("*.toml") if "\nencoder" in p.read_text(encoding="utf-8"))
        raise ConfigError(f"{path}: expected a preset, found none; presets here: {', '.join(names)}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, found: {error}") from error
    return hash_settings_from(values, str(path))
