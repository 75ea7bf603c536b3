"""BioCLIP, BioCLIP-2, BioCLIP-2.5, BioCAP and every other open_clip model with a plain CLIP text tower."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edge.bundle import ImageInput
from train.lora import LoraSettings
from train.torchvision_ops import make_torchvision_importable
from train.towers.clip_tokenizer import clip_tokenizer_json
from train.towers.pair import TowerError, TowerPair, first_line

OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
RESIZE: dict[tuple[str, str], Literal["shortest-side-bicubic-centre-crop", "squash-bicubic"]] = {
    ("shortest", "bicubic"): "shortest-side-bicubic-centre-crop",
    ("squash", "bicubic"): "squash-bicubic",
}
VOCABULARY = 49408  # words of CLIP's own tokenizer
# the whole attention of every block, both towers
LORA = LoraSettings(
    observation_targets=r"visual\.transformer\.resblocks\.\d+\.attn",
    text_targets=r"tower\.transformer\.resblocks\.\d+\.attn",
)


@dataclass(frozen=True, slots=True)
class Known:
    """A published model."""

    hub: str
    licence: str


KNOWN = {
    "bioclip": Known("hf-hub:imageomics/bioclip", "MIT"),
    "bioclip-2": Known("hf-hub:imageomics/bioclip-2", "MIT"),
    "bioclip-2.5": Known("hf-hub:imageomics/bioclip-2.5-vith14", "MIT"),
    "biocap": Known("hf-hub:imageomics/biocap", "MIT"),
}


class ClipVision(nn.Module):
    """Pixels -> features."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixels: Tensor) -> Tensor:
        """Map float32 [batch, 3, size, size] to [batch, n_features]."""
        features: Tensor = self.visual(pixels)
        return features


class ClipText(nn.Module):
    """Token ids -> features. Attention looks back only, so a sentence needs no padding: what comes after its end mark changes nothing."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int [batch, n_tokens] to [batch, n_features]."""
        input_ids = input_ids * attention_mask  # padding is id 0
        tower, place = self.tower, torch.arange(input_ids.shape[1], device=input_ids.device)
        # no slices and no one_hot: they would fix the number of tokens of an exported graph
        x = tower.token_embedding(input_ids) + tower.positional_embedding[place]  # [batch, n_tokens, width]
        is_later = place > place.unsqueeze(1)  # [n_tokens, n_tokens]
        mask = torch.zeros_like(is_later, dtype=x.dtype).masked_fill(is_later, float("-inf"))
        x = tower.ln_final(tower.transformer(x, attn_mask=mask))
        is_end = place == input_ids.argmax(dim=1, keepdim=True)  # the end mark has the highest id
        pooled = (x * is_end.unsqueeze(2).to(x.dtype)).sum(dim=1)  # [batch, width]
        projection = tower.text_projection
        features: Tensor = projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection
        return features


def open_clip_pair(
    source: str, spec: str, name: str | None = None, licence: str = "see the model's page"
) -> TowerPair:
    """Open `hf-hub:ORG/NAME`, `local-dir:/folder` (open_clip_config.json + open_clip_model.safetensors) or an architecture with random weights.

    Raises TowerError: a folder without its files, a hub out of reach, an architecture that is not known, a text tower of another kind.
    """
    make_torchvision_importable()
    import open_clip

    if spec.startswith("local-dir:"):
        _require_files(Path(spec.removeprefix("local-dir:")), source)
    is_random = ":" not in spec
    if is_random and spec not in open_clip.list_models():
        near = [each for each in open_clip.list_models() if each.lower().startswith(spec.lower()[:5])][:8]
        raise TowerError(
            f"{source}: expected hf-hub:ORG/NAME, local-dir:/folder or a name of open_clip, found {spec!r}"
            + (f"; it knows {', '.join(near)}" if near else "")
        )
    model = _created(open_clip, spec, source)
    visual, text = model.visual, getattr(model, "text", None)
    if (
        text is None
        or type(text).__name__ != "TextTransformer"
        or text.attn_mask is None
        or text.cls_emb is not None
    ):
        raise TowerError(
            f"{source}: expected a CLIP text tower (causal, no class token), found {type(text).__name__}; this model is not supported"
        )
    if text.token_embedding.num_embeddings != VOCABULARY:
        raise TowerError(
            f"{source}: expected CLIP's vocabulary of {VOCABULARY} words, found {text.token_embedding.num_embeddings}; this model is not supported"
        )
    size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    mean = tuple(getattr(visual, "image_mean", None) or OPENAI_MEAN)
    std = tuple(getattr(visual, "image_std", None) or OPENAI_STD)
    tokenizer_file = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    vision = ClipVision(visual).eval()
    with torch.no_grad():
        n_features = int(vision(torch.zeros(1, 3, size, size)).shape[1])
    return TowerPair(
        name=name or _short_name(spec),
        source=source,
        modality="image",
        observation=vision,
        text=ClipText(text).eval(),
        input=ImageInput(int(size), mean, std, _resize(visual, source)),
        tokenizer_json=clip_tokenizer_json(tokenizer_file, text.context_length),
        max_tokens=text.context_length,
        pad_id=0,
        n_features=n_features,
        lora=LORA,
        licence="none: random weights" if is_random else licence,
        temperature=1 / float(model.logit_scale.detach().exp()),
    )


def _resize(visual: Any, source: str) -> Literal["shortest-side-bicubic-centre-crop", "squash-bicubic"]:
    """How the model's own settings bring a picture to its size."""
    settings = getattr(visual, "preprocess_cfg", {})
    found = settings.get("resize_mode", "shortest"), settings.get("interpolation", "bicubic")
    if found not in RESIZE:
        raise TowerError(
            f"{source}: expected pictures resized by their shortest side or squashed, bicubic, found {', '.join(found)}; not supported"
        )
    return RESIZE[found]


def _created(open_clip: Any, spec: str, source: str) -> Any:
    torch.manual_seed(0)  # random weights are the same every time
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it tells of each step, and that an architecture by name has no weights
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own use of other libraries
            return open_clip.create_model(spec, force_custom_text=True).eval()
    except Exception as error:  # the hub's errors have no common class
        hint = (
            "; without a network, fetch the model elsewhere and give open_clip:local-dir:/folder"
            if spec.startswith("hf-hub:")
            else ""
        )
        raise TowerError(
            f"{source}: expected a model that open_clip can open, found: {first_line(error)}{hint}"
        ) from error
    finally:
        logging.disable(before)


def _require_files(folder: Path, source: str) -> None:
    for file in ("open_clip_config.json", "open_clip_model.safetensors"):
        if not (folder / file).is_file():
            raise TowerError(
                f"{source}: expected {folder / file}, found none; give the folder that holds both files of the model"
            )


def _short_name(spec: str) -> str:
    return spec.rsplit("/", 1)[-1].rsplit(":", 1)[-1].lower()
