"""edge-monitor: flags over configuration, exit codes, and what each of its three reports says."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import sqlite3
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edge import monitor, results, search
from edge.audio_events import Block, Gap, Skipped
from edge.bundle import Bundle
from edge.errors import StoreError, UsageError
from edge.matcher import Matcher
from edge.monitor_arguments import configuration, parse_arguments
from edge.monitor_reports import JsonReport, PlainReport, position
from edge.monitor_view import LiveView, level_dbfs
from edge.observation import Instant
from edge.pipeline_keeper import Totals
from edge.stopping import Stop
from edge.store_reader import StoreReader
from edge.store_tables import StoreTables
from edge.systemd import notify
from edge.watchlist import Watchlist, write_watchlist

DETECTION_KEYS = [
    *("type", "query", "text", "source", "offset_s", "duration_s", "started_at", "distance", "probability"),
    *("false_alarms_per_day", "clip", "priority", "group"),
]
SUMMARY_KEYS = {"type", "n_windows", "n_detections", "n_skipped", "seconds_audio", "real_time_factor"}


@pytest.fixture
def base(tiny: Bundle, watchlist: Watchlist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return arguments that every run needs; the working folder is tmp_path."""
    monkeypatch.chdir(tmp_path)
    write_watchlist(tmp_path / "watchlist.json", watchlist)
    return ["--queries", "watchlist.json", "--bundle", str(tiny.folder)]


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_has_the_agreed_keys_and_ends_with_a_summary(
    base: list[str], runtime: str, write_tones: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tones(Path("a.wav"), (0, 2), (500, 3), (0, 2))
    Path("b.wav").write_bytes(b"no sound")
    assert monitor.main([*base, "--runtime", runtime, "--input", "a.wav", "b.wav", "--json"]) == 0
    state, *detections, skipped, summary = lines(capsys)
    assert (state["type"], state["state"], state["runtime"], state["queries"]) == (
        "state",
        "listening",
        runtime,
        2,
    )
    assert detections
    for detection in detections:
        assert list(detection) == DETECTION_KEYS
        assert (detection["query"], detection["source"], detection["started_at"]) == ("low", "a.wav", None)
        assert 1.0 < detection["offset_s"] < 5.0
        assert Path(detection["clip"]).is_file()
    assert (skipped["type"], skipped["file"]) == ("skipped", "b.wav")
    assert "not a sound file" in skipped["reason"]
    assert set(summary) >= SUMMARY_KEYS
    assert (summary["type"], summary["n_detections"], summary["n_skipped"]) == ("summary", len(detections), 1)
    assert (summary["n_windows"], summary["seconds_audio"]) == (13, 7.0)
    assert 0 < summary["real_time_factor"] < 1


def test_observations_and_clips_lie_beside_each_other(base: list[str], write_tones: Any) -> None:
    write_tones(Path("a.wav"), (500, 3))
    assert monitor.main([*base, "--input", "a.wav", "--store", "field/s.sqlite", "--device-id", "creek"]) == 0
    with StoreReader.open("field/s.sqlite") as reader:
        assert {observation.device_id for observation in reader.observations()} == {"creek"}
        assert len(list(reader.observations())) == 5
    assert len(list(Path("field/s-clips").iterdir())) == 1


def test_a_store_argument_that_ends_in_a_slash_is_a_new_folder(base: list[str], write_tones: Any) -> None:
    write_tones(Path("a.wav"), (500, 3))
    assert monitor.main([*base, "--input", "a.wav", "--store", "field/"]) == 0
    assert sorted(Path("field").iterdir()) == [
        Path("field", name)
        for name in ("observations-clips", "observations.sqlite", "observations.sqlite.lock")
    ]
    for command in (search, results):
        assert command._parse_arguments(["--store", "gone/"]).store == Path("gone/observations.sqlite")


def test_no_store_leaves_nothing_behind(
    base: list[str], write_tones: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tones(Path("a.wav"), (500, 3))
    before = set(Path().rglob("*"))
    assert monitor.main([*base, "--input", "a.wav", "--no-store", "--json"]) == 0
    assert set(Path().rglob("*")) == before
    assert {line["clip"] for line in lines(capsys) if line["type"] == "detection"} == {None}


def test_no_clips_keeps_observations_alone(base: list[str], write_tones: Any) -> None:
    write_tones(Path("a.wav"), (500, 3))
    assert monitor.main([*base, "--input", "a.wav", "--no-clips"]) == 0
    assert Path("fieldcube.sqlite").is_file()
    assert not Path("fieldcube-clips").exists()


@pytest.mark.parametrize(("hop", "n_windows"), [([], 5), (["--hop", "1"], 3), (["--hop", "0.25"], 9)])
def test_the_hop_is_half_a_window_unless_said_otherwise(
    hop: list[str], n_windows: int, base: list[str], write_tones: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tones(Path("a.wav"), (500, 3))
    assert monitor.main([*base, "--input", "a.wav", "--no-store", "--json", *hop]) == 0
    assert lines(capsys)[-1]["n_windows"] == n_windows


def test_raw_sound_is_read_from_standard_input(
    base: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    t = np.arange(3 * 48_000) / 48_000
    left = np.rint(9_000 * np.sin(2 * np.pi * 2500 * t)).astype("<i2")
    pcm = np.stack([left, left], axis=1).tobytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pcm)))
    arguments = ["--input", "-", "--rate", "48000", "--channels", "2", "--no-store", "--json"]
    assert monitor.main([*base, *arguments]) == 0
    detections = [line for line in lines(capsys) if line["type"] == "detection"]
    assert [(d["query"], d["source"], d["offset_s"]) for d in detections] == [
        ("high", "stdin", i / 2) for i in range(5)
    ]


def test_a_silent_pipe_does_not_keep_observations_from_the_disk(
    base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("c.toml").write_text("[monitor]\ncommit_interval_s = 0.5\n", encoding="utf-8")
    reading, writing = os.pipe()
    n_stored = []

    def feed() -> None:
        os.write(writing, bytes(2 * 8_000 * 2))
        poll = threading.Event()
        for _ in range(200):  # 10 s
            if Path("fieldcube.sqlite").exists():
                with suppress(StoreError), StoreReader.open("fieldcube.sqlite") as reader:
                    n_stored.append(len(list(reader.observations())))
            if n_stored and n_stored[-1] >= 3:
                break
            poll.wait(0.05)
        os.close(writing)

    thread = threading.Thread(target=feed)
    with open(reading, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        thread.start()
        assert (
            monitor.main([*base, "--input", "-", "--rate", "8000", "--no-clips", "--config", "c.toml"]) == 0
        )
        thread.join()
    assert n_stored[-1] == 3


@pytest.mark.parametrize("names", [["b.wav"], ["gone.wav"], ["b.wav", "gone.wav"]])
def test_nothing_that_can_be_heard_is_a_failure(
    names: list[str], base: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("b.wav").write_bytes(b"no sound")
    assert monitor.main([*base, "--input", *names, "--no-store", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["n_skipped"] == len(names)
    expected = f"edge-monitor: error: expected sound that can be heard, found none: {names[0]}: "
    assert captured.err.splitlines()[-1].startswith(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "a.wav"], "expected --queries FILE"),
        (["--queries", "w.txt"], "expected --input PATH or --microphone"),
        (["--queries", "w.txt", "--input", "-"], "--input -: expected --rate HZ"),
        (
            ["--queries", "w.txt", "--input", "a.wav", "--microphone"],
            "--input: expected it without --microphone",
        ),
        (
            ["--queries", "w.txt", "--input", "a.wav", "--no-store", "--store", "s"],
            "expected it without --no-store",
        ),
        (
            ["--queries", "w.txt", "--input", "a.wav", "--clips", "c", "--no-clips"],
            "expected it without --no-clips",
        ),
        (
            ["--queries", "w.txt", "--input", "-", "a.wav", "--rate", "8000"],
            'expected "-" (standard input) alone',
        ),
        (["--queries", "w.txt", "--microphone", "\udcff"], "--microphone: expected text in UTF-8"),
        (["--device-id", "\udcff"], "--device-id: expected text in UTF-8"),
        (["--queries", "w.txt", "--input", "a.wav", "--threads", "0"], "threads: expected an integer from 1"),
        (["--queries", "gone.txt", "--input", "a.wav"], "gone.txt: expected a watchlist, found No such file"),
        (["--config", "gone.toml"], "gone.toml: expected a configuration file"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(
    arguments: list[str],
    message: str,
    tiny: Bundle,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert monitor.main([*arguments, "--bundle", str(tiny.folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("edge-monitor: error: ")
    assert message in line


@pytest.mark.parametrize("hop", ["1.5", "-1", "0.01"])
def test_a_hop_that_passes_sound_unheard_is_refused(
    hop: str, base: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert monitor.main([*base, "--input", "a.wav", "--hop", hop]) == 2
    assert "expected" in capsys.readouterr().err


def test_a_bundle_without_calibration_is_refused(
    base: list[str], tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((tiny.folder / "manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps({**manifest, "calibration": None}))
    assert monitor.main([*base[:2], "--bundle", str(tmp_path / "bundle"), "--input", "a.wav"]) == 1
    assert "expected a calibration in the manifest, found none" in capsys.readouterr().err


def test_flags_go_before_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        '[deployment]\ndevice_id = "creek"\n[audio]\nmicrophone = "USB"\n[encoder]\nthreads = 2\n'
        '[monitor]\nqueries = "w.txt"\nhop_s = 3.0\nclip_pre_s = 1.5\n',
        encoding="utf-8",
    )
    config = configuration(parse_arguments(["--config", str(file)]))
    assert (config.audio.microphone, config.audio.input) == ("USB", ())
    assert config.monitor.queries == tmp_path / "w.txt"
    flags = ["--input", "a.wav", "--hop", "1", "--device-id", "pond", "--queries", "v.txt", "--no-clips"]
    config = configuration(parse_arguments(["--config", str(file), *flags]))
    assert (config.audio.microphone, config.audio.input) == (None, ("a.wav",))
    assert (config.monitor.hop_s, config.monitor.clip_pre_s, config.monitor.clips) == (1.0, 1.5, False)
    assert (config.deployment.device_id, config.encoder.threads, config.monitor.queries) == (
        "pond",
        2,
        Path("v.txt"),
    )


def test_a_microphone_without_name_is_the_default_one() -> None:
    config = configuration(parse_arguments(["--queries", "w.txt", "--microphone"]))
    assert config.audio.microphone == ""
    with pytest.raises(UsageError, match="expected --input PATH or --microphone"):
        configuration(parse_arguments(["--queries", "w.txt"]))


def test_a_damaged_store_is_put_aside_and_told(
    base: list[str], write_tones: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tones(Path("a.wav"), (500, 3))
    assert monitor.main([*base, "--input", "a.wav"]) == 0
    content = bytearray(Path("fieldcube.sqlite").read_bytes())
    content[:64] = bytes(64)
    Path("fieldcube.sqlite").write_bytes(content)
    capsys.readouterr()
    assert monitor.main([*base, "--input", "a.wav", "--json"]) == 0
    renewed, *_, summary = lines(capsys)
    assert (renewed["type"], renewed["state"]) == ("state", "store_begun_anew")
    assert Path(renewed["damaged"]).read_bytes()[:64] == bytes(64)
    with StoreReader.open("fieldcube.sqlite") as reader:
        assert len(list(reader.observations())) == summary["n_windows"]


def test_a_store_that_is_put_aside_while_it_is_written_is_told_and_health_goes_on(
    base: list[str], write_tones: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tones(Path("a.wav"), (2500, 3))
    Path("c.toml").write_text("[monitor]\ncommit_interval_s = 0\n", encoding="utf-8")
    told: list[str] = []
    monkeypatch.setattr(monitor, "notify", told.append)
    write, n_written = StoreTables.write, iter(range(100))

    def fail_once(*arguments: Any) -> None:
        if next(n_written) == 2:
            raise sqlite3.DatabaseError("database disk image is malformed")
        write(*arguments)

    monkeypatch.setattr(StoreTables, "write", fail_once)
    assert monitor.main([*base, "--input", "a.wav", "--config", "c.toml", "--json"]) == 0
    _, *detections, _ = lines(capsys)
    (renewed,) = [line for line in detections if line["type"] != "detection"]
    assert renewed["state"] == "store_begun_anew"
    assert detections.index(renewed) == 2  # before the first that the new store has
    assert Path(renewed["damaged"]).is_file()
    assert told == ["READY=1", *["WATCHDOG=1"] * 5, "STOPPING=1"]


def test_clips_that_are_lost_are_counted(
    base: list[str], write_tones: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tones(Path("a.wav"), (500, 3))
    Path("clips").write_bytes(b"no folder")
    arguments = [*base, "--input", "a.wav", "--no-store", "--clips", "clips"]
    assert monitor.main([*arguments, "--json"]) == 0
    assert lines(capsys)[-1]["n_clips_lost"] == 1
    assert monitor.main(arguments) == 0
    assert capsys.readouterr().out.endswith(", 1 clip lost\n")


def test_a_store_that_fails_is_a_state(watchlist: Watchlist, capsys: pytest.CaptureFixture[str]) -> None:
    report = JsonReport(sys.stdout, watchlist)
    report.failing("disk full")
    report.failing("")
    report.lost(Gap("mic", 8_000, 4_000, "away"), 8_000)
    assert lines(capsys) == [
        {"type": "state", "state": "store_failing", "reason": "disk full"},
        {"type": "state", "state": "store_recovered", "reason": None},
        {"type": "gap", "source": "mic", "offset_s": 1.0, "duration_s": 0.5, "reason": "away"},
    ]


def test_lines_for_people(base: list[str], write_tones: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write_tones(Path("20260504_031500.wav"), (0, 2), (500, 1))
    assert monitor.main([*base, "--input", "20260504_031500.wav", "--no-store"]) == 0
    *detections, summary = capsys.readouterr().out.splitlines()
    assert detections[-1].startswith("2026-05-04T03:15:02.000Z  low  (100 %, ")
    assert detections[-1].endswith("20260504_031500.wav at 0:00:02.0")
    assert summary.startswith("3.0 s of sound, ")
    assert f"5 windows, {len(detections)} detection" in summary


def test_plain_diagnostics_go_to_the_error_stream(watchlist: Watchlist) -> None:
    out, errors = io.StringIO(), io.StringIO()
    report = PlainReport(out, watchlist, errors)
    report.lost(Gap("mic", 8_000, 4_000, "away"), 8_000)
    report.skipped(Skipped("b.wav", "bad"))
    report.failing("disk full")
    report.failing("")
    assert out.getvalue() == ""
    assert errors.getvalue().splitlines() == [
        "gap: mic at 0:00:01.0: 0.50 s missing: away",
        "skipped: b.wav: bad",
        "warning: disk full",
        "the store can be written again",
    ]


def test_the_live_view_shows_level_speed_nearest_queries_and_detections(
    tiny: Bundle, watchlist: Watchlist, observe: Any
) -> None:
    assert tiny.manifest.calibration is not None
    matcher = Matcher(watchlist, tiny.manifest.decoys, tiny.manifest.calibration)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None, markup=False)
    totals, now = Totals(n_windows=3, n_detections=1, seconds_audio=5.0), iter(range(1000))
    view = LiveView(matcher, watchlist, totals, lambda: 0.0123, console, clock=lambda: float(next(now)))
    half = np.full(8_000, 0.5, np.float32)
    view.heard(Block("a [1].wav", half, 0, Instant("b", 0, None, "unset")))
    code = watchlist.queries[0].code
    assert code is not None
    observation = observe(code)
    view.observed(observation, matcher.match(observation))
    view.skipped(Skipped("b [/x].wav", "bad"))
    view.summary(totals, 0.01)
    shown = out.getvalue()
    for expected in (
        *("█", "-6.0 dBFS", "real-time factor 0.0123", "3 windows, 1 detections", "a [1].wav", "low 100 %"),
        *("decoy: noise", "low  (100 %, 0 bits)", "skipped: b [/x].wav: bad", "100 times real time"),
    ):
        assert expected in shown


@pytest.mark.parametrize(
    ("amplitude", "expected"), [(1.0, 0.0), (0.5, -6.02), (0.0, -90.0), (1e-9, -90.0), (2.0, 0.0)]
)
def test_level_is_in_db_of_full_scale(amplitude: float, expected: float) -> None:
    rms, peak = level_dbfs(np.full(100, amplitude, np.float32))
    assert rms == pytest.approx(expected, abs=0.01)
    assert peak == pytest.approx(expected, abs=0.01)
    assert level_dbfs(np.empty(0, np.float32)) == (-90.0, -90.0)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, "0:00:00.0"), (59.96, "0:01:00.0"), (3725.5, "1:02:05.5")]
)
def test_positions_are_hours_minutes_seconds(seconds: float, expected: str) -> None:
    assert position(seconds) == expected


def test_a_signal_while_waiting_ends_the_stream() -> None:
    def events() -> Any:
        yield 1
        os.kill(os.getpid(), signal.SIGTERM)
        yield 2

    with Stop().on_signals() as stop:
        assert list(stop.until_asked(events())) == [1]
    assert stop.is_asked


def test_a_signal_while_working_lets_the_event_finish() -> None:
    done = []
    before = signal.getsignal(signal.SIGINT)
    with Stop().on_signals() as stop:
        for event in stop.until_asked(iter(range(10))):
            os.kill(os.getpid(), signal.SIGINT)
            done.append(event)
    assert done == [0]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_interrupts_at_once() -> None:
    stop = Stop()
    stop.ask()
    with pytest.raises(KeyboardInterrupt):
        stop.ask()


def test_systemd_is_told_when_it_listens(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(5)
        assert notify("READY=1", {"NOTIFY_SOCKET": address})
        assert manager.recv(100) == b"READY=1"
    assert not notify("READY=1", {"NOTIFY_SOCKET": address})
    assert not notify("READY=1", {})


def test_health_is_a_code_that_was_written(
    base: list[str], write_tones: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tones(Path("a.wav"), (500, 3))
    Path("c.toml").write_text("[monitor]\ncommit_interval_s = 0\n", encoding="utf-8")
    told: list[str] = []
    monkeypatch.setattr(monitor, "notify", told.append)
    assert monitor.main([*base, "--input", "a.wav", "--config", "c.toml"]) == 0
    assert told == ["READY=1", *["WATCHDOG=1"] * 5, "STOPPING=1"]
    told.clear()
    Path("c.toml").write_text("[monitor]\ncommit_interval_s = 600\n", encoding="utf-8")
    assert monitor.main([*base, "--input", "a.wav", "--config", "c.toml"]) == 0
    assert told == ["READY=1", "STOPPING=1"]  # observed, but not written yet


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        monitor.main(["--help"])
    assert ended.value.code == 0
    assert "edge-monitor --queries watchlist.txt --input recordings/" in capsys.readouterr().out
