"""Add reference codes to a bundle: a day of backgrounds that no alarm may come from, and known sounds over them.

Every third recording of the maad set makes the place (the others stay for the evaluation of alarms); its colour changes every quarter of an
hour, wind and rain come and go. The sounds are the held-out ESC-10 clips. What is encoded is what a recorder would hear, by the bundle's
own encoder. A bundle without a calibration has one fitted to these codes.

Example:
    python export/reference.py --bundle edge/starter --data ../data
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

if __name__ == "__main__":  # run as a file: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge.bundle import Bundle, Calibration, Decoy, ReferenceEntry, write_bundle
from edge.codes import pack
from edge.encoder import AudioEncoder, open_audio_encoder, open_text_encoder
from edge.errors import FieldcubeError
from export.calibration import NOTHING, as_signs, fitted_calibration
from export.model_card import write_card
from train.data import DataError, Recording, decode
from train.prepare import select
from train.settings import DataSettings
from train.soundscape import SEGMENT_S, Event, Samples, Site, Weather, listen, trimmed, unit

BACKGROUND, SOUNDS = "maad_soundscapes", "esc10"
RUN_S = 900.0  # one place, one colour, one weather
SNR_DB = (-5.0, 0.0, 5.0, 10.0, 20.0)
NAME = "reference.npz"


def reference_recordings(recordings: Sequence[Recording]) -> list[Recording]:
    """Every third background: the reference. The evaluation of alarms uses the others."""
    return [r for r in recordings if r.dataset == BACKGROUND][::3]


def random_colour(random: np.random.Generator) -> tuple[float, ...]:
    """Gains in dB of a place and a microphone."""
    return tuple(random.uniform(-8, 8, size=6).tolist())


def random_weather(random: np.random.Generator) -> Weather:
    """Calm or windy, dry or wet."""
    return Weather(float(random.uniform(-25, 0)), float(random.uniform(-40, 0)))


def encoded(encoder: AudioEncoder, blocks: Iterator[Samples], hop: int) -> NDArray[np.uint8]:
    """Codes of the windows of a stream, [n, n_bytes]."""
    window, rest, codes = encoder.window_samples, np.zeros(0, np.float32), []
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= window:
            codes.append(pack(encoder.encode(np.ascontiguousarray(rest[:window])), encoder.code_bits))
            rest = rest[hop:]
    return np.stack(codes)


def background_codes(
    encoder: AudioEncoder, places: tuple[Samples, ...], hours: float, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Codes and run numbers of windows end to end."""
    random = np.random.default_rng(seed)
    parts, runs = [], []
    for run in tqdm(range(round(hours * 3600 / RUN_S)), desc="background", unit="run", disable=None):
        site = Site(places, encoder.sample_rate_hz, random_colour(random), ((0.0, random_weather(random)),))
        parts.append(encoded(encoder, listen(site, RUN_S, (), seed + run + 1), encoder.window_samples))
        runs.append(np.full(len(parts[-1]), run, np.int32))
    return np.concatenate(parts), np.concatenate(runs)


def sound_codes(
    encoder: AudioEncoder, places: tuple[Samples, ...], events: Sequence[Recording], seed: int
) -> dict[str, NDArray[np.generic]]:
    """Codes of windows (half a window apart) in which an event is heard, at every level."""
    random, rate = np.random.default_rng(seed), encoder.sample_rate_hz
    texts = sorted({event.label for event in events})
    window, hop = encoder.window_samples, encoder.window_samples // 2
    codes, text_of, event_of, levels = [], [], [], []
    jobs = [(event, snr) for snr in SNR_DB for event in events]
    for number, (event, snr) in enumerate(tqdm(jobs, desc="sounds", unit="event", disable=None)):
        samples = unit(trimmed(decode(event.file, rate), rate), rate)[: 2 * window]
        begin_s = float(random.uniform(1, SEGMENT_S / 2))
        end_s = begin_s + len(samples) / rate
        site = Site(places, rate, random_colour(random), ((0.0, random_weather(random)),))
        heard = Event(event.label, begin_s, end_s, snr, samples)
        found = encoded(encoder, listen(site, end_s + SEGMENT_S, (heard,), seed + number), hop)
        for place, code in enumerate(found):
            start_s = place * hop / rate
            if min(start_s + window / rate, end_s) - max(start_s, begin_s) >= min(0.5, (end_s - begin_s) / 2):
                codes.append(code)
                text_of.append(texts.index(event.label))
                event_of.append(number)
                levels.append(snr)
    return {
        "sounds": np.stack(codes),
        "sound_text": np.asarray(text_of, np.int16),
        "sound_event": np.asarray(event_of, np.int32),
        "snr_db": np.asarray(levels, np.float32),
        "texts": np.asarray(texts),
    }


def calibration_of(bundle: Bundle, arrays: Mapping[str, NDArray[Any]], source: str) -> Calibration | None:
    """The probability of a match from reference codes, as many of background as of sounds; None where they cannot tell."""
    sounds, n_bits = arrays["sounds"], bundle.manifest.code_bits
    step = max(1, len(arrays["background"]) // len(sounds))
    quiet, runs = arrays["background"][::step], arrays["runs"][::step]
    events = arrays["sound_event"].astype(np.int64)
    notes = fitted_calibration(
        as_signs(np.concatenate([sounds, quiet]), n_bits),
        np.concatenate([arrays["sound_text"].astype(np.int64), np.full(len(quiet), NOTHING)]),
        np.concatenate([events, events.max() + 1 + runs]),
        as_signs(arrays["text_codes"], n_bits),
        as_signs(codes_of(bundle.manifest.decoys, n_bits), n_bits),
        source,
    )
    return None if notes is None else Calibration("logistic", **notes)


def codes_of(decoys: Sequence[Decoy], n_bits: int) -> NDArray[np.uint8]:
    """Codes of decoys, [n, n_bytes]."""
    return np.frombuffer(b"".join(decoy.code for decoy in decoys), np.uint8).reshape(-1, n_bits // 8)


def add_reference(folder: Path, data: Path, hours: float, seed: int) -> Bundle:
    """Encode, and write the bundle again with the reference in it."""
    bundle = Bundle.load(folder)
    encoder, sentences = open_audio_encoder(bundle), open_text_encoder(bundle)
    recordings, _, held_out = select(DataSettings(), data)
    rate = encoder.sample_rate_hz
    places = tuple(decode(r.file, rate) for r in reference_recordings(recordings))
    events = [recordings[i] for i in held_out if recordings[i].dataset == SOUNDS]
    if not places or not events:
        raise DataError(f"{data}: expected the sets {BACKGROUND} and {SOUNDS}, found one of them empty")
    codes, runs = background_codes(encoder, places, hours, seed)
    arrays = {"background": codes, "runs": runs, **sound_codes(encoder, places, events, seed + 10_000)}
    text_codes = [pack(sentences.encode(str(text)), encoder.code_bits) for text in arrays["texts"]]
    arrays["text_codes"] = np.stack(text_codes)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    seconds = sum(len(place) for place in places) / rate
    source = (
        f"{hours:g} h of simulated deployments over {len(places)} recordings ({seconds:.0f} s) of {BACKGROUND}; "
        f"{len(events)} held-out clips of {SOUNDS} at {', '.join(f'{snr:g}' for snr in SNR_DB)} dB"
    )
    hop_s = encoder.window_samples / rate
    entry = ReferenceEntry(NAME, hashlib.sha256(stream.getvalue()).hexdigest(), hop_s, source)
    calibration = bundle.manifest.calibration or calibration_of(bundle, arrays, source)
    manifest = replace(bundle.manifest, reference=entry, calibration=calibration)
    kept = {
        p.name: p.read_bytes()
        for p in folder.iterdir()
        if p.name not in ("manifest.json", "MODEL_CARD.md", NAME)
    }
    files = {**kept, NAME: stream.getvalue()}
    files["MODEL_CARD.md"] = write_card(
        manifest, {name: len(content) for name, content in files.items()}
    ).encode()
    return write_bundle(folder, manifest, files)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, help="bundle folder, completed in place")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets (docs/data.md)")
    parser.add_argument("--hours", type=float, default=24.0, help="of background (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    try:
        bundle = add_reference(arguments.bundle, arguments.data, arguments.hours, arguments.seed)
    except FieldcubeError as error:
        print(f"reference: error: {error}", file=sys.stderr)
        return error.exit_code
    assert bundle.manifest.reference is not None  # just written
    print(f"{bundle.folder}: {bundle.manifest.reference.source}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
