"""Cut a sentence encoder down to what short English queries use: fewer word pieces, fewer positions."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from torch import nn

from train.text_tower import MAX_TOKENS, SentenceTower

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True, slots=True)
class CompactTower:
    """The tower with a smaller table, and the tokenizers JSON that goes with it."""

    tower: SentenceTower
    tokenizer_json: bytes
    n_kept: int


def is_useful(piece: str) -> bool:
    """Keep special pieces and plain ASCII; the tokenizer lower-cases and strips accents, so nothing Latin is lost."""
    if piece in SPECIAL:
        return True
    return piece.isascii() and not piece.startswith("[unused")


def compact(tower: SentenceTower) -> CompactTower:
    """Drop word pieces that are not useful and positions past MAX_TOKENS; the token type becomes part of the positions.

    Sentences made of kept pieces get bit-identical embeddings. Modifies `tower` in place.
    """
    description = json.loads(tower.tokenizer.backend_tokenizer.to_str())
    vocabulary: dict[str, int] = description["model"]["vocab"]
    kept = sorted((index, piece) for piece, index in vocabulary.items() if is_useful(piece))
    embeddings = tower.net.embeddings
    rows = torch.tensor([index for index, _ in kept])
    new_index = {piece: i for i, (_, piece) in enumerate(kept)}
    with torch.no_grad():
        embeddings.word_embeddings = nn.Embedding.from_pretrained(
            embeddings.word_embeddings.weight[rows].clone()
        )
        positions = (
            embeddings.position_embeddings.weight[:MAX_TOKENS] + embeddings.token_type_embeddings.weight[0]
        )
        embeddings.position_embeddings = nn.Embedding.from_pretrained(positions.clone())
        embeddings.token_type_embeddings.weight.zero_()
    description["model"]["vocab"] = new_index
    for added in description["added_tokens"]:
        added["id"] = new_index[added["content"]]
    for key in ("special_tokens",):
        for special in (description.get("post_processor") or {}).get(key, {}).values():
            special["ids"] = [new_index[token] for token in special["tokens"]]
    if "sep" in (
        description.get("post_processor") or {}
    ):  # the BERT post-processor carries (piece, id) pairs
        for key in ("sep", "cls"):
            piece = description["post_processor"][key][0]
            description["post_processor"][key] = [piece, new_index[piece]]
    description["padding"] = None
    description["truncation"] = None
    return CompactTower(tower, json.dumps(description, ensure_ascii=False).encode(), len(kept))
