"""An archive of recordings and pictures becomes the hub's, whole and once, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edge.audio import FileSource
from edge.batch import Batch, Receipt
from edge.bundle import Bundle
from edge.codes import pack
from edge.encoder import open_audio_encoder
from edge.errors import HubError, UsageError
from edge.observation import Observation
from edge.windows import Window, windows
from hub.index import Indexed, IndexJob, index
from hub.index_delivery import FolderDelivery
from hub.index_encoding import Encoded
from hub.settings import Settings
from hub.store_index import Task, Totals
from hub.store_registry import Registry
from tests.simulate.card_archive import N_DAMAGED, NAME, kept, write_bundle_of_both, write_cards, write_tone
from tests.simulate.fake_s3 import fake_s3


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
    return write_bundle_of_both(tmp_path_factory.mktemp("bundle") / "both")


def run(archive: Path | str, bundle: Path, hub: Path, **options: object) -> Indexed:
    """Index into the files of a hub."""
    with FolderDelivery(Settings(hub)) as deliver:
        job = IndexJob(str(archive), bundle, name=NAME, **options)  # type: ignore[arg-type]
        return index(job, hub / "index.sqlite", deliver, Silent())


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
    write_cards(folder)
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
    assert second.totals.n_observations == len(after)
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
        device = registry.devices.named(NAME)
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
        index(IndexJob(archive, Path(bundle), name=NAME, n_workers=2), Path(hub) / "index.sqlite", deliver, Report())
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
    job = IndexJob(str(indexed.archive), bundle, name=NAME)
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


def test_a_bucket_of_s3_gives_the_same_as_the_folder(indexed: Cards, bundle: Path, tmp_path: Path) -> None:
    objects = {
        f"2026/{path.relative_to(indexed.archive).as_posix()}": path.read_bytes()
        for path in indexed.archive.rglob("*")
        if path.is_file()
    }
    with fake_s3({**objects, "2025/other.wav": b"", "2026/.trash/a.wav": b""}) as (url, requests):
        run(url.format("/2026"), bundle, tmp_path / "s3")
        assert kept(tmp_path / "s3") == indexed.found
        n_requests = len(requests)
        assert run(url.format("/2026"), bundle, tmp_path / "s3").n_new == 0
        assert all("list-type" in each for each in requests[n_requests:])  # nothing was fetched again
        with pytest.raises(HubError, match="s3://nothing/2026: .*NO_SUCH_BUCKET") as told:
            run(url.format("/2026").replace("@cards", "@nothing"), bundle, tmp_path / "s3")
    assert "secret" not in str(told.value)


class Unplugged(Silent):
    """Takes a folder away when all of it is listed."""

    def __init__(self, folder: Path, to: Path) -> None:
        super().__init__()
        self._folder, self._to = folder, to

    def begun(self, totals: Totals, n_workers: int) -> None:
        self._folder.rename(self._to)


def test_a_disk_that_goes_away_makes_no_file_a_bad_one(cards: Cards, bundle: Path, tmp_path: Path) -> None:
    later, away = cards.archive / "later", tmp_path / "away"
    for n in range(25):
        write_tone(later / f"{n:02d}.wav", 1.0, 500 + n)
    job = IndexJob(str(cards.archive), bundle, name=NAME)
    with FolderDelivery(Settings(cards.hub)) as deliver:
        with pytest.raises(HubError, match="is it still there"):
            index(job, cards.hub / "index.sqlite", deliver, Unplugged(later, away))
        away.rename(later)
        again = index(job, cards.hub / "index.sqlite", deliver, Silent())
        assert len(again.problems) == N_DAMAGED
        for n in range(3):
            write_tone(later / f"gone {n}.wav", 1.0, 800 + n)
        few = index(job, cards.hub / "index.sqlite", deliver, Unplugged(later, away))
    assert len(few.problems) == N_DAMAGED + 3  # a few are taken for what they are
    assert len(kept(cards.hub)) == len(cards.found) + 25


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
