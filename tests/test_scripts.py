"""Set-up and installation: what they say where something is missing, and that they install wheels, pinned, and no more."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def shell(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Return a copy of what setup reads, in which no environment has been made."""
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_a_python_that_cannot_make_environments_gets_a_hint(bare: Path) -> None:
    for missing in ("ensurepip", "pip"):
        (bare / "without" / missing).mkdir(parents=True)
        (bare / "without" / missing / "__init__.py").write_text("raise ImportError", encoding="utf-8")
    done = shell(bare / "scripts/run", PYTHON=sys.executable, PYTHONPATH=str(bare / "without"))
    assert done.returncode == 3
    assert done.stderr.endswith("cannot make environments; run: sudo apt install python3-venv\n")
    assert not (bare / ".venv").exists()


def test_a_python_that_is_too_old_is_refused(bare: Path) -> None:
    old = bare / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    done = shell(bare / "scripts/setup", PYTHON=str(old))
    assert (done.returncode, done.stderr) == (
        3,
        f"scripts/setup: expected Python 3.10 to 3.14, found none among: {old}; install one, or set PYTHON\n",
    )


def test_an_unknown_environment_is_refused(bare: Path) -> None:
    done = shell(bare / "scripts/setup", "laptop")
    assert done.returncode == 2
    assert "expected recorder, base, tflite, hub or workstation, found laptop" in done.stderr


def test_run_plays_files_that_ship_with_the_project() -> None:
    text = (ROOT / "scripts/run").read_text(encoding="utf-8")
    files = re.findall(r"^(?:watchlist|recording)=(.+)$", text, re.MULTILINE)
    assert len(files) == 2
    assert all((ROOT / file).is_file() for file in files)


def install(*flags: str | Path) -> subprocess.CompletedProcess[str]:
    return shell(ROOT / "scripts/install_device.sh", *flags, PYTHON=sys.executable)


def test_a_dry_run_of_the_installation_changes_nothing(tmp_path: Path) -> None:
    done = install("--board", "rpi4", "--root", tmp_path, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert f"firmware_configs/rpi4.toml {tmp_path}/etc/fieldcube/config.toml" in done.stdout


def test_the_installation_takes_wheels_only_and_from_a_folder_where_there_is_no_network(
    tmp_path: Path,
) -> None:
    done = install("--board", "rpi5", "--root", tmp_path, "--wheel-dir", ROOT, "--dry-run")
    installing = [line for line in done.stdout.splitlines() if " -m pip " in line]
    assert len(installing) == 3
    assert all("--only-binary :all:" in line for line in installing)
    assert all(f"--no-index --find-links {ROOT}" in line for line in installing)


def test_an_upgrade_keeps_the_configuration(tmp_path: Path) -> None:
    kept = tmp_path / "etc/fieldcube/config.toml"
    kept.parent.mkdir(parents=True)
    kept.touch()
    done = install("--board", "rpi4", "--root", tmp_path, "--dry-run")
    assert "config.toml is kept as it is" in done.stdout
    assert "firmware_configs/rpi4.toml" not in done.stdout


@pytest.mark.parametrize(("flags", "runtime"), [((), "jetson.txt"), (("--cpu",), "onnxruntime")])
def test_a_jetson_has_one_onnxruntime(tmp_path: Path, flags: tuple[str, ...], runtime: str) -> None:
    done = install("--board", "jetson_orin_nano", "--root", tmp_path, "--dry-run", *flags)
    installed = [line.rsplit("/")[-1].split()[-1] for line in done.stdout.splitlines() if " -m pip " in line]
    assert len(installed) == 3
    assert installed[1] == runtime


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--board", "rpi1"), "--board: expected a name in firmware_configs/, found rpi1"),
        (("--force",), "unknown option --force; see --help"),
    ],
)
def test_wrong_flags_of_the_installation_are_refused(flags: tuple[str, ...], message: str) -> None:
    done = install(*flags)
    assert (done.returncode, done.stderr) == (2, f"install_device: {message}\n")


def pins(name: str) -> dict[str, set[str]]:
    """Return package -> pinned versions (one for each range of Pythons) of a file of requirements."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([\w.-]+)==([^ ;]+)", line):
            found.setdefault(match.group(1).lower().replace(".", "-").replace("_", "-"), set()).add(
                match.group(2)
            )
    return found


def test_every_dependency_is_pinned_and_development_has_the_recorders_versions() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    base = re.search(r"^dependencies = \[(.+?)^\]", text, re.MULTILINE | re.DOTALL)
    assert base
    recorder, dev = pins("recorder.txt"), pins("dev.txt")
    names = re.findall(r'"([\w-]+)>=', base.group(1))
    assert len(names) >= 9
    assert [name for name in names if name.lower() not in recorder] == []
    assert {name: dev[name] for name in recorder} == recorder


def test_jetpack_6_gets_the_last_versions_that_know_python_3_10() -> None:
    assert "1.23.2" in pins("recorder.txt")["onnxruntime"]
    assert "2.2.6" in pins("recorder.txt")["numpy"]


def test_the_workstation_has_the_versions_that_were_seen_working_together() -> None:
    workstation, chosen = pins("workstation.txt"), pins("workstation.in")
    assert {name: workstation[name] for name in chosen} == chosen
    assert pins("no_deps.txt")["torchvision"] == workstation["torchvision"]
