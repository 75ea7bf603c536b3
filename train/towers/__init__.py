"""Pretrained towers by name: `bioclip`, `bioclip-2`, `bioclip-2.5`, `biocap`, `biolingual`, `starter`, or where they are.

open_clip:hf-hub:ORG/NAME   open_clip:local-dir:/folder   open_clip:ViT-B-16 (random weights)
clap:ORG/NAME               clap:/folder                  clap:random (BioLingual's architecture, random weights)
starter:/path/x.safetensors
"""

from __future__ import annotations

from pathlib import Path

from train.towers.pair import TowerError, TowerPair, embed_observations, embed_texts

__all__ = ["TowerError", "TowerPair", "embed_observations", "embed_texts", "open_towers"]


def open_towers(source: str) -> TowerPair:
    """Open a pair of towers. Raises TowerError for an unknown source, and what its kind raises."""
    from train.towers.clap_towers import BIOLINGUAL, clap_pair
    from train.towers.open_clip_towers import KNOWN, open_clip_pair
    from train.towers.starter_towers import starter_pair

    if source in KNOWN:
        return open_clip_pair(source, KNOWN[source].hub, source, KNOWN[source].licence)
    if source == "biolingual":
        return clap_pair(source, BIOLINGUAL)
    if source == "starter":
        return starter_pair(source)
    kind, _, spec = source.partition(":")
    if kind == "open_clip" and spec:
        return open_clip_pair(source, spec)
    if kind == "clap" and spec:
        return clap_pair(source, spec)
    if kind == "starter" and spec:
        return starter_pair(source, Path(spec))
    names = ", ".join([*KNOWN, "biolingual", "starter"])
    raise TowerError(
        f"encoder {source!r}: expected {names}, open_clip:..., clap:... or starter:..., found none of these"
    )
