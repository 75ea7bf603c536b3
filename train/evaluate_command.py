"""The command `python -m train evaluate`: measure a bundle on the held-out recordings."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console


def add_parser(commands: Any) -> None:
    """Add `evaluate` to the commands."""
    parser = commands.add_parser("evaluate", help="measure a bundle on the held-out recordings")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets (docs/data.md)")
    parser.add_argument(
        "--bundle", type=Path, default=None, help="bundle folder (default: the starter in edge/starter)"
    )
    parser.add_argument(
        "--runtime", choices=("onnx", "tflite"), action="append", help="default: every one in the bundle"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.set_defaults(run=evaluate)


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure a bundle."""
    from edge.bundle import Bundle, default_bundle
    from train.evaluate import evaluate_bundle

    folder = arguments.bundle or default_bundle()
    present = [e.runtime for e in Bundle.load(folder).manifest.encoders if e.modality == "audio"]
    figures = evaluate_bundle(folder, arguments.data, arguments.runtime or present, Console(width=120))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0
