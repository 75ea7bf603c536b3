"""An archive of recordings and pictures becomes the hub's, whole and once, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from edge.audio import FileSource
from edge.batch import Batch, Receipt
from edge.bundle import Bundle, write_bundle
from edge.codes import pack
from edge.encoder import open_audio_encoder
from edge.errors import HubError, UsageError
from edge.observation import Observation
from edge.windows import Window, windows
from hub.archive_sqlite import SqliteArchive
from hub.index import Indexed, IndexJob, index
from hub.index_delivery import FolderDelivery
from hub.index_encoding import Encoded
from hub.settings import Settings
from hub.store_index import Task, Totals
from hub.store_registry import Registry

DATA = Path(__file__).parents[1] / "data"
RATE_HZ = 16_000


class Silent:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def begun(self, totals: Totals, n_workers: int) -> None:
        self.totals = totals

    def encoded(self, task: Task, encoded: Encoded) -> None:
        self.names.append(task.name)

    def waited(self) -> None:
        pass


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of sound and pictures in one code space."""
    tiny, image = Bundle.load(DATA / "tiny_bundle"), Bundle.load(DATA / "tiny_image_bundle")
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
    return write_bundle(tmp_path_factory.mktemp("bundle") / "both", manifest, files).folder


def write_tone(path: Path, seconds: float, hz: float = 440.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(int(hz)).normal(0, 0.02, t.size)
    soundfile.write(path, (0.3 * np.sin(2 * np.pi * hz * t) + noise).astype(np.float32), RATE_HZ)


def write_picture(path: Path, red: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 24), (red, 90, 90)).save(path)


def run(archive: Path | str, bundle: Path, hub: Path, **options: object) -> Indexed:
    """Index into the files of a hub."""
    with FolderDelivery(Settings(hub)) as deliver:
        job = IndexJob(str(archive), bundle, name="cards", **options)  # type: ignore[arg-type]
        return index(job, hub / "index.sqlite", deliver, Silent())


def kept(hub: Path) -> list[Observation]:
    """Return everything in the hub's archive, in the order of seq."""
    archive = SqliteArchive.open(Settings(hub).archive_path)
    try:
        blocks = list(archive.blocks())
    finally:
        archive.close()
    found = [each for block in blocks for each in block.run.observations("cards", block.epoch)]
    return sorted(found, key=lambda each: each.seq)


@dataclass(frozen=True)
class Cards:
    """A folder as cards leave it, and a hub into which it was indexed by one worker."""

    archive: Path
    hub: Path
    done: Indexed
    found: list[Observation]


@pytest.fixture(scope="module")
def indexed(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Cards:
    """Return sound, pictures, damaged files and names that repeat; not to be changed."""
    folder, hub = tmp_path_factory.mktemp("archive") / "cards", tmp_path_factory.mktemp("hub")
    for site in ("alder", "birch"):
        for n in range(4):
            write_tone(folder / site / f"20260504_03{n:02d}00.wav", 3.2 + n, 300 + 137 * n + len(site))
        write_picture(folder / site / "IMG_0001.JPG", 200 if site == "alder" else 20)
    write_tone(folder / "a_first.wav", 2.0, 700)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "noise.flac").write_bytes(np.random.default_rng(1).bytes(4096))
    whole = (folder / "alder" / "20260504_030300.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "kept.clip.flac").write_bytes(b"not looked at")
    done = run(folder, bundle, hub)
    return Cards(folder, hub, done, kept(hub))


@pytest.fixture
def cards(indexed: Cards, tmp_path: Path) -> Cards:
    """Return a copy that may be changed."""
    shutil.copytree(indexed.archive, tmp_path / "cards")
    shutil.copytree(indexed.hub, tmp_path / "hub")
    return replace(indexed, archive=tmp_path / "cards", hub=tmp_path / "hub")


def test_what_is_kept_is_what_a_recorder_would_have_kept(indexed: Cards, bundle: Path) -> None:
    found = indexed.found
    assert [each.seq for each in found] == list(range(indexed.done.totals.n_observations))
    encoder = open_audio_encoder(Bundle.load(bundle))
    path = indexed.archive / "birch" / "20260504_030200.wav"
    events = FileSource([path], encoder.sample_rate_hz).events()
    half = encoder.window_samples // 2
    expected = [
        (
            pack(encoder.encode(each.samples)).tobytes(),
            each.first_sample,
            each.n_samples,
            each.instant.wall_ns,
        )
        for each in windows(events, encoder.window_samples, half, encoder.sample_rate_hz)
        if isinstance(each, Window)
    ]
    ours = [each for each in found if each.source == "birch/20260504_030200.wav"]
    assert [(each.code, each.first_sample, each.n_samples, each.instant.wall_ns) for each in ours] == expected
    assert expected[0][3] is not None
    assert [each.source for each in found if each.is_picture] == ["alder/IMG_0001.JPG", "birch/IMG_0001.JPG"]
    assert {each.name: each.n_observations > 0 for each in indexed.done.problems} == {
        "cut.wav": True,
        "empty.wav": False,
        "noise.flac": False,
    }


def test_the_number_of_workers_changes_nothing(indexed: Cards, bundle: Path, tmp_path: Path) -> None:
    run(indexed.archive, bundle, tmp_path / "three", n_workers=3)
    assert kept(tmp_path / "three") == indexed.found


def test_what_is_known_is_not_read_again_and_what_is_new_comes_after_it(cards: Cards, bundle: Path) -> None:
    write_tone(cards.archive / "alder" / "20250101_000000.wav", 2.0, 999)
    os.utime(cards.archive / "a_first.wav", ns=(1, 1))  # copied again: another time, the same bytes
    second = run(cards.archive, bundle, cards.hub)
    after = kept(cards.hub)
    assert second.n_new == 2
    assert after[: len(cards.found)] == cards.found
    assert {each.source for each in after[len(cards.found) :]} == {"alder/20250101_000000.wav"}
    assert second.totals.n_files == cards.done.totals.n_files + 1
    assert run(cards.archive, bundle, cards.hub).n_new == 0


def test_a_hub_that_lost_its_progress_keeps_nothing_twice(cards: Cards, bundle: Path) -> None:
    for file in cards.hub.glob("index.sqlite*"):
        file.unlink()
    assert run(cards.archive, bundle, cards.hub).totals.n_observations == len(cards.found)
    assert kept(cards.hub) == cards.found
    for file in cards.hub.glob("index.sqlite*"):
        file.unlink()
    (cards.archive / "a_first.wav").unlink()  # now the numbers would mean other files
    with pytest.raises(HubError, match="--name"):
        run(cards.archive, bundle, cards.hub)
    assert kept(cards.hub) == cards.found


def test_gaps_and_what_was_skipped_are_told_to_the_hub(indexed: Cards, tmp_path: Path) -> None:
    shutil.copytree(indexed.hub, tmp_path / "hub")
    with Registry.open(Settings(tmp_path / "hub").registry_path) as registry:
        device = registry.devices.named("cards")
        assert device.status == "enrolled"
        with registry.database.reading() as connection:
            rows = connection.execute("SELECT number, kind, source FROM event ORDER BY number").fetchall()
    assert rows == [(0, "skipped", "cut.wav"), (1, "skipped", "empty.wav"), (2, "skipped", "noise.flac")]


def test_files_that_gave_nothing_are_tried_again_where_asked(cards: Cards, bundle: Path) -> None:
    empty = cards.archive / "empty.wav"
    modified_ns = empty.stat().st_mtime_ns
    again = run(cards.archive, bundle, cards.hub, retry=True)
    assert again.n_new == 2
    assert len(again.problems) == 3
    write_tone(empty, 2.0)
    os.utime(empty, ns=(modified_ns, modified_ns + 5))
    repaired = run(cards.archive, bundle, cards.hub)
    assert {each.name for each in repaired.problems} == {"cut.wav", "noise.flac"}


def test_a_file_that_ends_its_worker_is_put_aside(
    indexed: Cards, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib\n"
        "opened = pathlib.Path.open\n"
        "def deadly(self, *args, **more):\n"
        "    if self.name == '20260504_030100.wav' and 'alder' in self.parts:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return opened(self, *args, **more)\n"
        "pathlib.Path.open = deadly\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    done = run(indexed.archive, bundle, tmp_path / "hub")
    reasons = {each.name: each.reason for each in done.problems}
    assert "signal 9" in reasons["alder/20260504_030100.wav"]
    codes = [each.code for each in indexed.found if each.source != "alder/20260504_030100.wav"]
    assert [each.code for each in kept(tmp_path / "hub")] == codes


_SCRIPT = """
import sys, time
from pathlib import Path
from hub.index import IndexJob, index
from hub.index_delivery import FolderDelivery
from hub.settings import Settings
class Report:
    def begun(self, totals, n_workers): pass
    def encoded(self, task, encoded): print("done", flush=True)
    def waited(self): pass
if __name__ == "__main__":
    archive, bundle, hub = sys.argv[1:4]
    with FolderDelivery(Settings(Path(hub))) as deliver:
        index(IndexJob(archive, Path(bundle), name="cards", n_workers=2), Path(hub) / "index.sqlite", deliver, Report())
    print("end", flush=True)
"""


def test_killed_at_any_moment_it_goes_on_where_it_was(indexed: Cards, bundle: Path, tmp_path: Path) -> None:
    script = tmp_path / "run_index.py"
    script.write_text(_SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    n_killed = 0
    for n_lines in (1, 4):
        process = subprocess.Popen(
            [sys.executable, script, indexed.archive, bundle, tmp_path / "hub"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(n_lines)]
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        n_killed += "end\n" not in lines
    assert n_killed
    run(indexed.archive, bundle, tmp_path / "hub", n_workers=2)
    assert kept(tmp_path / "hub") == indexed.found


class Forgetful:
    """A hub whose receipt is lost once."""

    def __init__(self, real: FolderDelivery) -> None:
        self.real, self.n = real, 0

    def enrol(self, device_id: str) -> None:
        self.real.enrol(device_id)

    def keep(self, batch: Batch) -> Receipt:
        receipt = self.real.keep(batch)
        self.n += 1
        if self.n == 1:
            raise HubError("the receipt was lost")
        return receipt


def test_a_batch_whose_receipt_was_lost_is_sent_again(indexed: Cards, bundle: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    job = IndexJob(str(indexed.archive), bundle, name="cards")
    with FolderDelivery(Settings(hub)) as real:
        forgetful = Forgetful(real)
        with pytest.raises(HubError, match="lost"):
            index(job, hub / "index.sqlite", forgetful, Silent())
        report = Silent()
        done = index(job, hub / "index.sqlite", forgetful, report)
    assert report.names == []  # nothing was encoded twice
    assert done.totals.n_observations == len(indexed.found)
    assert kept(hub) == indexed.found


def test_a_url_gives_the_same_as_the_folder(indexed: Cards, bundle: Path, tmp_path: Path) -> None:
    run(indexed.archive.as_uri(), bundle, tmp_path / "url")
    assert kept(tmp_path / "url") == indexed.found


def test_two_at_once_on_one_hub_are_refused(indexed: Cards, bundle: Path, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom hub.store_index import IndexStore\n"
        "with IndexStore(Path(sys.argv[1]), 'cards', 1, 'x'):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "hub" / "index.sqlite")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(HubError, match="wait for it"):
            run(indexed.archive, bundle, tmp_path / "hub")
        holder.communicate()


def test_a_place_that_is_no_folder_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        run(tmp_path / "nothing", bundle, tmp_path / "hub")
    with pytest.raises(UsageError, match="URL"):
        run("nonsense://x", bundle, tmp_path / "hub")
