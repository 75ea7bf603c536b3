"""Sentences of a species, in the wordings that BioCLIP was trained on."""

from __future__ import annotations

import numpy as np

from train.datasets.contract import Species

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
FORMATS = ("scientific", "common", "taxonomic", "scientific with common name", "taxonomic with common name")


def prompts_of(species: Species, formats: tuple[str, ...] = FORMATS) -> tuple[str, ...]:
    """All wordings that the known names allow, at least one, none twice; in the order of `formats`."""
    taxon = " ".join(part for part in species.taxonomy if part)
    scientific, common = species.scientific.strip(), species.common.strip()
    wordings = {
        "scientific": scientific,
        "common": common,
        "taxonomic": taxon,
        "scientific with common name": f"{scientific} with common name {common}"
        if scientific and common
        else "",
        "taxonomic with common name": f"{taxon} with common name {common}" if taxon and common else "",
    }
    found = tuple(dict.fromkeys(wordings[each] for each in formats if wordings[each]))
    return found or (scientific or common or species.key,)


def draw_prompt(species: Species, random: np.random.Generator) -> str:
    """One of the wordings, evenly."""
    found = prompts_of(species)
    return found[int(random.integers(len(found)))]
