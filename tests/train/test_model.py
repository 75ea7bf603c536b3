"""Front end, head and encoder of train/model.py."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from train.model import AudioEncoder, AudioSettings, HashCoder, LogMel, slaney_mel_filters

TINY = AudioSettings(window_samples=16_000, n_mels=32, channels=(8, 8, 16, 16), stem_width=8)


def reference_band_power(samples: torch.Tensor, settings: AudioSettings) -> torch.Tensor:
    window = torch.hann_window(settings.n_fft, periodic=True)
    spectrum = torch.stft(
        samples,
        settings.n_fft,
        settings.hop_samples,
        window=window / window.sum(),
        center=False,
        return_complex=True,
    )
    filters = slaney_mel_filters(
        settings.n_mels, settings.n_fft, settings.sample_rate_hz, settings.fmin_hz, settings.fmax_hz
    )
    filters = filters / filters.sum(dim=1, keepdim=True)
    return torch.einsum("mk,bkf->bmf", filters, spectrum.abs().square())


def test_two_step_fourier_transform_equals_the_stft():
    samples = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(1)) * 0.1
    found = LogMel(TINY).band_power(samples)
    expected = reference_band_power(samples, TINY)[:, :, : found.shape[2]]
    assert found.shape == (2, 32, TINY.n_frames)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-10)


def test_every_mel_band_has_a_filter():
    assert (slaney_mel_filters(80, 1024, 32_000, 60.0, 15_500.0).sum(dim=1) > 0).all()


def test_a_tone_is_loudest_in_the_band_around_its_frequency():
    time = torch.arange(16_000) / 32_000
    power = LogMel(TINY).band_power(torch.sin(2 * torch.pi * 4000 * time)[None])[0].mean(dim=1)
    filters = slaney_mel_filters(32, 1024, 32_000, TINY.fmin_hz, TINY.fmax_hz)
    peak_hz = float(filters[int(power.argmax())].argmax()) * 32_000 / 1024
    assert abs(peak_hz - 4000) < 400


def test_planes_do_not_depend_on_gain():
    samples = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(1)) * 0.5
    front_end = LogMel(TINY)
    torch.testing.assert_close(front_end(samples), front_end(samples * 0.05), rtol=0, atol=1e-3)


def test_digital_silence_gives_finite_planes():
    assert torch.isfinite(LogMel(TINY)(torch.zeros(1, 16_000))).all()


def test_n_fft_must_be_the_square_of_an_even_number():
    with pytest.raises(ValueError, match="square of an even number, found 1000"):
        LogMel(dataclasses.replace(TINY, n_fft=1000))


def test_folded_head_gives_the_same_logits():
    torch.manual_seed(0)
    head = HashCoder(24, 64)
    head.train()
    for _ in range(5):
        head(torch.randn(32, 24) * 3 + 1)
    head.eval()
    features = torch.randn(8, 24)
    assert head.norm.running_var.std() > 0
    torch.testing.assert_close(head.folded()(features), head(features), rtol=1e-4, atol=1e-4)


def test_encoder_maps_a_waveform_to_one_logit_per_bit():
    torch.manual_seed(0)
    encoder = AudioEncoder(TINY, 64).eval()
    logits = encoder(torch.from_numpy(np.random.default_rng(0).normal(size=(2, 16_000)).astype(np.float32)))
    assert logits.shape == (2, 64)
    assert sum(p.numel() for p in AudioEncoder(AudioSettings(), 256).parameters()) <= 4_000_000
