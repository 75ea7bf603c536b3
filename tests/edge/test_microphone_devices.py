"""A microphone is found by its name or USB identity, whatever its index is today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.errors import AudioError, MissingDependencyError
from edge.microphone_devices import Microphone, find_microphone, list_microphones, load_portaudio


class FakePortAudio:
    def query_devices(self) -> list[dict[str, Any]]:
        return [
            {"name": "HDMI", "max_input_channels": 0, "default_samplerate": 44100.0},
            {
                "name": "USB Microphone: Audio (hw:1,0)",
                "max_input_channels": 1,
                "default_samplerate": 44100.0,
            },
        ]


def card(name: str, usb: str = "", index: int = 0) -> Microphone:
    return Microphone(index, name, 1, 44_100, usb)


CARDS = [
    card("default"),
    card("Blue Yeti: USB Audio (hw:1,0)", "b58e:9e84:111A"),
    card("AudioMoth: USB Audio (hw:2,0)", "16d0:06f3:24E14403"),
    card("AudioMoth: USB Audio (hw:3,0)", "16d0:06f3:24E15555"),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, CARDS[0]),
        ("yeti", CARDS[1]),
        ("B58E:9E84", CARDS[1]),
        ("16d0:06f3:24E15555", CARDS[3]),
        ("AudioMoth: USB Audio (hw:2,0)", CARDS[2]),
        ("rode", None),
        ("16d0:ffff", None),
    ],
)
def test_a_device_is_found_by_name_or_usb_identity(wanted: str | None, found: Microphone | None) -> None:
    assert find_microphone(wanted, CARDS) == found


@pytest.mark.parametrize("wanted", ["audiomoth", "16d0:06f3"])
def test_a_name_that_fits_several_devices_is_refused(wanted: str) -> None:
    with pytest.raises(
        AudioError, match="expected one device, found 2: .*24E15555; give its whole name, or vid"
    ):
        find_microphone(wanted, CARDS)


def test_the_usb_identity_comes_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "proc" / "card1").mkdir(parents=True)
    (tmp_path / "proc" / "card1" / "usbid").write_text("16d0:06f3\n", encoding="ascii")
    (tmp_path / "sys" / "card1" / "device").mkdir(parents=True)
    (tmp_path / "sys" / "card1" / "serial").write_text("24E14403\n", encoding="ascii")
    (found,) = list_microphones(FakePortAudio(), tmp_path / "proc", tmp_path / "sys")
    assert found == Microphone(1, "USB Microphone: Audio (hw:1,0)", 1, 44_100, "16d0:06f3:24E14403")


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (OSError("PortAudio library not found"), "sudo apt install libportaudio2"),
        (ImportError(), "pip install sounddevice"),
    ],
)
def test_a_missing_library_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, command: str
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr("edge.microphone_devices.importlib.import_module", fail)
    with pytest.raises(MissingDependencyError, match=f"run: {command}$"):
        load_portaudio()
