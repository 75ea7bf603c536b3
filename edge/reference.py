"""The reference codes of a bundle: backgrounds and sounds that it was never trained on, for alarms at a site that is not known yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.errors import BundleError

Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Reference:
    """Codes of windows without and with known sounds.

    background: [n, n_bytes], in order; runs: int [n], another number where another recording begins; hop_s between them.
    sounds: codes of windows with a sound in them [m, n_bytes]; sound_text: int [m], which of the sentences; sound_event: int
    [m], windows of one number show one event; snr_db: [m]; texts and text_codes: the sentences.
    """

    background: Codes
    runs: NDArray[np.int64]
    hop_s: float
    sounds: Codes
    sound_text: NDArray[np.int64]
    sound_event: NDArray[np.int64]
    snr_db: NDArray[np.float64]
    texts: tuple[str, ...]
    text_codes: Codes


def load_reference(bundle: Bundle) -> Reference | None:
    """Return the reference of a bundle, None where it has none. Raises BundleError for arrays that do not fit together."""
    entry = bundle.manifest.reference
    if entry is None:
        return None
    file, n_bytes = bundle.folder / entry.file, bundle.manifest.code_bits // 8
    arrays = bundle.arrays(entry)
    names = ("background", "runs", "sounds", "sound_text", "sound_event", "snr_db", "texts", "text_codes")
    missing = [name for name in names if name not in arrays]
    if missing:
        raise BundleError(f"{file}: expected the arrays {', '.join(names)}, found no {missing[0]}")
    for name, length in (
        ("background", len(arrays["runs"])),
        ("sounds", len(arrays["sound_text"])),
        ("text_codes", len(arrays["texts"])),
    ):
        found: Any = arrays[name]
        if found.dtype != np.uint8 or found.shape != (length, n_bytes):
            raise BundleError(
                f"{file}: expected {name} uint8 ({length}, {n_bytes}), found {found.dtype} {found.shape}"
            )
    n_sounds, n_texts = len(arrays["sounds"]), len(arrays["texts"])
    for name in ("sound_event", "snr_db"):
        if arrays[name].shape != (n_sounds,):
            raise BundleError(f"{file}: expected {name} ({n_sounds},), found {arrays[name].shape}")
    for number in np.unique(arrays["sound_text"]):
        if not 0 <= number < n_texts:
            raise BundleError(f"{file}: expected sound_text from 0 to {n_texts - 1}, found {number}")
    return Reference(
        arrays["background"],
        arrays["runs"].astype(np.int64),
        entry.hop_s,
        arrays["sounds"],
        arrays["sound_text"].astype(np.int64),
        arrays["sound_event"].astype(np.int64),
        arrays["snr_db"].astype(np.float64),
        tuple(str(text) for text in arrays["texts"]),
        arrays["text_codes"],
    )
