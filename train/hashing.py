"""Learning to hash: heads from cached features first, then heads and LoRA on live batches; reads top to bottom.

A run goes on after a kill at any step as if nothing had happened: what is drawn at a step follows from the seed and the step alone.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from edge.errors import ConfigError
from train.data import DataError
from train.distributed import average_gradients, n_processes, rank, wait
from train.examples import Examples, fingerprint
from train.features import CacheSettings, cached_pairs, sentence_features
from train.gauges import BitGauges, bit_gauges
from train.hash_checkpoint import HashNotes, save_hash_checkpoint, towers_digest, with_adapters
from train.hash_model import HashModel
from train.hash_settings import HashRunSettings
from train.head_fitting import GAUGED, cosine_rate, draw_sentences, epoch_order, fit_heads, report
from train.lora import Adapters, require_effect
from train.objectives import hash_terms
from train.run_state import load_optimiser, load_state, optimiser_tensors, save_state
from train.tower_passes import checkpoint_blocks, in_parts, keep_front_end_exact, precision_on
from train.towers import TowerPair

logger = logging.getLogger(__name__)
CHECK_SENTENCE = "a tawny owl calls at night"
Step = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class _Steps(Dataset[Step]):
    """The share of one process in every step's batch: inputs, classes, ids and mask of the distinct sentences, the sentence of each item."""

    def __init__(self, pair: TowerPair, examples: Examples, settings: HashRunSettings) -> None:
        s = settings.schedule
        self.tokenize, self.examples, self.seed = pair.tokenize, examples, settings.seed
        self.batch = min(s.batch, len(examples.classes) // n_processes() * n_processes())
        self.orders = [
            epoch_order(
                examples.classes, self.batch, s.balanced, np.random.default_rng([settings.seed, 1000 + e])
            )
            for e in range(s.epochs)
        ]
        self.per_epoch = len(self.orders[0]) // self.batch
        share = self.batch // n_processes()
        self.own = slice(rank() * share, (rank() + 1) * share)

    def __len__(self) -> int:
        return self.per_epoch * len(self.orders)

    def __getitem__(self, step: int) -> Step:
        epoch, place = divmod(step, self.per_epoch)
        rows = self.orders[epoch][place * self.batch : (place + 1) * self.batch]
        classes = self.examples.classes[rows]
        random = np.random.default_rng([self.seed, step])  # the same in every process
        sentences, sentence_of = np.unique(
            draw_sentences(classes, self.examples.sentence_classes, random)[self.own], return_inverse=True
        )
        inputs = [
            self.examples.load(int(row), np.random.default_rng([self.seed, step, place_in_batch]))
            for place_in_batch, row in list(enumerate(rows))[self.own]
        ]
        ids, mask = self.tokenize([self.examples.sentences[s] for s in sentences])
        return (
            torch.stack(inputs),
            torch.from_numpy(classes[self.own]),
            ids,
            mask,
            torch.from_numpy(sentence_of),
        )


def train_hash(
    settings: HashRunSettings,
    pair: TowerPair,
    examples: Examples,
    out: Path,
    cache: Path,
    device: str = "cpu",
) -> Path:
    """Train to the end of the schedule, or go on from `out`/state.safetensors; returns the checkpoint's path.

    Raises:
        ConfigError: a batch that the processes cannot share; DataError: less than two items for each of them; RunStateError: `out`
            holds another run, or numbers ran out of range.
    """
    s = settings.schedule
    if s.batch % n_processes():
        raise ConfigError(
            f"schedule batch: expected a multiple of the {n_processes()} processes, found {s.batch}"
        )
    if len(examples.classes) < 2 * n_processes():
        raise DataError(
            f"data set {examples.name}: expected two items or more for each process, found {len(examples.classes)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    for tower in (pair.observation, pair.text):
        tower.to(device).eval().requires_grad_(False)
        keep_front_end_exact(tower, device)
    towers = towers_digest(pair)
    torch.manual_seed(settings.seed)
    model = HashModel(pair, settings.n_bits, settings.large_head).to(device)
    state_file = out / "state.safetensors"
    goes_on = s.epochs > 0 and state_file.is_file()
    wait()  # until every process has looked: the first one is about to write that file
    if s.frozen_epochs and not goes_on:
        _frozen_phase(settings, pair, examples, model, cache, device)
    adapters = _live_phase(settings, pair, examples, model, state_file, goes_on, device) if s.epochs else None
    path = out / "hash.safetensors"
    if rank() == 0:
        n_classes = len(np.unique(examples.classes))
        notes = HashNotes(
            settings.name,
            pair.licence,
            f"{examples.name}: {len(examples.classes)} items, {n_classes} classes",
            f"preset {settings.name}, seed {settings.seed}, {s.frozen_epochs} + {s.epochs} epochs of batch {s.batch}, {settings.objective.kind}",
            towers,
        )
        save_hash_checkpoint(path, (model.observation_head, model.text_head), adapters, settings, notes)
        logger.info("wrote %s (%.1f MB)", path, path.stat().st_size / 1e6)
    wait()
    return path


def _frozen_phase(
    settings: HashRunSettings,
    pair: TowerPair,
    examples: Examples,
    model: HashModel,
    cache: Path,
    device: str,
) -> None:
    """Heads alone, on features that were computed once."""
    s = settings.schedule
    bf16 = s.bf16 and device.startswith("cuda")  # most CPUs only emulate it
    pairs = cached_pairs(
        pair, examples, CacheSettings(s.views, settings.seed, s.workers, bf16), cache, device
    )
    fitted = fit_heads(
        pairs,
        settings.n_bits,
        settings.objective,
        epochs=s.frozen_epochs,
        batch=s.batch,
        rate=s.rate,
        final_rate=s.final_rate,
        weight_decay=s.weight_decay,
        balanced=s.balanced,
        large=settings.large_head,
        seed=settings.seed,
        later_epochs=s.epochs,
        device=device,
        log=True,
    )
    model.observation_head.load_state_dict(fitted[0].state_dict())
    model.text_head.load_state_dict(fitted[1].state_dict())


def _live_phase(
    settings: HashRunSettings,
    pair: TowerPair,
    examples: Examples,
    model: HashModel,
    state_file: Path,
    goes_on: bool,
    device: str,
) -> tuple[Adapters, Adapters]:
    """Heads and LoRA on live batches."""
    s = settings.schedule
    torch.manual_seed(settings.seed)  # of the adapters' first weights
    adapters = with_adapters(pair, settings)
    model.to(device).eval()  # towers stay as they were pretrained: their BatchNorm keeps its statistics
    sentence = [each.to(device) for each in pair.tokenize([CHECK_SENTENCE])]
    require_effect(adapters[0], lambda tower: tower(pair.example(1).to(device)))
    require_effect(adapters[1], lambda tower: tower(*sentence))
    if s.gradient_checkpointing:
        for tower in (model.observation, model.text):
            checkpoint_blocks(tower)
    trained = [*adapters[0].parameters(), *adapters[1].parameters(), *model.heads()]
    optimiser = torch.optim.AdamW(trained, lr=s.rate, weight_decay=s.weight_decay)
    steps = _Steps(pair, examples, settings)
    data_id, first = fingerprint(examples), 0
    if goes_on:
        tensors, first = load_state(state_file, settings, data_id, device)
        _load_parts(model, adapters, tensors)
        load_optimiser(optimiser, tensors)
        logger.info("resumed at step %d of %d", first, len(steps))
    elif rank() == 0:
        save_state(state_file, _parts(model, adapters), settings, data_id, 0)
    wait()
    before = s.frozen_epochs * steps.per_epoch
    precision = functools.partial(precision_on, device, s.bf16)
    bar = tqdm(total=len(steps), initial=first, desc=settings.name, unit="step", disable=rank() > 0 or None)
    for step, batch in enumerate(_loaded(steps, first, s.workers, device), start=first):
        for group in optimiser.param_groups:
            group["lr"] = cosine_rate(before + step, before + len(steps), s.rate, s.final_rate)
        optimiser.zero_grad(set_to_none=True)
        seed = (settings.seed * 1_000_003 + step) * 4096 + rank()  # of LoRA's dropout
        terms = gradients_of(model, batch, settings, seed, precision, device)
        average_gradients(trained)
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimiser.step()
        bar.update()
        done = step + 1
        if done % steps.per_epoch == 0 and rank() == 0:
            gauges = _text_gauges(model, pair, examples, device)
            report(s.frozen_epochs + done // steps.per_epoch, terms, gauges)
        if rank() == 0 and (done % s.checkpoint_every == 0 or done == len(steps)):
            save_state(
                state_file, _parts(model, adapters) | optimiser_tensors(optimiser), settings, data_id, done
            )
    bar.close()
    model.eval()
    return adapters


def gradients_of(
    model: HashModel,
    batch: Step,
    settings: HashRunSettings,
    seed: int,
    precision: Callable[[], AbstractContextManager[object]],
    device: str,
) -> dict[str, Tensor]:
    """Add the gradients of one batch to adapters and heads; returns the terms of its loss."""
    inputs, classes, ids, mask, sentence_of = (each.to(device, non_blocking=True) for each in batch)
    for module in (model.observation_head, model.text_head, *_dropouts(model)):
        module.train()
    size = settings.schedule.part
    observation, pull_observation = in_parts(model.observation, (inputs,), size, seed, precision)
    text, pull_text = in_parts(model.text, (ids, mask), size, seed + 2048, precision)
    text_logits = model.text_head(text[sentence_of])
    terms = hash_terms(text_logits, model.observation_head(observation), classes, settings.objective)
    torch.stack(list(terms.values())).sum().backward()
    pull_observation()
    pull_text()
    return terms


def _loaded(steps: _Steps, first: int, workers: int, device: str) -> Iterator[Step]:
    yield from DataLoader(
        steps,
        batch_size=None,
        sampler=range(first, len(steps)),
        num_workers=workers,
        pin_memory=device.startswith("cuda"),
    )


def _dropouts(model: nn.Module) -> list[nn.Module]:
    return [module for name, module in model.named_modules() if "lora_dropout" in name]


def _text_gauges(model: HashModel, pair: TowerPair, examples: Examples, device: str) -> BitGauges | None:
    """Gauges of the codes of each class's first sentence."""
    _, first = np.unique(examples.sentence_classes, return_index=True)
    if len(first) < 2:
        return None
    model.eval()
    features = sentence_features(pair, tuple(examples.sentences[i] for i in first[:GAUGED]), device)
    with torch.no_grad():
        logits = model.text_head(torch.from_numpy(features).to(device))
    return bit_gauges(logits.float().cpu().numpy())


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
