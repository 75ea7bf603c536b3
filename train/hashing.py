"""Learning to hash: heads from cached features first, then heads and LoRA live; reads top to bottom.

A run goes on after a kill at any step as if nothing had happened: what is drawn at a step follows from the seed and the step alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from train.distributed import average_gradients, n_processes, rank
from train.examples import Examples, fingerprint
from train.gauges import bit_gauges
from train.hash_checkpoint import HashNotes, save_hash_checkpoint, with_adapters
from train.hash_model import HashModel
from train.hash_settings import HashRunSettings
from train.head_fitting import CachedPairs, cosine_rate, draw_sentences, epoch_order, fit_heads
from train.lora import Adapters, require_effect
from train.objectives import hash_terms
from train.run_state import load_optimiser, load_state, optimiser_tensors, save_state
from train.towers import TowerPair, embed_texts

logger = logging.getLogger(__name__)
CACHE_BATCH = 32


class _Views(Dataset[Tensor]):
    """Items of one augmented view, for the feature cache."""

    def __init__(self, examples: Examples, view: int, seed: int) -> None:
        self.examples, self.view, self.seed = examples, view, seed

    def __len__(self) -> int:
        return len(self.examples.classes)

    def __getitem__(self, index: int) -> Tensor:
        # the first view is the item as it is
        random = np.random.default_rng([self.seed, self.view, index]) if self.view else None
        return self.examples.load(index, random)


@torch.no_grad()
def cached_pairs(
    pair: TowerPair, examples: Examples, settings: HashRunSettings, folder: Path, device: str
) -> CachedPairs:
    """Features of every view and sentence; views that a run before finished are read from `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    key = f"{pair.name}-{fingerprint(examples)}-{settings.seed}"
    views = []
    for view in range(settings.schedule.views):
        file = folder / f"{key}-view{view}.npy"
        if not file.is_file():
            data = _Views(examples, view, settings.seed)
            loader = DataLoader(data, CACHE_BATCH, num_workers=settings.schedule.workers)
            bar = tqdm(loader, desc=f"features, view {view}", unit="batch", disable=None)
            parts = [pair.observation(batch.to(device)).float().cpu() for batch in bar]
            temporary = file.with_suffix(".partial.npy")
            np.save(temporary, torch.cat(parts).numpy())
            temporary.replace(file)
        views.append(np.load(file))
    text = embed_texts(pair, examples.sentences) if device == "cpu" else _embed_on(pair, examples, device)
    return CachedPairs(np.stack(views), examples.classes, text, examples.sentence_classes)


def _embed_on(pair: TowerPair, examples: Examples, device: str) -> NDArray[np.float32]:
    parts = []
    for first in range(0, len(examples.sentences), 256):
        ids, mask = pair.tokenize(examples.sentences[first : first + 256])
        parts.append(pair.text(ids.to(device), mask.to(device)).float().cpu())
    return torch.cat(parts).numpy()


class _Steps(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """The share of one process in every step's batch: (observations, classes, input_ids, attention_mask)."""

    def __init__(self, pair: TowerPair, examples: Examples, settings: HashRunSettings) -> None:
        self.pair_tokenize, self.examples, self.settings = pair.tokenize, examples, settings
        s = settings.schedule
        self.share, self.rank = s.batch // n_processes(), rank()
        self.epochs = [
            epoch_order(
                examples.classes, s.batch, s.balanced, np.random.default_rng([settings.seed, 1000 + e])
            )
            for e in range(s.epochs)
        ]
        self.per_epoch = len(self.epochs[0]) // s.batch if self.epochs else 0

    def __len__(self) -> int:
        return self.per_epoch * len(self.epochs)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        epoch, place = divmod(step, self.per_epoch)
        batch = self.settings.schedule.batch
        rows = self.epochs[epoch][place * batch : (place + 1) * batch]
        classes = self.examples.classes[rows]
        random = np.random.default_rng([self.settings.seed, step])
        sentences = draw_sentences(
            classes, self.examples.sentence_classes, random
        )  # the same in every process
        own = slice(self.rank * self.share, (self.rank + 1) * self.share)
        items = [
            self.examples.load(int(row), np.random.default_rng([self.settings.seed, step, i]))
            for i, row in list(enumerate(rows))[own]
        ]
        ids, mask = self.pair_tokenize([self.examples.sentences[s] for s in sentences])
        return torch.stack(items), torch.from_numpy(classes[own]), ids[own], mask[own]


def train_hash(
    settings: HashRunSettings,
    pair: TowerPair,
    examples: Examples,
    out: Path,
    cache: Path,
    device: str = "cpu",
) -> Path:
    """Train to the end of the schedule, or go on from `out`/state.safetensors; returns the checkpoint's path."""
    s = settings.schedule
    if s.batch % (n_processes() * s.accumulate):
        raise ValueError(f"batch {s.batch}: expected a multiple of processes x accumulate")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    for tower in (pair.observation, pair.text):
        tower.to(device).requires_grad_(False)
    state_file = out / "state.safetensors"
    model = HashModel(pair, settings.n_bits, settings.large_head).to(device)
    if s.frozen_epochs and not state_file.is_file():
        pairs = cached_pairs(pair, examples, settings, cache, device)
        fitted = fit_heads(
            pairs,
            settings.n_bits,
            settings.objective,
            epochs=s.frozen_epochs,
            batch=s.batch,
            rate=s.rate,
            weight_decay=s.weight_decay,
            balanced=s.balanced,
            large=settings.large_head,
            seed=settings.seed,
        )
        model.observation_head.load_state_dict(fitted[0].state_dict())
        model.text_head.load_state_dict(fitted[1].state_dict())
    adapters = _live_phase(settings, pair, examples, model, state_file, device) if s.epochs else None
    path = out / "hash.safetensors"
    if rank() == 0:
        notes = HashNotes(
            settings.name,
            pair.licence,
            f"{examples.name}: {len(examples.classes)} items, {len(np.unique(examples.classes))} classes",
            f"preset {settings.name}, seed {settings.seed}, {s.frozen_epochs} + {s.epochs} epochs of batch {s.batch}, {settings.objective.kind}",
        )
        save_hash_checkpoint(path, (model.observation_head, model.text_head), adapters, settings, notes)
    return path


def _live_phase(
    settings: HashRunSettings,
    pair: TowerPair,
    examples: Examples,
    model: HashModel,
    state_file: Path,
    device: str,
) -> tuple[Adapters, Adapters]:
    """Heads and LoRA on live batches."""
    s = settings.schedule
    adapters = with_adapters(pair, settings)
    sentence = [each.to(device) for each in pair.tokenize(["a tawny owl calls at night"])]
    require_effect(adapters[0], lambda tower: tower(pair.example(1).to(device)))
    require_effect(adapters[1], lambda tower: tower(*sentence))
    if s.gradient_checkpointing:
        checkpoint_gradients(model)
    model.to(
        device
    ).eval()  # towers as they were pretrained: their BatchNorm keeps its statistics, only LoRA drops out
    trained = [*adapters[0].parameters(), *adapters[1].parameters(), *model.heads()]
    optimiser = torch.optim.AdamW(trained, lr=s.rate, weight_decay=s.weight_decay)
    steps = _Steps(pair, examples, settings)
    data_id = fingerprint(examples)
    first = 0
    if state_file.is_file():
        tensors, first = load_state(state_file, settings, data_id, device)
        _load_parts(model, adapters, tensors)
        load_optimiser(optimiser, tensors)
        logger.info("resumed at step %d of %d", first, len(steps))
    sums: dict[str, list[float]] = {}
    bar = tqdm(total=len(steps), initial=first, desc=settings.name, unit="step", disable=rank() > 0 or None)
    for step, (inputs, classes, ids, mask) in enumerate(_loaded(steps, first, s.workers), start=first):
        torch.manual_seed(settings.seed * 1_000_003 + step + rank() * 7919)  # LoRA's dropout
        for module in (model.observation_head, model.text_head, *_dropouts(model)):
            module.train()
        for group in optimiser.param_groups:
            group["lr"] = cosine_rate(step, len(steps), s.rate, s.final_rate)
        optimiser.zero_grad(set_to_none=True)
        for part in np.array_split(np.arange(len(classes)), s.accumulate):
            rows = torch.from_numpy(part)
            own = classes[rows].to(device)
            context = torch.autocast(device.split(":")[0], dtype=torch.bfloat16) if s.bf16 else nullcontext()
            with context:
                observation = model.observation(inputs[rows].to(device))
                distinct, inverse = torch.unique(own, return_inverse=True)
                place = torch.stack([(own == c).nonzero()[0, 0] for c in distinct]).cpu()
                text = model.text(ids[rows][place].to(device), mask[rows][place].to(device))
            text_logits = model.text_head(text.float()[inverse])
            terms = hash_terms(
                text_logits, model.observation_head(observation.float()), own, settings.objective
            )
            (torch.stack(list(terms.values())).sum() / s.accumulate).backward()
            for name, term in terms.items():
                sums.setdefault(name, []).append(float(term.detach()))
        average_gradients(trained)
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimiser.step()
        bar.update()
        done = step + 1
        if rank() == 0 and (done % s.checkpoint_every == 0 or done == len(steps)):
            _log(done, sums, text_logits.detach(), classes[rows])
            sums.clear()
            tensors = _parts(model, adapters) | optimiser_tensors(optimiser)
            save_state(state_file, tensors, settings, data_id, done)
    bar.close()
    model.eval()
    return adapters


def _loaded(steps: _Steps, first: int, workers: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    loader = DataLoader(steps, batch_size=None, sampler=range(first, len(steps)), num_workers=workers)
    yield from loader


def _dropouts(model: nn.Module) -> list[nn.Module]:
    return [module for name, module in model.named_modules() if "lora_dropout" in name]


def _log(done: int, sums: dict[str, list[float]], text_logits: Tensor, classes: Tensor) -> None:
    means = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in sums.items())
    _, first = np.unique(classes.numpy(), return_index=True)
    if len(first) < 2:
        logger.info("step %d: %s", done, means)
        return
    gauges = bit_gauges(text_logits.float().cpu().numpy()[first])
    logger.info("step %d: %s | text codes: %s", done, means, gauges)
    if gauges.distinct < 0.9:
        logger.warning(
            "text codes collapse: only %.2f of them are distinct; raise diversity", gauges.distinct
        )


def _parts(model: HashModel, adapters: tuple[Adapters, Adapters]) -> dict[str, Tensor]:
    tensors = {f"observation_head.{k}": v for k, v in model.observation_head.state_dict().items()}
    tensors |= {f"text_head.{k}": v for k, v in model.text_head.state_dict().items()}
    tensors |= {f"observation.{k}": v for k, v in adapters[0].state().items()}
    return tensors | {f"text.{k}": v for k, v in adapters[1].state().items()}


def _load_parts(model: HashModel, adapters: tuple[Adapters, Adapters], tensors: dict[str, Tensor]) -> None:
    def part(name: str) -> dict[str, Tensor]:
        return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}

    model.observation_head.load_state_dict(part("observation_head"))
    model.text_head.load_state_dict(part("text_head"))
    adapters[0].load(part("observation"))
    adapters[1].load(part("text"))


def checkpoint_gradients(model: nn.Module) -> None:
    """Trade time for memory: keep only block inputs for the backward pass, in towers that know how to."""
    for module in model.modules():
        if hasattr(module, "set_grad_checkpointing") and hasattr(module, "transformer"):
            module.set_grad_checkpointing(True)
        elif hasattr(module, "gradient_checkpointing_enable"):
            module.gradient_checkpointing_enable()
