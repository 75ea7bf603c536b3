"""The starter as a pretrained pair: its towers with the heads that it was trained with, whose logits are the joint space."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from edge.bundle import AudioInput
from train.checkpoint import DEFAULT, load_checkpoint
from train.lora import LoraSettings
from train.model import AudioEncoder, HashCoder
from train.text_tower import MAX_TOKENS, SentenceTower
from train.towers.pair import TowerPair, without_padding

LORA = LoraSettings(
    observation_targets=r"encoder\.tower\.net\..*\.conv[12]",
    text_targets=r"head\.[02]",
    dropout=0.0,
)


class StarterAudio(nn.Module):
    """Waveform -> the continuous logits of the starter."""

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, samples: Tensor) -> Tensor:
        """Map float32 [batch, 160000] to [batch, n_features]."""
        features: Tensor = self.encoder(samples)
        return features


class StarterText(nn.Module):
    """Token ids -> the continuous logits of the starter."""

    def __init__(self, tower: SentenceTower, head: HashCoder) -> None:
        super().__init__()
        self.tower = tower
        self.head = head.folded()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int [batch, n_tokens] to [batch, n_features]."""
        features: Tensor = self.head(self.tower(input_ids, attention_mask).unsqueeze(1)).squeeze(1)
        return features


def starter_pair(source: str, path: Path | None = None) -> TowerPair:
    """Open a checkpoint of `python -m train run`; default: the committed one. Errors as load_checkpoint."""
    checkpoint = load_checkpoint(path or DEFAULT)
    audio = checkpoint.settings.audio
    tower = SentenceTower(checkpoint.settings.text_tower)
    return TowerPair(
        name=checkpoint.notes.name.replace("_", "-"),
        source=source,
        modality="audio",
        observation=StarterAudio(checkpoint.audio).eval(),
        text=StarterText(tower, checkpoint.text_head).eval(),
        input=AudioInput(audio.sample_rate_hz, audio.window_samples),
        tokenizer_json=without_padding(tower.tokenizer.backend_tokenizer.to_str().encode("utf-8"), source),
        max_tokens=MAX_TOKENS,
        pad_id=0,
        n_features=checkpoint.settings.n_bits,
        lora=LORA,
        licence=checkpoint.notes.licence,
        temperature=checkpoint.settings.objective.temperature,
    )
