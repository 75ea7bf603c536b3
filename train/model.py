"""Modules that become an encoder: log-mel front end, starter tower, HashCoder head; waveform in, one logit per bit out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from train.distributed import BatchNorm
from train.torchvision_ops import make_torchvision_importable


@dataclass(frozen=True, slots=True)
class AudioSettings:
    """What the starter's audio encoder is made of; stored beside its weights."""

    sample_rate_hz: int = 32_000
    window_samples: int = 160_000  # 5 s
    n_fft: int = 1024  # 32 ms; the hop is half of it
    n_mels: int = 80
    fmin_hz: float = 60.0
    fmax_hz: float = 15_500.0  # just under the 16 kHz Nyquist limit
    channels: tuple[int, ...] = (48, 96, 192, 384)  # width of the four ResNet stages
    layers: tuple[int, ...] = (1, 1, 1, 1)  # basic blocks in each stage
    stem_width: int = 16

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""
        return self.n_fft // 2

    @property
    def n_frames(self) -> int:
        """Frames of the log-mel planes of one window."""
        return self.window_samples // self.hop_samples - 1


def slaney_mel_filters(n_mels: int, n_fft: int, rate_hz: int, fmin_hz: float, fmax_hz: float) -> Tensor:
    """Triangular mel filters, float32 [n_mels, n_fft // 2 + 1].

    Mel scale of Slaney's Auditory Toolbox (linear below 1 kHz, logarithmic above: 27 steps per factor 6.4), each filter
    normalised to unit area in Hz.
    """
    step_hz, break_hz = 200.0 / 3.0, 1000.0
    log_step = np.log(6.4) / 27.0

    def to_mel(hz: np.ndarray) -> np.ndarray:
        return np.where(
            hz < break_hz,
            hz / step_hz,
            break_hz / step_hz + np.log(np.maximum(hz, 1e-9) / break_hz) / log_step,
        )

    def to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15.0, mel * step_hz, break_hz * np.exp(log_step * (mel - 15.0)))

    low, high = to_mel(np.asarray([fmin_hz, fmax_hz]))
    edges = to_hz(np.linspace(low, high, n_mels + 2))
    bins = np.linspace(0.0, rate_hz / 2, n_fft // 2 + 1)
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(filters.astype(np.float32))


class LogMel(nn.Module):
    """Waveform -> two log-mel planes, the first relative to the window's mean level, the second to each band's mean.

    The first plane keeps what is steady (rain, an engine); the second shows what stands out from a steady background.
    Neither depends on the recorder's gain.

    The Fourier transform of a frame is two steps of radix sqrt(n_fft) (Cooley and Tukey 1965) written as small matrix
    products: operators that every deployment runtime has, 7 times fewer multiplications than a strided convolution with
    the full basis, and no 4 MB table in the graph.
    """

    floor = (
        1e-12  # power below which a band counts as silent: 10 dB above the quantisation noise of 16-bit audio
    )

    def __init__(self, settings: AudioSettings) -> None:
        super().__init__()
        n_fft, radix = settings.n_fft, round(settings.n_fft**0.5)
        if radix * radix != n_fft or radix % 2:
            raise ValueError(f"n_fft: expected the square of an even number, found {n_fft}")
        self.radix, self.half = radix, n_fft // 2
        index = torch.arange(radix, dtype=torch.float64)
        inner = torch.polar(
            torch.ones(1).double(), -2 * torch.pi / radix * torch.outer(index, index)
        )  # [n1, k1]
        twiddle = torch.polar(
            torch.ones(1).double(), -2 * torch.pi / n_fft * torch.outer(index, index)
        )  # [n2, k1]
        outer = inner[
            :, : radix // 2 + 1
        ]  # [n2, k2]; the spectrum of real input is symmetric: half of it is enough
        window = torch.hann_window(n_fft, periodic=True, dtype=torch.float64)
        self.register_buffer("window", (window / window.sum()).float(), persistent=False)
        self.register_buffer("inner", torch.cat([inner.real, inner.imag], dim=1).float(), persistent=False)
        self.register_buffer("twiddle_real", twiddle.real.float(), persistent=False)
        self.register_buffer("twiddle_imag", twiddle.imag.float(), persistent=False)
        complex_outer = torch.cat(
            [torch.cat([outer.real, outer.imag], dim=1), torch.cat([-outer.imag, outer.real], dim=1)]
        )  # [2 * n2, 2 * k2]
        self.register_buffer("outer", complex_outer.float(), persistent=False)
        filters = slaney_mel_filters(
            settings.n_mels, n_fft, settings.sample_rate_hz, settings.fmin_hz, settings.fmax_hz
        )
        filters = filters / filters.sum(
            dim=1, keepdim=True
        )  # a band's mean power: levels of all bands are comparable
        bin_of = torch.arange(radix)[:, None] + radix * torch.arange(radix // 2 + 1)[None]  # [k1, k2] -> bin
        ordered = torch.zeros(radix * (radix // 2 + 1), settings.n_mels)
        inside = bin_of.flatten() <= n_fft // 2
        ordered[inside] = filters.T[bin_of.flatten()[inside]]
        self.register_buffer("filters", ordered, persistent=False)  # [k1 * k2, n_mels]

    def band_power(self, samples: Tensor) -> Tensor:
        """Mean power of each mel band, [batch, n_samples] -> [batch, n_mels, n_frames]; frames overlap by half."""
        n_batch, n_samples = samples.shape
        n_halves = n_samples // self.half
        halves = samples[:, : n_halves * self.half].reshape(n_batch, n_halves, self.half)
        frames = torch.cat([halves[:, :-1], halves[:, 1:]], dim=2) * self.window  # [batch, n_frames, n_fft]
        grid = frames.reshape(n_batch, n_halves - 1, self.radix, self.radix).transpose(2, 3)  # [..., n2, n1]
        real, imag = torch.matmul(grid, self.inner).chunk(2, dim=3)  # each [..., n2, k1]
        turned_real = real * self.twiddle_real - imag * self.twiddle_imag
        turned_imag = real * self.twiddle_imag + imag * self.twiddle_real
        turned = torch.cat([turned_real, turned_imag], dim=2).transpose(2, 3)  # [..., k1, 2 * n2]
        real, imag = torch.matmul(turned, self.outer).chunk(2, dim=3)  # each [..., k1, k2]
        power = (real * real + imag * imag).flatten(2)  # [batch, n_frames, k1 * k2]
        return torch.matmul(power, self.filters).transpose(1, 2)

    def planes(self, band_power: Tensor) -> Tensor:
        """[batch, n_mels, n_frames] powers -> [batch, 2, n_mels, n_frames] planes of about unit scale."""
        # the constant that this leaves off cancels below; "+ 1e-12" itself would be dropped by the ONNX exporter as a zero
        level = torch.log(band_power * (1 / self.floor) + 1) * 0.25
        steady = level - level.mean(dim=(1, 2), keepdim=True)
        changing = level - level.mean(dim=2, keepdim=True)
        return torch.stack([steady, changing], dim=1)

    def forward(self, samples: Tensor) -> Tensor:
        """Map float32 [batch, n_samples] in [-1, 1] to [batch, 2, n_mels, n_frames]."""
        return self.planes(self.band_power(samples))


class StarterTower(nn.Module):
    """Log-mel planes -> one feature vector: a small timm ResNet with mean + max pooling over time and frequency."""

    def __init__(self, settings: AudioSettings) -> None:
        super().__init__()
        make_torchvision_importable()
        from timm.models.resnet import BasicBlock, ResNet

        self.net = ResNet(
            BasicBlock,
            list(settings.layers),
            num_classes=0,
            in_chans=2,
            stem_width=settings.stem_width,
            stem_type="deep",
            avg_down=True,
            channels=settings.channels,
        )
        self.n_features = settings.channels[-1]
        self.dropout = nn.Dropout(0.2)

    def forward(self, planes: Tensor) -> Tensor:
        """Map [batch, 2, n_mels, n_frames] to [batch, n_features]."""
        maps = self.net.forward_features(planes)  # [batch, n_features, n_mels / 32, n_frames / 32]
        over_bands = maps.mean(dim=2)  # [batch, n_features, n_frames / 32]
        return self.dropout(over_bands.mean(dim=2) + over_bands.amax(dim=2))


class HashCoder(nn.Module):
    """The head: feature vector -> one logit per bit. Linear - ReLU - Linear - BatchNorm, affine off.

    large: GELU and a hidden layer of max(2 n_features, 2048).
    """

    def __init__(self, n_features: int, n_bits: int, large: bool = False) -> None:
        super().__init__()
        n_hidden = max(2 * n_features, 2048) if large else n_features
        self.hidden = nn.Linear(n_features, n_hidden)
        self.activation: nn.Module = nn.GELU() if large else nn.ReLU()
        self.bits = nn.Linear(n_hidden, n_bits)
        self.norm = BatchNorm(n_bits, affine=False)
        for layer in (self.hidden, self.bits):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map [batch, n_features] to logits [batch, n_bits]."""
        logits: Tensor = self.norm(self.bits(self.activation(self.hidden(features))))
        return logits

    def folded(self) -> nn.Sequential:
        """The same map for inference, with the BatchNorm folded into the last Linear."""
        bits = nn.Linear(self.bits.in_features, self.bits.out_features)
        scale = torch.rsqrt(self.norm.running_var + self.norm.eps)
        with torch.no_grad():
            bits.weight.copy_(self.bits.weight * scale[:, None])
            bits.bias.copy_((self.bits.bias - self.norm.running_mean) * scale)
        return nn.Sequential(self.hidden, self.activation, bits).eval()


class AudioEncoder(nn.Module):
    """Front end + tower + head in one graph: waveform in, logits out."""

    def __init__(self, settings: AudioSettings, n_bits: int) -> None:
        super().__init__()
        self.settings = settings
        self.front_end = LogMel(settings)
        self.tower = StarterTower(settings)
        self.head = HashCoder(self.tower.n_features, n_bits)

    def forward(self, samples: Tensor) -> Tensor:
        """Map float32 [batch, window_samples] to logits [batch, n_bits]."""
        return self.head(self.tower(self.front_end(samples)))
