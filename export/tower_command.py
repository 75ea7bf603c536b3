"""The part of to_onnx.py and to_tflite.py that exports pretrained towers: `--encoder ... --head itq`, or a checkpoint of `python -m train hash`."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from rich.console import Console

from edge.bundle import Bundle
from edge.errors import UsageError
from export.assemble import assemble
from export.parity import ParityRow, print_rows, require_parity
from export.tower_export import ExportRuntime, export_observation, export_text
from export.tower_source import TowerSource, from_hash_checkpoint, from_towers, read_texts
from train.examples import Examples
from train.hash_checkpoint import is_hash_checkpoint
from train.towers import TowerPair, open_towers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for pretrained towers."""
    towers = parser.add_argument_group("pretrained towers (BioCLIP, BioLingual, any open_clip or CLAP model)")
    towers.add_argument(
        "--encoder", help="bioclip, bioclip-2, biolingual, open_clip:local-dir:/folder, clap:/folder ..."
    )
    towers.add_argument(
        "--head", choices=("itq", "lsh"), help="a head without training (default itq); not with --checkpoint"
    )
    towers.add_argument("--texts", type=Path, help="sentences that will be asked for, one a line")
    towers.add_argument(
        "--dataset",
        help="observations to set, correct and compare with, such as folder:/path/labels.csv (docs/formats.md)",
    )
    towers.add_argument(
        "--bits",
        type=int,
        default=256,
        choices=(64, 128, 192, 256),
        help="a prefix of the code (default 256)",
    )


def is_asked_for(arguments: argparse.Namespace) -> bool:
    """Whether these arguments are about pretrained towers."""
    return arguments.encoder is not None or is_hash_checkpoint(arguments.checkpoint)


def tower_source(arguments: argparse.Namespace) -> TowerSource:
    """Open what the arguments name."""
    for name in ("texts", "dataset"):
        if getattr(arguments, name) is None:
            raise UsageError(f"--{name}: expected with pretrained towers, found none; see --help")
    texts = read_texts(arguments.texts)
    if is_hash_checkpoint(arguments.checkpoint):
        if arguments.head:
            raise UsageError(
                "--head: expected without a checkpoint of `python -m train hash`, which has heads of its own"
            )
        from train.hash_checkpoint import load_hash_checkpoint

        checkpoint = load_hash_checkpoint(arguments.checkpoint, arguments.encoder)
        examples = _examples(arguments.dataset, checkpoint.pair)
        return from_hash_checkpoint(checkpoint, texts, examples, arguments.bits)
    pair = open_towers(arguments.encoder)
    return from_towers(
        pair, arguments.head or "itq", texts, _examples(arguments.dataset, pair), arguments.bits
    )


def _examples(spec: str, pair: TowerPair) -> Examples:
    from train.dataset_examples import DatasetExamples
    from train.datasets import open_dataset, prompts_of

    return DatasetExamples(open_dataset(spec), pair.input, prompts_of)


def export_towers(arguments: argparse.Namespace, runtime: ExportRuntime, console: Console) -> Bundle:
    """Export both encoders for one runtime, compare, and write or complete the bundle."""
    source = tower_source(arguments)
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        text, encode_text = export_text(source, runtime, Path(name), console)
        observation = export_observation(source, runtime, Path(name), console)
        console.print(f"exported in {time.perf_counter() - started:.0f} s")
        rows: list[ParityRow] = [*text.rows, *observation.rows]
        n = len(source.parity.samples)
        print_rows(rows, n, console)
        require_parity(rows)
        figures: dict[str, object] = {
            f"{row.graph} against PyTorch": {
                "inputs": n,
                "bits equal": round(row.raw, 4),
                "bits equal, centred": round(row.centred, 4),
                "mAP change in points": round(100 * row.map_change, 3),
            }
            for row in rows
        }
        return assemble(arguments.out, source.release, [observation.part, text.part], encode_text, figures)
