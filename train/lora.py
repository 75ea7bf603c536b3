"""LoRA through peft: put adapters into a tower, prove that they act, merge them, and interpolate with the weights before.

peft replaces the layers whose full name matches a regular expression. For open_clip the target is the whole `attn` (an
nn.MultiheadAttention): `out_proj` alone is read by its parent as a bare weight, so an adapter on it is never applied in training
and changes the output once merged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge.errors import FieldcubeError
from train.torchvision_ops import make_torchvision_importable

ADAPTER = "hash"  # the adapter's name inside peft


class LoraError(FieldcubeError):
    """Adapters that would not act, or that do not fit the tower."""


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Rank, scale (alpha / rank), and which layers of each tower (regular expressions on full names; "" = none)."""

    observation_targets: str
    text_targets: str
    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.1


@dataclass(frozen=True, slots=True)
class Adapters:
    """A module with adapters in it."""

    module: nn.Module  # the module itself, its target layers replaced; only the adapters require gradients
    tuner: nn.Module  # peft's LoraModel around it, which can merge

    def parameters(self) -> list[nn.Parameter]:
        """The adapters' weights."""
        return [p for name, p in self.module.named_parameters() if _is_adapter(name)]

    def state(self) -> dict[str, Tensor]:
        """The adapters' weights by name, detached copies."""
        return {
            name: value.detach().clone()
            for name, value in self.module.state_dict().items()
            if _is_adapter(name)
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of state. Raises LoraError for names or shapes that do not fit."""
        own = self.state()
        if set(own) != set(state):
            odd = sorted(set(own) ^ set(state))[0]
            raise LoraError(
                f"adapters: expected {len(own)} tensors, found {len(state)}; first difference: {odd}"
            )
        try:
            self.module.load_state_dict(dict(state), strict=False)
        except RuntimeError as error:
            raise LoraError(f"adapters: expected the shapes of this tower, found: {error}") from error


def _is_adapter(name: str) -> bool:
    return ".lora_" in name or name.startswith("lora_")


def add_adapters(module: nn.Module, targets: str, rank: int, alpha: float, dropout: float = 0.0) -> Adapters:
    """Put LoRA into the layers of `module` whose full name matches `targets`; everything else is frozen. The module is changed in place.

    Raises:
        LoraError: nothing matches, only an attention's out_proj does (its adapter would never be applied), or a layer has no
            matrix to adapt.
    """
    make_torchvision_importable()
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    try:
        names = [name for name, _ in module.named_modules() if re.fullmatch(targets, name)]
    except re.error as error:
        raise LoraError(f"LoRA targets {targets!r}: expected a regular expression, found {error}") from error
    if not names:
        shown = ", ".join(
            sorted({name.rsplit(".", 1)[-1] for name, _ in module.named_modules() if name})[:20]
        )
        raise LoraError(
            f"LoRA targets {targets!r}: expected layers of the tower, found none; its layers end in: {shown}"
        )
    attention = {name for name, child in module.named_modules() if isinstance(child, nn.MultiheadAttention)}
    for name in names:
        parent, _, last = name.rpartition(".")
        if last == "out_proj" and parent in attention and parent not in names:
            raise LoraError(
                f"LoRA target {name}: expected the whole attention, found its out_proj alone, whose adapter is never applied; target {parent}"
            )
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none", target_modules=targets)
    try:
        tuner = LoraModel(module, {ADAPTER: config}, ADAPTER)
    except ValueError as error:  # a layer of a kind without LoRA
        kinds = sorted({type(module.get_submodule(name)).__name__ for name in names})
        raise LoraError(
            f"LoRA targets {targets!r}: expected layers with a matrix (linear, convolution, attention), found {', '.join(kinds)}"
        ) from error
    return Adapters(module, tuner)


def require_effect(adapters: Adapters, run: Callable[[nn.Module], Tensor]) -> None:
    """Raise LoraError where the output of `run` does not follow every adapter, by the gradients of their outer matrices."""
    module = adapters.module
    was_training = module.training
    module.eval()
    outer = {name: p for name, p in module.named_parameters() if _is_adapter(name) and "lora_B" in name}
    with torch.enable_grad():
        found = run(module)
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(0)).to(found)
        gradients = torch.autograd.grad((found * weights).sum(), list(outer.values()), allow_unused=True)
    module.train(was_training)
    idle = [
        name.partition(".lora_")[0]
        for name, each in zip(outer, gradients, strict=True)
        if each is None or not bool(each.abs().max() > 0)
    ]
    if idle:
        raise LoraError(
            f"adapters: expected the output to follow them, found it unchanged by {', '.join(idle[:5])}; choose other targets"
        )


@dataclass(frozen=True, slots=True)
class Merged:
    """A tower with its adapters folded into the weights."""

    module: nn.Module
    max_difference: float  # of any output, against the tower with adapters, relative to the largest output


@torch.no_grad()
def merge(adapters: Adapters, run: Callable[[nn.Module], Tensor]) -> Merged:
    """Fold adapters into the weights; `run` maps the module to outputs on inputs to check with. The adapters are used up."""
    adapters.module.eval()
    before = run(adapters.module)
    merged = adapters.tuner.merge_and_unload()
    after = run(merged)
    return Merged(merged.eval(), float((before - after).abs().max() / before.abs().max().clamp_min(1e-12)))


def patched_state(
    original: Mapping[str, Tensor], merged: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Weights between two models: (1 - alpha) original + alpha merged (patching as in TaxaBind); integer tensors from the merged one."""
    if set(original) != set(merged):
        odd = sorted(set(original) ^ set(merged))[0]
        raise LoraError(f"patching: expected two states of one architecture, found {odd} in one of them only")
    return {
        name: torch.lerp(original[name].float(), value.float(), alpha).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in merged.items()
    }
