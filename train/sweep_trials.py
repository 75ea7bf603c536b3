"""What a sweep trains for each value: heads on frozen towers, heads without training, or LoRA and heads."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from edge.errors import UsageError
from train.datasets import Dataset
from train.datasets.prompts import FORMATS
from train.evaluate_codes import Features
from train.evaluation_data import as_head, features_of
from train.examples import Examples
from train.features import CacheSettings, cached_pairs, sentence_features
from train.hash_checkpoint import load_hash_checkpoint
from train.hash_settings import HashRunSettings
from train.hashing import train_hash
from train.head_fitting import CachedPairs, fit_heads
from train.itq import fit_itq, fit_lsh
from train.questions import Questions
from train.sweep import Trial
from train.towers import TowerPair

ALL = "all"  # value of a prompt format: a random mix of every wording in training, the mean of them in questions
DEFAULTS = {
    "lambda": ("0.01", "0.1", "1"),
    "bits": ("16", "32", "64", "128", "256"),
    "objective": ("lsh", "itq", "contrastive", "crovca", "crovca as printed"),
    "rank": ("0", "4", "8", "16", "32"),
    "prompts": (*FORMATS, ALL),
    "targets": (),  # those of TARGETS that the towers have
}
LIVE = ("rank", "targets")  # sweeps that train the towers
TRAINING_FREE = {"itq": fit_itq, "lsh": fit_lsh}

# Layers that get adapters, by name: regular expressions for the tower of observations and that of texts.
_CLIP, _CLIP_TEXT = r"visual\.transformer\.resblocks\.\d+\.", r"tower\.transformer\.resblocks\.\d+\."
TARGETS = {
    "attn": (f"{_CLIP}attn", f"{_CLIP_TEXT}attn"),
    "mlp": (rf"{_CLIP}mlp\.(c_fc|c_proj)", rf"{_CLIP_TEXT}mlp\.(c_fc|c_proj)"),
    "attn+mlp": (rf"{_CLIP}(attn|mlp\.c_fc|mlp\.c_proj)", rf"{_CLIP_TEXT}(attn|mlp\.c_fc|mlp\.c_proj)"),
    "query+value": (r"audio_model\..*\.(query|value)", r"text_model\..*\.(query|value)"),
    "query+key+value": (r"audio_model\..*\.(query|key|value)", r"text_model\..*\.(query|key|value)"),
    "query+key+value+dense": (
        r"audio_model\..*\.(query|key|value|dense)",
        r"text_model\.encoder\..*\.(query|key|value|dense)",
    ),
    "conv2": (r"encoder\.tower\.net\..*\.conv2", r"head\.[02]"),
    "conv1+conv2": (r"encoder\.tower\.net\..*\.conv[12]", r"head\.[02]"),
}


Prompts = tuple[str, ...]  # () = all


@dataclass(frozen=True, slots=True)
class Bench:
    """What stays equal while one setting varies."""

    settings: HashRunSettings
    open_pair: Callable[[], TowerPair]  # anew: training changes it
    training: Callable[[Prompts], Examples]  # the training items with the sentences of some prompt formats
    questions: Callable[[Prompts], Questions]  # the held-out items' questions, worded in these formats
    held_out: Dataset
    out: Path
    cache: Path
    device: str = "cpu"


def present_targets(pair: TowerPair) -> tuple[str, ...]:
    """Names in TARGETS that match layers of both towers."""
    layers = [[name for name, _ in tower.named_modules()] for tower in (pair.observation, pair.text)]
    return tuple(
        name
        for name, patterns in TARGETS.items()
        if all(
            any(re.fullmatch(pattern, layer) for layer in own)
            for pattern, own in zip(patterns, layers, strict=True)
        )
    )


def varied(settings: HashRunSettings, over: str, value: str, seed: int) -> HashRunSettings:
    """Settings with one value changed. A rank keeps alpha equal to it: the adapters' scale stays 1.

    Raises:
        UsageError: a value that this sweep cannot take.
    """
    settings = replace(settings, name=f"{settings.name}-{over}-{value}-{seed}".replace(" ", "-"), seed=seed)
    objective = settings.objective
    try:
        if over == "lambda" and math.isfinite(float(value)):
            return replace(settings, objective=replace(objective, diversity=float(value)))
        if over == "bits":
            return replace(settings, n_bits=int(value))
        if over == "rank" and int(value) >= 0:
            rank = int(value)
            if not rank:
                epochs = settings.schedule.epochs + settings.schedule.frozen_epochs
                frozen = replace(settings.schedule, frozen_epochs=epochs, epochs=0)
                return replace(settings, schedule=frozen)
            return replace(settings, lora=replace(settings.lora, rank=rank, alpha=float(rank)))
    except ValueError:
        raise UsageError(f"sweep over {over}: expected a number, found {value!r}") from None
    if over == "targets" and value in TARGETS:
        observation, text = TARGETS[value]
        lora = replace(settings.lora, observation_targets=observation, text_targets=text)
        return replace(settings, lora=lora)
    if over == "objective" and value in DEFAULTS["objective"]:
        if value == "crovca as printed":
            return replace(settings, objective=replace(objective, kind="crovca", form="paper"))
        if value in TRAINING_FREE:
            return settings
        return replace(settings, objective=replace(objective, kind=value, form="code"))
    if over == "prompts" and value in DEFAULTS["prompts"]:
        return replace(settings, prompts=() if value == ALL else (value,))
    known = ", ".join(TARGETS if over == "targets" else DEFAULTS.get(over, ()))
    raise UsageError(f"sweep over {over}: expected one of {known}, found {value!r}")


class Trainer:
    """Trains one value of a sweep after the other; what the values share is opened and encoded once."""

    def __init__(self, bench: Bench, over: str) -> None:
        self.bench, self.over = bench, over
        self.pair: TowerPair | None = None  # frozen
        self.pairs: dict[Prompts, CachedPairs] = {}  # of each choice of formats, through the frozen towers

    def train(self, value: str, seed: int) -> Trial:
        """Train one value with one seed."""
        settings = varied(self.bench.settings, self.over, value, seed)
        questions = self.bench.questions(settings.prompts)
        if self.over in LIVE and settings.schedule.epochs:
            return self._live(settings, questions)
        features, pairs = self._frozen(questions, settings.prompts)
        if self.over == "objective" and value in TRAINING_FREE:
            text, observation = TRAINING_FREE[value](pairs.text, pairs.observation[0], settings.n_bits, seed)
            return Trial(questions, features, as_head(text), as_head(observation))
        heads = fit(pairs, settings)
        return Trial(questions, features, as_head(heads[1]), as_head(heads[0]))

    def _frozen(self, questions: Questions, prompts: Prompts) -> tuple[Features, CachedPairs]:
        """Held-out features and training pairs of the pretrained towers."""
        bench = self.bench
        if self.pair is None:
            self.pair = bench.open_pair()
        features = features_of(self.pair, bench.held_out, questions, bench.cache, bench.device)
        if () not in self.pairs:
            views = CacheSettings(bench.settings.schedule.views, bench.settings.seed)
            self.pairs[()] = cached_pairs(self.pair, bench.training(()), views, bench.cache, bench.device)
        if prompts not in self.pairs:  # the same items, other sentences
            own = bench.training(prompts)
            text = sentence_features(self.pair, own.sentences, bench.device)
            self.pairs[prompts] = replace(self.pairs[()], text=text, text_classes=own.sentence_classes)
        return features, self.pairs[prompts]

    def _live(self, settings: HashRunSettings, questions: Questions) -> Trial:
        """Train LoRA and heads, and encode what is held out through the merged towers."""
        bench = self.bench
        file = train_hash(
            settings,
            bench.open_pair(),
            bench.training(settings.prompts),
            bench.out / settings.name,
            bench.cache,
            bench.device,
        )
        done = load_hash_checkpoint(file)
        features = features_of(done.pair, bench.held_out, questions, bench.cache, bench.device)
        return Trial(questions, features, as_head(done.text_head), as_head(done.observation_head))


def fit(pairs: CachedPairs, settings: HashRunSettings) -> tuple[nn.Module, nn.Module]:
    """Heads (observation's, text's) with the whole schedule's epochs on frozen towers."""
    s = settings.schedule
    return fit_heads(
        pairs,
        settings.n_bits,
        settings.objective,
        epochs=s.frozen_epochs + s.epochs,
        batch=s.batch,
        rate=s.rate,
        final_rate=s.final_rate,
        weight_decay=s.weight_decay,
        balanced=s.balanced,
        large=settings.large_head,
        seed=settings.seed,
    )
