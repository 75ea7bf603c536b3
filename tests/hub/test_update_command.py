"""A watchlist from the page to the recorder, by the commands that an installation runs: edge-hub, edge-update, edge-monitor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from edge.bundle import Bundle
from edge.codes import pack
from edge.device_key import DeviceKey
from edge.downlink import Downlink, DownlinkQuery, encode_downlink
from edge.encoder import available_runtimes
from edge.frames import to_stream
from edge.store import ObservationStore
from edge.update import main
from edge.update_install import Installed
from edge.update_lock import only_one
from edge.update_trial import RESTART_NAME
from tests.hub.test_command import serving

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "data" / "tiny_bundle"
TOKENLESS = {"trust_env": False, "timeout": 20.0}

pytestmark = pytest.mark.skipif("onnx" not in available_runtimes(), reason="sentences cannot be compiled")


@dataclass
class Installation:
    """What install_device.sh leaves on a board: one folder with a configuration; commands are processes."""

    folder: Path
    updates: str

    def __post_init__(self) -> None:
        self.folder.mkdir()
        time_s = np.arange(6 * 32_000) / 32_000
        soundfile.write(self.folder / "tone.wav", 0.5 * np.sin(2 * np.pi * 500 * time_s), 32_000)
        (self.folder / "watchlist.txt").write_text("a low tone | name=own\n", encoding="utf-8")
        self.write("")

    def write(self, hub: str) -> None:
        (self.folder / "config.toml").write_text(
            f'[audio]\ninput = "tone.wav"\n[encoder]\nbundle = "{TINY}"\n[monitor]\nqueries = "watchlist.txt"\n'
            f'store = "observations.sqlite"\nclips = false\n[sync]\n{hub}\n[updates]\n{self.updates}\n',
            encoding="utf-8",
        )

    def run(self, module: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, "--config", str(self.folder / "config.toml"), "--json", *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def update(self) -> dict[str, Any]:
        done = self.run("edge.update")
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def monitor(self) -> set[str]:
        """Hear the recording; return the names of the alarms."""
        done = self.run("edge.monitor")
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        return {each["query"] for each in found if each["type"] == "detection"}

    def is_to_begin_anew(self) -> bool:
        """Return whether edge-monitor-restart.path would have seen something since the last time."""
        path = self.folder / "updates" / RESTART_NAME
        was_written = path.exists()
        path.unlink(missing_ok=True)
        return was_written


def visit(board: Installation, capsys: pytest.CaptureFixture[str]) -> str:
    """Run edge-update in this process, which is faster; return its result."""
    assert main(["--config", str(board.folder / "config.toml"), "--json"]) == 0
    result: str = json.loads(capsys.readouterr().out)["result"]
    return result


def code_of(text: str) -> bytes:
    golden = Bundle.load(TINY).golden("text")
    assert golden is not None
    return pack(golden["logits_onnx"][golden["texts"].tolist().index(text)]).tobytes()


def put(client: httpx.Client, text: str) -> None:
    assert client.put("/api/watchlists/night", json={"text": text}).status_code == 200


def until_published(client: httpx.Client, version: int) -> None:
    until_s = time.monotonic() + 20
    while client.get(f"/v1/updates/metadata/{version}.targets.json").status_code != 200:
        assert time.monotonic() < until_s
        time.sleep(0.05)  # the hub signs in a thread of its own


def test_a_list_of_the_hub_runs_on_the_recorder_and_a_failing_one_is_taken_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = Installation(
        tmp_path / "board",
        'folder = "updates"\nroot = "root.json"\nwatchlist = "night"\ntrial_s = 0\ntrial_codes = 1',
    )
    assert board.monitor() == {"own"}
    with (
        serving(tmp_path / "hub", "--bundle", str(TINY)) as (_, url),
        httpx.Client(base_url=url, **TOKENLESS) as client,  # type: ignore[arg-type]
    ):
        board.write(f'hub = "{url}"')
        root = subprocess.run(
            [sys.executable, "-m", "hub.command", "root", "--folder", str(tmp_path / "hub")],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        (board.folder / "root.json").write_bytes(root.stdout)
        assert visit(board, capsys) == "no watchlist 'night' is published"
        put(client, "a low tone | name=of the hub\n")
        until_published(client, 2)
        told = board.update()
        assert (told["result"], told["pair"], told["on_trial"]) == ("pair 2 is on trial", 2, True)
        assert board.is_to_begin_anew()
        assert board.monitor() == {"of the hub"}
        assert [visit(board, capsys) for _ in range(3)] == ["on trial", "confirmed", "up to date"]
        assert not board.is_to_begin_anew()

        put(client, "a low tone | name=a failing one\n")
        until_published(client, 3)
        assert board.update()["result"] == "pair 3 is on trial"
        assert board.is_to_begin_anew()  # and nothing is heard from then on
        assert [visit(board, capsys) for _ in range(2)] == ["on trial", "rolled back"]
        assert board.is_to_begin_anew()
        assert board.monitor() == {"of the hub"}
        for _ in range(2):  # it may have been the microphone
            assert [visit(board, capsys) for _ in range(3)] == [
                "pair 3 is on trial",
                "on trial",
                "rolled back",
            ]
            assert board.monitor() == {"of the hub"}
        assert visit(board, capsys) == "refused before"


def test_where_no_updates_are_wanted_nothing_happens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = Installation(tmp_path / "board", "")
    assert main(["--config", str(board.folder / "config.toml")]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "[updates] folder is none" in said.err
    assert not (board.folder / "updates").exists()


def test_two_visits_at_once_do_not_meet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = Installation(tmp_path / "board", 'folder = "updates"')
    with only_one(board.folder / "updates"):
        assert main(["--config", str(board.folder / "config.toml")]) == 1
    assert "only edge-update" in capsys.readouterr().err
    assert main(["--config", str(board.folder / "config.toml")]) == 0


@pytest.mark.parametrize(
    ("hub", "updates", "options", "message"),
    [
        ('hub = "https://hub.example.org"', 'folder = "updates"', [], "edge-hub root > root.json"),
        ("", 'folder = "updates"\nroot = "root.json"', [], "hub: expected where pairs are published"),
        (
            'hub = "https://h.example.org"',
            'folder = "u"\nroot = "no.json"',
            [],
            "root: expected the hub's root",
        ),
        (
            "",
            'folder = "updates"',
            ["--hub-key", "12"],
            "--hub-key: expected 64 hexadecimal digits, found '12'",
        ),
        ("", 'folder = "updates"', ["--trial", "-1"], "flags: trial_s: expected a number from 0"),
    ],
)
def test_what_is_missing_or_wrong_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    hub: str,
    updates: str,
    options: list[str],
    message: str,
) -> None:
    board = Installation(tmp_path / "board", updates)
    board.write(hub)
    assert main(["--config", str(board.folder / "config.toml"), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def radio(tmp_path: Path) -> tuple[Installation, DeviceKey]:
    """Return a recorder that has a radio and has recorded, and the key of its hub."""
    key = DeviceKey.open(tmp_path / "hub.pem")
    board = Installation(tmp_path / "board", f'folder = "updates"\nrestart = "touch {tmp_path}/anew"')
    with ObservationStore.open(board.folder / "observations.sqlite", "pond-4"):
        pass
    board.write(f'hub = "frames://{tmp_path}/air?hub={key.public.hex()}&inbox={tmp_path}/inbox"')
    return board, key


def test_queries_come_by_radio(
    tmp_path: Path, radio: tuple[Installation, DeviceKey], capsys: pytest.CaptureFixture[str]
) -> None:
    board, key = radio
    space = Bundle.load(TINY).manifest.code_space
    assert visit(board, capsys) == "nothing is new"  # no inbox yet
    assert not (board.folder / "updates").exists()

    code = code_of("a low tone")

    def message(at_s: int, name: str, signed_by: DeviceKey = key) -> bytes:
        said = Downlink(at_s, (DownlinkQuery("own", None), DownlinkQuery(name, code)))
        return to_stream(encode_downlink(signed_by, "pond-4", space, said))

    other = DeviceKey.open(tmp_path / "other.pem")
    (tmp_path / "inbox").write_bytes(b"noise" + message(10, "by radio") + message(20, "forged", other))
    done = board.run("edge.update")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "type": "update",
        "result": "1 messages are taken",
        "pair": 0,
        "on_trial": False,
        "messages": 1,
    }
    assert "signature" in done.stderr
    assert (tmp_path / "anew").exists()
    (tmp_path / "anew").unlink()
    assert board.monitor() == {"by radio"}
    assert visit(board, capsys) == "nothing is new"
    assert not (tmp_path / "anew").exists()


def test_a_message_counts_though_edge_monitor_does_not_begin_anew(
    tmp_path: Path, radio: tuple[Installation, DeviceKey], capsys: pytest.CaptureFixture[str]
) -> None:
    board, key = radio
    space = Bundle.load(TINY).manifest.code_space
    said = Downlink(10, (DownlinkQuery("own", None), DownlinkQuery("saw", bytes(32))))
    (tmp_path / "inbox").write_bytes(to_stream(encode_downlink(key, "pond-4", space, said)))
    config = ["--config", str(board.folder / "config.toml")]
    assert main([*config, "--restart", "false"]) == 1
    assert "restart it" in capsys.readouterr().err
    installed = Installed(board.folder / "updates")
    assert '"saw"' in (installed.current / "watchlist.json").read_text(encoding="utf-8")


def test_flags_alone_begin_with_a_list_and_go_before_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = Installation(tmp_path / "board", 'folder = "updates"')
    adopt = ["--adopt", str(board.folder / "watchlist.txt"), "--bundle", str(TINY)]
    assert main(["--folder", str(tmp_path / "other"), *adopt]) == 0
    assert "pair 0 runs from" in capsys.readouterr().out
    shutil.copytree(tmp_path / "other", board.folder / "updates", symlinks=True)
    (board.folder / "watchlist.txt").unlink()
    assert board.monitor() == {"own"}  # from the folder of updates
    (tmp_path / "flag.txt").write_text("a low tone | name=flag\n", encoding="utf-8")
    done = board.run("edge.monitor", "--queries", str(tmp_path / "flag.txt"))
    assert '"query": "flag"' in done.stdout
