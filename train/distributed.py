"""One training over several processes (torchrun): sums with gradients, so that every process sees the whole batch's statistics.

Alignment needs no exchange; the coding rate needs the sum of each process's Gram matrix; BatchNorm the sums of its rows; a contrastive
term all rows. Each process computes its own loss and gradients are averaged: together exactly what one process computes on the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = timedelta(
    hours=4
)  # while one process lays the features of millions of items into a file, the others wait


def is_distributed() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Number of this process, 0 alone."""
    return dist.get_rank() if is_distributed() else 0


def n_processes() -> int:
    """How many train together."""
    return dist.get_world_size() if is_distributed() else 1


def join(device: str) -> str:
    """Join the other processes where torchrun started this one (nccl on GPUs, gloo on CPUs); returns this process's own device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    if device == "cuda" and is_distributed():
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    return device


def wait() -> None:
    """Wait until every process has come here."""
    if is_distributed():
        dist.barrier()


def leave() -> None:
    """Leave the group, where there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """Sum over processes. Each process's loss depends on the sum, so the gradient is summed as well; averaging gradients later is then exact."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum of a tensor over all processes, with gradients; the tensor itself alone."""
    if not is_distributed():
        return value
    total: Tensor = _Sum.apply(value)
    return total


def all_rows(rows: Tensor) -> Tensor:
    """Rows of all processes in the order of their ranks, with gradients; every process must hold equally many."""
    if not is_distributed():
        return rows
    n = len(rows)
    wide = rows.new_zeros((n * n_processes(), *rows.shape[1:]))
    placed = torch.cat([wide[: rank() * n], rows, wide[(rank() + 1) * n :]])
    return sum_over_processes(placed)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over processes, in one exchange."""
    if not is_distributed():
        return
    trained = [p for p in parameters if p.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= n_processes()
    for parameter, mean in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
        parameter.grad = mean.view_as(parameter)


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm1d over the rows of all processes, on CPUs as on GPUs (torch's SyncBatchNorm has no CPU form)."""

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise [batch, n] by the statistics of the whole batch."""
        if not (self.training and is_distributed()):
            normed: Tensor = super().forward(rows)
            return normed
        count = sum_over_processes(torch.tensor(float(len(rows)), device=rows.device))
        mean = sum_over_processes(rows.sum(dim=0)) / count
        centred = rows - mean
        variance = sum_over_processes(centred.square().sum(dim=0)) / count
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None  # tracked with the other two
            with torch.no_grad():
                keep = 1 - (self.momentum or 0.0)
                self.running_mean.mul_(keep).add_(mean.detach(), alpha=1 - keep)
                unbiased = variance.detach() * count / (count - 1)
                self.running_var.mul_(keep).add_(unbiased, alpha=1 - keep)
                self.num_batches_tracked.add_(1)
        normalised = centred * torch.rsqrt(variance + self.eps)
        return normalised if self.weight is None else normalised * self.weight + self.bias
