"""The commands `python -m train hash` (heads and LoRA for pretrained towers, from one preset) and `python -m train patch`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.examples import Examples
    from train.towers import TowerPair

EPILOG = """examples:
  python -m train hash --preset bioclip --dataset inat21:/data/inat21/train_mini.json --out runs/bioclip
  python -m train hash --preset biolingual --encoder clap:/models/biolingual --dataset "inatsounds:/data/inatsounds?split=train" --out runs/sounds
  torchrun --nproc-per-node 8 -m train hash --preset bioclip_2 --dataset "webdataset:/data/shards-{000000..000499}.tar" --out runs/shards

Run the same command again to go on where it stopped. The batch of the preset is shared by all processes."""


def add_parser(commands: Any) -> None:
    """Add `hash` and `patch` to the commands."""
    parser = commands.add_parser(
        "hash",
        help="train hash heads and LoRA on pretrained towers; run it again to go on where it stopped",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", required=True, help="name of a preset with an encoder, or a TOML file")
    parser.add_argument(
        "--encoder", help="bioclip, biolingual, open_clip:..., clap:... (default: the preset's)"
    )
    parser.add_argument(
        "--dataset", help="inat21:/path/train_mini.json, folder:/path/labels.csv, ... (docs/formats.md)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: state, hash.safetensors")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache" / "fieldcube",
        help="features of the frozen towers (default %(default)s)",
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1 ... (default: cuda where there is one)"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    parser.set_defaults(run=run)
    patch = commands.add_parser(
        "patch", help="choose weights between the pretrained and the trained towers of a hashing run"
    )
    patch.add_argument("--checkpoint", type=Path, required=True, help="hash.safetensors of the run")
    patch.add_argument("--dataset", required=True, help="held-out items to tell apart")
    patch.add_argument("--out", type=Path, required=True, help="the patched checkpoint")
    patch.add_argument("--encoder", help="where the towers are now (default: as the run was told)")
    patch.add_argument("--device", default="auto", help="(default: cuda where there is one)")
    patch.set_defaults(run=run_patch)


def examples_of(spec: str, pair: TowerPair, prompts: Sequence[str] = ()) -> Examples:
    """Open a data set for a pair of towers; prompts: wordings of its species, () = all."""
    from train.dataset_examples import DatasetExamples
    from train.datasets import open_dataset
    from train.datasets.prompts import FORMATS, prompts_of

    chosen = tuple(prompts) or FORMATS
    return DatasetExamples(open_dataset(spec), pair.input, lambda species: prompts_of(species, chosen))


def device_of(name: str) -> str:
    """The device that is meant: `auto` is CUDA where there is one. Raises UsageError for one that is not there."""
    import torch

    from edge.errors import UsageError

    numbered = [f"cuda:{i}" for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    there = ["cpu", *(["cuda"] if numbered else []), *numbered]
    if name == "auto":
        return "cuda" if numbered else "cpu"
    if name not in there:
        raise UsageError(f"--device: expected one of auto, {', '.join(there)}, found {name!r}")
    return name


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on."""
    from dataclasses import replace

    import torch

    from edge.errors import ConfigError
    from train.distributed import join, leave
    from train.hash_settings import read_hash_preset
    from train.hashing import train_hash
    from train.towers import open_towers

    settings = read_hash_preset(arguments.preset)
    settings = replace(
        settings,
        encoder=arguments.encoder or settings.encoder,
        dataset=arguments.dataset or settings.dataset,
    )
    if not settings.dataset:
        raise ConfigError(f"preset {settings.name}: expected a data set, found none; give --dataset")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = join(device_of(arguments.device))
    try:
        pair = open_towers(settings.encoder)
        train_hash(
            settings,
            pair,
            examples_of(settings.dataset, pair, settings.prompts),
            arguments.out,
            arguments.cache,
            device,
        )
    finally:
        leave()
    return 0


def run_patch(arguments: argparse.Namespace) -> int:
    """Print the accuracy at each alpha, and write the checkpoint with the best."""
    from train.hash_checkpoint import read_settings, with_patch
    from train.patching import choose_patch
    from train.towers import open_towers

    settings = read_settings(arguments.checkpoint)
    pair = open_towers(arguments.encoder or settings.encoder)
    examples = examples_of(arguments.dataset, pair, settings.prompts)
    alpha, table = choose_patch(
        arguments.checkpoint, examples, arguments.encoder, device_of(arguments.device)
    )
    for each, accuracy in table.items():
        print(
            f"alpha {each:.2f}: zero-shot accuracy of codes {100 * accuracy:.1f} %" + " <" * (each == alpha)
        )
    with_patch(arguments.checkpoint, alpha, arguments.out)
    print(f"wrote {arguments.out} with alpha {alpha:g}; 1 = as trained, 0 = as pretrained, the heads stay")
    return 0
