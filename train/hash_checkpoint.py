"""A hashing run's result as one small safetensors file: heads and adapters, and where the towers come from. The towers are not in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from train.checkpoint import CheckpointError
from train.features import weights_digest
from train.hash_settings import HashRunSettings, hash_settings_from
from train.lora import Adapters, LoraError, add_adapters, merge, patched_state
from train.model import HashCoder
from train.run_state import require_finite
from train.tensor_file import write_tensors
from train.towers import TowerPair, open_towers

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class HashNotes:
    """What a checkpoint says about itself."""

    name: str
    licence: str
    data: str
    train_run: str
    towers: str = ""  # towers_digest of the pretrained weights; "" = not told, by a run of before it was kept
    patch_alpha: float = 1.0  # 1 = the merged weights, 0 = the pretrained ones


@dataclass(frozen=True, slots=True)
class HashCheckpoint:
    """Towers with adapters merged (and patched), heads; all in eval mode."""

    pair: TowerPair
    observation_head: HashCoder
    text_head: HashCoder
    settings: HashRunSettings
    notes: HashNotes
    sha256: str
    merge_difference: float  # the largest relative difference of an output, merged against with adapters


def towers_digest(pair: TowerPair) -> str:
    """Digits that change with the weights of either tower."""
    return f"{weights_digest(pair.observation)}-{weights_digest(pair.text)}"


def targets_of(pair: TowerPair, settings: HashRunSettings) -> tuple[str, str]:
    """Layers that get adapters: the run's own choice, else the tower's preset; (observation, text)."""
    return (
        settings.lora.observation_targets or pair.lora.observation_targets,
        settings.lora.text_targets or pair.lora.text_targets,
    )


def with_adapters(pair: TowerPair, settings: HashRunSettings) -> tuple[Adapters, Adapters]:
    """Put the run's adapters into both towers (changed in place)."""
    lora = settings.lora
    observation, text = targets_of(pair, settings)
    return (
        add_adapters(pair.observation, observation, lora.rank, lora.alpha, lora.dropout),
        add_adapters(pair.text, text, lora.rank, lora.alpha, lora.dropout),
    )


def save_hash_checkpoint(
    path: Path,
    heads: tuple[HashCoder, HashCoder],
    adapters: tuple[Adapters, Adapters] | None,
    settings: HashRunSettings,
    notes: HashNotes,
) -> None:
    """Write (observation's, text's) heads and adapters; adapters None: the towers stayed frozen. Atomic.

    Raises RunStateError for weights that are no longer numbers.
    """
    tensors: dict[str, Tensor] = {}
    for name, head in zip(("observation_head", "text_head"), heads, strict=True):
        tensors |= {f"{name}.{k}": v for k, v in head.state_dict().items()}
    if adapters is not None:
        for name, each in zip(("observation", "text"), adapters, strict=True):
            tensors |= {f"{name}.{k}": v for k, v in each.state().items()}
    require_finite(tensors, settings.name)
    metadata = {
        "format_version": str(FORMAT_VERSION),
        "kind": "hash",
        "settings": json.dumps(asdict(settings)),
        "notes": json.dumps(asdict(notes), ensure_ascii=False),
    }
    write_tensors(path, tensors, metadata)


def with_patch(path: Path, alpha: float, out: Path) -> None:
    """Write a checkpoint again with other patching: 0 = the pretrained towers, 1 = with the adapters merged. Heads stay. Atomic."""
    _, tensors, metadata = _read(path)
    notes = {**json.loads(metadata["notes"]), "patch_alpha": alpha}
    write_tensors(out, tensors, {**metadata, "notes": json.dumps(notes, ensure_ascii=False)})


def is_hash_checkpoint(path: Path) -> bool:
    """Whether a safetensors file is the result of `python -m train hash`."""
    try:
        with safe_open(path, "pt") as stream:
            return (stream.metadata() or {}).get("kind") == "hash"
    except (SafetensorError, OSError):
        return False


def read_settings(path: Path) -> HashRunSettings:
    """Settings of the run that left a checkpoint. Raises CheckpointError as load_hash_checkpoint."""
    return _read(path)[0]


def _read(path: Path) -> tuple[HashRunSettings, dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: expected a checkpoint (hash.safetensors of `python -m train hash`), found none"
        )
    try:
        with safe_open(path, "pt") as stream:
            metadata = stream.metadata() or {}
        tensors = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: expected a safetensors file, found: {error}") from error
    if metadata.get("kind") != "hash" or metadata.get("format_version") != str(FORMAT_VERSION):
        found = f"kind {metadata.get('kind')}, format {metadata.get('format_version')}"
        raise CheckpointError(
            f"{path}: expected a hashing checkpoint of format {FORMAT_VERSION}, found {found}"
        )
    return hash_settings_from(json.loads(metadata["settings"]), str(path)), tensors, metadata


def load_hash_checkpoint(path: Path, encoder: str | None = None) -> HashCheckpoint:
    """Open the towers, put the adapters in, merge and patch.

    Args:
        encoder: where the towers are now, where that is not what the run was told.

    Raises:
        CheckpointError: no such file, another format, tensors that do not fit, towers with other weights than those that the run
            began with; TowerError: the towers cannot be opened.
    """
    settings, tensors, metadata = _read(path)
    notes = HashNotes(**json.loads(metadata["notes"]))
    source = encoder or settings.encoder
    pair = open_towers(source)
    found = towers_digest(pair)
    if notes.towers not in ("", found):
        raise CheckpointError(
            f"{path}: expected the towers that it was trained on (weights {notes.towers}), found others in {source} ({found}); "
            "give --encoder with the weights that the run began with"
        )
    heads = [HashCoder(pair.n_features, settings.n_bits, settings.large_head) for _ in range(2)]
    try:
        for head, name in zip(heads, ("observation_head", "text_head"), strict=True):
            head.load_state_dict(_part(tensors, name))
        difference = 0.0
        if any(name.startswith("observation.") for name in tensors):
            difference = _merge_both(pair, settings, tensors, notes.patch_alpha)
    except (RuntimeError, LoraError) as error:
        raise CheckpointError(
            f"{path}: expected tensors that fit {settings.encoder}, found: {error}"
        ) from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return HashCheckpoint(pair, heads[0].eval(), heads[1].eval(), settings, notes, digest, difference)


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}


def _merge_both(
    pair: TowerPair, settings: HashRunSettings, tensors: dict[str, Tensor], alpha: float
) -> float:
    """Merge and patch both towers in place; returns the largest difference that merging made."""
    originals = [_copied(tower) for tower in (pair.observation, pair.text)]
    adapters = with_adapters(pair, settings)
    differences = []
    inputs: list[tuple[Any, ...]] = [(pair.example(1),), pair.tokenize(["a tawny owl calls at night"])]
    names = ("observation", "text")
    for each, name, arguments, original in zip(adapters, names, inputs, originals, strict=True):
        each.load(_part(tensors, name))

        def run(tower: nn.Module, arguments: tuple[Any, ...] = arguments) -> Tensor:
            features: Tensor = tower(*arguments)
            return features

        merged = merge(each, run)
        differences.append(merged.max_difference)
        if alpha < 1.0:
            merged.module.load_state_dict(patched_state(original, merged.module.state_dict(), alpha))
    return max(differences)


def _copied(tower: nn.Module) -> dict[str, Tensor]:
    with torch.no_grad():
        return {name: value.clone() for name, value in tower.state_dict().items()}
