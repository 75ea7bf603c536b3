"""Export a checkpoint's audio encoder to TFLite (weight-only int8) and complete or write a bundle with it.

Without arguments: the starter's checkpoint, compared with PyTorch on the clips of examples/, into build/starter. Weight-only, because
the int8 kernels of tflite-runtime 2.14 lose bits. The text encoder of the bundle is ONNX.

Example:
    python export/to_tflite.py
    python export/to_tflite.py --data ../data --out edge/starter
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

if __name__ == "__main__":  # run as a file: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge.bundle import Bundle, TextInput
from edge.errors import FieldcubeError
from export import sources, tower_command
from export.assemble import assemble, existing, release_of
from export.encoder_part import Part, audio_part
from export.graphs import DeployedAudio
from export.parity import ParityRow, compare_audio, print_rows, require_parity
from export.runtimes import EncodeSentence, onnx_text, tflite_observation
from export.to_onnx import export_text, parity_figures, require_no_tower_options


def audio_to_tflite(model: DeployedAudio, window_samples: int, file: Path) -> None:
    """Write float samples [1, window_samples] -> logits [1, n_bits]."""
    import litert_torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter warns about its own internals
        litert_torch.convert(model, (torch.zeros(1, window_samples),)).export(str(file))


def quantize_weights(float_file: Path, int8_file: Path) -> None:
    """Store the weights of tower and head as int8, one scale per channel; arithmetic and front end stay float."""
    from ai_edge_quantizer import quantizer, recipe

    rules = [
        *recipe.weight_only_wi8_afp32(),
        {"regex": ".*LogMel.*", "operation": "*", "algorithm_key": "no_quantize", "op_config": {}},
    ]
    job = quantizer.Quantizer(str(float_file), rules)
    job.quantize().export_model(str(int8_file), overwrite=True)


def export_audio(
    source: sources.Source, text: NDArray[np.float32], folder: Path, console: Console
) -> tuple[Part, list[ParityRow]]:
    """Export the audio encoder; text: logits of the parity queries [n_queries, n_bits]."""
    float_file, int8_file = folder / "audio.float.tflite", folder / "audio.tflite"
    console.print("audio: fold BatchNorm, convert to TFLite")
    audio_to_tflite(source.audio, source.checkpoint.settings.audio.window_samples, float_file)
    console.print("audio: weights to int8, front end and arithmetic in float")
    quantize_weights(float_file, int8_file)
    graphs = (("audio TFLite float", float_file, True), ("audio TFLite int8 weights", int8_file, False))
    rows, tolerance = compare_audio(graphs, tflite_observation, source.reference_audio(), text, source.parity)
    return audio_part(
        source, "tflite", "int8 weights", int8_file, tflite_observation(int8_file), tolerance
    ), rows


def text_of(
    source: sources.Source, out: Path, folder: Path, console: Console
) -> tuple[list[Part], EncodeSentence, list[ParityRow]]:
    """The text encoder of a bundle of this checkpoint in `out`, or a new export of it."""
    bundle = existing(out, release_of(source.checkpoint).code_space)
    for entry in bundle.manifest.encoders if bundle else ():
        if bundle is not None and isinstance(entry.input, TextInput):
            console.print(f"text: keep the encoder of {out}")
            return [], onnx_text(bundle.verified_path(entry), bundle.read_tokenizer(entry)), []
    part, encode, rows, _ = export_text(source, folder, console)
    return [part], encode, rows


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
            _tell(tower_command.export_towers(arguments, "tflite", console), console)
            return 0
        require_no_tower_options(arguments)
        source = sources.load_source(arguments.checkpoint, arguments.data)
        with tempfile.TemporaryDirectory() as name:
            parts, encode_text, rows = text_of(source, arguments.out, Path(name), console)
            text = np.stack([encode_text(query) for query in source.parity.queries])
            audio, audio_rows = export_audio(source, text, Path(name), console)
            rows += audio_rows
        print_rows(rows, len(source.parity.samples), console)
        require_parity(rows)
        figures = parity_figures(rows, len(source.parity.samples))
        bundle = assemble(arguments.out, release_of(source.checkpoint), [audio, *parts], encode_text, figures)
    except FieldcubeError as error:
        print(f"to_tflite: error: {error}", file=sys.stderr)
        return error.exit_code
    _tell(bundle, console)
    return 0


def _tell(bundle: Bundle, console: Console) -> None:
    manifest = bundle.manifest
    console.print(f"bundle {bundle.folder}: code space {manifest.code_space}, licence {manifest.licence}")


if __name__ == "__main__":
    raise SystemExit(main())
