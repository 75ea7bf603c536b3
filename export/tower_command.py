"""The part of to_onnx.py and to_tflite.py that exports pretrained towers: `--encoder ... --head itq`, or a checkpoint of `python -m train hash`."""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from edge.bundle import Bundle, Runtime
from edge.errors import UsageError
from export.assemble import Release, assemble, existing
from export.calibration import MIN_OWNERS, fitted_calibration
from export.parity import ParityRow, print_rows, require_parity
from export.runtimes import EncodeSentence
from export.sources import CLIPS, PICTURES
from export.tower_export import (
    Logits,
    export_encoder,
    observation_job,
    open_files,
    parity_rows,
    part_of,
    text_job,
)
from export.tower_source import N_GOLDEN, TowerSource, from_hash_checkpoint, from_towers, read_texts
from train.examples import Examples
from train.hash_checkpoint import is_hash_checkpoint, load_hash_checkpoint
from train.towers import TowerPair, open_towers

NO_CALIBRATION = (
    "no calibration: edge-search ranks with this bundle, edge-monitor refuses it; give a --dataset of "
    f"{2 * MIN_OWNERS + N_GOLDEN} labelled observations or more, or for sound add one with export/reference.py"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for pretrained towers."""
    towers = parser.add_argument_group("pretrained towers (BioCLIP, BioLingual, any open_clip or CLAP model)")
    towers.add_argument(
        "--encoder",
        help="bioclip, bioclip-2, biolingual, open_clip:local-dir:/folder, clap:/folder ...; "
        "with --checkpoint of `python -m train hash`: where the towers are now",
    )
    towers.add_argument(
        "--head", choices=("itq", "lsh"), help="a head without training (default itq); not with --checkpoint"
    )
    towers.add_argument("--texts", type=Path, help="sentences that will be asked for, one a line")
    towers.add_argument(
        "--dataset",
        help="observations to centre, correct and compare with, such as folder:/path/labels.csv (docs/formats.md); "
        "default: the clips or the pictures of examples/",
    )
    towers.add_argument(
        "--bits", type=int, choices=(64, 128, 192, 256), help="a prefix of the code (default: all of it)"
    )
    towers.add_argument(
        "--split-head",
        action="store_true",
        help="tower and head in two files: a new head then travels alone",
    )


def is_asked_for(arguments: argparse.Namespace) -> bool:
    """Whether these arguments are about pretrained towers."""
    return arguments.encoder is not None or is_hash_checkpoint(arguments.checkpoint)


def tower_source(arguments: argparse.Namespace) -> TowerSource:
    """Open what the arguments name. Raises UsageError for what is missing, and what towers, texts and data sets raise."""
    if arguments.texts is None:
        raise UsageError(
            "--texts: expected a file of sentences with pretrained towers, found none; see --help"
        )
    texts = read_texts(arguments.texts)
    if not is_hash_checkpoint(arguments.checkpoint):
        pair = open_towers(arguments.encoder)
        examples = examples_of(arguments.dataset, pair)
        return from_towers(pair, arguments.head or "itq", texts, examples, arguments.bits)
    if arguments.head:
        raise UsageError(
            "--head: expected none with a checkpoint of `python -m train hash`, which has its own"
        )
    checkpoint = load_hash_checkpoint(arguments.checkpoint, arguments.encoder)
    examples = examples_of(arguments.dataset, checkpoint.pair)
    return from_hash_checkpoint(checkpoint, texts, examples, arguments.bits)


def examples_of(spec: str | None, pair: TowerPair) -> Examples:
    """Real observations for a tower; spec None: the clips or the camera-trap pictures of examples/."""
    from train.dataset_examples import DatasetExamples
    from train.datasets import open_dataset, prompts_of

    own = PICTURES if pair.modality == "image" else CLIPS
    return DatasetExamples(open_dataset(spec or f"folder:{own / 'labels.csv'}"), pair.input, prompts_of)


def export_source(
    source: TowerSource, runtime: Runtime, is_split: bool, out: Path, console: Console
) -> Bundle:
    """Export both encoders for one runtime, compare, and write or complete the bundle. Raises ParityError, TooLargeError."""
    if (out / "manifest.json").is_file() and existing(out, source.release.code_space) is None:
        console.print(f"{out}: its bundle is of another code space and will be replaced")
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        text = export_encoder(text_job(source), runtime, Path(name), console, is_split)
        observation = export_encoder(observation_job(source), runtime, Path(name), console, is_split)
        console.print(f"exported in {time.perf_counter() - started:.0f} s")
        rows = [
            *parity_rows(text, observation.reference, source),
            *parity_rows(observation, text.reference, source),
        ]
        n = len(source.parity.samples)
        print_rows(rows, n, console)
        require_parity(rows)
        encode = open_files(text.job, runtime, text.files)
        parts = [part_of(observation, source), part_of(text, source)]
        release = with_calibration(source, observation.logits, text.logits, encode)
        return assemble(out, release, parts, encode, _figures(rows, n))


def with_calibration(
    source: TowerSource, observations: Logits, sentences: Logits, encode: EncodeSentence
) -> Release:
    """The release with a probability from the compared observations, where they are enough for one.

    Args:
        observations: deployed logits of source.parity.samples; sentences: of its queries first, [n, n_bits].
    """
    parity, release = source.parity, source.release
    queries = sentences[: len(parity.queries)]
    is_asked = parity.classes < len(queries)  # of very many classes only the first are compared
    calibration = fitted_calibration(
        observations[is_asked],
        parity.classes[is_asked],
        np.flatnonzero(is_asked),
        queries,
        np.stack([encode(decoy) for decoy in release.decoys]),
        f"{is_asked.sum()} observations of {source.observed}, as loud and as near as they are there, put to random watchlists",
    )
    return replace(release, calibration=calibration)


def _figures(rows: list[ParityRow], n_inputs: int) -> dict[str, object]:
    return {
        f"{row.graph} against PyTorch": {
            "inputs": n_inputs,
            "bits equal": round(row.raw, 4),
            "bits equal, centred": round(row.centred, 4),
            "mAP change in points": round(100 * row.map_change, 3),
        }
        for row in rows
    }


def export_towers(arguments: argparse.Namespace, runtime: Runtime, console: Console) -> Bundle:
    """Run the command for pretrained towers."""
    bundle = export_source(tower_source(arguments), runtime, arguments.split_head, arguments.out, console)
    if bundle.manifest.calibration is None:
        console.print(NO_CALIBRATION)
    return bundle
