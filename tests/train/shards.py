"""One training step of a tiny model on a share of a batch: `python -m tests.train.shards FOLDER` is one process of several."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from train.distributed import average_gradients, join, leave, n_processes, rank
from train.model import HashCoder
from train.objectives import HashObjective, hash_terms

OBJECTIVES = {
    "crovca": HashObjective(prefixes=(8,)),
    "as printed": HashObjective(form="paper", diversity=1.0),
    "contrastive": HashObjective(kind="contrastive", balance=0.1),
}
BATCH, N_BITS = 16, 24


def step(objective: HashObjective) -> dict[str, Tensor]:
    """Gradients of all weights, BatchNorm's statistics and the loss after this process's share of one batch."""
    torch.manual_seed(0)
    tower = nn.Linear(12, 10)
    heads = nn.ModuleDict({"text": HashCoder(10, N_BITS), "observation": HashCoder(10, N_BITS)})
    for head in heads.values():
        nn.init.normal_(head.hidden.weight)
        nn.init.normal_(head.bits.weight)
    model = nn.ModuleDict({"tower": tower, "heads": heads})
    texts, windows = torch.randn(BATCH, 12), 2 * torch.randn(BATCH, 12) + 1
    classes = torch.tensor([0, 1, 2, 3, 1, 4, 0, 5, 1, 6, 7, 8, 2, 9, 6, 10])  # several in both halves
    share = BATCH // n_processes()
    own = slice(rank() * share, (rank() + 1) * share)
    logits = heads["text"](tower(texts[own])), heads["observation"](tower(windows[own]))
    loss = torch.stack(list(hash_terms(*logits, classes[own], objective).values())).sum()
    loss.backward()
    average_gradients(model.parameters())
    found = {f"gradient {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    found |= {f"state {name}": value for name, value in model.state_dict().items() if "norm" in name}
    return {**found, "loss": loss.detach()}


def main(folder: Path) -> None:
    """Join the others, take a step for each objective, and write what came out."""
    torch.set_num_threads(1)
    join("cpu")
    for name, objective in OBJECTIVES.items():
        save_file(step(objective), folder / f"{name} {rank()}.safetensors")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
