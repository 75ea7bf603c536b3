"""MODEL_CARD.md of a bundle, from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.bundle import AudioInput, ImageInput, Manifest

STARTER_LIMITS = """- It knows the sounds listed above in recordings like those that trained it; it has not been tested on other recorders, and most of
  its species were heard in one recording only.
- A sentence about a sound that it never heard still gets a code and a nearest window. Read `edge-search` results as a ranking, not
  as an identification.
- The probability of a detection holds for a mix like the validation set's (half of the windows hold none of the queries). A rare sound
  at a noisy site is less certain than stated until alarms are calibrated at the site.
- Sentences with "not" or "without" are refused: sentence encoders ignore negation.
- Nothing above 15.5 kHz is heard: no bats."""


STARTER_MADE = (
    "Text: all-MiniLM-L6-v2 (Apache-2.0), frozen, with a trained hash head; table cut to ASCII word pieces, weights 4 and 8 bits.",
    "Audio: log-mel inside the graph (float), a small ResNet and a hash head, trained from scratch.",
)


def _figure_rows(figures: Mapping[str, Any], prefix: str = "") -> list[str]:
    rows = []
    for key, value in figures.items():
        if isinstance(value, Mapping):
            rows += _figure_rows(value, f"{prefix}{key}: ")
        else:
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            rows.append(f"| {prefix}{key} | {shown} |")
    return rows


def _what_it_encodes(manifest: Manifest) -> str:
    """Name the inputs: sentences, windows of so many seconds, pictures."""
    found = []
    for entry in manifest.encoders:
        each = entry.input
        if isinstance(each, AudioInput):
            found.append(f"{each.window_samples / each.sample_rate_hz:g} s windows of sound")
        elif isinstance(each, ImageInput):
            found.append("pictures")
        else:
            found.append("sentences")
    shown = " and ".join(sorted(set(found), key=lambda what: what != "sentences"))
    return shown[:1].upper() + shown[1:]


def write_card(manifest: Manifest, sizes: Mapping[str, int]) -> str:
    """The text of the card; sizes: bytes of each file of the bundle."""
    encoders = [
        f"| {e.modality} | {e.runtime} | {e.precision} | {e.file} | {sizes[e.file] / 1e6:.2f} |"
        for e in manifest.encoders
    ]
    calibration = manifest.calibration
    rule = (
        f"probability = sigmoid({calibration.coefficient:.4f} x distance + {calibration.intercept:.3f}), from "
        f"{calibration.n_pairs} pairs: {calibration.source}"
        if calibration
        else "none"
    )
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"{_what_it_encodes(manifest)} -> {manifest.code_bits}-bit codes. Code space `{manifest.code_space}`.",
        "",
        "## Licence of the weights",
        "",
        f"{manifest.licence}. {manifest.licence_note}",
        "",
        "## Files",
        "",
        "| modality | runtime | precision | file | MB |",
        "|---|---|---|---|---|",
        *encoders,
        "",
        "## How it was made",
        "",
        f"- Data: {manifest.provenance['data']}",
        f"- Run: {manifest.provenance['train_run']}; commit {manifest.provenance['commit']}; presets in `train/presets`, data in `docs/data.md`.",
        *(f"- {line}" for line in manifest.provenance.get("made", STARTER_MADE)),
        f"- Calibration: {rule}",
        f"- Decoys: {'; '.join(d.text for d in manifest.decoys)}",
        "",
        "## Figures",
        "",
        "| what | value |",
        "|---|---|",
        *_figure_rows(manifest.figures),
        "",
        "## Sounds and species that it was trained on",
        "",
        "; ".join(manifest.provenance["classes"]) + ".",
        "",
        "## Limits",
        "",
        manifest.provenance.get("limits", STARTER_LIMITS),
        "",
    ]
    return "\n".join(lines)
