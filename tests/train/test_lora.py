"""Adapters: they act, they alone learn, they merge without a trace; weights between two models."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.train.tiny_towers import tiny_clap, tiny_open_clip
from train.lora import LoraError, add_adapters, merge, patched_state, require_effect
from train.towers import open_towers


class ConvNet(nn.Module):
    """Convolutions and a linear layer, as the starter's tower has them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2)
        self.out = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv1(x)))
        return self.out(torch.relu(self.conv2(x)).mean(dim=(2, 3)))


def conv_net() -> nn.Module:
    torch.manual_seed(0)
    return ConvNet().eval()


def on_pictures(module: nn.Module) -> Tensor:
    return module(torch.randn(3, 1, 9, 9, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    return {
        "clip": tiny_open_clip(tmp_path_factory.mktemp("clip")),
        "clap": tiny_clap(tmp_path_factory.mktemp("clap")),
    }


def tower_of(kind: str, sources: dict[str, str]):
    """(module, targets, run) of one tower."""
    if kind == "conv":
        return conv_net(), r"conv[12]|out", on_pictures
    name, side = kind.split()
    pair = open_towers(sources[name])
    if side == "text":
        ids, mask = pair.tokenize(["a tawny owl", "rain on leaves"])
        return pair.text, pair.lora.text_targets, lambda module: module(ids, mask)
    example = pair.example(2)
    return pair.observation, pair.lora.observation_targets, lambda module: module(example)


KINDS = ["clip text", "clip observation", "clap text", "clap observation", "conv"]


def train_a_little(adapters, run) -> None:
    """Two steps of plain descent, large enough to see."""
    for _ in range(2):
        run(adapters.module).square().sum().backward()
        with torch.no_grad():
            for weight in adapters.parameters():
                weight.sub_(0.05 * weight.grad / weight.grad.norm().clamp_min(1e-12))
                weight.grad = None


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_arrive_at_every_adapter_and_nowhere_else(kind, sources):
    module, targets, run = tower_of(kind, sources)
    plain = run(module)
    adapters = add_adapters(module, targets, rank=2, alpha=2)
    torch.testing.assert_close(run(module), plain, rtol=0, atol=1e-6)  # at the start they change nothing
    require_effect(adapters, run)
    torch.testing.assert_close(run(module), plain, rtol=0, atol=1e-6)
    train_a_little(adapters, run)
    assert (run(module) - plain).abs().max() > 1e-4
    run(module).square().sum().backward()
    named = dict(module.named_parameters())
    assert {n for n, p in named.items() if p.requires_grad} == set(adapters.state())
    for name, weight in named.items():
        has_gradient = weight.grad is not None and bool(weight.grad.abs().max() > 0)
        assert has_gradient == (".lora_" in name), name


@pytest.mark.parametrize("kind", KINDS)
def test_merging_changes_no_output(kind, sources):
    module, targets, run = tower_of(kind, sources)
    names = set(module.state_dict())
    adapters = add_adapters(module, targets, rank=2, alpha=4, dropout=0.1)
    module.eval()
    plain = run(module)
    train_a_little(adapters, run)
    trained = run(module)
    merged = merge(adapters, run)
    assert merged.max_difference <= 1e-5
    torch.testing.assert_close(run(merged.module), trained, rtol=1e-4, atol=1e-5)
    assert (run(merged.module) - plain).abs().max() > 1e-4
    assert set(merged.module.state_dict()) == names  # nothing of peft is left


def test_adapters_are_saved_and_loaded():
    module = conv_net()
    adapters = add_adapters(module, r"conv1", rank=2, alpha=2)
    train_a_little(adapters, on_pictures)
    state, wanted = adapters.state(), on_pictures(module)
    other = conv_net()
    fresh = add_adapters(other, r"conv1", rank=2, alpha=2)
    fresh.load(state)
    torch.testing.assert_close(on_pictures(other), wanted, rtol=0, atol=0)
    with pytest.raises(LoraError, match="expected 2 tensors, found 1; first difference: .*conv1"):
        fresh.load(dict(list(state.items())[:1]))
    with pytest.raises(LoraError, match="expected the shapes of this tower"):
        add_adapters(conv_net(), r"conv1", rank=3, alpha=2).load(state)


def test_targets_that_would_do_nothing_are_refused(sources):
    text = open_towers(sources["clip"]).text
    with pytest.raises(LoraError, match=r"found its out_proj alone.*; target tower\.transformer"):
        add_adapters(text, r".*\.attn\.out_proj", rank=2, alpha=2)
    with pytest.raises(LoraError, match="found none; its layers end in: .*attn.*out_proj"):
        add_adapters(text, r".*\.query", rank=2, alpha=2)
    with pytest.raises(LoraError, match="found none"):  # a part of a name is no match
        add_adapters(conv_net(), r"conv", rank=2, alpha=2)
    with pytest.raises(LoraError, match="expected a regular expression, found missing"):
        add_adapters(conv_net(), "conv(", rank=2, alpha=2)
    with pytest.raises(LoraError, match="found BatchNorm2d"):
        add_adapters(conv_net(), r"norm", rank=2, alpha=2)


def test_an_effect_is_required_of_every_adapter():
    class HalfUsed(ConvNet):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(3, 3)

    adapters = add_adapters(HalfUsed().eval(), r"unused|out", rank=2, alpha=2)
    with pytest.raises(LoraError, match="expected the output to follow them, found it unchanged by unused"):
        require_effect(adapters, on_pictures)


def test_weights_between_two_models():
    first = {"a": torch.tensor([0.0, 2.0]), "n": torch.tensor(3)}
    second = {"a": torch.tensor([1.0, 0.0]), "n": torch.tensor(5)}
    torch.testing.assert_close(patched_state(first, second, 0.0)["a"], first["a"])
    torch.testing.assert_close(patched_state(first, second, 0.25)["a"], torch.tensor([0.25, 1.5]))
    torch.testing.assert_close(patched_state(first, second, 1.0)["a"], second["a"])
    assert patched_state(first, second, 0.25)["n"] == 5
    with pytest.raises(LoraError, match="two states of one architecture, found n in one of them only"):
        patched_state({"a": first["a"]}, second, 0.5)
