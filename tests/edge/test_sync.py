"""The command edge-sync: arguments, what it prints, and that a killed process leaves nothing to repair."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import sync
from edge.store import ObservationStore
from edge.store_reader import StoreReader
from tests.simulate.observations import fill

ROOT = Path(__file__).resolve().parents[2]
FIELD = ("cbor2", "cryptography", "urllib3")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "observations.sqlite"
    with ObservationStore.open(path, "owl-1") as opened:
        fill(opened, 50)
    return path


@pytest.fixture
def needs_field() -> None:
    for name in FIELD:
        pytest.importorskip(name)


@pytest.fixture
def url(needs_field: None) -> Iterator[str]:
    """Return the URL of a hub that works."""
    from tests.simulate.small_hub import small_hub

    with small_hub() as hub:
        yield hub.url


def test_it_delivers_and_says_what_it_did(store: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sync.main(["--store", str(store), "--hub", url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["type"], told["n_observations"], told["n_code_bytes"]) == ("sync", 50, 1600)
    assert sync.main(["--store", str(store.parent), "--hub", url, "--status"]) == 0
    assert "observations waiting: 0\n" in capsys.readouterr().out


def test_the_configuration_says_the_same_as_flags(
    store: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = store.parent / "config.toml"
    config.write_text(
        f'[monitor]\nstore = "observations.sqlite"\n[sync]\nhub = "{url}"\nlink = "lora"\nkey = "my.key"\n',
        encoding="utf-8",
    )
    assert sync.main(["--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_observations"] == 0
    assert (store.parent / "my.key").exists()
    assert sync.main(["--config", str(config), "--link", "lte", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_observations"] == 50


def test_an_installation_without_a_hub_sends_nothing_and_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[deployment]\n", encoding="utf-8")
    assert sync.main(["--config", str(config)]) == 0
    assert "hub is none: nothing is sent anywhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--hub: expected the URL of a hub, found none"),
        (["--hub", ""], 2, "--hub: expected non-empty text"),
        (["--hub", "http://x", "--for", "-1"], 2, "--for: expected seconds from 0"),
        (["--hub", "http://x", "--for", "nan"], 2, "--for: expected seconds from 0"),
        (["--config", "no.toml"], 2, "no.toml: expected a configuration file"),
    ],
)
def test_bad_usage_is_told(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sync.main(arguments) == code
    assert message in capsys.readouterr().err


def test_what_cannot_work_is_told_before_anything_is_written(
    store: Path, needs_field: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store.parent
    assert sync.main(["--store", str(folder / "no.sqlite"), "--hub", "http://127.0.0.1:9"]) == 1
    assert "no.sqlite: expected a fieldcube store, found no such file" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == [store.name, f"{store.name}.lock"]
    assert sync.main(["--store", str(store), "--hub", "gopher://hub"]) == 2
    assert "expected a URL that begins with https, mqtts or frames" in capsys.readouterr().err
    assert sync.main(["--store", str(store), "--hub", "http://127.0.0.1:9", "--for", "0"]) == 1
    assert "Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize("name", FIELD)
def test_a_library_that_is_missing_is_told_with_the_command_that_installs_it(store: Path, name: str) -> None:
    script = f"""
import sys
class Blocked:
    def find_spec(self, module, path=None, target=None):
        if module.split(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{module!r}}", name=module)
sys.meta_path.insert(0, Blocked())
from edge import sync
sys.exit(sync.main(["--store", {str(store)!r}, "--hub", "http://127.0.0.1:9"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "is not installed; run: pip install 'fieldcube[field]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_that_is_killed_again_and_again_delivers_everything_once(
    tmp_path: Path, needs_field: None
) -> None:
    from tests.simulate.small_hub import small_hub

    path = tmp_path / "observations.sqlite"
    with ObservationStore.open(path, "owl-1", block_observations=256) as store:
        fill(store, 2000)
    chosen = random.Random(5)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    n_killed = 0
    with small_hub() as hub:
        command = [sys.executable, "-m", "edge.sync", "--store", str(path), "--hub", hub.url]
        for _ in range(6):
            process = subprocess.Popen(
                command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            n_before = len(hub.paths)
            while len(hub.paths) == n_before and process.poll() is None:
                time.sleep(0.002)  # until it talks to the hub: what is killed before has done nothing
            time.sleep(chosen.uniform(0, 0.08))
            process.kill()
            n_killed += process.wait() != 0
        assert sync.main(["--store", str(path), "--hub", hub.url]) == 0
        with StoreReader.open(path) as reader:
            assert {seq: each for (_, seq), each in hub.observations.items()} == {
                o.seq: o for o in reader.observations()
            }
        assert hub.n_conflicts == 0
    assert n_killed
