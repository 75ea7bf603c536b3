"""What edge-hub index takes, shows and prints; and its way into a hub that runs."""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge.errors import HubError, UsageError
from hub.archive_sqlite import SqliteArchive
from hub.enrolment import new_code
from hub.index_command import Bar, Lines, Speed, add_arguments, run_index
from hub.index_delivery import UrlDelivery
from hub.index_encoding import Encoded
from hub.serving import opened_hub, running
from hub.settings import Settings
from hub.store_index import Task, Totals
from tests.simulate.fault_proxy import Fault, FaultProxy
from tests.simulate.recorder import Recorder

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for n in range(2):
        noise = np.random.default_rng(n).normal(0, 0.1, 8_000 * 3).astype(np.float32)
        soundfile.write(folder / f"2026050{n + 1}_030000.wav", noise, 8_000)
    (folder / "bad.wav").write_bytes(b"RIFF")
    return folder


def arguments(*given: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(each) for each in given])


def test_it_prints_what_was_wrong_and_a_summary(recordings: Path, tmp_path: Path) -> None:
    out = io.StringIO()
    args = arguments(recordings, "--bundle", TINY, "--workers", 1, "--json", "--name", "card")
    assert run_index(args, Settings(tmp_path / "hub"), out) == 0
    problem, summary = map(json.loads, out.getvalue().splitlines())
    assert (problem["type"], problem["source"], problem["n_observations"]) == ("problem", "bad.wav", 0)
    assert summary["device"] == "card"
    assert (summary["n_files"], summary["n_new"], summary["n_problems"]) == (3, 3, 1)
    assert summary["n_observations"] == 10  # two of 3 s, windows of 1 s every 0.5 s
    assert summary["seconds_audio"] == pytest.approx(6.0)
    again = io.StringIO()
    assert (
        run_index(
            arguments(recordings, "--bundle", TINY, "--name", "card"), Settings(tmp_path / "hub"), again
        )
        == 0
    )
    assert "card: 3 files, 0 of them new" in again.getvalue()


def test_it_fails_where_nothing_could_be_encoded(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "bad.wav").write_bytes(b"RIFF")
    args = arguments(tmp_path / "cards", "--bundle", TINY, "--workers", 1)
    assert run_index(args, Settings(tmp_path / "hub"), io.StringIO()) == 1
    with pytest.raises(UsageError, match="--workers"):
        run_index(arguments(tmp_path / "cards", "--workers", -1), Settings(tmp_path / "hub"))


def test_a_hub_that_runs_takes_it_as_a_recorders(recordings: Path, tmp_path: Path) -> None:
    settings = Settings(tmp_path / "hub", port=0)
    with opened_hub(settings) as app, running(app, settings) as url:
        args = arguments(recordings, "--bundle", TINY, "--workers", 1, "--name", "card", "--hub", url)
        here = Settings(tmp_path / "here")
        with pytest.raises(HubError, match="approve card"):
            run_index(args, here, io.StringIO())
        with pytest.raises(HubError, match="--hub URL"):
            run_index(arguments(recordings, "--bundle", TINY), settings, io.StringIO())
        app.state.hub.registry.devices.set_status("card", "enrolled")
        assert run_index(args, here, io.StringIO()) == 0
    archive = SqliteArchive.open(settings.archive_path)
    assert sum(archive.counts().values()) == 10
    archive.close()
    elsewhere = tmp_path / "elsewhere.sqlite"
    args = arguments(
        recordings, "--bundle", TINY, "--workers", 1, "--name", "card", "--archive", f"sqlite:{elsewhere}"
    )
    assert run_index(args, here, io.StringIO()) == 0  # what that hub has says nothing of this one
    archive = SqliteArchive.open(elsewhere)
    assert sum(archive.counts().values()) == 10
    archive.close()


def test_it_waits_where_the_hub_asks_to_come_again(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "hub", port=0)
    waited: list[float] = []
    recorder = Recorder("cards")
    batch = recorder.batch([recorder.run(0, 5)])
    with opened_hub(settings) as app, running(app, settings) as url:
        answers = iter([Fault("error"), Fault("lost reply"), Fault("cut request", 40)])
        with FaultProxy(url, lambda: next(answers, Fault())) as proxy:
            code = new_code(app.state.hub.registry, None, time.time_ns())
            with UrlDelivery(proxy.url, tmp_path / "key", code, waited.append) as deliver:
                deliver.enrol("cards")
                assert deliver.keep(batch).progress["observations"].next == 5
            assert waited == [1.0, 2.0, 4.0]
    with (
        opened_hub(settings) as app,
        running(app, settings) as url,
        FaultProxy(url, lambda: Fault("garbage")) as proxy,
        UrlDelivery(proxy.url, tmp_path / "key", None, waited.append) as deliver,
        pytest.raises(HubError, match="answer of a hub"),
    ):
        deliver.enrol("cards")
    refused = f"http://127.0.0.1:{proxy.url.rpartition(':')[2]}"
    with (
        UrlDelivery(refused, tmp_path / "key", None, waited.append) as deliver,
        pytest.raises(HubError, match="lost"),
    ):
        deliver.enrol("cards")
    assert max(waited) == 600.0


def test_speed_is_that_of_the_last_minute() -> None:
    now_s = [0.0]
    speed = Speed(lambda: now_s[0])
    assert speed.hours_per_s() == 0.0
    for _ in range(100):
        now_s[0] += 1.0
        speed.add(1800.0)
    assert speed.hours_per_s() == pytest.approx(0.5)
    for _ in range(100):
        now_s[0] += 1.0
        speed.add(3600.0)
    assert speed.hours_per_s() == pytest.approx(1.0)


def test_the_bar_and_the_lines_tell_hours_per_second() -> None:
    now_s = [0.0]
    totals = Totals(10, 4, 1, 1000, 400, 7, 3600.0)
    for kind in (Bar, Lines):
        stream = io.StringIO()
        with kind(stream, lambda: now_s[0]) as report:
            report.begun(totals, 2)
            now_s[0] += 40.0
            report.encoded(Task(4, b"a.wav", 100), Encoded("", (), 3, 7200.0))
            report.waited()
        assert "0.05 h/s" in stream.getvalue()
        assert "3.0 h of sound" in stream.getvalue()
