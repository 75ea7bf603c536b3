"""Commands of the training package: run a preset, evaluate a bundle, five-fold figures, hash heads and LoRA on pretrained towers.

Examples:
    python -m train run --preset starter --data ../data --out runs/starter
    python -m train evaluate --bundle edge/starter --data ../data --json figures.json
    python -m train folds --preset starter_folds --data ../data --out runs/folds
    python -m train hash --preset bioclip --dataset inat21:/data/inat21/train_mini.json --out runs/bioclip
    python -m train evaluate --checkpoint runs/bioclip/hash.safetensors --dataset inat24:/data/inat24/val.json --csv out.csv --plot out.png
    python -m train sweep --over lambda --preset bioclip --dataset inat21:/data/inat21/train_mini.json --csv lambda.csv
    python -m train overfit
    python -m train claims --data ../data --out runs/claims --markdown docs/claims.md
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.logging import RichHandler

from edge.errors import FieldcubeError
from train import claims_command, evaluate_command, hash_command, pack_command, sweep_command

if TYPE_CHECKING:
    from train.loop import StarterModel
    from train.prepare import TrainingData
    from train.settings import RunSettings

# Each adds its commands: add_parser(commands) makes parsers whose default `run` takes the arguments and returns the exit code.
# At import they load nothing heavy: a command brings torch in when it runs.
MODULES = (evaluate_command, hash_command, sweep_command, pack_command, claims_command)


def _add_common(parser: argparse.ArgumentParser, preset: str) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets (docs/data.md)")
    parser.add_argument(
        "--preset", default=preset, help="name of a preset or a TOML file (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: state, checkpoint")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache" / "fieldcube",
        help="decoded audio (default %(default)s)",
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1 ... (default: cuda where there is one)"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train a preset; run it again to go on where it stopped")
    _add_common(run, "starter")
    run.set_defaults(run=run_preset)
    folds = commands.add_parser(
        "folds", help="train five times, each without another fifth, and pool the held-out birds"
    )
    _add_common(folds, "starter_folds")
    folds.set_defaults(run=run_folds)
    for module in MODULES:
        module.add_parser(commands)
    return parser


def _train_one(
    settings: RunSettings, arguments: argparse.Namespace, out: Path, start: StarterModel | None = None
) -> tuple[TrainingData, StarterModel]:
    import torch

    from train.loop import train
    from train.prepare import prepare

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    data = prepare(settings, arguments.data, arguments.cache)
    return data, train(settings, data, out, device, start)


def run_preset(arguments: argparse.Namespace) -> int:
    """Train one preset to its checkpoint."""
    from train.finish import finish
    from train.settings import read_preset

    settings = read_preset(arguments.preset)
    data, model = _train_one(settings, arguments, arguments.out)
    finish(settings, data, model, arguments.out / f"{settings.name}.safetensors")
    return 0


def run_folds(arguments: argparse.Namespace) -> int:
    """Measure the phoebe birds on every fifth of their recordings.

    One first phase without any phoebe recording (nor copies of them in other sets) serves all folds; then five short runs of
    both phases start from it, each without another fifth.
    """
    from train.evaluate import ESC10, PHOEBE, encode_model, nearest_text
    from train.metrics import proportion
    from train.settings import read_preset

    preset = read_preset(arguments.preset)
    shared_settings = replace(
        preset,
        name=f"{preset.name}_shared",
        data=replace(preset.data, leave_out=(PHOEBE,)),
        schedule=replace(preset.schedule, pretrain_steps=preset.schedule.shared_steps, hash_steps=0),
    )
    _, shared = _train_one(shared_settings, arguments, arguments.out / "shared")
    birds, sounds = [], []
    for fold in range(5):
        settings = replace(preset, name=f"{preset.name}{fold}", data=replace(preset.data, fold=fold))
        data, model = _train_one(settings, arguments, arguments.out / f"fold{fold}", shared)
        encoded = encode_model(model.cpu(), settings, data)
        birds.append(nearest_text(encoded, PHOEBE))
        sounds.append(float(nearest_text(encoded, ESC10).mean()))
        print(
            f"fold {fold}: phoebe {proportion(birds[-1])} of {len(birds[-1])}, ESC-10 fold 4 {100 * sounds[-1]:.1f} %",
            flush=True,
        )
    print(
        f"phoebe birds, five folds, nearest of the 10 text codes, float encoder: {proportion(np.concatenate(birds))}"
    )
    print(
        f"ESC-10 fold 4 over the five runs: mean {100 * np.mean(sounds):.1f} %, "
        f"least {100 * min(sounds):.1f}, most {100 * max(sounds):.1f}"
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(show_path=False)])
    logging.getLogger("train").setLevel(logging.INFO)
    try:
        code: int = arguments.run(arguments)
        return code
    except FieldcubeError as error:
        print(f"train: error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a folder that is a file, no right to write, a full disk
        told = error.strerror or str(error)
        print(
            f"train: error: {error.filename or 'file'}: expected to read or write it, found: {told}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("train: stopped; run the same command again to go on from the last saved step", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
