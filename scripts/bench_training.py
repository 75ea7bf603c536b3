"""Measurements of training for scripts/bench.py: heads from cached features, LoRA on a GPU."""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from train.towers import TowerPair

ENCODERS = ("open_clip:ViT-B-16", "open_clip:ViT-L-14", "clap:random")


def heads(arguments: argparse.Namespace) -> int:
    """Train both hash heads on cached features of pairs: how long the frozen phase takes on this machine."""
    import torch

    from train.head_fitting import CachedPairs, fit_heads
    from train.objectives import HashObjective

    random = np.random.default_rng(0)
    n_classes, n_sentences = max(2, arguments.pairs // 100), 5
    text = random.normal(size=(n_classes * n_sentences, arguments.features)).astype(np.float32)
    classes = np.arange(arguments.pairs) % n_classes
    noise = random.normal(size=(1, arguments.pairs, arguments.features)).astype(np.float32)
    observation = noise + text[classes * n_sentences]
    pairs = CachedPairs(observation, classes, text, np.repeat(np.arange(n_classes), n_sentences))
    start = time.perf_counter()
    fit_heads(pairs, arguments.bits, HashObjective(), epochs=arguments.epochs, batch=arguments.batch)
    seconds = time.perf_counter() - start
    n_steps = arguments.epochs * max(arguments.pairs // arguments.batch, 1)
    print(
        f"hash heads from cached features: {arguments.pairs:,} pairs x {arguments.epochs} epochs, {arguments.features} features -> "
        f"{arguments.bits} bits, batch {arguments.batch}, {torch.get_num_threads()} threads: "
        f"{seconds:.1f} s, {1e3 * seconds / n_steps:.1f} ms a step"
    )
    return 0


@dataclass(frozen=True, slots=True)
class _Measured:
    """LoRA training of one pair of towers."""

    step_s: float
    step_flop: float  # of matrix products that were run, forward and backward, both towers
    peak_bytes: int


def lora(arguments: argparse.Namespace) -> int:
    """LoRA training of both towers, random weights, inputs ready on the card: items a second and share of the card's matmul rate."""
    import torch

    from train.towers import open_towers

    device = arguments.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "bench lora: error: expected a CUDA device, found none; run this on a machine with an NVIDIA GPU and a CUDA build of torch "
            "(--device cpu --batch 2 only tries the script)",
            file=sys.stderr,
        )
        return 1
    rate = matmul_rate(device)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    print(
        f"LoRA training on {name}: batch {arguments.batch}, part {arguments.part or 'all'}, bf16, both towers and heads; "
        f"bf16 matmul of this device: {rate / 1e12:.1f} TFLOP/s"
    )
    print("| towers | items/s | ms a step | TFLOP a step | share of matmul rate | peak GB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for source in arguments.encoders:
        measured = _measure(open_towers(source), arguments, device)
        share = measured.step_flop / measured.step_s / rate
        print(
            f"| {source} | {arguments.batch / measured.step_s:.1f} | {1e3 * measured.step_s:.0f} | {measured.step_flop / 1e12:.2f} | "
            f"{100 * share:.0f} % | {measured.peak_bytes / 1e9:.1f} |",
            flush=True,
        )
    return 0


def matmul_rate(device: str) -> float:
    """FLOP/s of a large bf16 matrix product, the best of ten."""
    import torch

    n = 8192 if device.startswith("cuda") else 1024
    left, right = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = [_timed(lambda: left @ right, device) for _ in range(12)][2:]
    return 2 * n**3 / min(seconds)


def _timed(run: Callable[[], object], device: str) -> float:
    import torch

    finish = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    finish()
    start = time.perf_counter()
    run()
    finish()
    return time.perf_counter() - start


def _measure(pair: TowerPair, arguments: argparse.Namespace, device: str) -> _Measured:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    step = training_step(pair, arguments.batch, arguments.part, arguments.gradient_checkpointing, device)
    with FlopCounterMode(display=False) as counter:
        step()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    times = [_timed(step, device) for _ in range(arguments.steps + 2)][2:]
    peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else 0
    if arguments.profile:
        _profile(step, pair.name, device)
    return _Measured(float(np.median(times)), float(counter.get_total_flops()), peak)


def training_step(
    pair: TowerPair, batch: int, part: int, gradient_checkpointing: bool, device: str
) -> Callable[[], None]:
    """One step of `python -m train hash` on a batch that stays on the device."""
    import torch

    from train.hash_checkpoint import with_adapters
    from train.hash_model import HashModel
    from train.hash_settings import HashRunSettings, HashSchedule
    from train.hashing import gradients_of
    from train.tower_passes import checkpoint_blocks, keep_front_end_exact, precision_on

    schedule = HashSchedule(batch=batch, part=part, gradient_checkpointing=gradient_checkpointing)
    settings = HashRunSettings("bench", pair.source, schedule=schedule)
    for tower in (pair.observation, pair.text):
        tower.requires_grad_(False)
        keep_front_end_exact(tower, device)
    model = HashModel(pair, settings.n_bits)
    adapters = with_adapters(pair, settings)
    model.to(device).eval()
    if gradient_checkpointing:
        for tower in (model.observation, model.text):
            checkpoint_blocks(tower)
    trained = [*adapters[0].parameters(), *adapters[1].parameters(), *model.heads()]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)
    inputs = pair.example(batch).to(device)
    words = ("owl", "frog", "bat", "wren", "fox")
    ids, mask = pair.tokenize([f"the call of {words[i % 5]} number {i}" for i in range(batch)])
    ready = (inputs, torch.arange(batch), ids.to(device), mask.to(device), torch.arange(batch))
    precision = functools.partial(precision_on, device, True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        gradients_of(model, ready, settings, 0, precision, device)
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimiser.step()

    return step


def _profile(step: Callable[[], None], name: str, device: str) -> None:
    """Print the operators that take the most time."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        step()
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    print(f"profile of one step, {name}", file=sys.stderr)
    print(recorded.key_averages().table(sort_by=order, row_limit=25), file=sys.stderr)


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `heads` and `lora` to the measurements."""
    command = commands.add_parser("heads", help=heads.__doc__, description=heads.__doc__)
    for name, default, text in (
        ("pairs", 100_000, "of an observation and its sentence"),
        ("epochs", 5, "over all pairs"),
        ("features", 512, "of the joint space"),
        ("bits", 256, "of a code"),
        ("batch", 256, "pairs a step"),
    ):
        command.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default:,})")
    command.set_defaults(measure=heads)
    command = commands.add_parser("lora", help=lora.__doc__, description=lora.__doc__)
    command.add_argument("--encoders", nargs="+", default=list(ENCODERS), help="(default: %(default)s)")
    command.add_argument("--batch", type=int, default=256, help="items a step (default 256)")
    command.add_argument("--part", type=int, default=0, help="items in a tower at once (default: all)")
    command.add_argument("--steps", type=int, default=10, help="timed after two that are not (default 10)")
    command.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")
    command.add_argument("--profile", action="store_true", help="print where the time of one step goes")
    command.add_argument("--device", default="cuda", help="(default cuda)")
    command.set_defaults(measure=lora)
