"""The command `python -m train pack`: a data set as webdataset shards, for training from slow or remote disks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge.errors import UsageError


def add_parser(commands: Any) -> None:
    """Add `pack` to the commands."""
    parser = commands.add_parser(
        "pack",
        help="write a data set as webdataset shards; run it again to go on where it stopped",
        epilog='example:\n  python -m train pack --dataset "inatsounds:/data/inatsounds?split=train" --out /data/shards',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dataset", required=True, help="inat21:/path/train_mini.json, ... (docs/formats.md)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--per-shard", type=int, default=1000, help="items in a shard (default %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the shards and print what opens them again."""
    from train.datasets import open_dataset, pack

    if arguments.per_shard < 1:
        raise UsageError(f"--per-shard: expected 1 or more, found {arguments.per_shard}")
    dataset = open_dataset(arguments.dataset)
    shards = pack(dataset, arguments.out, arguments.per_shard)
    last = shards[-1].stem.removeprefix("shards-")
    print(f"{len(dataset.items)} items in {len(shards)} shards; open them with")
    print(f"webdataset:{arguments.out.resolve()}/shards-{{{'0' * len(last)}..{last}}}.tar")
    return 0
