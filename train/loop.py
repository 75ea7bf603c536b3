"""The training loop: reads top to bottom. Draw windows and sentences, encode both, pull matching codes together, log, save."""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from train import losses
from train.augment import Batch, WindowSampler, mask_and_tilt
from train.data import DataError
from train.gauges import bit_gauges
from train.model import AudioEncoder, HashCoder
from train.prepare import TrainingData
from train.run_state import load_optimiser, load_state, optimiser_tensors, save_state
from train.settings import RunSettings
from train.texts import Vocabulary

logger = logging.getLogger(__name__)


class StarterModel(nn.Module):
    """What is trained: the audio encoder and the head of the frozen sentence encoder."""

    def __init__(self, settings: RunSettings, n_text_features: int) -> None:
        super().__init__()
        self.audio = AudioEncoder(settings.audio, settings.n_bits)
        self.text_head = HashCoder(n_text_features, settings.n_bits)


def choose_prompts(
    vocabulary: Vocabulary, group_share: float, random: np.random.Generator
) -> tuple[list[int], NDArray[np.bool_]]:
    """One sentence for each class, and the table [n_classes, n_texts] of which sentence is true of which class."""
    n_classes = len(vocabulary.class_keys)
    chosen, true_of = [], np.zeros((n_classes, n_classes), dtype=bool)
    for column in range(n_classes):
        groups = vocabulary.groups[column]
        pool = groups if groups and random.random() < group_share else vocabulary.own[column]
        prompt = pool[int(random.integers(len(pool)))]
        chosen.append(prompt)
        true_of[list(vocabulary.prompts[prompt].classes), column] = True
    return chosen, true_of


def prefetch(sampler: WindowSampler, size: int, seed: int, first_step: int, n_steps: int) -> Iterator[Batch]:
    """Draw batches in a thread of their own. Each step has its own generator: a resumed run sees the same windows."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=4)

    def draw() -> None:
        try:
            for step in range(first_step, n_steps):
                ready.put(sampler.batch(size, np.random.default_rng([seed, step])))
        except BaseException as error:  # handed to the consumer, which raises it
            ready.put(error)

    threading.Thread(target=draw, daemon=True).start()
    for _ in range(first_step, n_steps):
        batch = ready.get()
        if isinstance(batch, BaseException):
            raise batch
        yield batch


def loss_terms(
    audio: Tensor, text: Tensor, weights: Tensor, true_of: Tensor, settings: RunSettings, hashing: bool
) -> dict[str, Tensor]:
    """All weighted terms of one step.

    Args:
        audio: [batch, n_bits] logits of windows; text: [n_classes, n_bits] logits of one sentence per class.
        weights: [batch, n_classes] share of each class in each window; true_of: bool [n_classes, n_classes].
    """
    o = settings.objective
    truth = weights @ true_of.to(
        weights.dtype
    )  # [batch, n_texts], > 0 where the sentence holds for something in the window
    own = weights / weights.sum(dim=1, keepdim=True)
    is_negative = truth <= 0
    similarity = F.normalize(audio, dim=1) @ F.normalize(text, dim=1).T
    contrast = losses.multi_positive_cross_entropy(similarity / o.temperature, own, is_negative)
    terms = {"contrast": (o.hash_contrast if hashing else o.contrast) * contrast}
    if hashing:
        codes = losses.soft_sign(audio) @ losses.soft_sign(text).T / audio.shape[1]
        terms["code_contrast"] = o.code_contrast * losses.multi_positive_cross_entropy(
            codes / o.code_temperature, own, is_negative
        )
        matched = text[weights.argmax(dim=1)]  # [batch, n_bits]
        terms["alignment"] = o.alignment * losses.alignment(matched, audio)
        terms["diversity"] = o.diversity * (losses.diversity(text, o.form) + losses.diversity(audio, o.form))
    return terms


@torch.no_grad()
def plain_query_logits(model: StarterModel, data: TrainingData, device: str) -> NDArray[np.float32]:
    """Logits of each class's plain query in eval mode, [n_classes, n_bits]."""
    model.eval()
    logits: NDArray[np.float32] = (
        model.text_head(data.prompt_embeddings[[own[0] for own in data.vocabulary.own]].to(device))
        .cpu()
        .numpy()
    )
    model.train()
    return logits


def structure_loss(logits: Tensor, embeddings: Tensor) -> Tensor:
    """Mean squared difference between the cosine similarities of codes (tanh) and of sentence embeddings, over all pairs."""
    codes = F.normalize(torch.tanh(logits), dim=1)
    return (codes @ codes.T - embeddings @ embeddings.T).square().mean()


def learning_rate(step: int, settings: RunSettings) -> tuple[float, float]:
    """Rates of (tower, heads) at a step: warm-up and cosine in each phase."""
    s = settings.schedule
    hashing = step >= s.pretrain_steps
    done, total = (step - s.pretrain_steps, s.hash_steps) if hashing else (step, s.pretrain_steps)
    warm = min(1.0, (done + 1) / max(s.warmup_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * done / max(total, 1)))
    peak = s.hash_rate if hashing else s.pretrain_rate
    floor = 0.0 if hashing else 0.1  # the first phase hands over at a tenth of its rate
    heads = peak * warm * (floor + (1 - floor) * cosine)
    return heads * (s.tower_share if hashing else 1.0), heads


def train(
    settings: RunSettings,
    data: TrainingData,
    run_folder: Path,
    device: str = "cpu",
    start: StarterModel | None = None,
) -> StarterModel:
    """Train to the end of the schedule, or go on from `run_folder`/state.safetensors; return the averaged model in eval mode.

    `start` gives the first weights of a run that begins; without it they are random.
    """
    torch.manual_seed(settings.seed)
    s = settings.schedule
    n_steps = s.pretrain_steps + s.hash_steps
    model = StarterModel(settings, data.prompt_embeddings.shape[1]).to(device)
    if start is not None:
        model.load_state_dict(start.state_dict())
    model.audio.tower.to(memory_format=torch.channels_last)
    average = {k: v.clone() for k, v in model.state_dict().items()}
    heads = [*model.audio.head.parameters(), *model.text_head.parameters()]
    groups = [{"params": list(model.audio.tower.parameters())}, {"params": heads}]
    optimiser = torch.optim.AdamW(groups, weight_decay=s.weight_decay)
    first_step = 0
    run_folder.mkdir(parents=True, exist_ok=True)
    state_file = run_folder / "state.safetensors"
    if state_file.is_file():
        tensors, first_step = load_state(state_file, settings, data.cache.fingerprint, device)
        model.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        )
        average = {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
        load_optimiser(optimiser, tensors)
        logger.info("resumed at step %d of %d", first_step, n_steps)

    if settings.data.background not in data.vocabulary.class_keys:
        raise DataError(
            f"expected recordings of the background {settings.data.background!r}, found none; set [data] background"
        )
    background = data.vocabulary.class_keys.index(settings.data.background)
    sampler = WindowSampler(
        data.power,
        data.training,
        data.classes,
        background,
        settings.audio.n_frames,
        settings.audio.sample_rate_hz / settings.audio.hop_samples,
        settings.augment,
    )
    prompts, others = data.prompt_embeddings.to(device), data.other_embeddings.to(device)
    progress = tqdm(total=n_steps, initial=first_step, desc=settings.name, unit="step", disable=None)
    batches = prefetch(sampler, s.batch, settings.seed, first_step, n_steps)
    sums: dict[str, list[float]] = {}
    for step, batch in enumerate(batches, start=first_step):
        hashing = step >= s.pretrain_steps
        torch.manual_seed(settings.seed * 1_000_003 + step)  # dropout: the same after a resume
        random = np.random.default_rng([settings.seed, step, 1])
        torch_random = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        for group, rate in zip(optimiser.param_groups, learning_rate(step, settings), strict=True):
            group["lr"] = rate
        model.train()
        weights = torch.from_numpy(batch.weights).to(device)
        planes = model.audio.front_end.planes(torch.from_numpy(batch.power).to(device))
        planes = mask_and_tilt(planes, settings.augment, torch_random).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
            features = model.audio.tower(planes)  # [batch, n_features]
        audio = model.audio.head(features.float())  # [batch, n_bits]
        chosen, true_of = choose_prompts(data.vocabulary, settings.objective.group_share, random)
        extra = torch.from_numpy(random.choice(len(others), size=min(128, len(others)), replace=False)).to(
            device
        )
        embeddings = torch.cat([prompts[chosen], others[extra]])  # [n_classes + 128, n_text_features]
        noise = (
            torch.randn(embeddings.shape, generator=torch_random).to(device) * settings.objective.text_noise
        )
        all_text = model.text_head(F.normalize(embeddings + noise, dim=1))
        text = all_text[: len(chosen)]  # [n_classes, n_bits]
        terms = loss_terms(audio, text, weights, torch.from_numpy(true_of).to(device), settings, hashing)
        terms["structure"] = settings.objective.structure * structure_loss(all_text, embeddings)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        decay = min(s.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for key, value in model.state_dict().items():
                if value.is_floating_point():
                    average[key].lerp_(value, 1 - decay)
                else:
                    average[key].copy_(value)
        for key, term in terms.items():
            sums.setdefault(key, []).append(float(term.detach()))
        progress.update()
        done = step + 1
        if done % s.checkpoint_every == 0 or done == n_steps:
            means = ", ".join(f"{k} {np.mean(v):.3f}" for k, v in sums.items())
            gauges = bit_gauges(plain_query_logits(model, data, device))
            logger.info("step %d: %s | text codes: %s", done, means, gauges)
            logger.info("step %d: audio codes: %s", done, bit_gauges(audio.detach().float().cpu().numpy()))
            if hashing and gauges.distinct < 0.9:
                logger.warning(
                    "text codes collapse: only %.2f of them are distinct; raise diversity", gauges.distinct
                )
            sums.clear()
            tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
            tensors |= {f"average.{k}": v for k, v in average.items()}
            save_state(
                state_file, tensors | optimiser_tensors(optimiser), settings, data.cache.fingerprint, done
            )
    progress.close()
    model.load_state_dict(average)
    return model.eval()
