"""BioLingual and every other unfused transformers ClapModel: waveform in, log-mel inside."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge.bundle import AudioInput
from train.lora import LoraSettings
from train.model import slaney_mel_filters
from train.torchvision_ops import make_torchvision_importable
from train.towers.pair import TowerError, TowerPair, first_line, without_padding

BIOLINGUAL = "davidrrobinson/BioLingual"
RATE_HZ, WINDOW_SAMPLES = 48_000, 480_000  # 10 s
N_FFT, HOP, N_MELS = 1024, 480, 64
FMIN_HZ, FMAX_HZ = 50.0, 14_000.0
MAX_TOKENS = 77
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
LORA = LoraSettings(
    observation_targets=r"audio_model\..*\.(query|value)",
    text_targets=r"text_model\..*\.(query|value)",
)


class ClapLogMel(nn.Module):
    """Waveform -> log-mel picture as ClapFeatureExtractor makes it (power spectrum, slaney mel, 10 log10, floor 1e-10), as matrix products.

    It differs by at most 3e-5 dB on noise, and beside a loud pure tone by 3e-3 dB down to 80 dB below it, where sums in float32 end: a more
    exact table of the Fourier transform changes nothing. Frames are centred (reflected half a frame at both ends) and start every 480
    samples: 1,001 of them in 10 s. Frequencies above the highest filter are not computed.
    """

    def __init__(self, fmin_hz: float = FMIN_HZ, fmax_hz: float = FMAX_HZ) -> None:
        super().__init__()
        filters = slaney_mel_filters(N_MELS, N_FFT, RATE_HZ, fmin_hz, fmax_hz)  # [n_mels, n_fft // 2 + 1]
        n_bins = int(filters.any(dim=0).nonzero().max()) + 1
        n = torch.arange(N_FFT, dtype=torch.float64)
        k = torch.arange(n_bins, dtype=torch.float64)
        angle = 2 * torch.pi * torch.outer(n, k) / N_FFT
        window = torch.hann_window(N_FFT, periodic=True, dtype=torch.float64)[:, None]
        basis = torch.cat(
            [torch.cos(angle) * window, -torch.sin(angle) * window], dim=1
        ).T  # [2 * n_bins, n_fft]
        self.register_buffer("basis", basis.float().unsqueeze(1), persistent=False)
        self.register_buffer("filters", filters[:, :n_bins].contiguous(), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Map float32 [batch, n_samples] to decibels [batch, 1, n_frames, n_mels]."""
        half = N_FFT // 2
        # the reflection in numbers that every runtime has: a flipped slice
        left, right = samples[:, 1 : half + 1].flip(1), samples[:, -half - 1 : -1].flip(1)
        padded = torch.cat([left, samples, right], dim=1).unsqueeze(1)
        spectrum = nn.functional.conv1d(padded, self.basis, stride=HOP)  # [batch, 2 * n_bins, n_frames]
        real, imag = spectrum.chunk(2, dim=1)
        mel = torch.matmul(self.filters, real * real + imag * imag)  # [batch, n_mels, n_frames]
        decibels = torch.log(mel.clamp_min(1e-10)) * (10 / float(np.log(10)))
        return decibels.transpose(1, 2).unsqueeze(1)


class ClapAudio(nn.Module):
    """Waveform -> features."""

    def __init__(self, model: Any, front_end: ClapLogMel) -> None:
        super().__init__()
        self.front_end = front_end
        self.audio_model = model.audio_model
        self.audio_projection = model.audio_projection

    def forward(self, samples: Tensor) -> Tensor:
        """Map float32 [batch, 480000] to [batch, n_features]."""
        pooled = self.audio_model(input_features=self.front_end(samples)).pooler_output
        features: Tensor = self.audio_projection(pooled)
        return features


class ClapText(nn.Module):
    """Token ids -> features."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text_model = model.text_model
        self.text_projection = model.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int [batch, n_tokens] to [batch, n_features]."""
        pooled = self.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        features: Tensor = self.text_projection(pooled)
        return features


def clap_pair(source: str, spec: str) -> TowerPair:
    """Open a hub id, a local folder (config.json, model.safetensors, tokenizer.json) or `random` (BioLingual's architecture).

    Raises TowerError: fused features, another front end, files that are missing, a hub out of reach.
    """
    make_torchvision_importable()
    from transformers import ClapConfig, ClapModel

    if spec == "random":
        torch.manual_seed(0)
        config = ClapConfig(text_config={"vocab_size": 50265}, audio_config={"enable_fusion": False})
        model, tokenizer, name = ClapModel(config).eval(), byte_tokenizer_json(config), "biolingual-random"
        licence, front_end = "none: random weights", ClapLogMel()
    else:
        folder = _folder(spec, source)
        _require_unfused(folder, source)
        tokenizer = without_padding(_read(folder / "tokenizer.json", source), source)
        front_end = _front_end(folder, source)
        model = _loaded(ClapModel, folder, source)
        name, licence = Path(spec).name.lower(), "see the model's page"
    audio = model.config.audio_config
    if audio.num_mel_bins != N_MELS:
        raise TowerError(
            f"{source}: expected {N_MELS} mel bands as in BioLingual, found {audio.num_mel_bins}; not supported"
        )
    model.config.audio_config.drop_path_rate = 0.0
    return TowerPair(
        name=name,
        source=source,
        modality="audio",
        observation=ClapAudio(model, front_end).eval(),
        text=ClapText(model).eval(),
        input=AudioInput(RATE_HZ, WINDOW_SAMPLES),
        tokenizer_json=tokenizer,
        max_tokens=min(MAX_TOKENS, model.config.text_config.max_position_embeddings - 2),
        pad_id=model.config.text_config.pad_token_id,
        n_features=model.config.projection_dim,
        lora=LORA,
        licence=licence,
        temperature=1 / float(model.logit_scale_a.detach().exp()),
    )


def _folder(spec: str, source: str) -> Path:
    """Return the local folder of a model; a hub id is fetched into the hub's cache."""
    if Path(spec).is_dir():
        return Path(spec)
    if spec.startswith(("/", ".")):
        raise TowerError(
            f"{source}: expected a folder with config.json and model.safetensors, found no such folder"
        )
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(spec, allow_patterns=["*.json", "*.txt", WEIGHTS[0]]))
        if not (folder / WEIGHTS[0]).is_file():  # a model of older days
            folder = Path(snapshot_download(spec, allow_patterns=["*.json", "*.txt", WEIGHTS[1]]))
        return folder
    except Exception as error:  # the hub's errors have no common class
        raise TowerError(
            f"{source}: expected a model of the hub, found: {type(error).__name__}; "
            "without a network, fetch it elsewhere and give clap:/folder"
        ) from error


def _read(file: Path, source: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise TowerError(
            f"{source}: expected {file}, found {error.strerror}; give the whole folder of the model"
        ) from error


def _require_unfused(folder: Path, source: str) -> None:
    config = _read_json(folder / "config.json", source)
    if config.get("model_type") != "clap":
        raise TowerError(
            f"{source}: expected the config of a clap model, found model_type {config.get('model_type')!r}"
        )
    if config.get("audio_config", {}).get("enable_fusion"):
        raise TowerError(
            f"{source}: expected an unfused model (enable_fusion false), found a fused one, whose input is no single window; use an unfused one"
        )
    if not any((folder / file).is_file() for file in WEIGHTS):
        raise TowerError(
            f"{source}: expected {folder / WEIGHTS[0]}, found none; give the whole folder of the model"
        )


def _front_end(folder: Path, source: str) -> ClapLogMel:
    """The front end that the model's own processor describes; without one, BioLingual's."""
    settings: dict[str, Any] = {}
    if (folder / "preprocessor_config.json").is_file():
        settings = _read_json(folder / "preprocessor_config.json", source)
    elif (folder / "processor_config.json").is_file():
        settings = _read_json(folder / "processor_config.json", source).get("feature_extractor", {})
    wanted = {
        "sampling_rate": RATE_HZ,
        "fft_window_size": N_FFT,
        "hop_length": HOP,
        "feature_size": N_MELS,
        "nb_max_samples": WINDOW_SAMPLES,
    }
    for key, value in wanted.items():
        if settings.get(key, value) != value:
            raise TowerError(
                f"{source}: expected the front end of BioLingual, {key} {value}, found {settings[key]}; not supported"
            )
    return ClapLogMel(
        float(settings.get("frequency_min", FMIN_HZ)), float(settings.get("frequency_max", FMAX_HZ))
    )


def _loaded(kind: Any, folder: Path, source: str) -> Any:
    """The model with all of its weights; transformers alone would draw missing ones at random."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own use of other libraries
            model, info = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except Exception as error:  # transformers' errors have no common class
        raise TowerError(
            f"{source}: expected the weights of this config in {folder}, found: {first_line(error)}; fetch the folder again"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise TowerError(
            f"{source}: expected all weights of the model, found {len(missing)} missing, such as {missing[0]}; fetch the folder again"
        )
    return model.eval()


def _read_json(file: Path, source: str) -> dict[str, Any]:
    try:
        found = json.loads(_read(file, source))
    except ValueError as error:
        raise TowerError(f"{source}: expected JSON in {file}, found: {error}") from error
    if not isinstance(found, dict):
        raise TowerError(f"{source}: expected a JSON object in {file}, found {type(found).__name__}")
    return found


def byte_tokenizer_json(config: Any) -> bytes:
    """A byte-level tokenizer for random weights: 256 bytes and RoBERTa's special tokens; the real one comes with real weights."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.processors import TemplateProcessing

    from train.towers.clip_tokenizer import byte_symbols

    words = ["<s>", "<pad>", "</s>", "<unk>", *byte_symbols()]
    assert config.text_config.vocab_size >= len(words)  # a configuration of our own
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer.to_str().encode("utf-8")
