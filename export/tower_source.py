"""What a bundle of pretrained towers is made from: towers and heads, sentences, and real observations to set, correct and compare with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge.bundle import new_code_space
from edge.errors import FieldcubeError
from export.assemble import Release
from export.parity import LabelledWindows
from export.tower_graphs import first_bits
from train.examples import Examples
from train.hash_checkpoint import HashCheckpoint
from train.itq import fit_itq, fit_lsh
from train.towers import TowerPair, embed_observations, embed_texts

N_BITS = 256  # of heads without training
N_FITTED = (
    400  # sentences of the data set that set heads without training, beside those that will be asked for
)
N_PARITY, N_GOLDEN = 96, 2  # observations compared (as many more correct), and sent along
DECOYS = {
    "audio": ("wind", "rain", "silence", "a person talking", "background noise"),
    "image": ("an empty scene", "leaves and grass", "a dark picture", "a person", "a vehicle"),
}
LIMITS = """- A sentence that the towers never learnt still gets a code and a nearest observation. Read `edge-search` results as a ranking, not as an
  identification.
- Without a calibration in the manifest no distance says how likely a match is.
- Sentences with "not" or "without" are refused: sentence encoders ignore negation."""


class SourceError(FieldcubeError):
    """Towers, texts and observations that make no bundle."""


@dataclass(frozen=True, slots=True)
class TowerSource:
    """Towers with heads, and real inputs."""

    pair: TowerPair
    observation_head: nn.Module
    text_head: nn.Module
    texts: tuple[str, ...]
    other_texts: tuple[str, ...]  # more sentences, to correct by
    parity: LabelledWindows  # samples: windows or pictures as the tower takes them
    correction: NDArray[np.float32]  # other observations, [n, ...]
    golden: NDArray[np.float32]  # [N_GOLDEN, ...]
    observed: str  # name of the observations
    release: Release


def read_texts(file: Path) -> tuple[str, ...]:
    """Sentences, one a line; empty lines and # comments are left out."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{file}: expected sentences, one a line in UTF-8, found {error}") from error
    texts = tuple(
        dict.fromkeys(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    )
    if len(texts) < 2:
        raise SourceError(f"{file}: expected at least 2 sentences, found {len(texts)}")
    return texts


def observations_of(examples: Examples, n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Up to n items as they are, of classes in turn: (inputs [n, ...], classes [n])."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(examples.classes))
    turn = np.zeros(len(order), dtype=np.int64)
    seen: dict[int, int] = {}
    for place, row in enumerate(order):
        turn[place] = seen[int(examples.classes[row])] = seen.get(int(examples.classes[row]), -1) + 1
    chosen = order[np.argsort(turn, kind="stable")][:n]
    inputs = np.stack([examples.load(int(row), None).numpy() for row in chosen])
    return inputs, examples.classes[chosen]


def from_towers(
    pair: TowerPair,
    head: str,
    texts: Sequence[str],
    examples: Examples,
    n_bits: int | None,
    n_parity: int = N_PARITY,
) -> TowerSource:
    """A bundle without training: ITQ or LSH heads of 256 bits from the towers' features of the texts and of some observations, or a prefix of them.

    The mean of the observations is what their codes are centred on, and what a bundle without training depends on most (docs/hashing.md).
    """
    n_bits = n_bits or N_BITS
    encoder = pair.source
    inputs, classes = observations_of(examples, 2 * n_parity + N_GOLDEN, 0)
    features = embed_observations(
        pair, [torch.from_numpy(inputs[i : i + 8]) for i in range(0, len(inputs), 8)]
    )
    fit = {"itq": fit_itq, "lsh": fit_lsh}[head]
    more = examples.sentences[
        :: max(1, len(examples.sentences) // N_FITTED)
    ]  # large sets have tens of thousands
    heads = fit(embed_texts(pair, [*texts, *more]), features, N_BITS, 0)
    identity = hashlib.sha256(f"{encoder} {head}".encode() + heads[0].bits.weight.detach().numpy().tobytes())
    name = f"{pair.name}-{head}"
    provenance = {
        "train_run": f"{head} heads of {N_BITS} bits, no training",
        "data": f"{len(inputs)} observations of {examples.name}, {len(texts)} sentences",
        "encoder": encoder,
        "classes": list(texts),
    }
    made = (
        f"Towers: {encoder}, as published.",
        f"Heads: {head} on features centred for each modality, one matrix for both.",
    )
    release = _release(name, identity.hexdigest(), pair, n_bits, pair.licence, provenance, made)
    return _source(pair, heads[1], heads[0], texts, examples, inputs, classes, release)


def from_hash_checkpoint(
    checkpoint: HashCheckpoint, texts: Sequence[str], examples: Examples, n_bits: int | None
) -> TowerSource:
    """A bundle of `python -m train hash`: adapters merged, BatchNorm folded. n_bits: None for all that were trained."""
    n_bits = n_bits or checkpoint.settings.n_bits
    if n_bits > checkpoint.settings.n_bits:
        raise SourceError(
            f"--bits {n_bits}: expected at most the {checkpoint.settings.n_bits} bits of the checkpoint"
        )
    inputs, classes = observations_of(examples, 2 * N_PARITY + N_GOLDEN, 0)
    notes = checkpoint.notes
    provenance = {
        "train_run": notes.train_run,
        "data": notes.data,
        "checkpoint": checkpoint.sha256,
        "encoder": checkpoint.settings.encoder,
        "merge_difference": checkpoint.merge_difference,
        "patch_alpha": notes.patch_alpha,
        "classes": list(texts),
    }
    made = (
        f"Towers: {checkpoint.settings.encoder}, LoRA merged (largest relative difference {checkpoint.merge_difference:.1g}).",
    )
    release = _release(
        notes.name.replace("_", "-"),
        checkpoint.sha256,
        checkpoint.pair,
        n_bits,
        notes.licence,
        provenance,
        made,
    )
    heads = checkpoint.observation_head, checkpoint.text_head
    return _source(checkpoint.pair, *heads, texts, examples, inputs, classes, release)


def _release(
    name: str,
    sha256: str,
    pair: TowerPair,
    n_bits: int,
    licence: str,
    provenance: dict[str, object],
    made: tuple[str, ...],
) -> Release:
    # a prefix is a code of its own width: another code space
    space = new_code_space(name if n_bits == 256 else f"{name}-{n_bits}", sha256)
    return Release(name, space, n_bits, licence, "", None, DECOYS[pair.modality], provenance, made, LIMITS)


def _source(
    pair: TowerPair,
    observation_head: nn.Module,
    text_head: nn.Module,
    texts: Sequence[str],
    examples: Examples,
    inputs: NDArray[np.float32],
    classes: NDArray[np.int64],
    release: Release,
) -> TowerSource:
    heads = [first_bits(head, release.n_bits) for head in (observation_head, text_head)]
    present = np.unique(classes)
    sentence_of = {c: examples.sentences[int(np.searchsorted(examples.sentence_classes, c))] for c in present}
    queries = tuple(sentence_of[c] for c in present)
    n_parity = max(2, (len(inputs) - N_GOLDEN) // 2)
    parity = LabelledWindows(inputs[:n_parity], np.searchsorted(present, classes[:n_parity]), queries)
    rest = inputs[n_parity:]
    correction = rest[: max(2, len(rest) - N_GOLDEN)]
    others = tuple(text for text in examples.sentences if text not in queries)[:N_PARITY]
    golden = inputs[-N_GOLDEN:]
    return TowerSource(
        pair, heads[0], heads[1], tuple(texts), others, parity, correction, golden, examples.name, release
    )
