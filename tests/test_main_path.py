"""The main path as a user has it: edge-monitor as a process, from files and pipes to the store and back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import soundfile

from edge.bundle import default_bundle
from edge.store_reader import StoreReader

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny_bundle"
EXAMPLES = ROOT / "examples"
RATE_HZ = 22_050
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def tone(hz: float, seconds: float) -> np.ndarray[Any, np.dtype[np.int16]]:
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return np.rint(9_000 * np.sin(2 * np.pi * hz * t)).astype(np.int16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A watchlist by example, which needs no text encoder, and a configuration that commits at once."""
    for name, hz in (("low", 500), ("high", 2500)):
        soundfile.write(tmp_path / f"{name}.wav", tone(hz, 2), RATE_HZ)
    (tmp_path / "watchlist.txt").write_text("sound: low.wav | name=low\nsound: high.wav | name=high\n")
    (tmp_path / "c.toml").write_text("[monitor]\ncommit_interval_s = 0\n")
    return tmp_path


def command(*arguments: str) -> list[str]:
    base = ["--queries", "watchlist.txt", "--bundle", str(TINY), "--config", "c.toml", "--json"]
    return [sys.executable, "-m", "edge.monitor", *base, *arguments]


def run(folder: Path, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def next_detection(out: IO[bytes]) -> dict[str, Any]:
    for line in out:
        record: dict[str, Any] = json.loads(line)
        if record["type"] == "detection":
            return record
    raise AssertionError("the output ended without a detection")


def test_a_folder_of_recordings_with_damaged_ones(folder: Path) -> None:
    card = folder / "card"
    (card / "sub").mkdir(parents=True)
    soundfile.write(card / "a.flac", np.concatenate([tone(1400, 2), tone(500, 2), tone(1400, 2)]), RATE_HZ)
    soundfile.write(card / "sub" / "c.ogg", tone(2500, 2), RATE_HZ)
    (card / "b.wav").write_bytes(b"RIFF damaged")
    whole = (folder / "high.wav").read_bytes()
    (card / "d.wav").write_bytes(whole[: len(whole) // 2 + 1])
    code, lines, _ = run(folder, "--input", "card")
    assert code == 0
    assert {(line["source"], line["query"]) for line in lines if line["type"] == "detection"} == {
        ("card/a.flac", "low"),
        ("card/sub/c.ogg", "high"),
        ("card/d.wav", "high"),
    }
    skipped = {line["file"]: line["reason"] for line in lines if line["type"] == "skipped"}
    assert list(skipped) == ["card/b.wav", "card/d.wav"]
    assert "truncated" in skipped["card/d.wav"]
    assert (lines[-1]["type"], lines[-1]["n_skipped"]) == ("summary", 2)
    with StoreReader.open(folder / "fieldcube.sqlite") as reader:
        assert len(list(reader.observations())) == lines[-1]["n_windows"]
        assert len(list(reader.detections())) == lines[-1]["n_detections"]
    for line in lines:
        assert line["type"] != "detection" or (folder / line["clip"]).is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_a_summary_and_keeps_everything(number: signal.Signals, folder: Path) -> None:
    arguments = command("--input", "-", "--rate", str(RATE_HZ))
    with subprocess.Popen(
        arguments,
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(tone(500, 4).tobytes())
        process.stdin.flush()  # and the pipe stays open: it waits for more
        assert next_detection(process.stdout)["query"] == "low"
        process.send_signal(number)
        *_, last = map(json.loads, process.stdout)
        assert process.wait(60) == 0
    assert last["type"] == "summary"
    with StoreReader.open(folder / "fieldcube.sqlite") as reader:
        assert len(list(reader.observations())) == last["n_windows"] > 0
    assert list((folder / "fieldcube-clips").glob("*.clip.flac"))


def test_kill_loses_nothing_that_was_told_and_the_next_run_goes_on(folder: Path) -> None:
    arguments = command("--input", "-", "--rate", str(RATE_HZ))
    with subprocess.Popen(
        arguments,
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(tone(500, 6).tobytes())
        process.stdin.flush()
        told = [next_detection(process.stdout) for _ in range(3)]
        process.kill()
    with StoreReader.open(folder / "fieldcube.sqlite") as reader:
        kept = [observation.offset_s for observation, _ in reader.detections()]
        epoch = next(iter(reader.observations())).epoch
    assert {line["offset_s"] for line in told} <= set(kept)
    code, lines, _ = run(folder, "--input", "high.wav")
    assert code == 0
    with StoreReader.open(folder / "fieldcube.sqlite") as reader:
        stored = list(reader.observations())
    assert [observation.seq for observation in stored] == list(range(len(stored)))
    assert {observation.epoch for observation in stored} == {epoch}
    assert sum(observation.source == "high.wav" for observation in stored) == lines[-1]["n_windows"]


def test_two_recorders_cannot_write_one_store(folder: Path) -> None:
    arguments = command("--input", "-", "--rate", str(RATE_HZ))
    with subprocess.Popen(
        arguments,
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(tone(500, 4).tobytes())
        process.stdin.flush()
        next_detection(process.stdout)
        code, lines, error = run(folder, "--input", "high.wav")
        process.stdin.close()
        assert process.wait(60) == 0
    assert (code, lines) == (1, [])
    assert error.splitlines()[-1].startswith("edge-monitor: error: ")


@pytest.mark.skipif(
    not (default_bundle() / "manifest.json").is_file(), reason="the starter bundle is not here"
)
def test_the_starter_hears_what_is_in_the_example() -> None:
    truth = (EXAMPLES / "forest_minute.selections.txt").read_text(encoding="utf-8").splitlines()
    spans = [dict(zip(truth[0].split("\t"), line.split("\t"), strict=False)) for line in truth[1:]]
    arguments = [
        "--queries",
        "examples/watchlist.txt",
        "--input",
        "examples/forest_minute.ogg",
        "--no-store",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "edge.monitor", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = [line["offset_s"] for line in lines if line["type"] == "detection"]
    overlapping = [
        span
        for span in spans
        if any(at < float(span["End Time (s)"]) and float(span["Begin Time (s)"]) < at + 5 for at in found)
    ]
    assert len(overlapping) >= len(spans) / 2
    assert lines[-1]["real_time_factor"] < 0.5
