"""How a batch goes through a tower: in parts, in bfloat16 around an exact front end, with blocks that are run again to save memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from edge.errors import ConfigError


def in_parts(
    tower: nn.Module,
    inputs: tuple[Tensor, ...],
    size: int,
    seed: int,
    precision: Callable[[], AbstractContextManager[object]],
) -> tuple[Tensor, Callable[[], None]]:
    """Features of a batch of which at most `size` items are in the tower at once, and what carries their gradient into it afterwards.

    The loss sees the whole batch, whatever the size (the gradient cache of Gao et al. 2021): a first pass keeps only features, a second one
    runs each part again, with the same dropout, and pulls that part's gradient through.
    """
    n = len(inputs[0])
    size = size or n

    def run(first: int) -> Tensor:
        torch.manual_seed(seed + first)
        with precision():
            features: Tensor = tower(*(each[first : first + size] for each in inputs))
        return features.float()

    if n <= size:
        return run(0), lambda: None
    starts = range(0, n, size)
    with torch.no_grad():
        features = torch.cat([run(first) for first in starts])
    features.requires_grad_()

    def pull() -> None:
        assert features.grad is not None
        for first, gradient in zip(starts, features.grad.split(size), strict=True):
            run(first).backward(gradient)

    return features, pull


def precision_on(device: str, bf16: bool) -> AbstractContextManager[object]:
    """Autocast to bfloat16, or nothing."""
    return torch.autocast(device.split(":")[0], dtype=torch.bfloat16) if bf16 else nullcontext()


def keep_front_end_exact(tower: nn.Module, device: str) -> None:
    """Compute spectra in float32 inside autocast too: 8 bits of mantissa bury quiet bands under loud ones."""
    for module in tower.modules():
        if "LogMel" in type(module).__name__:
            module.forward = torch.autocast(device.split(":")[0], enabled=False)(module.forward)  # type: ignore[method-assign]


def checkpoint_blocks(tower: nn.Module) -> None:
    """Trade time for memory: keep only the inputs of each block of the tower, and run it again in the backward pass.

    Raises:
        ConfigError: the tower is not made of blocks in a list that all have adapters.
    """
    found: list[str] = []
    for name, blocks in tower.named_modules():
        if not isinstance(blocks, nn.ModuleList) or any(name.startswith(f"{outer}.") for outer in found):
            continue
        if all(any(p.requires_grad for p in block.parameters()) for block in blocks):
            found.append(name)
            for block in blocks:
                block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    if not found:
        raise ConfigError(
            "schedule gradient_checkpointing: expected a tower of blocks with LoRA in each, found none; "
            "set part instead, which bounds memory for every tower"
        )
