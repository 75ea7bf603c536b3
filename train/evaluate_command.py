"""The command `python -m train evaluate`: a bundle on the held-out recordings, or the towers and codes of a run on any data set."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from edge.errors import UsageError

EPILOG = """\
examples:
  python -m train evaluate --bundle edge/starter --data ../data --json figures.json
  python -m train evaluate --checkpoint run/hash.safetensors --dataset "inatsounds:/data/inatsounds?split=val" \\
      --ood birdset:/data/HSN --ood birdset:/data/SSW --baseline inatsounds:/data/inatsounds --csv out.csv --plot out.png
  python -m train evaluate --encoder bioclip --dataset inquire:/data/inquire --csv out.csv
  python -m train evaluate --checkpoint run/hash.safetensors --bundle build/bioclip --dataset inat24:/data/val.json
"""


def add_parser(commands: Any) -> None:
    """Add `evaluate` to the commands."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a bundle on the held-out recordings, or the codes of a run on any data set",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bundle = parser.add_argument_group("a bundle")
    bundle.add_argument("--data", type=Path, help="folder of the data sets (docs/data.md)")
    bundle.add_argument(
        "--bundle",
        type=Path,
        help="bundle folder (default: the starter in edge/starter); with --dataset: its int8 codes on any data set",
    )
    bundle.add_argument(
        "--runtime", choices=("onnx", "tflite"), action="append", help="default: every one in the bundle"
    )
    bundle.add_argument("--json", type=Path, help="write the figures here")
    codes = parser.add_argument_group("a run of `python -m train hash`, or towers without heads")
    codes.add_argument("--checkpoint", type=Path, help="hash.safetensors of the run")
    codes.add_argument("--encoder", help="towers alone; with --checkpoint: where its towers are now")
    codes.add_argument("--dataset", help="what to ask, such as inatsounds:/path?split=val")
    codes.add_argument(
        "--ood", action="append", default=[], help="another data set, out of domain; may repeat"
    )
    codes.add_argument("--baseline", help="data set whose features make ITQ and LSH heads to compare with")
    codes.add_argument("--top", type=int, default=100, help="items that are re-ranked (default %(default)s)")
    codes.add_argument("--orders", type=int, default=10, help="shuffles against ties (default %(default)s)")
    codes.add_argument(
        "--prompts",
        nargs="+",
        default=[],
        help='wordings of a species that are averaged, such as scientific "scientific with common name" (default: all)',
    )
    codes.add_argument(
        "--fuse-checkpoint", type=Path, help="run of the other modality, of the same code space"
    )
    codes.add_argument("--fuse-dataset", help="the same events in the other modality: files of the same stem")
    codes.add_argument(
        "--prior", type=Path, help="CSV event,species,weight: what is likely where the event was"
    )
    codes.add_argument("--csv", type=Path, help="write every figure here")
    codes.add_argument("--plot", type=Path, help="draw mAP against bits here")
    codes.add_argument("--device", default="auto", help="(default: cuda where there is one)")
    codes.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache" / "fieldcube" / "features",
        help="features that were computed (default %(default)s)",
    )
    parser.set_defaults(run=evaluate)


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure a bundle on what its training left out, or codes on any data set."""
    of_codes = {
        "ood": arguments.ood,
        "baseline": arguments.baseline,
        "csv": arguments.csv,
        "plot": arguments.plot,
    }
    of_bundle = {"data": arguments.data, "json": arguments.json}
    is_codes = bool(arguments.checkpoint or arguments.encoder or arguments.dataset)
    for name, value in (of_bundle if is_codes else of_codes).items():
        if value:
            wanted = "a bundle and no --dataset" if is_codes else "--dataset"
            raise UsageError(f"evaluate: expected --{name} with {wanted} only, found {value}")
    if is_codes:
        return evaluate_codes(arguments)
    from edge.bundle import Bundle, default_bundle
    from train.evaluate import evaluate_bundle

    if arguments.data is None:
        raise UsageError(
            "evaluate: expected --data (for a bundle), or --dataset with --checkpoint, --encoder or --bundle; found none of them"
        )
    folder = arguments.bundle or default_bundle()
    present = [e.runtime for e in Bundle.load(folder).manifest.encoders if e.modality == "audio"]
    figures = evaluate_bundle(folder, arguments.data, arguments.runtime or present, Console(width=120))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def evaluate_codes(arguments: argparse.Namespace) -> int:
    """Measure towers, codes and bundles, print them beside the paper's, write CSV and plot."""
    from train.datasets import open_dataset
    from train.evaluate_bundle import bundle_rows, encoder_of
    from train.evaluate_towers import Settings, fusion_rows, open_run, rows_of, with_baselines
    from train.hash_command import device_of
    from train.rows import flat, knees, paper_tables, plot_bits, summary, write_csv

    _require_together(arguments)
    device, prompts = device_of(arguments.device), tuple(arguments.prompts)
    settings = Settings(arguments.cache, device, arguments.top, arguments.orders, prompts)
    has_towers = arguments.checkpoint or arguments.encoder
    run = open_run(arguments.checkpoint, arguments.encoder) if has_towers else None
    encoder = run.pretrained.name if run else encoder_of(arguments.bundle)
    if run and arguments.baseline:
        run = with_baselines(run, arguments.baseline, settings)
    rows, kind_of = [], {}
    for spec in [arguments.dataset, *arguments.ood]:
        dataset = open_dataset(spec)
        kind_of[dataset.name] = spec.partition(":")[0]
        rows += rows_of(run, dataset, settings) if run else []
        if arguments.bundle:
            rows += bundle_rows(arguments.bundle, arguments.runtime or (), dataset, settings)
    if run and arguments.fuse_checkpoint:
        runs = run, open_run(arguments.fuse_checkpoint, None)
        datasets = open_dataset(arguments.dataset), open_dataset(arguments.fuse_dataset)
        rows += fusion_rows(runs, datasets, arguments.prior, settings)
    console = Console(width=None if Console().is_terminal else 200)
    name = arguments.checkpoint.parent.name if arguments.checkpoint else encoder
    console.print(summary(rows, name))
    console.print(*paper_tables(rows, kind_of, encoder, f"{name} (ours)"))
    for line in knees(rows):
        console.print(line)
    if arguments.csv:
        write_csv([flat(row) for row in rows], arguments.csv)
    if arguments.plot:
        plot_bits(rows, arguments.plot)
    return 0


def _require_together(arguments: argparse.Namespace) -> None:
    """Raise UsageError for arguments that lack another, or a number that is none."""
    if not arguments.dataset:
        raise UsageError("evaluate: expected --dataset beside --checkpoint or --encoder, found none")
    if not (arguments.checkpoint or arguments.encoder):
        if not arguments.bundle:
            raise UsageError(
                "evaluate: expected --checkpoint, --encoder or --bundle beside --dataset, found none"
            )
        for name in ("baseline", "fuse_checkpoint", "fuse_dataset"):
            if getattr(arguments, name):
                raise UsageError(
                    f"evaluate: expected --checkpoint or --encoder beside --{name.replace('_', '-')}, found none"
                )
    if bool(arguments.fuse_checkpoint) != bool(arguments.fuse_dataset):
        raise UsageError(
            "evaluate: expected --fuse-checkpoint and --fuse-dataset together, found one of them"
        )
    if arguments.prior and not arguments.fuse_checkpoint:
        raise UsageError("evaluate: expected --fuse-checkpoint and --fuse-dataset beside --prior, found none")
    if arguments.runtime and not arguments.bundle:
        raise UsageError("evaluate: expected --bundle beside --runtime, found none")
    for name, value in (("--top", arguments.top), ("--orders", arguments.orders)):
        if value < 1:
            raise UsageError(f"evaluate: expected {name} of 1 or more, found {value}")
