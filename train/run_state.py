"""State of a run between two steps: weights, averages and optimiser in one safetensors file, no pickle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from train.settings import RunSettings


def save_state(path: Path, tensors: dict[str, Tensor], settings: RunSettings, step: int) -> None:
    """Write a safetensors file with its step and settings, atomically."""
    temporary = path.with_suffix(".partial")
    metadata = {"step": str(step), "settings": json.dumps(asdict(settings))}
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, temporary, metadata=metadata)
    temporary.replace(path)


def load_state(path: Path, device: str) -> tuple[dict[str, Tensor], int]:
    """Read the tensors and the step of a state file."""
    with safe_open(path, "pt") as stream:
        step = int(stream.metadata()["step"])
    return load_file(path, device=device), step


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
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
