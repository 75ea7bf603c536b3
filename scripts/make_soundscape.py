"""Mix validation clips over validation backgrounds at known times and levels: a soundscape whose truth is known.

Only recordings that no training run sees are used (ESC-10 fold 4, and the held-out fifth of the backgrounds). Writes the sound and a
Raven selection table of what is where.

Example:
    python scripts/make_soundscape.py --data ../data --seconds 600 --snr 0 15 --out soundscape.flac
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from edge.errors import FieldcubeError
from train.data import DataError, Recording, decode
from train.prepare import select
from train.settings import DataSettings

RATE_HZ = 32_000
CROSSFADE_SAMPLES = RATE_HZ // 2


def background(files: Sequence[Path], n_samples: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Join backgrounds in random order with cross-fades, at unit RMS; float32 [n_samples]."""
    if not files:
        raise DataError("expected held-out backgrounds, found none")
    mix = np.zeros(n_samples + 60 * RATE_HZ, dtype=np.float32)
    ramp = np.linspace(0, np.pi / 2, CROSSFADE_SAMPLES, dtype=np.float32)
    position = 0
    while position < n_samples:
        audio = decode(files[int(random.integers(len(files)))], RATE_HZ)[: 50 * RATE_HZ]
        if len(audio) < 4 * CROSSFADE_SAMPLES:
            raise DataError("expected backgrounds of at least 2 s, found a shorter one")
        audio = audio / max(float(np.sqrt(np.square(audio).mean())), 1e-6)
        audio[:CROSSFADE_SAMPLES] *= np.sin(ramp)
        audio[-CROSSFADE_SAMPLES:] *= np.cos(ramp)
        mix[position : position + len(audio)] += audio
        position += len(audio) - CROSSFADE_SAMPLES
    return mix[:n_samples]


def trimmed(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut the silence (40 dB under the loudest 10 ms) from both ends."""
    step = RATE_HZ // 100
    level = np.square(audio[: len(audio) // step * step]).reshape(-1, step).mean(axis=1)
    loud = np.flatnonzero(level > level.max() * 1e-4)
    return audio[loud[0] * step : (loud[-1] + 1) * step]


def mix_soundscape(
    events: Sequence[Recording],
    backgrounds: Sequence[Path],
    seconds: float,
    gap_s: float,
    snr_db: tuple[float, float],
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], list[dict[str, object]]]:
    """Lay events over a background one after the other with pauses of gap_s +- half.

    Returns the mix, float32 [n] peaking at -3 dBFS, and a row for each event: label, begin_s, end_s, snr_db, file.
    """
    n_samples = int(seconds * RATE_HZ)
    mix = background(backgrounds, n_samples, random)
    rows: list[dict[str, object]] = []
    position, order = random.uniform(0.2, 1.0) * gap_s, list(random.permutation(len(events)))
    while order:
        event = events[int(order.pop())]
        sound = trimmed(decode(event.file, RATE_HZ))
        start = int(position * RATE_HZ)
        if start + len(sound) > n_samples:
            break
        snr = float(random.uniform(*snr_db))
        sound = sound / max(float(np.sqrt(np.square(sound).mean())), 1e-6) * 10 ** (snr / 20)
        mix[start : start + len(sound)] += sound
        end = position + len(sound) / RATE_HZ
        rows.append(
            {"label": event.label, "begin_s": position, "end_s": end, "snr_db": snr, "file": event.file.name}
        )
        position = end + gap_s * random.uniform(0.5, 1.5)
    return (mix / max(float(np.abs(mix).max()), 1e-6) * 10 ** (-3 / 20)).astype(np.float32), rows


def write_selections(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write a Raven selection table."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        names = (
            "Begin Time (s)",
            "End Time (s)",
            "Low Freq (Hz)",
            "High Freq (Hz)",
            "Annotation",
            "SNR (dB)",
            "File",
        )
        writer.writerow(("Selection", "View", "Channel", *names))
        for number, row in enumerate(rows, start=1):
            times = (f"{row['begin_s']:.3f}", f"{row['end_s']:.3f}", 0, RATE_HZ // 2)
            writer.writerow(
                (number, "Spectrogram 1", 1, *times, row["label"], f"{row['snr_db']:.1f}", row["file"])
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets (docs/data.md)")
    parser.add_argument("--out", type=Path, required=True, help="sound file to write (flac, ogg or wav)")
    parser.add_argument("--seconds", type=float, default=600.0, help="length (default %(default)s)")
    parser.add_argument(
        "--gap", type=float, default=3.0, help="mean pause between events in s (default %(default)s)"
    )
    parser.add_argument(
        "--snr", type=float, nargs=2, default=(0.0, 15.0), metavar=("LOW", "HIGH"), help="dB, drawn evenly"
    )
    parser.add_argument("--cc0", action="store_true", help="events under CC0 alone")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    try:
        # all sets, as the starter's training deals them: the folds of a part would be others
        recordings, _, held_out = select(DataSettings(), arguments.data)
    except FieldcubeError as error:
        parser.error(str(error))
    events = [recordings[i] for i in held_out if recordings[i].dataset == "esc10"]
    events = [e for e in events if e.licence == "CC0"] if arguments.cc0 else events
    backgrounds = [recordings[i].file for i in held_out if recordings[i].dataset == "maad_soundscapes"]
    random = np.random.default_rng(arguments.seed)
    mix, rows = mix_soundscape(
        events, backgrounds, arguments.seconds, arguments.gap, tuple(arguments.snr), random
    )
    soundfile.write(arguments.out, mix, RATE_HZ)
    table = arguments.out.with_suffix(".selections.txt")
    write_selections(table, rows)
    print(f"{arguments.out}: {arguments.seconds:.0f} s with {len(rows)} events; truth in {table}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
