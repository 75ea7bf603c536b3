"""Flags of edge-monitor about sound: each does something, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import Audio
from edge.errors import UsageError
from edge.monitor_arguments import configuration, parse_arguments


def audio(*arguments: str) -> Audio:
    return configuration(parse_arguments(["--queries", "w.txt", *arguments])).audio


@pytest.mark.parametrize(
    ("flags", "key"), [(["--rate", "48000"], "sample_rate_hz"), (["--channels", "2"], "channels")]
)
def test_a_flag_that_says_what_files_say_themselves_is_refused(flags: list[str], key: str) -> None:
    with pytest.raises(UsageError, match=f"{key}: expected none, files say their own, found {flags[1]}"):
        audio("--input", "a.wav", *flags)


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(UsageError, match='input: expected a path, found ""'):
        audio("--input", "")


def test_the_files_keys_about_a_microphone_do_not_hinder_another_input(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        '[audio]\nmicrophone = "USB"\nsample_rate_hz = 48000\nchannels = 2\nsample_format = "int32"\n'
    )
    assert audio("--config", str(file), "--input", "a.wav").sample_rate_hz is None
    piped = audio("--config", str(file), "--input", "-")
    assert (piped.sample_rate_hz, piped.channels, piped.sample_format) == (48_000, 2, "int16")
    named = audio("--config", str(file), "--microphone", "Yeti", "--rate", "44100")
    assert (named.microphone, named.sample_rate_hz, named.sample_format) == ("Yeti", 44_100, "int32")


def test_a_microphone_goes_before_the_files_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[audio]\ninput = "night.wav"\n')
    found = audio("--config", str(file), "--microphone", "--rate", "44100")
    assert (found.input, found.microphone, found.sample_rate_hz) == ((), "", 44_100)
