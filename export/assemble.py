"""Put encoder files together into a bundle: manifest, golden inputs, decoys, model card; and add measured figures to one.

Example:
    python -m train evaluate --bundle edge/starter --data ../data --json figures.json
    python export/assemble.py --bundle edge/starter --figures figures.json
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if __name__ == "__main__":  # run as a file: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge.bundle import (
    AudioInput,
    Bundle,
    Calibration,
    Decoy,
    EncoderEntry,
    GoldenEntry,
    HeadEntry,
    ImageInput,
    Manifest,
    Modality,
    Runtime,
    TextInput,
    new_code_space,
    write_bundle,
)
from edge.codes import pack
from edge.errors import FieldcubeError
from export.model_card import STARTER_LIMITS, STARTER_MADE, write_card
from export.runtimes import EncodeSentence, EncodeWindow
from export.sources import Source
from train.checkpoint import Checkpoint

TEXT_TOLERANCE = 0.05  # |golden logit| from which a bit of a sentence must be equal on any CPU
GOLDEN_SENTENCES = (
    "chainsaw",
    "a dog barks",
    "frogs calling at a pond",
    "Strix aluco with common name Tawny Owl",
    "gunshots",
)


@dataclass(frozen=True, slots=True)
class HeadPart:
    """The head of an encoder, where it is a file of its own."""

    name: str  # file name in the bundle
    content: bytes
    precision: str
    n_features: int

    def entry(self) -> HeadEntry:
        """What the manifest says of it."""
        digest = hashlib.sha256(self.content).hexdigest()
        return HeadEntry(self.name, digest, self.precision, self.n_features)


@dataclass(frozen=True, slots=True)
class Part:
    """One exported encoder, ready for a bundle."""

    modality: Modality
    runtime: Runtime
    precision: str
    name: str  # file name in the bundle
    content: bytes
    input: AudioInput | ImageInput | TextInput
    tokenizer_json: bytes | None
    golden_inputs: NDArray[Any]  # windows [n, window_samples], or sentences [n]
    golden_logits: NDArray[np.float32]  # [n, n_bits]
    tolerance: float
    head: HeadPart | None = None

    def entry(self) -> EncoderEntry:
        """What the manifest says of it."""
        digest = hashlib.sha256(self.content).hexdigest()
        head = self.head.entry() if self.head else None
        return EncoderEntry(
            self.modality, self.runtime, self.precision, self.name, digest, self.input, head=head
        )


def audio_part(
    source: Source, runtime: Runtime, precision: str, file: Path, encode: EncodeWindow, tolerance: float
) -> Part:
    """Wrap an exported audio encoder."""
    audio = source.checkpoint.settings.audio
    golden = np.round(source.golden * 32767).astype(np.int16)
    logits = np.stack([encode(window.astype(np.float32) / np.float32(32767)) for window in golden])
    entry_input = AudioInput(audio.sample_rate_hz, audio.window_samples)
    name = f"audio.{file.suffix[1:]}"
    return Part(
        "audio", runtime, precision, name, file.read_bytes(), entry_input, None, golden, logits, tolerance
    )


def text_entry(max_tokens: int, tokenizer_json: bytes, pad_id: int | None = None) -> TextInput:
    """The input of a text encoder whose tokenizer travels as tokenizer.json."""
    return TextInput(max_tokens, "tokenizer.json", hashlib.sha256(tokenizer_json).hexdigest(), pad_id)


def text_part(
    file: Path, precision: str, tokenizer_json: bytes, max_tokens: int, encode: EncodeSentence
) -> Part:
    """Wrap an exported text encoder."""
    logits = np.stack([encode(sentence) for sentence in GOLDEN_SENTENCES])
    entry_input = text_entry(max_tokens, tokenizer_json)
    sentences = np.asarray(GOLDEN_SENTENCES)
    return Part(
        "text",
        "onnx",
        precision,
        "text.onnx",
        file.read_bytes(),
        entry_input,
        tokenizer_json,
        sentences,
        logits,
        TEXT_TOLERANCE,
    )


@dataclass(frozen=True, slots=True)
class Release:
    """What a bundle says of itself, whatever it was made from. Codes of one release may be compared, whatever runtime or precision made them."""

    name: str
    code_space: str
    n_bits: int
    licence: str
    licence_note: str
    calibration: dict[str, Any] | None  # coefficient, intercept, n_pairs, source
    decoys: tuple[str, ...]
    provenance: dict[str, Any]  # train_run, data, classes, ...
    made: tuple[str, ...]  # how, line by line, for the model card
    limits: str


def release_of(checkpoint: Checkpoint) -> Release:
    """The release of a checkpoint of `python -m train run`."""
    notes = checkpoint.notes
    return Release(
        notes.name,
        new_code_space(notes.name.replace("_", "-"), checkpoint.sha256),
        checkpoint.settings.n_bits,
        notes.licence,
        notes.licence_note,
        notes.calibration,
        notes.decoys,
        {
            "train_run": notes.train_run,
            "data": notes.data,
            "checkpoint": checkpoint.sha256,
            "fold": checkpoint.settings.data.fold,
            "licences": checkpoint.settings.data.licences,
            "classes": list(notes.queries),
        },
        STARTER_MADE,
        STARTER_LIMITS,
    )


def commit_id() -> str:
    """Commit of the working tree, or "unknown" outside a clone."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent,
        )
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def existing(folder: Path, code_space: str) -> Bundle | None:
    """A bundle of the same code space in `folder`, which an export completes; None where there is none or another one."""
    if not (folder / "manifest.json").is_file():
        return None
    bundle = Bundle.load(folder)
    return bundle if bundle.manifest.code_space == code_space else None


def assemble(
    folder: Path,
    release: Release,
    parts: Sequence[Part],
    encode_text: EncodeSentence,
    figures: dict[str, Any],
) -> Bundle:
    """Write a bundle of `parts`, keeping encoders of other runtimes from a bundle of the same release in `folder`."""
    code_space, n_bits = release.code_space, release.n_bits
    before = existing(folder, code_space)
    files: dict[str, bytes] = {}
    entries: list[EncoderEntry] = []
    golden: dict[Modality, dict[str, NDArray[Any]]] = {}
    tolerances: dict[Modality, float] = {}
    if before is not None:
        new = {(part.modality, part.runtime) for part in parts}
        figures = {**before.manifest.figures, **figures}
        for entry in before.manifest.encoders:
            if (entry.modality, entry.runtime) not in new:
                entries.append(entry)
                files[entry.file] = before.read(entry)
                if isinstance(entry.input, TextInput):
                    files[entry.input.tokenizer] = before.read_tokenizer(entry)
                if entry.head is not None:
                    files[entry.head.file] = before.read_head(entry) or b""
        if (
            before.manifest.reference is not None
        ):  # made with an encoder of this release: its codes still hold
            files[before.manifest.reference.file] = before.read(before.manifest.reference)
        for each in before.manifest.golden:
            golden[each.modality] = before.golden(each.modality) or {}
            tolerances[each.modality] = each.tolerance
    for part in parts:
        files[part.name] = part.content
        if part.tokenizer_json is not None:
            files["tokenizer.json"] = part.tokenizer_json
        if part.head is not None:
            files[part.head.name] = part.head.content
        entries.append(part.entry())
        arrays = golden.setdefault(part.modality, {})
        arrays["texts" if part.modality == "text" else "inputs"] = part.golden_inputs
        arrays[f"logits_{part.runtime}"] = part.golden_logits
        arrays[f"codes_{part.runtime}"] = pack(part.golden_logits, n_bits)
        tolerances[part.modality] = max(part.tolerance, tolerances.get(part.modality, 0.0))
    calibration = Calibration("logistic", **release.calibration) if release.calibration else None
    if calibration is None and before is not None:  # fitted to the reference codes
        calibration = before.manifest.calibration
    golden_entries = []
    for modality, arrays in golden.items():
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        name = f"golden_{modality}.npz"
        files[name] = stream.getvalue()
        golden_entries.append(
            GoldenEntry(modality, name, hashlib.sha256(files[name]).hexdigest(), tolerances[modality])
        )
    manifest = Manifest(
        name=release.name,
        version="1",
        code_space=code_space,
        code_bits=n_bits,
        encoders=tuple(sorted(entries, key=lambda e: (e.modality, e.runtime))),
        calibration=calibration,
        decoys=tuple(Decoy(text, pack(encode_text(text), n_bits).tobytes()) for text in release.decoys),
        golden=tuple(golden_entries),
        licence=release.licence,
        licence_note=release.licence_note,
        provenance={
            "commit": commit_id(),
            **release.provenance,
            "made": list(release.made),
            "limits": release.limits,
        },
        figures=figures,
        reference=None if before is None else before.manifest.reference,
    )
    files["MODEL_CARD.md"] = write_card(
        manifest, {name: len(content) for name, content in files.items()}
    ).encode()
    return write_bundle(folder, manifest, files)


def add_figures(folder: Path, figures: dict[str, Any]) -> Bundle:
    """Rewrite a bundle with measured figures in its manifest and model card."""
    bundle = Bundle.load(folder)
    manifest = replace(bundle.manifest, figures={**bundle.manifest.figures, **figures})
    files = {
        p.name: p.read_bytes() for p in folder.iterdir() if p.name not in ("manifest.json", "MODEL_CARD.md")
    }
    files["MODEL_CARD.md"] = write_card(
        manifest, {name: len(content) for name, content in files.items()}
    ).encode()
    return write_bundle(folder, manifest, files)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, help="bundle folder")
    parser.add_argument(
        "--figures", type=Path, required=True, help="JSON that `python -m train evaluate --json` wrote"
    )
    arguments = parser.parse_args(argv)
    try:
        add_figures(arguments.bundle, json.loads(arguments.figures.read_text(encoding="utf-8")))
    except (FieldcubeError, OSError, json.JSONDecodeError) as error:
        print(f"assemble: error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.bundle}: figures and model card written")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
