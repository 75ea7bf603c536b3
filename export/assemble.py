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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if __name__ == "__main__":  # run as a file: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge.bundle import (
    Bundle,
    Calibration,
    Decoy,
    EncoderEntry,
    GoldenEntry,
    Manifest,
    Modality,
    TextInput,
    new_code_space,
    write_bundle,
)
from edge.codes import pack
from edge.errors import FieldcubeError
from export.encoder_part import Part
from export.model_card import STARTER_LIMITS, STARTER_MADE, write_card
from export.runtimes import EncodeSentence
from train.checkpoint import Checkpoint


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


@dataclass(slots=True)
class _Contents:
    """What a bundle is going to hold."""

    n_bits: int
    files: dict[str, bytes] = field(default_factory=dict)
    entries: list[EncoderEntry] = field(default_factory=list)
    golden: dict[Modality, dict[str, NDArray[Any]]] = field(default_factory=dict)
    tolerances: dict[Modality, float] = field(default_factory=dict)

    def keep(self, before: Bundle, parts: Sequence[Part]) -> None:
        """Take over from a bundle what `parts` do not replace."""
        new = {(part.modality, part.runtime) for part in parts}
        for entry in before.manifest.encoders:
            if (entry.modality, entry.runtime) not in new:
                self.entries.append(entry)
                self.files[entry.file] = before.read(entry)
                if isinstance(entry.input, TextInput):
                    self.files[entry.input.tokenizer] = before.read_tokenizer(entry)
                if entry.head is not None:
                    self.files[entry.head.file] = before.read_head(entry) or b""
        reference = before.manifest.reference
        if reference is not None:  # made with an encoder of this release: its codes still hold
            self.files[reference.file] = before.read(reference)
        for each in before.manifest.golden:
            self.golden[each.modality] = before.golden(each.modality) or {}
            self.tolerances[each.modality] = each.tolerance

    def add(self, part: Part) -> None:
        """Put an encoder in."""
        self.files[part.name] = part.content
        if part.tokenizer_json is not None:
            self.files["tokenizer.json"] = part.tokenizer_json
        if part.head is not None:
            self.files[part.head.name] = part.head.content
        self.entries.append(part.entry())
        arrays = self.golden.setdefault(part.modality, {})
        arrays["texts" if part.modality == "text" else "inputs"] = part.golden_inputs
        arrays[f"logits_{part.runtime}"] = part.golden_logits
        arrays[f"codes_{part.runtime}"] = pack(part.golden_logits, self.n_bits)
        self.tolerances[part.modality] = max(part.tolerance, self.tolerances.get(part.modality, 0.0))

    def write_golden(self) -> tuple[GoldenEntry, ...]:
        """Put the golden examples into files; what the manifest says of them."""
        entries = []
        for modality, arrays in self.golden.items():
            stream = io.BytesIO()
            np.savez_compressed(stream, **arrays)
            name = f"golden_{modality}.npz"
            self.files[name] = stream.getvalue()
            digest = hashlib.sha256(self.files[name]).hexdigest()
            entries.append(GoldenEntry(modality, name, digest, self.tolerances[modality]))
        return tuple(entries)


def assemble(
    folder: Path,
    release: Release,
    parts: Sequence[Part],
    encode_text: EncodeSentence,
    figures: dict[str, Any],
) -> Bundle:
    """Write a bundle of `parts`, keeping encoders of other runtimes from a bundle of the same release in `folder`."""
    n_bits = release.n_bits
    before = existing(folder, release.code_space)
    contents = _Contents(n_bits)
    calibration = Calibration("logistic", **release.calibration) if release.calibration else None
    if before is not None:
        figures = {**before.manifest.figures, **figures}
        contents.keep(before, parts)
        calibration = calibration or before.manifest.calibration  # fitted to the reference codes
    for part in parts:
        contents.add(part)
    manifest = Manifest(
        name=release.name,
        version="1",
        code_space=release.code_space,
        code_bits=n_bits,
        encoders=tuple(sorted(contents.entries, key=lambda e: (e.modality, e.runtime))),
        calibration=calibration,
        decoys=tuple(Decoy(text, pack(encode_text(text), n_bits).tobytes()) for text in release.decoys),
        golden=contents.write_golden(),
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
    return _write(folder, manifest, contents.files)


def _write(folder: Path, manifest: Manifest, files: dict[str, bytes]) -> Bundle:
    """Write a bundle with its model card."""
    sizes = {name: len(content) for name, content in files.items()}
    return write_bundle(folder, manifest, {**files, "MODEL_CARD.md": write_card(manifest, sizes).encode()})


def add_figures(folder: Path, figures: dict[str, Any]) -> Bundle:
    """Rewrite a bundle with measured figures in its manifest and model card."""
    bundle = Bundle.load(folder)
    manifest = replace(bundle.manifest, figures={**bundle.manifest.figures, **figures})
    files = {
        p.name: p.read_bytes() for p in folder.iterdir() if p.name not in ("manifest.json", "MODEL_CARD.md")
    }
    return _write(folder, manifest, files)


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
