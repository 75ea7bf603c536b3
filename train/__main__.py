"""Commands of the training package: run a preset, evaluate a bundle, five-fold figures.

Examples:
    python -m train run --preset starter --data ../data --out runs/starter
    python -m train evaluate --bundle edge/starter --data ../data --json figures.json
    python -m train folds --preset starter_folds --data ../data --out runs/folds
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.logging import RichHandler

from edge.errors import FieldcubeError


def _add_common(parser: argparse.ArgumentParser, preset: str | None) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets (docs/data.md)")
    if preset:
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
    folds = commands.add_parser(
        "folds", help="train five times, each without another fifth, and pool the held-out birds"
    )
    _add_common(folds, "starter_folds")
    evaluate = commands.add_parser("evaluate", help="measure a bundle on the held-out recordings")
    _add_common(evaluate, None)
    evaluate.add_argument(
        "--bundle", type=Path, default=None, help="bundle folder (default: the starter in edge/starter)"
    )
    evaluate.add_argument(
        "--runtime", choices=("onnx", "tflite"), action="append", help="default: every one in the bundle"
    )
    evaluate.add_argument("--json", type=Path, help="write the figures here")
    return parser


def _train_one(settings: object, arguments: argparse.Namespace, out: Path) -> tuple[object, object]:
    import torch

    from train.loop import train
    from train.prepare import prepare
    from train.settings import RunSettings

    assert isinstance(settings, RunSettings)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    data = prepare(settings, arguments.data, arguments.cache)
    return data, train(settings, data, out, device)


def run(arguments: argparse.Namespace) -> int:
    """Train one preset to its checkpoint."""
    from train.finish import finish
    from train.settings import read_preset

    settings = read_preset(arguments.preset)
    data, model = _train_one(settings, arguments, arguments.out)
    finish(settings, data, model, arguments.out / f"{settings.name}.safetensors")  # type: ignore[arg-type]
    return 0


def folds(arguments: argparse.Namespace) -> int:
    """Train the five folds of a preset; print the phoebe birds' accuracy pooled over folds, and ESC-10's as a spread over runs."""
    import torch

    from train.evaluate import ESC10, PHOEBE, encode_validation, nearest_text
    from train.metrics import bootstrap
    from train.settings import read_preset
    from train.text_tower import SentenceTower

    preset = read_preset(arguments.preset)
    tower = SentenceTower(preset.text_tower)
    birds, sounds = [], []
    for fold in range(5):
        settings = dataclasses.replace(
            preset, name=f"{preset.name}{fold}", data=dataclasses.replace(preset.data, fold=fold)
        )
        data, model = _train_one(settings, arguments, arguments.out / f"fold{fold}")

        @torch.no_grad()
        def encode_audio(samples: np.ndarray, model: object = model) -> np.ndarray:
            return model.audio(torch.from_numpy(samples[None]))[0].numpy()  # type: ignore[attr-defined]

        @torch.no_grad()
        def encode_text(text: str, model: object = model) -> np.ndarray:
            return model.text_head(tower.embed([text]))[0].numpy()  # type: ignore[attr-defined]

        audio = settings.audio
        encoded = encode_validation(
            data.recordings,
            fold,
            audio.sample_rate_hz,
            audio.window_samples,
            encode_audio,
            encode_text,  # type: ignore[attr-defined]
        )
        birds.append(nearest_text(encoded, PHOEBE))
        sounds.append(float(nearest_text(encoded, ESC10).mean()))
        print(
            f"fold {fold}: phoebe {100 * birds[-1].mean():.1f} % of {len(birds[-1])}, ESC-10 fold 4 {100 * sounds[-1]:.1f} %",
            flush=True,
        )
    print(
        f"phoebe birds, five folds, nearest of the 10 text codes, float encoder: {bootstrap(np.concatenate(birds))}"
    )
    print(
        f"ESC-10 fold 4 over the five runs: mean {100 * np.mean(sounds):.1f} %, least {100 * min(sounds):.1f}, most {100 * max(sounds):.1f}"
    )
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure a bundle."""
    from edge.bundle import Bundle, default_bundle
    from train.evaluate import evaluate_bundle
    from train.settings import DataSettings

    folder = arguments.bundle or default_bundle()
    present = [e.runtime for e in Bundle.load(folder).manifest.encoders if e.modality == "audio"]
    figures = evaluate_bundle(
        folder, arguments.data, DataSettings(), arguments.runtime or present, Console(width=120)
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(show_path=False)])
    logging.getLogger("train").setLevel(logging.INFO)
    try:
        return {"run": run, "folds": folds, "evaluate": evaluate}[arguments.command](arguments)
    except FieldcubeError as error:
        print(f"train: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("train: stopped; run the same command again to go on from the last saved step", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
