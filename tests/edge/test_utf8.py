"""What is stored or printed is UTF-8, whatever bytes a path has and whatever encoding a terminal."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edge import monitor, queries, results, search
from edge.utf8 import is_utf8, shown

LATIN_1 = os.fsdecode(b"K\xe4uzchen")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.wav", "a.wav"), ("Käuzchen 鳥", "Käuzchen 鳥"), (LATIN_1, "K\\xe4uzchen"), ("ä\ud800", "ä\\ud800")],
)
def test_paths_are_shown(text: str, expected: str) -> None:
    assert is_utf8(text) == (text == expected)
    assert shown(text) == expected
    assert shown(Path("in", text)) == f"in/{expected}"


@pytest.mark.parametrize("command", [monitor, queries, results, search])
def test_every_command_prints_utf8(command: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert (sys.stdout.encoding, sys.stdout.errors) == ("utf-8", "backslashreplace")


def test_a_query_in_any_script_is_printed_in_any_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.txt").write_text("鳥の声\n", encoding="utf-8")
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "ascii"))
    assert queries.main([str(tmp_path / "w.txt"), "--json"]) == 0
    assert json.loads(out.getvalue().decode("utf-8"))["text"] == "鳥の声"
