"""The paper's claims, tried on real recordings: one small pretrained tower, adapted by each objective, three seeds, in and out of domain.

The paper adapts foundation models (BioCLIP, BioLingual) to hashing. Here a small convolutional tower plays that part: it is pretrained
contrastively on the training recordings, sound against sentence, into 512 joint features. Then LoRA and hash heads are trained on the
same recordings by one objective after the other, and a control is trained for the same steps without any hashing, so that "more
training" is not taken for "better by hashing".
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from train.augment import WindowSampler, mask_and_tilt
from train.calibrate import mixed_in
from train.finish import validation_windows
from train.itq import fit_itq, fit_lsh
from train.loop import StarterModel, choose_prompts, prefetch, train
from train.lora import add_adapters
from train.metrics import cosine_table, hamming_table, mean_average_precision
from train.model import HashCoder
from train.objectives import HashObjective, hash_terms
from train.prepare import TrainingData, prepare
from train.settings import RunSettings

logger = logging.getLogger(__name__)

OOD_SNR_DB = (0.0, 10.0)  # held-out clips over held-out forest backgrounds
STEPS, BATCH, RATE = 400, 64, 1e-3
LORA_RANK, LORA_ALPHA = 16, 16


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to make codes from the pretrained tower."""

    name: str
    n_bits: int  # 0: no codes, the joint features are trained on (the control)
    objective: HashObjective | None
    lora: bool


ARMS = (
    Arm("crovca, frozen tower", 256, HashObjective(), False),
    Arm("crovca as printed, frozen tower", 256, HashObjective(form="paper"), False),
    Arm("contrastive, frozen tower", 256, HashObjective(kind="contrastive"), False),
    Arm("crovca, LoRA", 256, HashObjective(), True),
    Arm("crovca, LoRA", 128, HashObjective(diversity=0.5), True),
    Arm("contrastive, LoRA", 256, HashObjective(kind="contrastive"), True),
    Arm("control: LoRA without hashing", 0, None, True),
)


@dataclass(frozen=True, slots=True)
class Held:
    """Held-out windows, clean and over backgrounds, with the class of each."""

    clean: NDArray[np.float32]  # [n, window_samples]
    mixed: NDArray[np.float32]  # [n, window_samples]
    classes: NDArray[np.int64]  # [n]


@dataclass(slots=True)
class Adapted:
    """The pretrained model after one arm: its joint features, and heads on them where the arm has codes."""

    model: StarterModel
    audio_head: nn.Module | None
    text_head: nn.Module | None


def held_out(data: TrainingData, settings: RunSettings) -> Held:
    """Cut the held-out recordings into windows, once clean and once laid over held-out backgrounds."""
    windows, classes, _ = validation_windows(data, settings)
    background = data.vocabulary.class_keys.index(settings.data.background)
    quiet = [w for w, c in zip(windows, classes, strict=True) if c == background]
    sounding = classes != background
    mixed = mixed_in(windows[sounding], quiet, OOD_SNR_DB, np.random.default_rng(0))
    return Held(windows[sounding], mixed, classes[sounding])


def adapt(
    pretrained: StarterModel, data: TrainingData, settings: RunSettings, arm: Arm, seed: int
) -> Adapted:
    """Train LoRA (where the arm has it) and heads on single recordings over backgrounds for STEPS steps."""
    torch.manual_seed(seed)
    model = copy.deepcopy(pretrained).eval()  # BatchNorm keeps the statistics of the pretraining
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    adapters: list[nn.Parameter] = []
    if arm.lora:
        for module, targets in (
            (model.audio, r"tower\.net\..*\.conv[12]|head\.(hidden|bits)"),
            (model.text_head, "hidden|bits"),
        ):
            adapters += add_adapters(module, targets, LORA_RANK, LORA_ALPHA).parameters()
    heads = [HashCoder(settings.n_bits, arm.n_bits) for _ in range(2)] if arm.n_bits else []
    trained = [*adapters, *(p for head in heads for p in head.parameters())]
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS, eta_min=1e-6)
    augment = replace(settings.augment, mix_share=0.0)  # a code has one class
    sampler = WindowSampler(
        data.power,
        data.training,
        data.classes,
        data.vocabulary.class_keys.index(settings.data.background),
        settings.audio.n_frames,
        settings.audio.sample_rate_hz / settings.audio.hop_samples,
        augment,
    )
    title = f"{arm.name} {arm.n_bits or ''}"
    batches = prefetch(sampler, BATCH, seed, 0, STEPS)
    for step, batch in enumerate(tqdm(batches, total=STEPS, desc=title, unit="step", disable=None)):
        random, noise = (
            np.random.default_rng([seed, step, 1]),
            torch.Generator().manual_seed(seed * 1_000_003 + step),
        )
        classes = torch.from_numpy(batch.weights.argmax(axis=1))  # [batch]
        planes = mask_and_tilt(model.audio.front_end.planes(torch.from_numpy(batch.power)), augment, noise)
        chosen, _ = choose_prompts(data.vocabulary, 0.0, random)
        audio = model.audio.head(model.audio.tower(planes))  # [batch, n_features]
        text = model.text_head(data.prompt_embeddings[chosen])  # [n_classes, n_features]
        if heads:
            assert arm.objective is not None
            audio_logits, all_text = heads[0](audio), heads[1](text)
            terms = hash_terms(all_text[classes], audio_logits, classes, arm.objective)
        else:
            similarity = (
                F.normalize(audio, dim=1) @ F.normalize(text, dim=1).T / settings.objective.temperature
            )
            terms = {"contrast": F.cross_entropy(similarity, classes)}
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimiser.step()
        schedule.step()
    return (
        Adapted(model.eval(), *(head.eval() for head in heads))
        if heads
        else Adapted(model.eval(), None, None)
    )


@torch.no_grad()
def joint_features(model: StarterModel, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Joint features of windows, [n, window_samples] -> [n, n_features]."""
    parts = [model.audio(torch.from_numpy(windows[i : i + 32])) for i in range(0, len(windows), 32)]
    return torch.cat(parts).numpy()


@torch.no_grad()
def through(head: nn.Module, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of features."""
    logits: NDArray[np.float32] = head(torch.from_numpy(features)).numpy()
    return logits


def retrieval_rows(
    name: str, n_bits: int, adapted: Adapted, data: TrainingData, held: Held
) -> list[dict[str, object]]:
    """Measure mAP in percent of the codes and of the joint features of an arm, clean and over backgrounds, on the ten sounds and on all classes."""
    prompts = data.prompt_embeddings[[own[0] for own in data.vocabulary.own]].numpy()
    text = through(adapted.model.text_head, prompts)
    rows: list[dict[str, object]] = []
    ten = np.unique([c for c, r in zip(data.classes, data.recordings, strict=True) if r.dataset == "esc10"])
    for domain, windows in (("in domain", held.clean), ("out of domain", held.mixed)):
        audio = joint_features(adapted.model, windows)
        pairs = [("continuous", 0, cosine_table(text, audio))]
        if adapted.audio_head is not None and adapted.text_head is not None:
            codes = through(adapted.text_head, text), through(adapted.audio_head, audio)
            pairs.append(("binary", n_bits, hamming_table(*codes)))
        for representation, bits, table in pairs:
            for scope, chosen in (("all classes", np.unique(held.classes)), ("ten sounds", ten)):
                inside = np.isin(held.classes, chosen)
                found = mean_average_precision(table[chosen][:, inside], chosen, held.classes[inside])
                rows.append(
                    {
                        "arm": name,
                        "trained_bits": n_bits,
                        "representation": representation,
                        "bits": bits,
                        "domain": domain,
                        "scope": scope,
                        "percent": 100 * found,
                    }
                )
    return rows


def training_free(
    pretrained: StarterModel, data: TrainingData, settings: RunSettings, seed: int
) -> dict[str, Adapted]:
    """ITQ and LSH heads from the pretrained tower, the plain queries and clean training windows."""
    random = np.random.default_rng(seed)
    window = settings.audio.window_samples
    samples = []
    for index in random.permutation(list(data.training))[:600]:
        audio = (
            np.resize(data.cache.get(int(index)), window)
            if len(data.cache.get(int(index))) < window
            else data.cache.get(int(index))[:window]
        )
        samples.append(audio.astype(np.float32) / 32767)
    audio_features = joint_features(pretrained, np.stack(samples))
    text_features = through(pretrained.text_head, data.prompt_embeddings.numpy())
    found = {}
    for name, fit in (("itq, no training", fit_itq), ("lsh, no training", fit_lsh)):
        text_head, audio_head = fit(text_features, audio_features, 256, seed)
        found[name] = Adapted(pretrained, audio_head, text_head)
    return found


def run_seed(settings: RunSettings, data_root: Path, cache: Path, out: Path) -> list[dict[str, object]]:
    """Pretrain with the seed of the settings (or go on), adapt by every arm, and measure."""
    data = prepare(settings, data_root, cache)
    pretrained = train(settings, data, out)
    held = held_out(data, settings)
    rows = retrieval_rows("pretrained", 0, Adapted(pretrained, None, None), data, held)
    for name, adapted in training_free(pretrained, data, settings, settings.seed).items():
        rows += [r for r in retrieval_rows(name, 256, adapted, data, held) if r["representation"] == "binary"]
    for arm in ARMS:
        adapted = adapt(pretrained, data, settings, arm, settings.seed)
        found = retrieval_rows(arm.name, arm.n_bits, adapted, data, held)
        rows += found if arm.lora else [r for r in found if r["representation"] == "binary"]
        for row in found:
            logger.info("%s", row)
    return [{"seed": settings.seed, **row} for row in rows]
