"""Self-test of a pair in a process of its own: edge-check, which may crash, hang or fill memory without harm to others."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edge.config_installed import BUNDLE, WATCHLIST

TIMEOUT_S = 900.0  # a slow board encodes every golden input with every runtime
_BOARD = frozenset({"clock", "disk"})  # not what a pair could be blamed for


def self_test(
    pair: Path, options: Sequence[str] = (), timeout_s: float = TIMEOUT_S, python: str = sys.executable
) -> list[str]:
    """Return what is wrong with the pair in a folder, [] = nothing. options: more arguments of edge-check."""
    with tempfile.TemporaryDirectory(prefix="fieldcube-check-") as scratch:
        command = [
            *(python, "-m", "edge.check", "--json", "--bundle", str(pair / BUNDLE)),
            *("--queries", str(pair / WATCHLIST), "--store", f"{scratch}/check.sqlite", *options),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return [f"edge-check: expected an end within {timeout_s:g} s, found none"]
        except OSError as error:
            return [f"edge-check: expected to start, found {error}"]
    failures, seen = [], set()
    for line in done.stdout.splitlines():
        try:
            check = json.loads(line)
            name, ok, hint = str(check["name"]), check["ok"] is True, check["hint"]
        except (ValueError, TypeError, KeyError):
            return [f"edge-check: expected a check, found {line[:80]!r}"]
        seen.add(name)
        if not ok and name not in _BOARD:
            failures.append(f"{name}: {hint or check.get('value')}")
    if done.returncode not in (0, 1):
        failures.append(f"edge-check: expected to end by itself, found exit {done.returncode}")
    if not {"bundle", "encoder", "queries"} <= seen and not failures:
        found = (done.stderr.strip().splitlines() or ["nothing"])[-1][:200]
        failures.append(f"edge-check: expected to come to its end, found {found}")
    return failures
