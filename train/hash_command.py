"""The command `python -m train hash`: hash heads and LoRA for a pretrained pair of towers, from one preset."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.examples import Examples
    from train.towers import TowerPair

EPILOG = """examples:
  python -m train hash --preset bioclip --dataset inat21:/data/inat21/train_mini.json --out runs/bioclip
  python -m train hash --preset biolingual --encoder clap:/models/biolingual --dataset "inatsounds:/data/inatsounds?split=train" --out runs/sounds
  torchrun --nproc-per-node 8 -m train hash --preset bioclip_2 --dataset "webdataset:/data/shards-{000..499}.tar" --out runs/shards

Run the same command again to go on where it stopped. The batch of the preset is shared by all processes."""


def add_parser(commands: Any) -> None:
    """Add `hash` to the commands."""
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
        "--dataset", help="inat21:/path/train_mini.json, folder:/path/labels.csv, ... (docs/data.md)"
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


def examples_of(spec: str, pair: TowerPair) -> Examples:
    """Open a data set for a pair of towers, its species in all their wordings."""
    from train.dataset_examples import DatasetExamples
    from train.datasets import open_dataset, prompts_of

    return DatasetExamples(open_dataset(spec), pair.input, prompts_of)


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
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = join(device)
    try:
        pair = open_towers(settings.encoder)
        train_hash(
            settings, pair, examples_of(settings.dataset, pair), arguments.out, arguments.cache, device
        )
    finally:
        leave()
    return 0
