"""The command `python -m train claims`: the experiment of train.claims over several seeds, and docs/claims.md from it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

EPILOG = """example:
  python -m train claims --data ../data --out runs/claims --markdown docs/claims.md

Seeds that are done are read back from --out; an hour for three on two cores."""
WHAT = """A small convolutional tower (3 M parameters) plays the pretrained model: trained contrastively, sound against sentence, for 1,200 steps of
64 windows on the training recordings of docs/data.md (ESC-10 folds 1-3, birds, frogs, forest), into 512 joint features. Then every arm trains for
{steps} steps of {batch} windows on the same recordings: LoRA (rank {rank}, convolutions of the tower and both projections) and hash heads, heads alone
on the frozen tower, or (the control) LoRA by the contrastive loss on the continuous features, without hashing. Measured on held-out recordings:
all classes of the held-out fifth (most birds with one to four windows), the ten sounds of ESC-10 fold 4, and both laid over held-out forest
backgrounds at 0 to 10 dB. Training windows too are laid over forest backgrounds, others of the same recorders and days: "over backgrounds" is a
set that no training saw, not a kind of sound that none did, and it is no harder than the clean one. The arm of 128 bits has a diversity of 0.5,
the others 0.2. The paper's own claims are about BioCLIP and BioLingual on 10,000 species; this is the largest experiment that the
recordings here allow, and says nothing about those models. Made by `python -m train claims --data DATA --out runs/claims --markdown docs/claims.md`."""


def add_parser(commands: Any) -> None:
    """Add `claims` to the commands."""
    parser = commands.add_parser(
        "claims",
        help="try the paper's claims on the recordings of docs/data.md",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets (docs/data.md)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and their figures")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default 1 2 3")
    parser.add_argument("--markdown", type=Path, help="write the tables here (default: print them)")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache" / "fieldcube",
        help="decoded audio (default %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the seeds that are not done, and tell."""
    from dataclasses import replace

    import torch

    from train import claims
    from train.claims_table import render
    from train.settings import read_preset

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rows: list[dict[str, object]] = []
    for seed in arguments.seeds:
        file = arguments.out / f"seed{seed}.json"
        if not file.is_file():
            settings = replace(read_preset("claims"), seed=seed)
            found = claims.run_seed(settings, arguments.data, arguments.cache, arguments.out / f"seed{seed}")
            temporary = file.with_suffix(".partial")
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            temporary.replace(file)
        rows += json.loads(file.read_text(encoding="utf-8"))
    what = WHAT.format(steps=claims.STEPS, batch=claims.BATCH, rank=claims.LORA_RANK)
    text = render(rows, what)
    if arguments.markdown is None:
        print(text)
    else:
        arguments.markdown.write_text(text, encoding="utf-8")
    return 0
