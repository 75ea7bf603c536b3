"""The commands `python -m train sweep` (one setting varied) and `python -m train overfit` (100 pairs learnt by heart)."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from edge.errors import UsageError

if TYPE_CHECKING:
    from train.datasets import Dataset, Item
    from train.hash_settings import HashRunSettings
    from train.overfit import Overfit
    from train.sweep_trials import Bench

logger = logging.getLogger(__name__)
SWEEPS = ("lambda", "rank", "targets", "prompts", "bits", "objective")
HELD_OUT_SHARE = 0.2  # of each species' items, where no other data set is given
CACHE = Path.home() / ".cache" / "fieldcube" / "features"
EPILOG = """\
examples:
  python -m train sweep --over lambda --preset bioclip --dataset inat21:/data/train_mini.json --test inat24:/data/val.json --plot lambda.png
  python -m train sweep --over rank --values 0 8 16 --encoder biolingual --dataset "inatsounds:/data?split=train" --out runs/rank
  python -m train sweep --over objective --encoder starter --dataset folder:/data/labels.csv --seeds 1 2 3 --csv objective.csv
"""


def add_parser(commands: Any) -> None:
    """Add `sweep` and `overfit` to the commands."""
    sweep = commands.add_parser(
        "sweep",
        help="vary one setting of hashing, all else equal",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sweep.add_argument("--over", required=True, choices=SWEEPS, help="the setting")
    sweep.add_argument("--values", nargs="+", help="its values (default: the usual ones)")
    sweep.add_argument("--seeds", nargs="+", type=int, default=[1], help="default 1")
    sweep.add_argument("--preset", help="what stays equal: a preset with an encoder, or a TOML file")
    sweep.add_argument("--encoder", help="towers (default: the preset's)")
    sweep.add_argument("--dataset", help="training data (default: the preset's)")
    sweep.add_argument("--test", help="held-out data (default: a fifth of each species' items)")
    sweep.add_argument("--epochs", type=int, help="of each training (default: the preset's)")
    sweep.add_argument(
        "--out", type=Path, default=Path("runs/sweep"), help="runs with LoRA go here (default %(default)s)"
    )
    sweep.add_argument("--csv", type=Path, help="write every figure here")
    sweep.add_argument("--plot", type=Path, help="draw mAP against the values here")
    sweep.add_argument("--device", default="auto", help="(default: cuda where there is one)")
    sweep.add_argument("--cache", type=Path, default=CACHE, help="features (default %(default)s)")
    sweep.set_defaults(run=run_sweep)
    test = commands.add_parser(
        "overfit", help="learn 100 pairs by heart: the distance of matched codes must go to 0"
    )
    test.add_argument("--pairs", type=int, default=100, help="default %(default)s")
    test.add_argument("--bits", type=int, default=256, help="default %(default)s")
    test.add_argument("--objective", choices=("crovca", "contrastive"), default="crovca")
    test.add_argument(
        "--epochs", type=int, default=200, help="steps: each sees all pairs (default %(default)s)"
    )
    test.add_argument("--encoder", help="towers whose features are paired (default: random features)")
    test.add_argument("--dataset", help="with --encoder: one item of each of its species makes a pair")
    test.add_argument("--cache", type=Path, default=CACHE, help="features (default %(default)s)")
    test.set_defaults(run=run_overfit)


def run_sweep(arguments: argparse.Namespace) -> int:
    """Train every value with every seed, print the table, write CSV and plot."""
    from train.rows import write_csv
    from train.sweep import plot_sweep, sweep, table_of
    from train.sweep_trials import DEFAULTS, Trainer, present_targets, varied

    settings = base_settings(arguments)
    bench = bench_of(settings, arguments)
    values = tuple(arguments.values or DEFAULTS[arguments.over])
    if not values:
        values = present_targets(bench.open_pair())
    chosen = [
        varied(settings, arguments.over, value, 0) for value in values
    ]  # a wrong value is told before hours of training
    if arguments.over == "prompts":
        values = worded_apart(bench, {v: s.prompts for v, s in zip(values, chosen, strict=True)})
    outcomes = sweep(arguments.over, values, arguments.seeds, Trainer(bench, arguments.over).train)
    Console(width=None if Console().is_terminal else 160).print(table_of(outcomes))
    if arguments.csv:
        write_csv([asdict(outcome) for outcome in outcomes], arguments.csv)
    if arguments.plot:
        plot_sweep(outcomes, arguments.plot)
    return 0


def worded_apart(bench: Bench, prompts: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The prompt formats that word some species unlike those before them; the others (taxonomic without a taxonomy) are told and left out."""
    kept: dict[tuple[str, ...], str] = {}
    for value, formats in prompts.items():
        same = kept.setdefault(bench.training(formats).sentences, value)
        if same != value:
            logger.warning("prompts %r: here every species is worded as with %r; left out", value, same)
    return tuple(kept.values())


def base_settings(arguments: argparse.Namespace) -> HashRunSettings:
    """What stays equal, from the preset and the arguments."""
    from train.hash_settings import HashRunSettings, read_hash_preset

    if not arguments.preset and not arguments.encoder:
        raise UsageError("sweep: expected --preset or --encoder, found neither")
    settings = (
        read_hash_preset(arguments.preset)
        if arguments.preset
        else HashRunSettings("sweep", arguments.encoder)
    )
    settings = replace(
        settings,
        encoder=arguments.encoder or settings.encoder,
        dataset=arguments.dataset or settings.dataset,
    )
    if not settings.dataset:
        raise UsageError("sweep: expected --dataset, found none, and none in the preset")
    if arguments.epochs is not None:
        if arguments.epochs < 1:
            raise UsageError(f"sweep: expected --epochs of 1 or more, found {arguments.epochs}")
        frozen = min(settings.schedule.frozen_epochs, arguments.epochs - 1)
        schedule = replace(settings.schedule, frozen_epochs=frozen, epochs=arguments.epochs - frozen)
        settings = replace(settings, schedule=schedule)
    return settings


def bench_of(settings: HashRunSettings, arguments: argparse.Namespace) -> Bench:
    """Open the data, split it where no test data are given, and say how towers are opened."""
    from train.dataset_examples import DatasetExamples
    from train.datasets import open_dataset
    from train.evaluation_data import wordings_of
    from train.hash_command import device_of
    from train.questions import questions_of
    from train.sweep_trials import Bench
    from train.towers import open_towers

    whole = open_dataset(settings.dataset)
    training, held_out = (whole, open_dataset(arguments.test)) if arguments.test else split(whole)
    takes = open_towers(settings.encoder).input
    return Bench(
        settings,
        lambda: open_towers(settings.encoder),
        lambda prompts: DatasetExamples(training, takes, wordings_of(prompts)),
        lambda prompts: questions_of(held_out, wordings_of(prompts)),
        held_out,
        arguments.out,
        arguments.cache,
        device_of(arguments.device),
    )


def split(dataset: Dataset, share: float = HELD_OUT_SHARE, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Training and held-out items: of every species the same share is held out (none of a species of one item), drawn with the seed."""
    import numpy as np

    random = np.random.default_rng(seed)
    of_species: dict[tuple[str, ...], list[int]] = {}
    for index, item in enumerate(dataset.items):
        of_species.setdefault(item.species, []).append(index)
    held: set[int] = set()
    for own in of_species.values():
        n = max(1, round(share * len(own))) if len(own) > 1 else 0
        held.update(int(i) for i in random.permutation(own)[:n])
    if not held:
        raise UsageError(
            f"sweep: {dataset.name}: expected species of two items or more to hold some out, found none; give --test"
        )
    parts: dict[str, list[Item]] = {"training part": [], "held-out part": []}
    for index, item in enumerate(dataset.items):
        parts["held-out part" if index in held else "training part"].append(item)
    training, held_out = (
        replace(dataset, name=f"{dataset.name} {name}", items=tuple(items), queries=())
        for name, items in parts.items()
    )
    return training, held_out


def run_overfit(arguments: argparse.Namespace) -> int:
    """Learn pairs by heart; exit code 1 where they are not."""
    from train.objectives import HashObjective
    from train.overfit import overfit, random_pairs

    if bool(arguments.encoder) != bool(arguments.dataset):
        raise UsageError("overfit: expected --encoder and --dataset together, found one of them")
    for name, value, least in (
        ("pairs", arguments.pairs, 2),
        ("bits", arguments.bits, 1),
        ("epochs", arguments.epochs, 1),
    ):
        if value < least:
            raise UsageError(f"overfit: expected --{name} of {least} or more, found {value}")
    pairs = pairs_of_species(arguments) if arguments.encoder else random_pairs(arguments.pairs)
    objective = HashObjective(kind=arguments.objective)
    found: Overfit = overfit(pairs, arguments.bits, objective, arguments.epochs)
    print(f"{arguments.objective}: {found}: {'passed' if found.ok else 'failed'}")
    return 0 if found.ok else 1


def pairs_of_species(arguments: argparse.Namespace) -> Any:
    """One item of each of the first species and its species' first wording, through the pretrained towers."""
    from train.datasets import open_dataset
    from train.evaluation_data import features_of, wordings_of
    from train.overfit import pairs_of
    from train.questions import species_questions
    from train.towers import open_towers

    dataset = open_dataset(arguments.dataset)
    first = {item.species[0]: item for item in reversed(dataset.items) if len(item.species) == 1}
    chosen = replace(dataset, name=f"{dataset.name} pairs", items=tuple(first.values())[: arguments.pairs])
    questions = species_questions(chosen, wordings_of(()))
    features = features_of(open_towers(arguments.encoder), chosen, questions, arguments.cache)
    items = [int(answers[0]) for answers in questions.relevance.answers]
    wordings = [int((questions.query_of_text == q).argmax()) for q in range(questions.n_queries)]
    return pairs_of(features.items[items], features.texts[wordings])
