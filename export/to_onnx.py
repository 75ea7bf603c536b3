"""Export a checkpoint to ONNX encoders (audio int8, text 4/8 bits) and write them as a bundle.

Without arguments: the starter's checkpoint, compared with PyTorch on the clips of examples/, into build/starter. The steps are
fold BatchNorm, export, quantise, compare; a bundle below the limits is not written.

Example:
    python export/to_onnx.py
    python export/to_onnx.py --data ../data --out edge/starter
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

if __name__ == "__main__":  # run as a file: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge.bundle import Bundle
from edge.errors import FieldcubeError, UsageError
from export import sources, tower_command
from export.assemble import assemble, release_of
from export.encoder_part import Part, audio_part, text_part
from export.graphs import audio_to_onnx, text_to_onnx
from export.parity import ParityRow, compare, compare_audio, print_rows, require_parity, retrieval
from export.quantize import quantize_audio, quantize_text
from export.runtimes import EncodeSentence, onnx_observation, onnx_text
from train.text_tower import MAX_TOKENS


def export_text(
    source: sources.Source, folder: Path, console: Console
) -> tuple[Part, EncodeSentence, list[ParityRow], NDArray[np.float32]]:
    """Export the text encoder; returns its part, the deployed encoder, parity rows, and PyTorch's logits of the parity queries."""
    console.print("text: sentence encoder, word pieces and positions cut to what queries use")
    queries, audio = source.parity.queries, source.reference_audio()
    small, module, reference = sources.text_modules(source.checkpoint, queries)
    float_file, small_file = folder / "text.float.onnx", folder / "text.onnx"
    text_to_onnx(module, float_file)
    console.print("text: quantise (table and feed-forward 4 bits, attention and head 8 bits)")
    quantize_text(float_file, small_file)
    rows = []
    for name, file, is_float in (("text float", float_file, True), ("text 4/8 bits", small_file, False)):
        encode = onnx_text(file, small.tokenizer_json)
        found = np.stack([encode(q) for q in queries])
        maps = retrieval(reference, audio, source.parity), retrieval(found, audio, source.parity)
        rows.append(compare(name, file, reference, found, *maps, is_float, len(source.parity.samples)))
    deployed = onnx_text(small_file, small.tokenizer_json)
    part = text_part(small_file, "weights 4/8 bits", small.tokenizer_json, MAX_TOKENS, deployed)
    return part, deployed, rows, reference


def export_audio(
    source: sources.Source, text: NDArray[np.float32], folder: Path, console: Console
) -> tuple[Part, list[ParityRow]]:
    """Export the audio encoder; text: PyTorch's logits of the parity queries."""
    float_file, int8_file = folder / "audio.float.onnx", folder / "audio.onnx"
    console.print("audio: fold BatchNorm, export")
    audio_to_onnx(source.audio, source.checkpoint.settings.audio.window_samples, float_file)
    console.print(
        f"audio: quantise to int8, front end in float, ranges from {len(source.calibration)} windows"
    )
    quantize_audio(float_file, int8_file, source.calibration)
    graphs = (("audio float", float_file, True), ("audio int8", int8_file, False))
    rows, tolerance = compare_audio(graphs, onnx_observation, source.reference_audio(), text, source.parity)
    return audio_part(source, "onnx", "int8", int8_file, onnx_observation(int8_file), tolerance), rows


def parity_figures(rows: Sequence[ParityRow], n_windows: int) -> dict[str, object]:
    """What the manifest keeps of the parity table."""
    return {
        f"{row.graph} against PyTorch": {
            "real windows": n_windows,
            "bits equal": round(row.raw, 4),
            "bits equal, centred": round(row.centred, 4),
            "mAP change in points": round(100 * row.map_change, 3),
        }
        for row in rows
    }


def require_no_tower_options(arguments: argparse.Namespace) -> None:
    """Raise UsageError where an option of pretrained towers is given without any: nothing would follow it."""
    for name in ("head", "texts", "dataset", "bits", "split_head"):
        if getattr(arguments, name):
            raise UsageError(
                f"--{name.replace('_', '-')}: expected --encoder or a checkpoint of `python -m train hash` beside it, "
                f"found {arguments.checkpoint}, whose export has no such option"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sources.add_arguments(parser)
    tower_command.add_arguments(parser)
    arguments = parser.parse_args(argv)
    console = Console()
    try:
        if tower_command.is_asked_for(arguments):
            _tell(tower_command.export_towers(arguments, "onnx", console), console)
            return 0
        require_no_tower_options(arguments)
        source = sources.load_source(arguments.checkpoint, arguments.data)
        with tempfile.TemporaryDirectory() as name:
            text, encode_text, rows, reference = export_text(source, Path(name), console)
            audio, audio_rows = export_audio(source, reference, Path(name), console)
            rows += audio_rows
        print_rows(rows, len(source.parity.samples), console)
        require_parity(rows)
        figures = parity_figures(rows, len(source.parity.samples))
        bundle = assemble(arguments.out, release_of(source.checkpoint), [audio, text], encode_text, figures)
    except FieldcubeError as error:
        print(f"to_onnx: error: {error}", file=sys.stderr)
        return error.exit_code
    _tell(bundle, console)
    return 0


def _tell(bundle: Bundle, console: Console) -> None:
    manifest = bundle.manifest
    console.print(f"bundle {bundle.folder}: code space {manifest.code_space}, licence {manifest.licence}")


if __name__ == "__main__":
    raise SystemExit(main())
