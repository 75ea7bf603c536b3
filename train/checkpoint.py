"""The trained model as one safetensors file: half-precision weights, and all else that export needs in its header."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from edge.errors import FieldcubeError
from train.model import AudioEncoder, HashCoder
from train.settings import RunSettings, settings_from
from train.tensor_file import write_tensors

FORMAT_VERSION = 1
DEFAULT = Path(__file__).parent / "starter" / "starter.safetensors"


class CheckpointError(FieldcubeError):
    """A checkpoint that is missing, of another format, or does not fit its own settings."""


@dataclass(frozen=True, slots=True)
class CheckpointNotes:
    """What a checkpoint says about itself."""

    name: str
    licence: str
    licence_note: str
    queries: tuple[str, ...]  # plain query of each class that it was trained on
    decoys: tuple[str, ...]  # sentences that compete with every watchlist
    calibration: dict[str, Any] | None  # coefficient, intercept, n_pairs, source
    data: str  # sets and number of recordings that trained it
    train_run: str  # preset, seed, steps


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights in float32, in eval mode."""

    audio: AudioEncoder
    text_head: HashCoder
    settings: RunSettings
    notes: CheckpointNotes
    sha256: str


def save_checkpoint(
    path: Path, audio: AudioEncoder, text_head: HashCoder, settings: RunSettings, notes: CheckpointNotes
) -> None:
    """Write weights as float16 (BatchNorm statistics as float32) and notes to `path`, atomically."""
    tensors = {f"audio.{k}": v for k, v in audio.state_dict().items()}
    tensors |= {f"text_head.{k}": v for k, v in text_head.state_dict().items()}
    kept = {}
    for name, tensor in tensors.items():
        is_weight = tensor.is_floating_point() and not name.endswith(("running_mean", "running_var"))
        kept[name] = tensor.half() if is_weight else tensor
    metadata = {
        "format_version": str(FORMAT_VERSION),
        "settings": json.dumps(asdict(settings)),
        "notes": json.dumps(asdict(notes), ensure_ascii=False),
    }
    write_tensors(path, kept, metadata)


def load_checkpoint(path: Path = DEFAULT) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: no such file, another format version, or tensors that do not fit the settings in it.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: expected a checkpoint (.safetensors of `python -m train`), found none"
        )
    try:
        with safe_open(path, "pt") as stream:
            metadata = stream.metadata() or {}
        tensors = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: expected a safetensors file, found: {error}") from error
    if metadata.get("format_version") != str(FORMAT_VERSION):
        found = metadata.get("format_version")
        raise CheckpointError(
            f"{path}: expected checkpoint format {FORMAT_VERSION}, found {found}; train again or use another release"
        )
    settings = settings_from(json.loads(metadata["settings"]), str(path))
    values = json.loads(metadata["notes"])
    notes = CheckpointNotes(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    audio = AudioEncoder(settings.audio, settings.n_bits)
    text_head = HashCoder(tensors["text_head.hidden.weight"].shape[1], settings.n_bits)
    for prefix, module in (("audio.", audio), ("text_head.", text_head)):
        state = {
            k.removeprefix(prefix): v.float() if v.dtype == torch.float16 else v
            for k, v in tensors.items()
            if k.startswith(prefix)
        }
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}: weights do not fit the settings stored with them: {error}"
            ) from error
        module.eval()
    return Checkpoint(audio, text_head, settings, notes, hashlib.sha256(path.read_bytes()).hexdigest())
