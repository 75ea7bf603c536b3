"""Pictures from a folder to the store, to a search, to a table; and beside sound, with one bundle for both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from edge import check, monitor, results, search
from edge.audio_events import Skipped
from edge.bundle import Bundle
from edge.check_board import Check, check_memory, picture_memory_mb
from edge.codes import pack
from edge.config import Audio
from edge.encoder import ImageEncoder, encode_picture, open_image_encoder
from edge.matcher import Matcher
from edge.monitor_inputs import inputs_of
from edge.monitor_view import LiveView
from edge.observation import Detection, Observation, from_wire, to_wire
from edge.picture_files import Picture, PictureSource
from edge.pipeline_keeper import Keeper, Totals
from edge.pipeline_pictures import PicturePipeline
from edge.store import ObservationStore
from edge.store_reader import Period, StoreReader
from edge.unstored import Unstored
from edge.watchlist import Watchlist, write_watchlist

Paint = Callable[..., Path]
CAMTRAP = Path(__file__).parents[1] / "data" / "camtrap"
DETECTION_KEYS = [
    *("type", "query", "text", "source", "offset_s", "duration_s", "started_at", "distance", "probability"),
    *("false_alarms_per_day", "clip", "priority", "group"),
]


@pytest.fixture
def card(paint: Paint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder as a camera leaves it: two colours, a grey one, a damaged one, other files; the working folder is above."""
    monkeypatch.chdir(tmp_path)
    exif = Image.Exif()
    exif[0x8769] = {0x9003: "2026:05:04 14:00:00", 0x9011: "+02:00"}
    paint(Path("card/100/IMG_0002.JPG"), (200, 90, 90), exif=exif, quality=95)
    paint(Path("card/100/20260504_120001.png"), (90, 90, 200))
    paint(Path("card/IMG_0001.jpg"), (128, 128, 128), quality=95)
    Path("card/100/IMG_0003.JPG").write_bytes(Path("card/100/IMG_0002.JPG").read_bytes()[:500])
    Path("card/.thumbs.jpg").write_bytes(b"hidden")
    Path("card/notes.txt").write_text("no picture")
    return Path("card")


def test_options_that_pictures_cannot_use_are_told(
    tiny_image: Bundle, colours: Watchlist, card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    red, *others = colours.queries
    write_watchlist(Path("timed.json"), replace(colours, queries=(replace(red, cooldown_s=60.0), *others)))
    run = ["--queries", "timed.json", "--bundle", str(tiny_image.folder), "--input", "card", "--json"]
    assert monitor.main([*run, "--no-store"]) == 0
    (ignored,) = [line for line in lines(capsys) if line.get("state") == "options_ignored"]
    assert (ignored["options"], ignored["queries"]) == ("cooldown", "red")
    assert ignored["reason"] == "pictures are told by their probability"


@pytest.fixture
def base(tiny_image: Bundle, colours: Watchlist, tmp_path: Path) -> list[str]:
    write_watchlist(tmp_path / "watchlist.json", colours)
    return ["--queries", str(tmp_path / "watchlist.json"), "--bundle", str(tiny_image.folder)]


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_folder_of_pictures_is_told_line_by_line(
    base: list[str], runtime: str, card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert monitor.main([*base, "--runtime", runtime, "--input", "card", "--json"]) == 0
    state, blue, red, skipped, summary = lines(capsys)
    assert (state["type"], state["state"], state["runtime"]) == ("state", "looking", runtime)
    assert (state["queries"], state["size_pixels"]) == (3, 16)
    for found, query, source, started in (
        (blue, "blue", "card/100/20260504_120001.png", "2026-05-04T12:00:01.000Z"),
        (red, "red", "card/100/IMG_0002.JPG", "2026-05-04T12:00:00.000Z"),
    ):
        assert list(found) == DETECTION_KEYS
        assert (found["query"], found["source"], found["started_at"]) == (query, source, started)
        assert (found["offset_s"], found["duration_s"], found["clip"]) == (0.0, 0.0, None)
        assert found["probability"] > 0.9
    assert (skipped["type"], skipped["file"]) == ("skipped", "card/100/IMG_0003.JPG")
    assert "truncated" in skipped["reason"].lower()
    counts = (
        "type",
        "n_windows",
        "n_pictures",
        "n_detections",
        "n_skipped",
        "seconds_audio",
        "real_time_factor",
    )
    assert [summary[key] for key in counts] == ["summary", 3, 3, 2, 1, 0, None]


def test_every_picture_is_an_observation_in_the_store(
    base: list[str], card: Path, tiny_image: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert monitor.main([*base, "--input", "card", "--device-id", "camera"]) == 0
    encoder = open_image_encoder(tiny_image)
    with StoreReader.open(None) as reader:
        stored = list(reader.observations())
        assert [event.kind for event in reader.events()] == ["skipped"]
        in_may = Period.parse("2026-05-01", "2026-06-01")
        assert len(list(reader.detections(in_may))) == 2
        assert reader.n_without_time() == 1
    assert [each.source for each in stored] == [
        "card/IMG_0001.jpg", "card/100/20260504_120001.png", "card/100/IMG_0002.JPG",
    ]  # fmt: skip
    for each in stored:
        assert each.is_picture
        assert each.code == pack(encode_picture(encoder, Path(each.source))).tobytes()
        assert from_wire(to_wire(each)) == each
    assert [each.instant.clock_state for each in stored] == ["unset", "rtc", "rtc"]
    assert not list(Path().glob("*clips"))
    out = capsys.readouterr().out
    assert "2026-05-04T12:00:00.000Z  red  (" in out
    assert " at 0:00" not in out
    assert out.splitlines()[-1] == "3 pictures, 2 detections, 1 skipped"


def test_pictures_of_many_blocks_are_read_back_as_they_were(
    tiny_image: Bundle, colours: Watchlist, tmp_path: Path
) -> None:
    assert tiny_image.manifest.calibration is not None
    matcher = Matcher(colours, (), tiny_image.manifest.calibration)
    encoder = open_image_encoder(tiny_image)
    with ObservationStore.open(tmp_path / "s.sqlite", "camera", block_observations=4) as store:
        keeper = Keeper(store, Notes())
        PicturePipeline(encoder, matcher, keeper).run(PictureSource([CAMTRAP] * 4, encoder.takes).events())
        assert (keeper.totals.n_windows, keeper.totals.n_pictures) == (12, 12)
        store.flush()
        with StoreReader.open(tmp_path / "s.sqlite") as reader:
            stored = list(reader.observations())
    assert stored == [observation for observation, _ in keeper.listener.observed_]  # type: ignore[attr-defined]
    assert len({each.code for each in stored}) == 3


def test_a_search_finds_them_by_words_and_by_a_picture(
    base: list[str], card: Path, tiny_image: Bundle, paint: Paint, capsys: pytest.CaptureFixture[str]
) -> None:
    assert monitor.main([*base, "--input", "card", "--json"]) == 0
    capsys.readouterr()
    looks = ["--bundle", str(tiny_image.folder), "--top", "1", "--json"]
    paint(Path("example.webp"), (90, 90, 180), (64, 64))
    for asked, source in (
        (["a red one"], "card/100/IMG_0002.JPG"),
        (["--image", "example.webp"], "card/100/20260504_120001.png"),
        (["blue", "--asymmetric"], "card/100/20260504_120001.png"),
    ):
        assert search.main([*asked, *looks]) == 0
        (found,) = lines(capsys)
        assert (found["source"], found["offset_s"], found["duration_s"]) == (source, 0.0, 0.0)
        assert found["query"] == asked[-1] or found["query"] == asked[0]
    assert search.main(["red", *looks[:-1]]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "IMG_0002" in line)
    assert "0:00:00.0" not in row
    assert search.main(["red", "--image", "example.webp", *looks]) == 2
    assert search.main(["--image", "gone.jpg", *looks]) == 1
    assert (
        "gone.jpg: expected a picture that can be read, found: cannot be read: No such"
        in capsys.readouterr().err
    )


def test_tables_of_positions_are_for_sound_alone(
    base: list[str], card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert monitor.main([*base, "--input", "card", "--json"]) == 0
    capsys.readouterr()
    assert results.main(["--format", "csv"]) == 0
    assert capsys.readouterr().out.count("card/100/") == 2
    assert results.main(["--format", "raven"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert "2 detections in pictures are not for raven" in err


def test_pictures_that_cannot_be_read_are_a_failure_where_there_is_nothing_else(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("a.jpg").write_bytes(b"")
    for given, reason in (
        ("empty", "no pictures in this folder"),
        ("gone", "no such file or folder"),
        ("a.jpg", "empty: no bytes"),
    ):
        assert monitor.main([*base, "--input", given, "--no-store"]) == 1
        assert f"expected pictures that can be read, found none: {given}: {reason}" in capsys.readouterr().err


def test_a_microphone_needs_an_encoder_of_sound(base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert monitor.main([*base, "--input", "-", "--rate", "8000", "--no-store"]) == 1
    assert "expected a audio encoder, found image/onnx" in capsys.readouterr().err


class Notes:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.observed_: list[tuple[Observation, Sequence[Detection]]] = []
        self.skipped_: list[Skipped] = []

    def heard(self, block: Any) -> None:
        raise AssertionError("nothing is heard")

    def observed(self, observation: Observation, detections: Sequence[Detection]) -> None:
        self.observed_.append((observation, detections))

    def lost(self, gap: Any, sample_rate_hz: int) -> None:
        raise AssertionError("nothing is lost")

    def skipped(self, skipped: Skipped) -> None:
        self.skipped_.append(skipped)

    def failing(self, reason: str) -> None:
        raise AssertionError(reason)


def test_a_picture_that_the_encoder_refuses_is_skipped_and_the_next_counts(
    tiny_image: Bundle, colours: Watchlist
) -> None:
    assert tiny_image.manifest.calibration is not None
    real = open_image_encoder(tiny_image)

    def run(pixels: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return real.run(pixels) if pixels.mean() < 0.2 else np.full(256, np.nan, np.float32)

    encoder = ImageEncoder(real.code_space, 256, real.runtime, real.takes, real.file, run)
    matcher = Matcher(colours, (), tiny_image.manifest.calibration)
    pictures = list(PictureSource([CAMTRAP], real.takes).events())
    assert all(isinstance(each, Picture) for each in pictures)
    bright = replace(pictures[0], pixels=np.ones((3, 16, 16), np.float32))  # type: ignore[type-var]
    keeper = Keeper(Unstored("camera"), Notes(), Totals())
    PicturePipeline(encoder, matcher, keeper).run([bright, *pictures])
    notes = keeper.listener
    assert isinstance(notes, Notes)
    assert [each.seq for each, _ in notes.observed_] == [0, 1, 2]
    (skipped,) = notes.skipped_
    assert "not encoded: " in skipped.reason
    assert "256 that are not" in skipped.reason
    assert (keeper.totals.n_pictures, keeper.totals.n_skipped) == (3, 1)


def test_one_bundle_hears_and_sees(
    both: Bundle,
    colours: Watchlist,
    card: Path,
    write_tones: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_watchlist(tmp_path / "watchlist.json", colours)
    write_tones(Path("card/a.wav"), (500, 2))  # red, by the code space that both share
    paths = ["card", "card/IMG_0001.jpg", "card/a.wav"]
    base = ["--queries", "watchlist.json", "--bundle", str(both.folder), "--json"]
    assert monitor.main([*base, "--input", *paths]) == 0
    told = lines(capsys)
    assert [line["state"] for line in told if line["type"] == "state"] == ["listening", "looking"]
    found = {(line["source"], line["query"]) for line in told if line["type"] == "detection"}
    assert found == {
        ("card/a.wav", "red"), ("card/100/IMG_0002.JPG", "red"), ("card/100/20260504_120001.png", "blue"),
    }  # fmt: skip
    summary = told[-1]
    assert (summary["n_windows"], summary["n_pictures"], summary["n_skipped"]) == (10, 4, 1)
    assert summary["real_time_factor"] > 0
    assert search.main(["a low tone", "--bundle", str(both.folder), "--top", "7", "--json"]) == 0
    assert {Path(line["source"]).name for line in lines(capsys)} == {"a.wav", "IMG_0002.JPG"}


def test_what_is_heard_and_what_is_looked_at(
    tiny: Bundle, tiny_image: Bundle, both: Bundle, card: Path, tmp_path: Path
) -> None:
    Path("sounds").mkdir()
    Path("sounds/a.wav").write_bytes(b"")
    Path("neither").mkdir()
    given = Audio(input=("card", "sounds", "neither", "card/IMG_0001.jpg", "gone.wav", "odd.bin"))
    assert inputs_of(given, tiny).pictures == ()
    assert inputs_of(given, tiny).sound == given
    assert inputs_of(given, tiny_image).pictures == given.input
    assert inputs_of(given, tiny_image).sound is None
    found = inputs_of(given, both)
    assert found.pictures == ("card", "card/IMG_0001.jpg")
    assert found.sound is not None
    assert found.sound.input == ("sounds", "neither", "gone.wav", "odd.bin")
    for live in (Audio(microphone=""), Audio(input=("-",), sample_rate_hz=8_000)):
        assert inputs_of(live, both).sound == live
        assert inputs_of(live, both).pictures == ()


def test_the_live_view_of_pictures_has_no_meter(
    tiny_image: Bundle, colours: Watchlist, base: list[str]
) -> None:
    assert tiny_image.manifest.calibration is not None
    console = Console(width=160, height=20, force_terminal=True, record=True)
    matcher = Matcher(colours, (), tiny_image.manifest.calibration)
    totals, times = Totals(), iter(range(1000))
    view = LiveView(matcher, colours, totals, lambda: None, console, clock=lambda: float(next(times)))
    encoder = open_image_encoder(tiny_image)
    keeper = Keeper(Unstored("camera"), view, totals)
    PicturePipeline(encoder, matcher, keeper).run(
        PictureSource([CAMTRAP / "352.jpg"], encoder.takes).events()
    )
    view.close()
    with console.capture() as captured:
        console.print(view._view())
    assert "352.jpg" in captured.get()
    assert "1 windows" in captured.get()
    assert "dBFS" not in captured.get()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return run(arguments): the exit code and edge-check's checks by name."""
    monkeypatch.chdir(tmp_path)
    for name in ("check_disk", "check_store"):
        monkeypatch.setattr(check, name, lambda *_: Check("board", True, None))

    def main(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        code = check.main([*arguments, "--json"])
        return code, {each["name"]: each for each in lines(capsys)}

    return main


def test_golden_pictures_and_sentences_are_checked_in_every_runtime(
    run: Any, both: Bundle, tiny_image: Bundle, runtime: str
) -> None:
    code, found = run("--bundle", str(tiny_image.folder))
    assert code == 0
    assert {f"golden image {runtime}", f"golden image {runtime} bits", f"golden text {runtime}"} <= set(found)
    assert found["encoder of pictures"]["ok"]
    assert found["speed of pictures"]["value"] > 0
    assert "hop" not in found
    code, found = run("--bundle", str(both.folder))
    assert code == 0
    assert {"hop", "speed", "speed of pictures", f"golden audio {runtime}", f"golden image {runtime}"} <= set(
        found
    )


def test_a_board_that_sees_something_else_fails(
    run: Any, tiny_image: Bundle, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge import images

    def left_edge(image: Image.Image, size: int) -> Image.Image:
        return image.resize((size, size), Image.Resampling.NEAREST, (0, 0, 9, 24))

    monkeypatch.setattr(images, "_centre", left_edge)
    code, found = run("--bundle", str(tiny_image.folder))
    assert code == 1
    assert not found[f"golden image {runtime}"]["ok"]


def test_a_missing_head_fails(run: Any, tiny_image: Bundle, runtime: str, tmp_path: Path) -> None:
    shutil.copytree(tiny_image.folder, tmp_path / "b")
    (tmp_path / "b" / f"image_head.{runtime}").unlink()
    code, found = run("--bundle", str(tmp_path / "b"))
    assert code == 1
    assert f"image_head.{runtime}: expected a file of the bundle" in found["bundle"]["hint"]


def test_pictures_may_take_half_of_the_boards_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:        1953125 kB\nMemFree: 1 kB\n")
    assert picture_memory_mb(tmp_path / "meminfo") == pytest.approx(1000)
    assert picture_memory_mb(tmp_path / "none") == 150
    (tmp_path / "status").write_text("VmRSS:\t  292969 kB\n")
    assert not check_memory(tmp_path / "status").ok
    assert check_memory(tmp_path / "status", limit_mb=1000).ok
