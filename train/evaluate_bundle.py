"""Rows of figures of a bundle on any data set: the codes of the very files that a recorder runs, beside those of the towers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.bundle import Bundle, Runtime, TextInput
from edge.encoder import open_audio_encoder, open_image_encoder, open_text_encoder
from train.combination import evened
from train.data import DataError
from train.datasets import Dataset
from train.evaluate_codes import Representation, evaluate_pair
from train.evaluate_towers import Settings
from train.evaluation_data import AllItems, wordings_of
from train.metrics import asymmetric_table, hamming_table
from train.questions import questions_of
from train.rows import Row


def encoder_of(folder: Path) -> str:
    """Name of the towers that a bundle was made from, else its own."""
    manifest = Bundle.load(folder).manifest
    return str(manifest.provenance.get("encoder", manifest.name))


def bundle_rows(folder: Path, runtimes: Sequence[Runtime], dataset: Dataset, settings: Settings) -> list[Row]:
    """Rows of the deployed codes, Hamming and asymmetric, for each runtime.

    Args:
        runtimes: () = every one that the bundle has for what the data set shows.

    Raises:
        DataError: the bundle hears what the data set shows, or the other way round; BundleError: as the recorder would.
    """
    bundle = Bundle.load(folder)
    entries = {e.runtime: e for e in bundle.manifest.encoders if e.modality == dataset.modality}
    if not entries:
        found = ", ".join(sorted({e.modality for e in bundle.manifest.encoders}))
        raise DataError(
            f"{folder}: expected an encoder of {dataset.modality} for {dataset.name}, found {found}"
        )
    questions = questions_of(dataset, wordings_of(settings.prompts))
    representations = []
    for runtime in runtimes or list(entries):
        queries, items = _logits(bundle, runtime, dataset, questions.texts)
        name = f"{bundle.manifest.code_bits} deployed {runtime} {entries[runtime].precision}"
        asked, n_bits = questions.of_queries(queries), bundle.manifest.code_bits
        representations += [
            Representation(f"binary {name}", n_bits, asked, items, hamming_table),
            Representation(f"asymmetric {name}", n_bits, evened(asked), items, asymmetric_table),
        ]
    return evaluate_pair(dataset.name, encoder_of(folder), questions, representations, settings.n_orders)


def _logits(
    bundle: Bundle, runtime: Runtime, dataset: Dataset, texts: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits of texts and of items as they are, [n, n_bits] each."""
    n_threads = os.cpu_count() or 1
    spoken = {e.runtime for e in bundle.manifest.encoders if isinstance(e.input, TextInput)}
    sentences = open_text_encoder(bundle, n_threads, runtime if runtime in spoken else "auto")
    takes = bundle.encoder_entry(dataset.modality, runtime).input
    assert not isinstance(takes, TextInput)  # the entry is one of sound or of pictures
    is_audio = dataset.modality == "audio"
    encoder = (open_audio_encoder if is_audio else open_image_encoder)(bundle, runtime, n_threads)
    examples = AllItems(dataset, takes)
    title = f"{dataset.name}, {runtime}"
    indices = tqdm(range(len(dataset.items)), desc=title, unit="item", leave=False, disable=None)
    items = [encoder.encode(examples.load(index, None).numpy()) for index in indices]
    return np.stack([sentences.encode(text) for text in texts]), np.stack(items)
