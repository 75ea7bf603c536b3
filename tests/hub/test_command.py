from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cbor2
import httpx
import pytest

from hub.archive_sqlite import SqliteArchive
from hub.command import main
from tests.simulate.recorder import Recorder

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run edge-hub serve as a process and give it with its URL; stopped by SIGTERM at the end, where it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hub.command", "serve", "--folder", str(folder), "--port", "0", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    try:
        told = re.match(r"listening at (http://\S+)", process.stdout.readline())
        assert told
        yield process, told[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_hub_from_nothing_to_a_delivery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, recorder = tmp_path / "hub", Recorder("owl-1")
    with serving(folder) as (process, url), httpx.Client(base_url=url, trust_env=False) as client:
        assert main(["enrol", "--folder", str(folder), "--device", "owl-1"]) == 0  # while it runs
        (code,) = lines(capsys)
        answer = client.post("/v1/enrolment", content=recorder.enrolment(code.upper().replace("-", " ")))
        assert cbor2.loads(answer.content)["status"] == "enrolled"
        assert client.post("/v1/batches", content=recorder.sent(0, 10)).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not list(folder.glob("*-wal"))  # everything was closed
    assert main(["place", "owl-1", "--folder", str(folder), "--", "-33.9", "151.2"]) == 0
    assert main(["devices", "--folder", str(folder), "--json"]) == 0
    (record,) = map(json.loads, lines(capsys))
    assert (record["name"], record["status"], record["n_observations"]) == ("owl-1", "enrolled", 10)
    assert (record["latitude"], record["longitude"]) == (-33.9, 151.2)
    assert main(["revoke", "owl-1", "--folder", str(folder)]) == 0
    assert main(["devices", "--folder", str(folder)]) == 0
    assert "revoked" in lines(capsys)[0]


def test_two_hubs_on_one_folder_are_refused(tmp_path: Path) -> None:
    with serving(tmp_path):
        second = subprocess.run(
            [sys.executable, "-m", "hub.command", "serve", "--folder", str(tmp_path), "--port", "0"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert second.returncode == 1
    assert "expected no other hub on this folder" in second.stderr


def test_a_taken_port_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path / "a") as (_, url):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "hub.command",
                "serve",
                "--folder",
                str(tmp_path / "b"),
                "--port",
                url.rsplit(":")[-1],
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "expected a free place to listen" in done.stderr


def test_a_folder_that_is_no_hub_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--folder", str(tmp_path / "typo")]) == 1
    assert "give --folder" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()
    assert main(["approve", "owl-9", "--folder", str(tmp_path)]) == 1


def test_a_copy_made_while_the_hub_runs_is_put_back_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, copy, recorder = tmp_path / "hub", tmp_path / "copy", Recorder("owl-1")
    restore = ["restore", str(copy), "--folder", str(folder)]
    with serving(folder) as (_, url), httpx.Client(base_url=url, trust_env=False) as client:
        assert main(["enrol", "--folder", str(folder)]) == 0
        (code,) = lines(capsys)
        client.post("/v1/enrolment", content=recorder.enrolment(code))
        assert client.post("/v1/batches", content=recorder.sent(0, 10)).status_code == 200
        published = client.get("/v1/updates/metadata/timestamp.json").content
        assert main(["backup", str(copy), "--folder", str(folder)]) == 0
        assert main(["backup", str(copy), "--folder", str(folder)]) == 1  # never over another copy
        assert main(restore) == 1
        assert "expected no other hub on this folder" in capsys.readouterr().err
        assert client.post("/v1/batches", content=recorder.sent(10, 10)).status_code == 200
    assert copy.stat().st_mode & 0o077 == 0
    token = (folder / "token").read_text()
    (folder / "token").unlink()
    shutil.rmtree(folder / "updates")
    (folder / "hub.sqlite-wal").write_bytes(b"of another state")
    assert main(restore) == 0
    (told,) = lines(capsys)
    (aside,) = folder.glob("before-restore-*")
    assert str(aside) in told
    assert {"hub.sqlite", "hub.sqlite-wal", "archive.sqlite"} <= {path.name for path in aside.iterdir()}
    assert (folder / "token").read_text() == token
    assert (folder / "token").stat().st_mode & 0o077 == 0
    assert not (folder / "hub.sqlite-wal").exists()
    with serving(folder) as (_, url), httpx.Client(base_url=url, trust_env=False) as client:
        answer = cbor2.loads(client.post("/v1/batches", content=recorder.sent(0, 10)).content)
        assert client.get("/v1/updates/metadata/timestamp.json").content == published
        assert answer["progress"]["observations"][0] == 10
        assert client.post("/v1/batches", content=recorder.sent(10, 10)).status_code == 200
    archive = SqliteArchive.open(folder / "archive.sqlite")
    assert sum(archive.counts().values()) == 20
    archive.close()


def test_a_copy_that_was_broken_off_is_not_put_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, copy = tmp_path / "hub", tmp_path / "copy"
    assert main(["enrol", "--folder", str(folder)]) == 0
    assert main(["backup", str(copy), "--folder", str(folder)]) == 0
    assert "codes are not in this copy" in capsys.readouterr().err  # no server has made an archive yet
    (copy / "backup.json").unlink()
    before = (folder / "hub.sqlite").read_bytes()
    assert main(["restore", str(copy), "--folder", str(folder)]) == 1
    assert "edge-hub backup" in capsys.readouterr().err
    assert (folder / "hub.sqlite").read_bytes() == before
