"""Tiny models of the true architectures, written as they are published: a CLIP for open_clip, a ClapModel of transformers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from train.torchvision_ops import make_torchvision_importable
from train.towers.clap_towers import byte_tokenizer_json

CLIP_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
CLAP_TEXT = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 90,
    "type_vocab_size": 1,
}
CLAP_AUDIO = {
    "hidden_size": 64,
    "patch_embeds_hidden_size": 8,
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
    "enable_fusion": False,
}


# for what is traced layer by layer: every kind of layer once
SHALLOW_AUDIO = {
    "patch_embeds_hidden_size": 16,
    "hidden_size": 32,
    "depths": [1, 1],
    "num_attention_heads": [1, 2],
}


def tiny_open_clip(folder: Path, layers: int = 2) -> str:
    """Write open_clip_config.json and open_clip_model.safetensors; returns the source for open_towers."""
    make_torchvision_importable()
    from open_clip import CLIP

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    parts = {name: {**CLIP_CONFIG[name], "layers": layers} for name in ("vision_cfg", "text_cfg")}
    settings = {
        "model_cfg": {**CLIP_CONFIG, **parts},
        "preprocess_cfg": {
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.3, 0.4],
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    model = CLIP(**settings["model_cfg"])
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return f"open_clip:local-dir:{folder}"


def tiny_clap(folder: Path, text_layers: int = 2, **audio: object) -> str:
    """Write what ClapModel.save_pretrained writes, and tokenizer.json; returns the source for open_towers."""
    make_torchvision_importable()
    from transformers import ClapConfig, ClapModel

    torch.manual_seed(0)
    config = ClapConfig(
        text_config={**CLAP_TEXT, "num_hidden_layers": text_layers},
        audio_config=CLAP_AUDIO | audio,
        projection_dim=16,
    )
    ClapModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(byte_tokenizer_json(config))
    return f"clap:{folder}"
