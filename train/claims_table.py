"""What the rows of train.claims say: means and spreads over seeds, and a plain verdict for each claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Row = Mapping[str, object]
Key = tuple[str, int, str, str, str]  # arm, trained bits, representation, domain, scope
MARGIN = 1.0  # points of mAP within which two figures are taken to match

CROVCA, FROZEN, CONTRASTIVE = "crovca, LoRA", "crovca, frozen tower", "contrastive, LoRA"
CONTROL, ITQ, PRETRAINED = "control: LoRA without hashing", "itq, no training", "pretrained"


@dataclass(frozen=True, slots=True)
class Claim:
    """`a` against `b`: (arm, trained bits, representation); wanted: does the claim say that a is at least b - MARGIN, above, or below it."""

    text: str
    a: tuple[str, int, str]
    b: tuple[str, int, str]
    domain: str
    wanted: str  # "matches", "above", "below"


CLAIMS = (
    Claim(
        "256-bit codes match or exceed the pretrained continuous features",
        (CROVCA, 256, "binary"), (PRETRAINED, 0, "continuous"), "in domain", "matches",
    ),
    Claim(
        "256-bit codes match the continuous features of a tower that was trained as long without hashing",
        (CROVCA, 256, "binary"), (CONTROL, 0, "continuous"), "in domain", "matches",
    ),
    Claim("128 bits drop below 256", (CROVCA, 128, "binary"), (CROVCA, 256, "binary"), "in domain", "below"),
    Claim(
        "hashing improves the continuous features over the pretrained ones",
        (CROVCA, 256, "continuous"), (PRETRAINED, 0, "continuous"), "in domain", "above",
    ),
    Claim(
        "it is the hashing that improves them, not the training (against the control)",
        (CROVCA, 256, "continuous"), (CONTROL, 0, "continuous"), "in domain", "above",
    ),
    Claim(
        "codes help out of domain: 256 bits above the pretrained continuous features, clips over forest backgrounds",
        (CROVCA, 256, "binary"), (PRETRAINED, 0, "continuous"), "out of domain", "above",
    ),
    Claim(
        "it is the hashing that helps there, not the training (against the control's features, clips over forest backgrounds)",
        (CROVCA, 256, "binary"), (CONTROL, 0, "continuous"), "out of domain", "above",
    ),
    Claim(
        "crovca codes are better than contrastive ones", (CROVCA, 256, "binary"), (CONTRASTIVE, 256, "binary"), "in domain", "above"
    ),
    Claim("trained codes are better than ITQ", (CROVCA, 256, "binary"), (ITQ, 256, "binary"), "in domain", "above"),
    Claim("LoRA is better than a frozen tower", (CROVCA, 256, "binary"), (FROZEN, 256, "binary"), "in domain", "above"),
)  # fmt: skip


def by_seed(rows: Sequence[Row]) -> dict[Key, list[float]]:
    """Percent of each measurement in the order of the seeds."""
    found: dict[Key, dict[int, float]] = {}
    for row in rows:
        names = ("arm", "trained_bits", "representation", "domain", "scope")
        arm, bits, representation, domain, scope = (row[name] for name in names)
        key = (str(arm), int(str(bits)), str(representation), str(domain), str(scope))
        found.setdefault(key, {})[int(str(row["seed"]))] = float(str(row["percent"]))
    return {key: [values[seed] for seed in sorted(values)] for key, values in found.items()}


def verdict(differences: Sequence[float], wanted: str) -> str:
    """Say of paired differences a - b whether the claim holds: all seeds must agree, beyond MARGIN on average.

    matches: no seed more than MARGIN below; above, below: all of one sign and the mean beyond MARGIN.
    """
    d = np.asarray(differences)
    if wanted == "matches":
        if (d >= -MARGIN).all():
            return "holds"
        return "does not" if d.mean() < -MARGIN and (d < 0).all() else "cannot be told"
    sign = 1.0 if wanted == "above" else -1.0
    if (sign * d > 0).all() and sign * d.mean() > MARGIN:
        return "holds"
    if (sign * d < 0).all() and sign * d.mean() < -MARGIN:
        return "does not"
    return "cannot be told"


def render(rows: Sequence[Row], what: str) -> str:
    """The text of docs/claims.md; what: the sentences that say how the rows came to be."""
    table = by_seed(rows)
    n_seeds = len({str(row["seed"]) for row in rows})
    lines = ["# The paper's claims on real recordings", "", what, ""]
    lines += ["| claim | on | difference by seed, points of mAP | verdict |", "|---|---|---|---|"]
    for claim in CLAIMS:
        for scope in ("all classes", "ten sounds"):
            a, b = (table.get((*side, claim.domain, scope)) for side in (claim.a, claim.b))
            if a is None or b is None:
                continue
            d = [x - y for x, y in zip(a, b, strict=True)]
            shown = ", ".join(f"{x:+.1f}" for x in d)
            lines.append(f"| {claim.text} | {scope} | {shown} | **{verdict(d, claim.wanted)}** |")
    lines += [
        "",
        f"A claim holds where all {n_seeds} seeds agree and the mean is beyond {MARGIN:g} point (to match: no seed more than "
        f"{MARGIN:g} below); it does not where all seeds say the opposite; else it cannot be told. The spread is that of seeds, each with a "
        "pretraining of its own, not of recordings: the held-out set is the same.",
        "",
        "## All figures",
        "",
        "Text-to-audio mAP in percent, mean of the seeds (standard deviation).",
        "",
        "| arm | codes | all classes | ten sounds | all, over backgrounds | ten, over backgrounds |",
        "|---|---|---|---|---|---|",
    ]
    done: set[tuple[str, int, str]] = set()
    for arm, bits, representation, _, _ in table:
        if (arm, bits, representation) in done:
            continue
        done.add((arm, bits, representation))
        cells = []
        for domain in ("in domain", "out of domain"):
            for scope in ("all classes", "ten sounds"):
                values = np.asarray(table[(arm, bits, representation, domain, scope)])
                spread = f" ({values.std(ddof=1):.1f})" if len(values) > 1 else ""
                cells.append(f"{values.mean():.1f}{spread}")
        codes = f"{bits} bits" if representation == "binary" else "continuous, 512 features"
        name = f"{arm}, for {bits} bits" if bits and representation == "continuous" else arm
        lines.append(f"| {name} | {codes} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
