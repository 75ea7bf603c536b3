"""Figures of a deployed bundle on held-out recordings: what is measured is the int8 encoder that a recorder runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from edge.bundle import AudioInput, Bundle
from edge.encoder import open_audio_encoder, open_text_encoder
from edge.errors import UsageError
from train.data import Recording, decode
from train.gauges import bit_gauges
from train.loop import StarterModel
from train.metrics import (
    asymmetric_table,
    cosine_table,
    hamming_table,
    mean_average_precision,
    proportion,
)
from train.prepare import TrainingData, select
from train.settings import DataSettings, RunSettings
from train.text_tower import SentenceTower
from train.texts import build_vocabulary
from train.windows import cut_windows

ESC10, PHOEBE = "esc10", "phoebe_audio"
METHODS = (
    ("256-bit Hamming", hamming_table, 256),
    ("128-bit prefix", hamming_table, 128),
    ("64-bit prefix", hamming_table, 64),
    ("256-bit asymmetric", asymmetric_table, 256),
    ("continuous cosine", cosine_table, 256),
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Validation windows and sentences as logits."""

    audio: NDArray[np.float32]  # [n_windows, n_bits]
    classes: NDArray[np.int64]  # [n_windows]
    recordings: NDArray[np.int64]  # [n_windows], index of the recording that a window is from
    datasets: NDArray[np.str_]  # [n_windows]
    queries: NDArray[np.float32]  # [n_classes, n_bits]
    heldout: NDArray[np.float32]  # [n_sentences, n_bits]
    heldout_texts: tuple[str, ...]
    heldout_classes: NDArray[np.int64]  # [n_sentences]
    class_keys: tuple[str, ...]


EncodeAudio = Callable[[NDArray[np.float32]], NDArray[np.float32]]
EncodeText = Callable[[str], NDArray[np.float32]]


def encode_validation(
    recordings: Sequence[Recording],
    validation: Sequence[int],
    rate_hz: int,
    window_samples: int,
    encode_audio: EncodeAudio,
    encode_text: EncodeText,
) -> Encoded:
    """Encode the recordings with the indices `validation`, the plain query of every class, and the sentences kept out of training."""
    vocabulary = build_vocabulary(recordings)
    audio, classes, owners, datasets = [], [], [], []
    for number in tqdm(validation, desc="encode", unit="file", disable=None):
        recording = recordings[number]
        for window in cut_windows(decode(recording.file, rate_hz), window_samples):
            audio.append(encode_audio(window))
            classes.append(vocabulary.class_keys.index(recording.class_key))
            owners.append(number)
            datasets.append(recording.dataset)
    texts = tuple(text for text, _ in vocabulary.heldout)
    return Encoded(
        np.stack(audio),
        np.asarray(classes),
        np.asarray(owners),
        np.asarray(datasets),
        np.stack([encode_text(query) for query in vocabulary.queries]),
        np.stack([encode_text(text) for text in texts]),
        texts,
        np.asarray([c for _, c in vocabulary.heldout]),
        vocabulary.class_keys,
    )


def encode_model(model: StarterModel, settings: RunSettings, data: TrainingData) -> Encoded:
    """Encode the held-out recordings of a run with the model that it trained."""
    tower = SentenceTower(settings.text_tower)

    @torch.no_grad()
    def encode_audio(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = model.audio(torch.from_numpy(samples[None]))[0].numpy()
        return logits

    @torch.no_grad()
    def encode_text(text: str) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = model.text_head(tower.embed([text]))[0].numpy()
        return logits

    audio = settings.audio
    return encode_validation(
        data.recordings,
        data.validation,
        audio.sample_rate_hz,
        audio.window_samples,
        encode_audio,
        encode_text,
    )


def nearest_text(encoded: Encoded, dataset: str) -> NDArray[np.bool_]:
    """For each recording of a set: whether the nearest of the set's own text codes is right; distance = least over its windows."""
    mask = encoded.datasets == dataset
    candidates = np.unique(encoded.classes[mask])
    table = hamming_table(encoded.queries[candidates], encoded.audio[mask])  # [n_candidates, n_windows]
    owners, classes = encoded.recordings[mask], encoded.classes[mask]
    correct = []
    for owner in np.unique(owners):
        distance = table[:, owners == owner].min(axis=1)
        correct.append(candidates[int(distance.argmin())] == classes[owners == owner][0])
    return np.asarray(correct)


def heldout_hits(encoded: Encoded) -> NDArray[np.bool_]:
    """For each sentence that was kept out: whether its nearest ESC-10 recordings (mean distance to a class) are of the right class."""
    mask = encoded.datasets == ESC10
    candidates = np.unique(encoded.classes[mask])
    asked = np.isin(encoded.heldout_classes, candidates)
    table = hamming_table(encoded.heldout[asked], encoded.audio[mask])  # [n_sentences, n_windows]
    means = np.stack([table[:, encoded.classes[mask] == c].mean(axis=1) for c in candidates], axis=1)
    hits: NDArray[np.bool_] = candidates[means.argmin(axis=1)] == encoded.heldout_classes[asked]
    return hits


def mean_average_precisions(encoded: Encoded, dataset: str | None = None) -> dict[str, float]:
    """Text-to-audio mAP of every method, over one set's windows and classes or over all."""
    mask = np.ones(len(encoded.classes), dtype=bool) if dataset is None else encoded.datasets == dataset
    classes = np.unique(encoded.classes[mask])
    return {
        name: mean_average_precision(
            table(encoded.queries[classes], encoded.audio[mask], n_bits), classes, encoded.classes[mask]
        )
        for name, table, n_bits in METHODS
    }


def figures_of(encoded: Encoded) -> dict[str, Any]:
    """All figures of one encoder as a nested dict, ready for a manifest."""
    esc, heldout = proportion(nearest_text(encoded, ESC10)), heldout_hits(encoded)
    phoebe = nearest_text(encoded, PHOEBE)
    found: dict[str, Any] = {"ESC-10 fold 4, nearest of 10 text codes": str(esc)}
    if len(phoebe):
        found["phoebe, held-out fifth, nearest of 10 text codes"] = str(proportion(phoebe))
    found["held-out sentences that point to the right ESC-10 sound"] = str(proportion(heldout))
    for title, dataset in (("all held-out windows", None), ("ESC-10 fold 4", ESC10)):
        maps = mean_average_precisions(encoded, dataset)
        found[f"text-to-audio mAP, {title}"] = {name: round(100 * value, 2) for name, value in maps.items()}
    found["text codes"] = str(bit_gauges(encoded.queries))
    found["audio codes"] = str(bit_gauges(encoded.audio))
    return found


def evaluate_bundle(folder: Path, data: Path, runtimes: Sequence[str], console: Console) -> dict[str, Any]:
    """Measure every audio encoder of a bundle on what its training left out, and print a table."""
    bundle = Bundle.load(folder)
    provenance = bundle.manifest.provenance
    if "fold" not in provenance:
        raise UsageError(
            f"{folder}: expected a bundle of `python -m train run`, which tells what its training left out, "
            f"found one of {provenance.get('encoder', 'other towers')}; give --dataset in place of --data"
        )
    settings = DataSettings(fold=int(provenance["fold"]), licences=provenance["licences"])
    recordings, _, validation = select(settings, data)
    text = open_text_encoder(bundle)
    figures: dict[str, Any] = {}
    for runtime in runtimes:
        encoder = open_audio_encoder(bundle, runtime)
        source = bundle.encoder_entry("audio", encoder.runtime).input
        assert isinstance(source, AudioInput)  # an audio entry has an audio input
        encoded = encode_validation(
            recordings, validation, source.sample_rate_hz, source.window_samples, encoder.encode, text.encode
        )
        figures[f"{encoder.runtime}"] = figures_of(encoded)
    table = Table(title=f"{bundle.manifest.name} {bundle.manifest.code_space}, held-out recordings")
    table.add_column("what")
    for name in figures:
        table.add_column(name, justify="right")
    first = next(iter(figures.values()))
    for key, value in first.items():
        if isinstance(value, dict):
            for inner in value:
                table.add_row(f"{key}: {inner}", *[str(f[key][inner]) for f in figures.values()])
        else:
            table.add_row(key, *[str(f[key]) for f in figures.values()])
    console.print(table)
    return figures
