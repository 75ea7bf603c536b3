"""A folder as memory cards leave it: recordings and pictures, damaged files, names that repeat; and a bundle for both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from edge.bundle import Bundle, write_bundle
from edge.observation import Observation
from hub.archive_sqlite import SqliteArchive
from hub.settings import Settings

_DATA = Path(__file__).parents[1] / "data"
_RATE_HZ = 16_000
NAME = "cards"  # of the archive at the hub
N_DAMAGED = 3


def write_bundle_of_both(folder: Path) -> Path:
    """Write a bundle of sound and pictures in one code space."""
    tiny, image = Bundle.load(_DATA / "tiny_bundle"), Bundle.load(_DATA / "tiny_image_bundle")
    sound = tuple(entry for entry in tiny.manifest.encoders if entry.modality == "audio")
    heard = tuple(entry for entry in tiny.manifest.golden if entry.modality == "audio")
    manifest = replace(
        image.manifest, encoders=(*sound, *image.manifest.encoders), golden=(*heard, *image.manifest.golden)
    )
    files: dict[str, bytes | Path] = {
        path.name: path
        for each in (tiny, image)
        for path in each.folder.iterdir()
        if path.name != "manifest.json"
    }
    return write_bundle(folder, manifest, files).folder


def write_tone(path: Path, seconds: float, hz: float = 440.0) -> None:
    """Write a tone in a little noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(int(seconds * _RATE_HZ)) / _RATE_HZ
    noise = np.random.default_rng(int(hz)).normal(0, 0.02, t.size)
    soundfile.write(path, (0.3 * np.sin(2 * np.pi * hz * t) + noise).astype(np.float32), _RATE_HZ)


def write_cards(folder: Path, sites: tuple[str, ...] = ("alder", "birch"), n_each: int = 4) -> Path:
    """Write n_each recordings and a picture for each site, three damaged files, and a clip that is passed over."""
    for red, site in enumerate(sites):
        for n in range(n_each):
            name = f"20260504_{3 + n // 60:02d}{n % 60:02d}00.wav"
            write_tone(folder / site / name, 3.2 + n % 7, 300 + 37 * n + len(site))
        Image.new("RGB", (40, 24), (200 - 90 * (red % 3), 90, 90)).save(folder / site / "IMG_0001.JPG")
    write_tone(folder / "a_first.wav", 2.0, 700)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "noise.flac").write_bytes(np.random.default_rng(1).bytes(4096))
    whole = (folder / sites[0] / "20260504_030300.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "kept.clip.flac").write_bytes(b"not looked at")
    return folder


def kept(hub: Path) -> list[Observation]:
    """Return everything in the archive of a hub that does not run, in the order of seq."""
    archive = SqliteArchive.open(Settings(hub).archive_path)
    try:
        blocks = list(archive.blocks())
    finally:
        archive.close()
    found = [each for block in blocks for each in block.run.observations(NAME, block.epoch)]
    return sorted(found, key=lambda each: each.seq)
