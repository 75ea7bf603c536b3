"""Features of frozen towers on disk: computed once, by several processes, a block at a time; a killed run goes on at the next block."""

from __future__ import annotations

import hashlib
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from train.distributed import n_processes, rank, wait
from train.examples import Examples, fingerprint
from train.head_fitting import CachedPairs
from train.towers import TowerPair

logger = logging.getLogger(__name__)
BLOCK = 8192  # items of one file
BATCH = 64  # items, or sentences, that are in a tower at once


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What the features depend on besides towers and data, and how they are computed."""

    views: int  # of each item; the first is the item as it is, the others are augmented
    seed: int
    workers: int = 0  # processes that read and decode
    bf16: bool = False


class _Block(Dataset[Tensor]):
    """One view of some items."""

    def __init__(self, examples: Examples, view: int, first: int, seed: int) -> None:
        self.examples, self.view, self.first, self.seed = examples, view, first, seed

    def __len__(self) -> int:
        return min(BLOCK, len(self.examples.classes) - self.first)

    def __getitem__(self, place: int) -> Tensor:
        index = self.first + place
        random = np.random.default_rng([self.seed, self.view, index]) if self.view else None
        return self.examples.load(index, random)


def cached_pairs(
    pair: TowerPair, examples: Examples, settings: CacheSettings, folder: Path, device: str
) -> CachedPairs:
    """Features of every view and sentence, the views as a memory map of one file in `folder`.

    The file's name holds digests of the tower (weights, and how its inputs are made) and of the data (fingerprint), so that one is not
    read for another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tower = hashlib.sha256(f"{weights_digest(pair.observation)} {pair.input}".encode()).hexdigest()[:8]
    key = f"{pair.name}-{tower}-{fingerprint(examples)}-{settings.seed}-{int(settings.bf16)}"
    file = folder / f"{key}-{settings.views}views.npy"
    if not file.is_file():
        blocks = [
            (view, first)
            for view in range(settings.views)
            for first in range(0, len(examples.classes), BLOCK)
        ]
        parts = {block: folder / f"{key}-view{block[0]}-{block[1]}.npy" for block in blocks}
        missing = [block for block in blocks if not parts[block].is_file()]
        wait()  # until every process has looked: what a killed run left to do is shared evenly
        own = missing[rank() :: n_processes()]
        for block in tqdm(own, desc="features", unit="block", disable=None if len(own) > 1 else True):
            inputs = _Block(examples, *block, settings.seed)
            _save(parts[block], _block_features(pair, inputs, settings, device))
        wait()
        if rank() == 0:
            _join(file, parts, settings.views, len(examples.classes))
    wait()
    text = sentence_features(pair, examples.sentences, device)
    return CachedPairs(np.load(file, mmap_mode="r"), examples.classes, text, examples.sentence_classes)


def weights_digest(tower: nn.Module) -> str:
    """Eight digits that change with a tower's weights: a few numbers of each tensor, whatever the tower's size and place."""
    digest = hashlib.sha256()
    for name, value in tower.state_dict().items():
        flat = value.detach().flatten()
        some = flat[:: max(1, flat.numel() // 64)][:64].cpu()
        digest.update(name.encode() + some.double().numpy().tobytes())
    return digest.hexdigest()[:8]


@torch.no_grad()
def _block_features(
    pair: TowerPair, block: _Block, settings: CacheSettings, device: str
) -> NDArray[np.float32]:
    loader = DataLoader(block, BATCH, num_workers=settings.workers, pin_memory=device.startswith("cuda"))
    context = torch.autocast(device.split(":")[0], dtype=torch.bfloat16) if settings.bf16 else nullcontext()
    with context:
        bar = tqdm(loader, desc=f"view {block.view}", unit="batch", leave=False, disable=None)
        parts = [pair.observation(batch.to(device, non_blocking=True)).float().cpu() for batch in bar]
    features: NDArray[np.float32] = torch.cat(parts).numpy()
    return features


@torch.no_grad()
def sentence_features(pair: TowerPair, sentences: tuple[str, ...], device: str) -> NDArray[np.float32]:
    """Features of sentences, [n_sentences, n_features]."""
    parts = []
    for first in range(0, len(sentences), BATCH):
        ids, mask = pair.tokenize(sentences[first : first + BATCH])
        parts.append(pair.text(ids.to(device), mask.to(device)).float().cpu())
    features: NDArray[np.float32] = torch.cat(parts).numpy()
    return features


def _save(file: Path, array: NDArray[np.float32]) -> None:
    temporary = file.with_suffix(".partial")
    with temporary.open("wb") as stream:
        np.save(stream, array)
    temporary.replace(file)


def _join(file: Path, parts: dict[tuple[int, int], Path], n_views: int, n_items: int) -> None:
    """Lay blocks (view, first item) into one file, [n_views, n_items, n_features], and remove them."""
    n_features = np.load(next(iter(parts.values())), mmap_mode="r").shape[1]
    temporary = file.with_suffix(".partial")
    whole = np.lib.format.open_memmap(temporary, "w+", np.float32, (n_views, n_items, n_features))
    for (view, first), part in parts.items():
        block = np.load(part)
        whole[view, first : first + len(block)] = block
    whole.flush()
    del whole
    temporary.replace(file)
    for part in parts.values():
        part.unlink()
    logger.info("cached features of %d items in %s", n_items, file)
