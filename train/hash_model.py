"""Towers with hash heads: what hashing trains."""

from __future__ import annotations

from torch import Tensor, nn

from train.model import HashCoder
from train.towers.pair import TowerPair


class HashModel(nn.Module):
    """A pair of towers, and a HashCoder on each."""

    def __init__(self, pair: TowerPair, n_bits: int, large: bool = False) -> None:
        super().__init__()
        self.observation = pair.observation
        self.text = pair.text
        self.observation_head = HashCoder(pair.n_features, n_bits, large)
        self.text_head = HashCoder(pair.n_features, n_bits, large)

    def heads(self) -> list[nn.Parameter]:
        """Parameters of both heads."""
        return [*self.observation_head.parameters(), *self.text_head.parameters()]

    def observation_logits(self, inputs: Tensor) -> Tensor:
        """Map windows or pictures [batch, ...] to logits [batch, n_bits]."""
        logits: Tensor = self.observation_head(self.observation(inputs).float())
        return logits

    def text_logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map token ids and mask [batch, n_tokens] to logits [batch, n_bits]."""
        logits: Tensor = self.text_head(self.text(input_ids, attention_mask).float())
        return logits
