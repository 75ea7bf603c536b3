"""Configuration: values, refusals, and that the reference, the boards' files and the code say the same."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from datetime import datetime, timezone
from pathlib import Path

import pytest

from edge.audio import PcmSource
from edge.config import SECTIONS, Audio, Config, read_config
from edge.errors import ConfigError
from edge.observation import MAX_RECORDING_HZ, MIN_RECORDING_HZ
from edge.update_trial import RESTART_NAME

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FIRMWARE = Path(__file__).resolve().parents[2] / "firmware_configs"
BOARDS = sorted(FIRMWARE.glob("*.toml"))
UNITS = sorted(path for path in (FIRMWARE / "systemd").iterdir() if path.suffix != ".conf")
SERIAL = FIRMWARE / "systemd" / "edge-sync-serial.conf"  # put beside a unit by hand, where a modem is


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> str:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "")) == Config()


def test_values_are_read_and_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    config = read_config(
        write(
            tmp_path,
            """
            [deployment]
            id = "meadow-2026"
            latitude = 59.85
            longitude = 17
            start = 2026-05-01T06:00:00+02:00
            [audio]
            input = ["cards/a", "/srv/b.wav"]
            [encoder]
            bundle = "bundle"
            [monitor]
            queries = "watchlist.txt"
            hop_s = 2
            """,
        )
    )
    assert config.deployment.latitude == 59.85
    assert config.deployment.longitude == 17
    assert config.deployment.start == datetime(2026, 5, 1, 4, tzinfo=timezone.utc)
    assert config.audio.input == (str(tmp_path / "cards/a"), "/srv/b.wav")
    assert config.audio.microphone is None
    assert config.encoder.bundle == tmp_path / "bundle"
    assert config.monitor.queries == tmp_path / "watchlist.txt"
    assert config.monitor.hop_s == 2


def test_one_input_needs_no_list_and_a_dash_is_standard_input(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, '[audio]\ninput = "night.wav"')).audio == Audio(
        (str(tmp_path / "night.wav"),)
    )
    assert read_config(write(tmp_path, '[audio]\ninput = "-"')).audio == Audio(("-",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[audio]\nmicrofone = "USB"',
            "[audio] microfone: unknown key; did you mean 'microphone'? All keys: firmware_configs/README.md",
        ),
        (
            "[monitr]\nhop_s = 5",
            "[monitr]: unknown key; did you mean 'monitor'? All keys: firmware_configs/README.md",
        ),
        (
            "hop_s = 5",
            "hop_s: unknown key; expected one of deployment, audio, encoder, monitor, sync, updates. All keys: "
            "firmware_configs/README.md",
        ),
        ("[encoder]\nthreads = 0", "[encoder] threads: expected an integer from 1 to 64, found 0"),
        ("[encoder]\nthreads = true", "[encoder] threads: expected an integer from 1 to 64, found True"),
        (
            '[encoder]\nruntime = "torch"',
            "[encoder] runtime: expected one of auto, onnx, tflite, found 'torch'",
        ),
        ("[encoder]\nbundle = 3", "[encoder] bundle: expected non-empty text, found 3"),
        ("[monitor]\nhop_s = nan", "[monitor] hop_s: expected a number from 0.1 to 3600, found nan"),
        ('[monitor]\nclips = "no"', "[monitor] clips: expected one of True, False, found 'no'"),
        (
            "[deployment]\nlatitude = 59.85",
            "[deployment] latitude: expected both latitude and longitude or neither, found one of them",
        ),
        (
            "[deployment]\nlatitude = 91\nlongitude = 0",
            "[deployment] latitude: expected a number from -90 to 90, found 91",
        ),
        ("[deployment]\nstart = 2026-05-01", "[deployment] start: expected datetime, found "),
        (
            "[deployment]\nstart = 2026-05-01T06:00:00",
            "[deployment] start: expected a time with its zone, such as 2026-05-01T04:00:00Z, found ",
        ),
        (
            '[audio]\ninput = "a.wav"\nmicrophone = ""',
            "[audio] microphone: expected either input or microphone, found both; remove one",
        ),
        (
            '[audio]\ninput = ["-", "a.wav"]',
            '[audio] input: expected "-" (standard input) alone, found other inputs beside it',
        ),
        (
            '[audio]\ninput = "a.wav"\nsample_rate_hz = 48000',
            "[audio] sample_rate_hz: expected none, files say their own, found 48000; remove it",
        ),
        (
            '[audio]\ninput = "a.wav"\nchannels = 2',
            "[audio] channels: expected none, files say their own, found 2; remove it",
        ),
        (
            '[audio]\ninput = "a.wav"\nsample_format = "int32"',
            "[audio] sample_format: expected none, files say their own, found int32; remove it",
        ),
        (
            '[audio]\ninput = "-"\nsample_format = "float32"',
            "[audio] sample_format: expected none, standard input is int16, found float32; remove it",
        ),
        ("[audio]\ninput = [3]", '[audio] input: expected a path, a list of paths, or "-", found [3]'),
        ("audio = 3", "expected a section [audio], found audio = 3"),
        ("[audio\n", "expected TOML, found: "),
    ],
)
def test_a_wrong_file_is_refused_with_the_key_what_was_expected_and_found(
    tmp_path: Path, text: str, message: str
) -> None:
    found = refusal(tmp_path, text)
    assert found.startswith(message) if message.endswith(" ") else found == message


def test_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=re.escape("no.toml: expected a configuration file, found: No such file")
    ):
        read_config(tmp_path / "no.toml")
    (tmp_path / "latin.toml").write_bytes(b'[deployment]\nid = "M\xfcritz"')
    with pytest.raises(ConfigError, match="expected UTF-8 text, found invalid start byte at byte 20"):
        read_config(tmp_path / "latin.toml")


def reference() -> dict[str, dict[str, tuple[str, str]]]:
    """Return section -> key -> (unit, default) as the tables of README.md have them."""
    tables: dict[str, dict[str, tuple[str, str]]] = {}
    section = ""
    for line in (FIRMWARE / "README.md").read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"## \[(\w+)\]", line):
            section = heading.group(1)
            tables[section] = {}
        elif row := re.fullmatch(r"\| `(\w+)` \| (.+?) \| (.+?) \| (.+) \|", line):
            tables[section][row.group(1)] = (row.group(2), row.group(3).strip("`"))
    return tables


def test_the_reference_names_every_key_with_its_unit_and_default() -> None:
    documented = reference()
    assert {section: list(keys) for section, keys in documented.items()} == {
        section: [key.name for key in fields(kind)] for section, kind in SECTIONS.items()
    }
    for section, kind in SECTIONS.items():
        for key in fields(kind):
            unit, default = documented[section][key.name]
            assert unit.strip()
            assert key.default is not MISSING
            value = None if default == "none" else tomllib.loads(f"value = {default}")["value"]
            expected = list(key.default) if isinstance(key.default, tuple) else key.default
            assert (value, type(value)) == (expected, type(expected)), f"[{section}] {key.name}"


def test_the_rates_in_the_reference_are_those_that_a_pipe_may_have() -> None:
    for rate_hz in (MIN_RECORDING_HZ, MAX_RECORDING_HZ):
        assert Audio(("-",), sample_rate_hz=rate_hz).sample_rate_hz == rate_hz
        PcmSource(io.BytesIO(b""), rate_hz, 32_000)
    unit, _ = reference()["audio"]["sample_rate_hz"]
    assert unit == f"Hz, {MIN_RECORDING_HZ} to {MAX_RECORDING_HZ}"


def test_the_units_in_the_reference_are_those_in_the_names_of_the_keys() -> None:
    units = {"_s": "s,", "_hz": "Hz,", "_bytes": "bytes"}
    for keys in reference().values():
        for key, (unit, _) in keys.items():
            for suffix, expected in units.items():
                assert not key.endswith(suffix) or unit.startswith(expected), key


def test_there_is_a_file_for_each_board_and_the_reference_lists_it() -> None:
    assert [path.stem for path in BOARDS] == ["jetson_orin_nano", "rpi4", "rpi5", "rpi_zero2w"]
    listed = (FIRMWARE / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{path.name}` |" in listed for path in BOARDS)


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_each_boards_file_is_a_whole_configuration(path: Path, tmp_path: Path) -> None:
    config = read_config(path)
    assert config.audio.microphone is not None
    assert config.monitor.queries == Path("/etc/fieldcube/watchlist.txt")
    assert config.monitor.store is not None
    assert config.monitor.store.is_relative_to("/var/lib/fieldcube")
    assert config.monitor.clips_dir is not None
    assert config.monitor.clips_dir.is_relative_to("/var/lib/fieldcube")
    # what is commented out must be right as well
    text = path.read_text(encoding="utf-8")
    with_all = read_config(write(tmp_path, re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)))
    assert with_all.deployment.latitude is not None
    assert with_all.deployment.start is not None


def unit_settings() -> dict[str, list[str]]:
    settings: dict[str, list[str]] = {}
    for line in (FIRMWARE / "systemd" / "edge-monitor.service").read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            settings.setdefault(key, []).append(value)
    return settings


def test_the_service_starts_again_for_ever_as_its_own_user_with_the_installed_configuration() -> None:
    settings = unit_settings()
    assert settings["ExecStart"][0].startswith(
        "/opt/fieldcube/bin/edge-monitor --config /etc/fieldcube/config.toml"
    )
    assert settings["Restart"] == ["always"]
    assert settings["StartLimitIntervalSec"] == ["0"]
    assert settings["User"] == ["fieldcube"]
    assert settings["SupplementaryGroups"] == ["audio"]
    assert settings["StateDirectory"] == ["fieldcube"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("serial", [False, True])
@pytest.mark.parametrize("name", [path.name for path in UNITS])
def test_systemd_accepts_the_units(tmp_path: Path, name: str, serial: bool) -> None:
    for source in UNITS:
        text = source.read_text(encoding="utf-8")
        (tmp_path / source.name).write_text(
            re.sub(r"/opt/fieldcube/bin/edge-\w+", sys.executable, text), encoding="utf-8"
        )
    if serial:
        (tmp_path / "edge-sync.service.d").mkdir()
        shutil.copy(SERIAL, tmp_path / "edge-sync.service.d")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "edge-" in line]
    assert (done.returncode, complaints) == (0, [])


def test_every_unit_is_installed_and_what_restarts_the_recorder_watches_what_edge_update_writes() -> None:
    script = (FIRMWARE.parent / "scripts" / "install_device.sh").read_text(encoding="utf-8")
    loop = re.search(r"^for unit in (.+); do$", script, re.MULTILINE)
    assert loop
    done = subprocess.run(["bash", "-c", f"echo {loop[1]}"], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == [path.name for path in UNITS]
    watched = (FIRMWARE / "systemd" / "edge-monitor-restart.path").read_text(encoding="utf-8")
    for board in BOARDS:
        folder = re.search(r'^# folder = "(.+?)"', board.read_text(encoding="utf-8"), re.MULTILINE)
        assert folder
        assert f"PathChanged={folder[1]}/{RESTART_NAME}\n" in watched
