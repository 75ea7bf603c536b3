"""Do alarms keep their promise? Days of simulated deployments through edge-monitor itself, and what it reports against the truth.

    rates   two sites for half of the days each, weather that changes in the middle: wanted and realised false alarms a day for every query, beside
            one global cut-off on the distance
    common  a sound that really occurs often: is it still found afterwards, live and by a line that was added later?
    recall  a day of background, then the held-out ESC-10 clips at five levels: found events by level, with and without confirm=2/3 and decoys

Example:
    python scripts/false_alarms.py rates --data ../data --days 10 --out docs/false_alarms.csv
    python scripts/false_alarms.py common --data ../data
    python scripts/false_alarms.py recall --data ../data --picture docs/recall.png
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.bundle import Bundle, default_bundle
from edge.codes import hamming, pack
from edge.encoder import open_text_encoder
from edge.false_alarms import rate_interval
from edge.reference import load_reference
from edge.store_reader import StoreReader
from export.reference import BACKGROUND, SNR_DB, SOUNDS, reference_recordings
from train.data import Recording, decode
from train.prepare import select
from train.settings import DataSettings
from train.soundscape import Event, Samples, Site, Weather, listen, trimmed, unit

RATE_HZ, HOP_S = 32_000, 5.0
DAY_S = 86_400.0
WANTED = (0.5, 2.0, 10.0, 50.0)
SENTENCES = (
    "chainsaw", "clock ticking", "crackling fire", "crying baby", "dog barking", "helicopter", "person sneezing", "rain",
    "rooster crowing", "sea waves", "tawny owl calling", "frogs calling at a pond", "american robin song", "gunshot",
    "car engine", "people talking", "barn swallow", "blue jay", "woodpecker drumming", "cat meowing", "church bells",
    "cricket chirping", "barn owl screech", "northern cardinal song", "mallard", "canada goose", "wood thrush song",
    "common nighthawk", "spring peeper", "bullfrog", "green frog", "mourning dove cooing", "red-winged blackbird",
    "great horned owl", "killdeer", "belted kingfisher", "house wren", "black-capped chickadee", "american crow", "wolf howling",
)  # fmt: skip
RUMBLING = (6.0, 3.0, 0.0, -4.0, -8.0, -3.0)  # dB: a recorder in a box, with more bass and less treble
SUNNY, STORM = Weather(-25, -40), Weather(-3, -4)
BREEZE, SHOWERS = Weather(-12, -20), Weather(-6, -8)


@dataclass(frozen=True, slots=True)
class Places:
    """Recordings of the two sites, none of them in the bundle's reference, and the events."""

    first: tuple[Samples, ...]
    second: tuple[Samples, ...]
    events: tuple[Recording, ...]

    @property
    def distinct_s(self) -> float:
        """Seconds of background that are not repeats."""
        return sum(len(place) for place in (*self.first, *self.second)) / RATE_HZ


def places(data: Path) -> Places:
    """Decode the backgrounds that the reference leaves, dealt to two sites, and list the held-out clips."""
    recordings, _, held_out = select(DataSettings(), data)
    taken = {r.file for r in reference_recordings(recordings)}
    free = [r.file for r in recordings if r.dataset == BACKGROUND and r.file not in taken]
    decoded = [decode(file, RATE_HZ) for file in free]
    events = tuple(recordings[i] for i in held_out if recordings[i].dataset == SOUNDS)
    return Places(tuple(decoded[::2]), tuple(decoded[1::2]), events)


def monitor(
    blocks: Iterator[Samples], seconds: float, lines: Sequence[str], folder: Path, bundle: Path
) -> list[dict[str, object]]:
    """Pipe sound into edge-monitor and return the lines that it prints."""
    watchlist = folder / "watchlist.txt"
    watchlist.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "edge.monitor",
        "--queries",
        str(watchlist),
        "--input",
        "-",
        "--rate",
        str(RATE_HZ),
    ]
    command += [
        "--hop",
        str(HOP_S),
        "--json",
        "--bundle",
        str(bundle),
        "--store",
        str(folder / "site.sqlite"),
        "--no-clips",
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None  # a pipe was asked for
    assert process.stdout is not None
    found: list[dict[str, object]] = []

    def collect(stream: Iterator[bytes]) -> None:
        found.extend(json.loads(line) for line in stream)

    reader = threading.Thread(target=collect, args=(process.stdout,))
    reader.start()
    with tqdm(total=round(seconds / 3600), desc=folder.name, unit="h", disable=None) as bar:
        done_s = 0.0
        for block in blocks:
            process.stdin.write((block * 32767).astype("<i2").tobytes())
            before, done_s = done_s, done_s + len(block) / RATE_HZ
            bar.update(int(done_s // 3600) - int(before // 3600))
    process.stdin.close()
    reader.join()
    if process.wait() != 0:
        raise SystemExit(f"false_alarms: edge-monitor failed with {process.returncode}")
    return found


def lines_of_rates() -> list[tuple[str, float]]:
    """(sentence, wanted a day): the sentences are dealt to the wanted rates."""
    return [(text, WANTED[i % len(WANTED)]) for i, text in enumerate(SENTENCES)]


def rates(data: Path, bundle: Path, days: float, out: Path | None, seed: int) -> None:
    """Print the table of wanted and realised rates."""
    here = places(data)
    half_s = days * DAY_S / 2
    sites = {
        "site 1": Site(here.first, RATE_HZ, (), ((0.0, SUNNY), (half_s / 2, SHOWERS))),
        "site 2": Site(here.second, RATE_HZ, RUMBLING, ((0.0, BREEZE), (half_s / 2, STORM))),
    }
    asked = lines_of_rates()
    print(
        f"{days:g} simulated days over {here.distinct_s:.0f} s of distinct background that neither reference nor calibration heard; "
        f"{len(asked)} queries, a window every {HOP_S:g} s"
    )
    rows: list[dict[str, object]] = []
    cut_off = global_cut_offs(bundle, asked)
    for number, (name, site) in enumerate(sites.items()):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / name.replace(" ", "")
            folder.mkdir()
            found = monitor(
                listen(site, half_s, (), seed + number),
                half_s,
                [f"{text} | alarms_per_day={wanted:g}" for text, wanted in asked],
                folder,
                bundle,
            )
            by_cut_off = count_cut_off(folder / "site.sqlite", bundle, asked, cut_off)
        detections = [line for line in found if line["type"] == "detection"]
        for (text, wanted), by_cut in zip(asked, by_cut_off, strict=True):
            times = np.asarray([float(d["offset_s"]) for d in detections if d["query"] == text])  # type: ignore[arg-type]
            rows.append(
                {
                    "site": name,
                    "query": text,
                    "wanted": wanted,
                    "days": half_s / DAY_S,
                    "alarms": len(times),
                    "first_hour": int((times < 3600).sum()),
                    "before_change": int((times < half_s / 2).sum()),
                    "global_cut_off": by_cut,
                }
            )
    tell_rates(rows)
    if out is not None:
        with out.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def tell_rates(rows: Sequence[dict[str, object]]) -> None:
    """Print rates by wanted number and site."""

    def number(row: dict[str, object], key: str) -> float:
        return float(row[key])  # type: ignore[arg-type]

    print(
        f"{'wanted':>7} {'site':>7} {'queries':>8} {'within x2':>10} {'pooled a day (95 %)':>22} {'1st hour':>9} {'one cut-off: within x2, pooled':>32}"
    )
    for wanted in WANTED:
        for site in ("site 1", "site 2", "both"):
            own = [r for r in rows if r["wanted"] == wanted and site in (r["site"], "both")]
            days = [number(r, "days") for r in own]
            rate = [number(r, "alarms") / d for r, d in zip(own, days, strict=True)]
            cut = [number(r, "global_cut_off") / d for r, d in zip(own, days, strict=True)]
            within, cut_within = (np.mean([wanted / 2 <= x <= 2 * wanted for x in xs]) for xs in (rate, cut))
            total = int(sum(number(r, "alarms") for r in own))
            low, high = rate_interval(total, sum(days))
            hour = np.mean([number(r, "first_hour") for r in own])
            print(
                f"{wanted:>7g} {site:>7} {len(own):>8} {100 * within:>8.0f} % {np.mean(rate):>8.2f} ({low:.2f}-{high:.2f}) "
                f"{hour:>9.2f} {100 * cut_within:>14.0f} %, {np.mean(cut):.2f}"
            )


def _text_codes(bundle: Path, texts: Sequence[str]) -> list[NDArray[np.uint8]]:
    opened = Bundle.load(bundle)
    encoder = open_text_encoder(opened)
    return [pack(encoder.encode(text), opened.manifest.code_bits) for text in texts]


def global_cut_offs(bundle: Path, asked: Sequence[tuple[str, float]]) -> dict[float, int]:
    """One distance for all queries of a wanted rate, from the reference background: what a recorder without calibration would use."""
    reference = load_reference(Bundle.load(bundle))
    if reference is None:
        raise SystemExit(
            f"false_alarms: {bundle}: expected a bundle with reference codes (export/reference.py), found none"
        )
    codes = _text_codes(bundle, [text for text, _ in asked])
    windows_per_day = DAY_S / reference.hop_s
    found = {}
    for wanted in WANTED:
        own = [
            hamming(c, reference.background) for c, (_, w) in zip(codes, asked, strict=True) if w == wanted
        ]
        pooled = np.sort(np.concatenate(own))
        found[wanted] = int(pooled[int(wanted / windows_per_day * len(pooled))]) - 1
    return found


def count_cut_off(
    store: Path, bundle: Path, asked: Sequence[tuple[str, float]], cut_off: dict[float, int]
) -> list[int]:
    """Stored windows within the global cut-off, for each query."""
    with StoreReader.open(store) as reader:
        codes = np.stack([np.frombuffer(o.code, np.uint8) for o in reader.observations()])
    texts = _text_codes(bundle, [text for text, _ in asked])
    return [int((hamming(c, codes) <= cut_off[w]).sum()) for c, (_, w) in zip(texts, asked, strict=True)]


VARIANTS = {
    "plain": "{text} | alarms_per_day=2",
    "confirm=2/3": "{text} | alarms_per_day=2 | confirm=2/3",
}
DECOYS = ("decoy: wind in the trees", "decoy: birds singing", "decoy: insects buzzing")


def recall(data: Path, bundle: Path, background_days: float, picture: Path | None, seed: int) -> None:
    """Print recall by level at 2 false alarms a day and query, for every variant of the lines."""
    here = places(data)
    random = np.random.default_rng(seed)
    background_s = background_days * DAY_S
    at, events = background_s + 20.0, []
    pairs = [(each, snr) for each in here.events for snr in SNR_DB]
    for number in random.permutation(len(pairs)):
        each, snr = pairs[int(number)]
        samples = unit(trimmed(decode(each.file, RATE_HZ), RATE_HZ), RATE_HZ)
        events.append(Event(each.label, at, at + len(samples) / RATE_HZ, snr, samples))
        at += float(random.uniform(25, 45))
    seconds = at + 30.0
    site = Site(here.second, RATE_HZ, RUMBLING, ((0.0, BREEZE),))
    labels = sorted({event.label for event in events})
    curves: dict[str, list[float]] = {}
    print(
        f"{len(events)} events at {', '.join(f'{s:g}' for s in SNR_DB)} dB after {background_days:g} days of background; 2 false alarms a day wanted"
    )
    for decoys in ((), DECOYS):
        for variant, form in VARIANTS.items():
            name = variant + (", decoys" if decoys else "")
            lines = [*(form.format(text=label.replace("_", " ")) for label in labels), *decoys]
            with tempfile.TemporaryDirectory() as scratch:
                found = monitor(listen(site, seconds, events, seed), seconds, lines, Path(scratch), bundle)
            spans = [
                (str(d["query"]), float(d["offset_s"]), float(d["offset_s"]) + float(d["duration_s"]))  # type: ignore[arg-type]
                for d in found
                if d["type"] == "detection"
            ]
            quiet = [s for s in spans if s[1] < background_s]
            heard = [[_is_found(event, spans) for event in events if event.snr_db == snr] for snr in SNR_DB]
            wrong = sum(
                not any(_overlaps(event, span) for event in events)
                for span in spans
                if span[1] >= background_s
            ) + sum(
                any(
                    event.label.replace("_", " ") != span[0] and _overlaps(event, span, any_label=True)
                    for event in events
                )
                for span in spans
            )
            curves[name] = [float(np.mean(each)) for each in heard]
            shown = "  ".join(
                f"{snr:g} dB {value:.2f}" for snr, value in zip(SNR_DB, curves[name], strict=True)
            )
            shown += f"   median latency {np.median(latencies_s(events, spans) or [np.nan]):.1f} s"
            a_day = len(quiet) / background_days / len(labels)
            print(
                f"{name:<24} {shown}   false alarms a day and query before the events {a_day:.2f}; wrong ones among the events {wrong}"
            )
    if picture is not None:
        draw(curves, picture)


def common(data: Path, bundle: Path, seed: int) -> None:
    """Print how many of 20 single sounds are found after the same sound was at the site often."""
    here = places(data)
    site = Site(here.second, RATE_HZ, RUMBLING, ((0.0, BREEZE),))

    def of(label: str, first_s: float, n: int, every_s: float, snr_db: float) -> list[Event]:
        clips = [each for each in here.events if each.label == label]
        made = []
        for number in range(n):
            samples = unit(trimmed(decode(clips[number % len(clips)].file, RATE_HZ), RATE_HZ), RATE_HZ)
            at = first_s + number * every_s
            made.append(Event(label, at, at + len(samples) / RATE_HZ, snr_db, samples))
        return made

    def found(
        events: Sequence[Event], line: str, seconds: float, folder: Path, judged: Sequence[Event]
    ) -> str:
        told = monitor(listen(site, seconds, events, seed), seconds, [line], folder, bundle)
        spans = [
            (str(d["query"]), float(d["offset_s"]), float(d["offset_s"]) + float(d["duration_s"]))  # type: ignore[arg-type]
            for d in told
            if d["type"] == "detection"
        ]
        late = latencies_s(judged, spans)
        return f"{len(late)} of {len(judged)} found, median {np.median(late or [np.nan]):.1f} s after their begin"

    hour_s = 3600.0
    for minutes in (0, 30, 60):
        busy = of("chainsaw", hour_s, round(minutes * 60 / 5.5), 5.5, 15.0)
        single = of("chainsaw", 3.5 * hour_s, 20, 60.0, 15.0)
        with tempfile.TemporaryDirectory() as scratch:
            told = found([*busy, *single], "chainsaw", 3.9 * hour_s, Path(scratch), single)
        print(f"chainsaw at 15 dB, after {minutes} min of sawing 1.5 h before: {told}")
    barks = of("dog barking", 600.0, 40, 250.0, 20.0)
    later = of("dog barking", 100.0, 20, 60.0, 20.0)
    for stored in (False, True):
        with tempfile.TemporaryDirectory() as scratch:
            if stored:
                found(barks, "chainsaw", 3 * hour_s, Path(scratch), ())
            told = found(later, "dog barking", 1300.0, Path(scratch), later)
        print(f"dog barking at 20 dB, {40 if stored else 0} barks in the store before: {told}")


def _overlaps(event: Event, span: tuple[str, float, float], any_label: bool = False) -> bool:
    shared = min(event.end_s, span[2]) - max(event.begin_s, span[1])
    return (any_label or event.label.replace("_", " ") == span[0]) and shared >= min(
        0.5, (event.end_s - event.begin_s) / 2
    )


def _is_found(event: Event, spans: Sequence[tuple[str, float, float]]) -> bool:
    return any(_overlaps(event, span) for span in spans)


def latencies_s(events: Sequence[Event], spans: Sequence[tuple[str, float, float]]) -> list[float]:
    """Return, of each event that is found, the time from its begin to the end of the first window that tells of it.

    That window is complete then; encoding it takes some milliseconds more.
    """
    ends = [[span[2] for span in spans if _overlaps(event, span)] for event in events]
    return [min(each) - event.begin_s for event, each in zip(events, ends, strict=True) if each]


def draw(curves: dict[str, list[float]], picture: Path) -> None:
    """Draw recall against level."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, values in curves.items():
        axes.plot(SNR_DB, values, marker="o", linestyle="--" if "decoys" in name else "-", label=name)
    axes.set_xlabel("level of the event over the background, dB above 300 Hz")
    axes.set_ylabel("events found")
    axes.set_ylim(0, 1)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=80)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("rates", "recall", "common"):
        each = commands.add_parser(name)
        each.add_argument("--data", type=Path, required=True, help="folder of the data sets (docs/data.md)")
        each.add_argument("--bundle", type=Path, default=default_bundle(), help="default: the starter")
        each.add_argument("--seed", type=int, default=1)
    commands.choices["rates"].add_argument(
        "--days", type=float, default=10.0, help="of both sites together (default %(default)s)"
    )
    commands.choices["rates"].add_argument("--out", type=Path, help="CSV of every query")
    commands.choices["recall"].add_argument(
        "--background-days", type=float, default=1.0, help="before the events (default %(default)s)"
    )
    commands.choices["recall"].add_argument("--picture", type=Path, help="PNG to draw")
    a = parser.parse_args(argv)
    if a.command == "rates":
        rates(a.data, a.bundle, a.days, a.out, a.seed)
    elif a.command == "common":
        common(a.data, a.bundle, a.seed)
    else:
        recall(a.data, a.bundle, a.background_days, a.picture, a.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
