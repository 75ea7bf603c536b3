"""The last step of a run: calibrate on held-out recordings and write the checkpoint that export takes."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from train.calibrate import as_notes, cross_fitted, fit_logistic, mixed_in, simulate
from train.checkpoint import CheckpointNotes, save_checkpoint
from train.data import DataError
from train.loop import StarterModel
from train.prepare import TrainingData
from train.settings import RunSettings
from train.text_tower import SentenceTower
from train.texts import read_sounds
from train.windows import cut_windows

logger = logging.getLogger(__name__)

LICENCES = {
    "all": (
        "CC BY-NC-SA 4.0",
        "Part of the training recordings are CC BY-NC-SA or CC BY-NC: use the weights for non-commercial work, and share what you "
        "derive from them alike. The preset starter_open trains on CC0, CC BY and BSD recordings alone.",
    ),
    "open": (
        "CC BY 4.0",
        "All training recordings are CC0, CC BY or BSD-3-Clause; docs/credits.csv names each with its author.",
    ),
}
MIX_SNR_DB = (-5.0, 15.0)


def calibration_source(settings: RunSettings, n_recordings: int) -> str:
    """Say what the alarm probability was fitted on."""
    return (
        f"{n_recordings} held-out recordings of fold {settings.data.fold}, clean and over backgrounds at {MIX_SNR_DB[0]:g} to "
        f"{MIX_SNR_DB[1]:g} dB, put to random watchlists so that half of the windows hold none of the queries"
    )


def describe_training(data: TrainingData, rate_hz: int) -> str:
    """Say which recordings trained: number and seconds of each set."""
    counts: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for i in data.training:
        counts[data.recordings[i].dataset] += 1
        seconds[data.recordings[i].dataset] += len(data.cache.get(i)) / rate_hz
    sets = ", ".join(f"{name} ({n} recordings, {seconds[name]:.0f} s)" for name, n in sorted(counts.items()))
    return f"{sum(counts.values())} recordings, {sum(seconds.values()):.0f} s: {sets}"


def describe_run(settings: RunSettings) -> str:
    """Say how a run was made."""
    s = settings.schedule
    return (
        f"preset {settings.name}, seed {settings.seed}, fold {settings.data.fold}, "
        f"{s.pretrain_steps} + {s.hash_steps} steps of {s.batch} windows"
    )


@torch.no_grad()
def encode_windows(model: StarterModel, windows: NDArray[np.float32], batch: int = 32) -> NDArray[np.float32]:
    """Logits of windows, [n, window_samples] -> [n, n_bits]."""
    device = next(model.parameters()).device
    parts = [
        model.audio(torch.from_numpy(windows[i : i + batch]).to(device)).cpu()
        for i in range(0, len(windows), batch)
    ]
    return torch.cat(parts).numpy()


def validation_windows(
    data: TrainingData, settings: RunSettings
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Held-out windows [n, window_samples], their classes and recordings [n]."""
    parts = [
        cut_windows(data.cache.get(i).astype(np.float32) / 32767, settings.audio.window_samples)
        for i in data.validation
    ]
    counts = [len(part) for part in parts]
    return (
        np.concatenate(parts),
        np.repeat(data.classes[list(data.validation)], counts),
        np.repeat(data.validation, counts),
    )


def finish(settings: RunSettings, data: TrainingData, model: StarterModel, path: Path) -> None:
    """Fit the alarm probability on clean and mixed held-out windows, log how true it is, and write the checkpoint."""
    windows, classes, owners = validation_windows(data, settings)
    background = data.vocabulary.class_keys.index(settings.data.background)
    quiet = [window for window, c in zip(windows, classes, strict=True) if c == background]
    sounding = classes != background
    mixed = mixed_in(windows[sounding], quiet, MIX_SNR_DB, np.random.default_rng(settings.seed))
    audio = encode_windows(model, np.concatenate([windows, mixed]))
    classes, owners = np.concatenate([classes, classes[sounding]]), np.concatenate([owners, owners[sounding]])
    tower = SentenceTower(settings.text_tower)
    decoys = tuple(read_sounds()["decoys"])
    device = next(model.parameters()).device
    with torch.no_grad():
        decoy_logits, query_logits = (
            model.text_head(tower.embed(texts).to(device)).cpu().numpy()
            for texts in (decoys, data.vocabulary.queries)
        )
    pairs = simulate(audio, classes, owners, query_logits, decoy_logits, background, settings.seed)
    fitted = fit_logistic(pairs.distances, pairs.correct)
    if fitted.coefficient >= 0:
        raise DataError(
            "held-out recordings: expected that near queries are right more often than far ones, found the opposite"
        )
    logger.info(
        "probability 0.5 at distance %.1f; on recordings left out of the fit: %s",
        -fitted.intercept / fitted.coefficient,
        cross_fitted(pairs),
    )
    notes = CheckpointNotes(
        name=settings.name,
        licence=LICENCES[settings.data.licences][0],
        licence_note=LICENCES[settings.data.licences][1],
        queries=data.vocabulary.queries,
        decoys=decoys,
        calibration=as_notes(fitted, pairs, calibration_source(settings, len(data.validation))),
        data=describe_training(data, settings.audio.sample_rate_hz),
        train_run=describe_run(settings),
    )
    save_checkpoint(path, model.audio, model.text_head, settings, notes)
    logger.info("wrote %s (%.1f MB)", path, path.stat().st_size / 1e6)
