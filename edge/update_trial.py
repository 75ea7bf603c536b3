"""The trial of an installed pair: whether edge-monitor began with it, and whether it makes codes."""

from __future__ import annotations

import logging
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.bundle import Bundle
from edge.config_installed import BUNDLE
from edge.errors import StoreError, SyncError
from edge.run_start import RunStart, read_start
from edge.store_runs import StoreRuns
from edge.update_install import Installed
from edge.update_radio import settle
from edge.update_state import Recorded, Trial

LOG = logging.getLogger(__name__)

RESTART_NAME = "restart"  # what edge-monitor-restart.path watches


@dataclass(frozen=True, slots=True)
class Rules:
    """How an update is taken. trial_s: how long a new pair is on trial; least_codes: that it must make in that time.

    test: returns what is wrong with the pair in a folder; restart: lets edge-monitor begin anew, returns whether it did;
    store: of the recorder; now_ns: the clock, UTC.
    """

    test: Callable[[Path], list[str]]
    restart: Callable[[], bool]
    store: Path
    now_ns: Callable[[], int]
    trial_s: float
    least_codes: int


def resume(installed: Installed, rules: Rules) -> None:
    """Finish what an earlier visit left undone, and ask again for a start that was not seen yet; this needs no hub.

    Raises BundleError, and SyncError where edge-monitor does not begin anew; with a pair on trial its end decides of that.
    """
    installed.recover()
    settle(installed, read_start(rules.store))
    if installed.is_awaited(read_start(rules.store)) and not rules.restart() and not installed.state.trial:
        raise SyncError(
            "edge-monitor: expected it to begin anew with what is installed, found that it did not; restart it"
        )


def judge(installed: Installed, rules: Rules) -> str:
    """Decide about the pair on trial, if any; this needs no hub. Returns as Installed.judge does."""
    trial = installed.state.trial
    if trial is None:
        return ""
    start = read_start(rules.store)
    found = _recorded(installed, rules, start, trial)
    verdict = installed.judge(rules.now_ns(), found, start, rules.trial_s, rules.least_codes)
    if verdict == "rolled back":
        settle(installed, start)
        rules.restart()
    return verdict


def new_trial(rules: Rules) -> Trial:
    """Return a trial that begins now."""
    try:
        with StoreRuns.open(rules.store) as runs:
            return Trial(rules.now_ns(), runs.epoch, runs.made()[0])
    except StoreError:  # no store yet
        return Trial(rules.now_ns(), 0, 0)


def is_recording(installed: Installed, rules: Rules) -> bool:
    """Return whether the pair that is to run makes codes; where it does not, no other can be blamed for making none."""
    start = read_start(rules.store)
    return _recorded(installed, rules, start, new_trial(rules)).n_codes >= rules.least_codes


def _recorded(installed: Installed, rules: Rules, start: RunStart | None, trial: Trial) -> Recorded:
    """Return what the store holds of the pair that is to run; a new epoch is all new."""
    is_seen = installed.is_running(start)
    code_space = Bundle.load(installed.current / BUNDLE).manifest.code_space
    try:
        with StoreRuns.open(rules.store) as runs:
            end_seq = runs.made()[0]
            n_since = end_seq - (trial.first_seq if runs.epoch == trial.epoch else 0)
            n_codes = 0
            if is_seen and start is not None:
                first = start.first_seq if runs.epoch == start.epoch else 0
                for run in runs.runs(first, max(0, end_seq - first)):
                    n_codes += run.n if run.code_space == code_space else 0
                    if n_codes >= rules.least_codes:
                        break
            return Recorded(is_seen, n_codes, runs.epoch, end_seq, n_since)
    except StoreError as error:
        LOG.warning("no codes are counted: %s", error)
        return Recorded(is_seen, 0, 0, 0, 0)


def restarter(command: str | None, folder: Path) -> Callable[[], bool]:
    """Return what lets edge-monitor begin anew: a command or, for who watches it, a write to folder/restart."""

    def tell() -> bool:
        path = folder / RESTART_NAME
        try:
            path.write_text("edge-monitor is to begin anew\n", encoding="utf-8")
        except OSError as error:
            LOG.warning("%s: %s", path, error)
            return False
        return True

    def restart() -> bool:
        if command is None:
            return tell()
        try:
            done = subprocess.run(shlex.split(command), capture_output=True, timeout=120, check=False)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            LOG.warning("%s: %s", command, error)
            return False
        return done.returncode == 0

    return restart
