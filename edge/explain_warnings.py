"""Warnings for lines of a watchlist that ask the same as another, or for a sound that the bundle never heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.alarms import sentences_of
from edge.codes import hamming, pack
from edge.reference import Codes
from edge.watchlist import Query

# A sentence is unknown that is as far as this from every trained one, and less firm than a quarter of them: a word for many
# sounds ("bird") is far from each and firm. Chosen on 102 sentences (docs/explain.md): it warns of 48 of 54 that cannot work, 7 of 48 that can.
FAR_SHARE = 0.2
FIRM_PERCENT = 75.0

Kind = Literal["background", "line", "decoy", "unknown"]
Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Known:
    """The sentences that a bundle was trained on. codes: [n, n_bytes]; firm: mean |logit| of a sentence that is sure."""

    texts: tuple[str, ...]
    codes: Codes
    firm: float


@dataclass(frozen=True, slots=True)
class Warned:
    """Why a line cannot work, and what to do."""

    kind: Kind
    message: str


def known_of(texts: Sequence[str], logits: Logits) -> Known:
    """Return what a bundle knows, of its trained sentences and their logits [n, code_bits], n >= 1."""
    firmness = np.abs(logits).mean(axis=1)
    return Known(tuple(texts), pack(logits), float(np.percentile(firmness, FIRM_PERCENT)))


def alike(query: Query, queries: Sequence[Query], decoys: Sequence[Query], same_bits: float) -> list[Warned]:
    """Return warnings for lines that ask the same, and for decoys that do."""
    warnings = []
    for other in queries:
        if other is not query and other.combine == query.combine:
            apart = max(_farthest(query, other), _farthest(other, query))
            if apart < same_bits:
                text = f"cannot be told from the line {other.name!r} ({apart} bits apart); a sound sets off one of them: keep one"
                warnings.append(Warned("line", text))
    for decoy in decoys:
        apart = min(int(hamming(code, _codes([decoy])).min()) for code in sentences_of(query))
        if apart < same_bits:
            text = f"cannot be told from the decoy {decoy.text!r} ({apart} bits apart), which silences it: remove one of them"
            warnings.append(Warned("decoy", text))
    return warnings


def _farthest(query: Query, other: Query) -> int:
    """Return how far the sentence of a line that is least like those of another is from the nearest of them."""
    return max(int(hamming(code, _codes([other])).min()) for code in sentences_of(query))


def _codes(queries: Sequence[Query]) -> Codes:
    return np.stack([np.frombuffer(code, np.uint8) for query in queries for code in sentences_of(query)])


def unknown(query: Query, known: Known | None, far_bits: float) -> list[Warned]:
    """Return a warning for each sentence that is far from everything trained and unsure as well."""
    if known is None or query.kind != "text":
        return []
    warnings = []
    for sentence in query.parts or (query,):
        distances = hamming(sentence.code or b"", known.codes)
        nearest = int(distances.argmin())
        firmness = 0.0 if sentence.logits is None else float(np.abs(sentence.logits).mean())
        if distances[nearest] < far_bits or firmness >= known.firm:
            continue
        text = (
            f"it never heard {sentence.text!r}; the nearest that it knows is {known.texts[nearest]!r} ({distances[nearest]} bits "
            "away): ask for that where it is the same sound, or give a recording, sound: FILE"
        )
        warnings.append(Warned("unknown", text))
    return warnings
