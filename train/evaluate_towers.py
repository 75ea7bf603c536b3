"""Rows of figures of a run on data sets: features before and after LoRA, codes, heads without training, questions of two parts, fusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from train.datasets import Dataset, open_dataset
from train.evaluate_codes import Features, Head, Representation, binary, continuous, evaluate_pair
from train.evaluate_fusion import FusionError, fusion, paired_items, read_prior
from train.evaluation_data import as_head, features_of, wordings_of
from train.hash_checkpoint import load_hash_checkpoint
from train.itq import fit_itq, fit_lsh
from train.metrics import cosine_table, hamming_table
from train.questions import (
    Questions,
    Vectors,
    added,
    both_species,
    farthest_of_two,
    questions_of,
    side_by_side,
    species_questions,
)
from train.rows import Row
from train.towers import TowerPair, open_towers

BASELINE_BITS = 256
SAME_SPACE = 0.9  # share of equal bits that two runs' codes of the same queries must have to be of one space


@dataclass(frozen=True, slots=True)
class Settings:
    """How to evaluate."""

    cache: Path  # of features
    device: str = "cpu"
    n_fetched: int = 100  # items that are re-ranked
    n_orders: int = 10  # shuffles against ties
    prompts: tuple[str, ...] = ()  # wordings of a query, whose logits are averaged; () = all


@dataclass(frozen=True, slots=True)
class Run:
    """Towers as they were pretrained and, where they were trained to hash, as they are since then, with heads."""

    pretrained: TowerPair
    adapted: TowerPair | None = None
    text_head: Head | None = None
    observation_head: Head | None = None
    n_bits: int = 0
    baselines: Mapping[str, tuple[Head, Head]] = field(default_factory=dict)  # (text's, observation's)


def open_run(checkpoint: Path | None, encoder: str | None) -> Run:
    """Open a checkpoint of `python -m train hash`, or towers alone; encoder: where the towers are, if not where the run had them."""
    if checkpoint is None:
        return Run(open_towers(encoder or ""))
    done = load_hash_checkpoint(checkpoint, encoder)
    pretrained = open_towers(encoder or done.settings.encoder)
    heads = as_head(done.text_head), as_head(done.observation_head)
    return Run(pretrained, done.pair, *heads, done.settings.n_bits)


def with_baselines(run: Run, spec: str, settings: Settings) -> Run:
    """Add ITQ and LSH heads from the features of a data set, without its labels."""
    dataset = open_dataset(spec)
    questions = questions_of(dataset, wordings_of(settings.prompts))
    features = features_of(run.pretrained, dataset, questions, settings.cache, settings.device)
    bits = run.n_bits or BASELINE_BITS
    found = {}
    for name, fit in (("ITQ ", fit_itq), ("LSH ", fit_lsh)):
        text, observation = fit(features.texts, features.items, bits, 0)
        found[name] = as_head(text), as_head(observation)
    return Run(run.pretrained, run.adapted, run.text_head, run.observation_head, run.n_bits, found)


def rows_of(run: Run, dataset: Dataset, settings: Settings) -> list[Row]:
    """All rows of one data set."""
    questions = questions_of(dataset, wordings_of(settings.prompts))
    before = features_of(run.pretrained, dataset, questions, settings.cache, settings.device)
    each = [continuous("continuous pretrained", questions, before)]
    after = before
    if run.adapted is not None:
        after = features_of(run.adapted, dataset, questions, settings.cache, settings.device)
        each.append(continuous(f"continuous LoRA {run.n_bits}", questions, after))
    if run.text_head is not None and run.observation_head is not None:
        heads = run.text_head, run.observation_head
        each += binary(questions, after, *heads, n_fetched=settings.n_fetched)
    for name, heads in run.baselines.items():
        each += binary(questions, before, *heads, n_fetched=settings.n_fetched, before=name)
    rows = evaluate_pair(dataset.name, run.pretrained.name, questions, each, settings.n_orders)
    return rows + two_part_rows(run, dataset, questions, after, settings)


def two_part_rows(
    run: Run, dataset: Dataset, questions: Questions, features: Features, settings: Settings
) -> list[Row]:
    """Rows of "A and B" where items show several species: as a sentence, as added logits, and by the farther of both."""
    found, both = both_species(questions)
    if not found:
        return []
    pair = run.adapted or run.pretrained
    sentences = features_of(pair, dataset, both, settings.cache, settings.device)
    own = continuous("continuous", questions, features).queries
    each = [
        continuous("continuous, one sentence", both, sentences),
        Representation("continuous, added", 0, added(found, own), features.items, cosine_table),
    ]
    if run.text_head is not None and run.observation_head is not None:
        queries = questions.of_queries(run.text_head(features.texts))
        items, said = run.observation_head(features.items), run.text_head(sentences.texts)
        name, n_bits = f"binary {run.n_bits}", run.n_bits
        pairs = side_by_side(found, queries)
        each += [
            Representation(f"{name}, one sentence", n_bits, said, items, hamming_table),
            Representation(f"{name}, added", n_bits, added(found, queries), items, hamming_table),
            Representation(f"{name}, farther of both", n_bits, pairs, items, farthest_of_two),
        ]
    return evaluate_pair(dataset.name, run.pretrained.name, both, each, settings.n_orders)


def fusion_rows(
    runs: tuple[Run, Run], datasets: tuple[Dataset, Dataset], prior: Path | None, settings: Settings
) -> list[Row]:
    """Rows of events that both data sets show, from each modality, both, and with the place.

    Raises:
        FusionError: runs without heads or of different code spaces; events that do not pair; a prior that cannot be read.
    """
    sounds, pictures, events = paired_items(*datasets)
    species = dict(sorted(datasets[0].species.items()))
    logits, queries = [], []
    for run, dataset, kept in zip(runs, datasets, (sounds, pictures), strict=True):
        if run.adapted is None or run.text_head is None or run.observation_head is None:
            raise FusionError("fusion: expected two runs with heads, found towers alone; give checkpoints")
        items = tuple(dataset.items[i] for i in kept)
        shown = Dataset(f"{dataset.name} events", dataset.modality, items, species)
        asked = species_questions(shown, wordings_of(settings.prompts))
        features = features_of(run.adapted, shown, asked, settings.cache, settings.device)
        logits.append(run.observation_head(features.items))
        queries.append(asked.of_queries(run.text_head(features.texts)))
    require_same_space(*queries)
    keys = [key for key in species if any(key in item.species for item in items)]
    likely = None if prior is None else read_prior(prior, events, keys)
    each = fusion(queries[0], logits[0], logits[1], likely)
    name = f"{runs[0].pretrained.name} + {runs[1].pretrained.name}"
    return evaluate_pair(f"{datasets[0].name} events", name, asked, each, settings.n_orders)


def require_same_space(first: Vectors, second: Vectors) -> None:
    """Raise FusionError where two runs give the same queries codes that differ: their codes must not be added."""
    same = 0.0
    if first.shape == second.shape:
        same = float(((first >= 0) == (second >= 0)).mean())
    if same < SAME_SPACE:
        raise FusionError(
            f"fusion: expected two runs of one code space, whose codes of the same queries agree in {SAME_SPACE:.0%} of the bits, "
            f"found {same:.0%}; train one modality against the other's text codes"
        )
