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
    "open": ("CC BY 4.0", "All training recordings are CC0, CC BY or BSD-3-Clause; docs/data.md names them."),
}
MIX_SNR_DB = (-5.0, 15.0)


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
    logger.info(
        "probability 0.5 at distance %.1f; on recordings left out of the fit: %s",
        -fitted.intercept / fitted.coefficient,
        cross_fitted(pairs),
    )
    source = (
        f"held-out recordings of fold {settings.data.fold}, clean and over backgrounds at {MIX_SNR_DB[0]:g} to {MIX_SNR_DB[1]:g} dB, "
        "random watchlists, half of the windows hold none of the queries"
    )
    licence, note = LICENCES[settings.data.licences]
    counts = Counter(data.recordings[i].dataset for i in data.training)
    schedule = settings.schedule
    notes = CheckpointNotes(
        name=settings.name,
        licence=licence,
        licence_note=note,
        queries=data.vocabulary.queries,
        decoys=decoys,
        calibration=as_notes(fitted, pairs, source),
        data=", ".join(f"{name} ({n} recordings)" for name, n in sorted(counts.items())),
        train_run=f"preset {settings.name}, seed {settings.seed}, fold {settings.data.fold}, {schedule.pretrain_steps} + {schedule.hash_steps} steps of {schedule.batch} windows",
    )
    save_checkpoint(path, model.audio, model.text_head, settings, notes)
    logger.info("wrote %s (%.1f MB)", path, path.stat().st_size / 1e6)
