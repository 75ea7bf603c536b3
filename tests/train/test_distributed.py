"""Several processes train as one does: two of them over gloo against a single one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.train.shards import BATCH, OBJECTIVES, step
from train.distributed import BatchNorm, all_rows, average_gradients, n_processes, rank, sum_over_processes

ROOT = Path(__file__).resolve().parents[2]


def run_processes(module: str, *arguments: str, n: int = 2) -> None:
    """Run a module in n processes that find one another as torchrun's do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n)}
    shared |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", module, *arguments]
    started = [
        subprocess.Popen(
            command, cwd=ROOT, env={**shared, "RANK": str(i), "LOCAL_RANK": str(i)}, stderr=subprocess.PIPE
        )
        for i in range(n)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors.decode()[-2000:]
    finally:
        for process in started:
            process.kill()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    run_processes("tests.train.shards", str(folder))
    return folder


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_have_the_gradients_and_statistics_of_one(two_processes, name):
    alone = step(OBJECTIVES[name])
    for number in range(2):
        shared = load_file(two_processes / f"{name} {number}.safetensors")
        assert set(shared) == set(alone)
        for key, value in alone.items():
            if key != "loss":  # each process has its own share of it
                torch.testing.assert_close(
                    shared[key], value, rtol=1e-4, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}"
                )
    losses = [load_file(two_processes / f"{name} {number}.safetensors")["loss"] for number in range(2)]
    torch.testing.assert_close(torch.stack(losses).mean(), alone["loss"], rtol=1e-4, atol=1e-6)


def test_the_gradients_that_are_compared_are_not_small():
    found = step(OBJECTIVES["crovca"])
    assert float(found["gradient tower.weight"].abs().max()) > 1e-3
    assert int(found["state heads.text.norm.num_batches_tracked"]) == 1


def test_alone_nothing_is_exchanged():
    rows = torch.randn(BATCH, 4, requires_grad=True)
    assert sum_over_processes(rows) is rows
    assert all_rows(rows) is rows
    average_gradients([rows])
    assert rows.grad is None
    assert (rank(), n_processes()) == (0, 1)
    ours, torchs = BatchNorm(4, affine=False), nn.BatchNorm1d(4, affine=False)
    torch.testing.assert_close(ours(rows), torchs(rows), rtol=0, atol=0)
