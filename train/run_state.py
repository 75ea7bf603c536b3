"""State of a run between two steps: weights, averages and optimiser in one safetensors file, no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from edge.errors import FieldcubeError
from train.settings import RunSettings


class RunStateError(FieldcubeError):
    """A state file that this run cannot go on from."""


def require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise RunStateError where a training ran out of range: its codes would all be 0."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise RunStateError(
                f"{where}: expected finite weights, found others in {name}; lower the rate, or set bf16 = false, and give another --out"
            )


def save_state(
    path: Path, tensors: dict[str, Tensor], settings: RunSettings, data_id: str, step: int
) -> None:
    """Write a safetensors file with its step and settings, atomically.

    Raises RunStateError for weights that are no longer numbers: what was saved before stays.
    """
    require_finite(tensors, f"step {step}")
    temporary = path.with_suffix(".partial")
    metadata = {"step": str(step), "settings": json.dumps(asdict(settings)), "data": data_id}
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, temporary, metadata=metadata)
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


def load_state(path: Path, settings: RunSettings, data_id: str, device: str) -> tuple[dict[str, Tensor], int]:
    """Read the tensors and the step of a state file that a run of the same settings and recordings left.

    Raises:
        RunStateError: the file is damaged, or of a run with other settings or recordings.
    """
    try:
        with safe_open(path, "pt") as stream:
            metadata = stream.metadata() or {}
        tensors = load_file(path, device=device)
    except SafetensorError as error:
        raise RunStateError(
            f"{path}: expected the state of a run, found: {error}; remove it to begin anew"
        ) from error
    wanted, found = json.loads(json.dumps(asdict(settings))), json.loads(metadata.get("settings", "{}"))
    differing = sorted(key for key in wanted if wanted[key] != found.get(key))
    if differing:
        key = differing[0]
        raise RunStateError(
            f"{path}: expected a run with {key} = {wanted[key]}, found {found.get(key)}; "
            "give another --out, or remove the file to begin anew"
        )
    if metadata.get("data") != data_id:
        raise RunStateError(
            f"{path}: expected a run on recordings {data_id}, found {metadata.get('data')}; give another --out"
        )
    return tensors, int(metadata["step"])


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's moments and step counts as named tensors (no pickle)."""
    state = optimiser.state_dict()["state"]
    return {f"optimiser.{i}.{k}": torch.as_tensor(v) for i, s in state.items() for k, v in s.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of optimiser_tensors."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = (
                value.cpu() if name == "step" else value
            )  # read each step, on the host
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
