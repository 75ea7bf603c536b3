"""Score edge-monitor on a soundscape with known events, and draw it.

Runs the real command on the sound and compares its detections with the Raven table that make_soundscape.py wrote. An event is found when
a detection of its label overlaps it; a detection is false when no event of its label overlaps it.

Example:
    python scripts/make_soundscape.py --data ../data --seconds 600 --snr 0 15 --out /tmp/scape.flac
    python scripts/score_soundscape.py /tmp/scape.flac --picture docs/soundscape.png -- --hop 1
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

LABELS = (
    "chainsaw",
    "clock ticking",
    "crackling fire",
    "crying baby",
    "dog barking",
    "helicopter",
    "person sneezing",
    "rain",
    "rooster crowing",
    "sea waves",
)
MIN_OVERLAP_S = 0.5


@dataclass(frozen=True, slots=True)
class Span:
    """Something between two times."""

    label: str
    begin_s: float
    end_s: float
    note: float  # SNR in dB of an event, probability of a detection

    def overlaps(self, other: Span) -> bool:
        """Whether both are of one label and share at least MIN_OVERLAP_S, or half of a short event."""
        shared = min(self.end_s, other.end_s) - max(self.begin_s, other.begin_s)
        shorter = min(self.end_s - self.begin_s, other.end_s - other.begin_s)
        return self.label == other.label and shared >= min(MIN_OVERLAP_S, shorter / 2)


def read_truth(table: Path) -> list[Span]:
    """Read a selection table of make_soundscape.py."""
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return [
        Span(r["Annotation"], float(r["Begin Time (s)"]), float(r["End Time (s)"]), float(r["SNR (dB)"]))
        for r in rows
    ]


def detect(sound: Path, options: Sequence[str]) -> list[Span]:
    """Run edge-monitor on a sound with the ten labels as its watchlist."""
    with tempfile.TemporaryDirectory() as folder:
        watchlist = Path(folder) / "watchlist.txt"
        watchlist.write_text("\n".join(LABELS) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "edge.monitor", "--queries", str(watchlist), "--input", str(sound)]
        done = subprocess.run(
            [*command, "--no-store", "--json", *options], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise SystemExit(f"score_soundscape: edge-monitor failed: {done.stderr}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        Span(o["query"], o["offset_s"], o["offset_s"] + o["duration_s"], o["probability"])
        for o in lines
        if o["type"] == "detection"
    ]


def print_table(events: Sequence[Span], detections: Sequence[Span], seconds: float) -> None:
    """Print found, missed and false for each label, and recall by level."""
    print(f"{'query':<18}{'events':>8}{'found':>8}{'missed':>8}{'false':>8}")
    totals = np.zeros(4, dtype=int)
    for label in LABELS:
        own = [e for e in events if e.label == label]
        found = sum(any(e.overlaps(d) for d in detections) for e in own)
        false = sum(d.label == label and not any(d.overlaps(e) for e in events) for d in detections)
        row = np.array([len(own), found, len(own) - found, false])
        totals += row
        print(f"{label:<18}" + "".join(f"{n:>8}" for n in row))
    print(f"{'all':<18}" + "".join(f"{n:>8}" for n in totals))
    print(f"recall {totals[1] / max(totals[0], 1):.2f}; {totals[3]} false detections in {seconds:.0f} s")
    for low, high in ((-10, 0), (0, 5), (5, 10), (10, 15), (15, 30)):
        inside = [e for e in events if low <= e.note < high]
        if inside:
            share = np.mean([any(e.overlaps(d) for d in detections) for e in inside])
            print(f"recall at {low} to {high} dB: {share:.2f} of {len(inside)}")


def draw(
    sound: Path, events: Sequence[Span], detections: Sequence[Span], picture: Path, seconds: float
) -> None:
    """Draw the first `seconds`: spectrogram above, events and detections of each label below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    audio, rate = soundfile.read(
        sound, dtype="float32", frames=int(seconds * soundfile.info(sound).samplerate)
    )
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(14, 7), sharex=True, height_ratios=(2, 1.4))
    above.specgram(audio, NFFT=1024, Fs=rate, noverlap=256, cmap="magma", vmin=-130, vmax=-40)
    above.set_ylabel("Hz")
    for row, label in enumerate(LABELS):
        for span, shift, colour in [(e, 0.2, "tab:blue") for e in events] + [
            (d, -0.2, "tab:green") for d in detections
        ]:
            if span.label == label and span.begin_s < seconds:
                is_false = colour == "tab:green" and not any(span.overlaps(e) for e in events)
                shown = "tab:red" if is_false else colour
                below.barh(
                    row + shift, span.end_s - span.begin_s, left=span.begin_s, height=0.36, color=shown
                )
    below.set_yticks(range(len(LABELS)), LABELS)
    below.set_xlabel("s")
    below.set_xlim(0, min(seconds, len(audio) / rate))
    below.set_title("blue: what is there; green: detections (5 s windows); red: false ones", fontsize=10)
    figure.tight_layout()
    figure.savefig(picture, dpi=80)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sound", type=Path, help="sound file of make_soundscape.py; its .selections.txt lies beside it"
    )
    parser.add_argument("--picture", type=Path, help="PNG to draw")
    parser.add_argument(
        "--picture-seconds", type=float, default=120.0, help="how much to draw (default %(default)s)"
    )
    parser.add_argument("options", nargs="*", help="options of edge-monitor, after --, such as: -- --hop 1")
    arguments = parser.parse_args(argv)
    events = read_truth(arguments.sound.with_suffix(".selections.txt"))
    detections = detect(arguments.sound, arguments.options)
    print_table(events, detections, soundfile.info(arguments.sound).duration)
    if arguments.picture:
        draw(arguments.sound, events, detections, arguments.picture, arguments.picture_seconds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
