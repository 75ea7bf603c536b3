"""What an export starts from: the checkpoint, and real windows to set ranges, to compare and to travel along as golden inputs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.graphs import DeployedAudio, DeployedText
from export.parity import LabelledWindows, labelled_windows
from export.text_vocabulary import CompactTower, compact
from train.checkpoint import DEFAULT, Checkpoint, load_checkpoint
from train.data import Recording, read_labels
from train.prepare import select
from train.text_tower import SentenceTower
from train.texts import build_vocabulary

ROOT = Path(__file__).resolve().parent.parent
CLIPS, PICTURES = ROOT / "examples" / "clips", ROOT / "examples" / "pictures"
N_GOLDEN = 4  # windows that travel along: 1.2 MB
N_CALIBRATION = 200  # windows that set the ranges of int8 activations


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint, the modules that are deployed, and real windows."""

    checkpoint: Checkpoint
    audio: DeployedAudio
    parity: LabelledWindows
    calibration: NDArray[np.float32]  # [n, window_samples]
    golden: NDArray[np.float32]  # [N_GOLDEN, window_samples]

    def reference_audio(self) -> NDArray[np.float32]:
        """Logits of the model as trained (BatchNorm not folded) for the parity windows, [n, n_bits]."""
        with torch.no_grad():
            return np.concatenate(
                [self.checkpoint.audio(torch.from_numpy(w[None])).numpy() for w in self.parity.samples]
            )


def text_modules(
    checkpoint: Checkpoint, sentences: Sequence[str]
) -> tuple[CompactTower, DeployedText, NDArray[np.float32]]:
    """The sentence encoder with its head, cut down to what is deployed, and the uncut one's logits of `sentences`, [n, n_bits]."""
    tower = SentenceTower(checkpoint.settings.text_tower)
    with torch.no_grad():
        reference = checkpoint.text_head(tower.embed(sentences)).numpy()
    small = compact(tower)
    return small, DeployedText(small.tower, checkpoint.text_head), reference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that both exporters take."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=DEFAULT,
        help="safetensors file that `python -m train run` wrote (default: the starter's)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "build" / "starter",
        help="bundle folder to write or complete (default %(default)s)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="folder of the data sets (docs/data.md): ranges from training windows, parity on all validation windows; "
        "without it the twenty clips of examples/ serve for both",
    )


def load_source(checkpoint_file: Path, data: Path | None) -> Source:
    """Load a checkpoint and windows to go with it."""
    checkpoint = load_checkpoint(checkpoint_file)
    settings = checkpoint.settings
    rate_hz, n_samples = settings.audio.sample_rate_hz, settings.audio.window_samples
    examples = read_labels(CLIPS)
    shown = labelled_windows(examples, rate_hz, n_samples, lambda r: r.label)
    golden = shown.samples[:: max(1, len(shown.samples) // N_GOLDEN)][:N_GOLDEN]
    parity, calibration = shown, shown.samples
    if data is not None:
        recordings, training, validation = select(settings.data, data)
        vocabulary = build_vocabulary(recordings)
        query = dict(zip(vocabulary.class_keys, vocabulary.queries, strict=True))

        def query_of(recording: Recording) -> str:
            return query[recording.class_key]

        parity = labelled_windows([recordings[i] for i in validation], rate_hz, n_samples, query_of)
        chosen = np.random.default_rng(0).permutation(training)[:N_CALIBRATION]
        windows = labelled_windows([recordings[i] for i in chosen], rate_hz, n_samples, query_of).samples
        levels = 10 ** (
            np.random.default_rng(1).uniform(-30, 0, (len(windows), 1)) / 20
        )  # faint windows set ranges too
        calibration = (windows * levels).astype(np.float32)[:: max(1, len(windows) // N_CALIBRATION)]
    return Source(checkpoint, DeployedAudio(checkpoint.audio), parity, calibration, golden)
