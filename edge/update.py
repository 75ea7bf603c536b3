"""edge-update: take the newest pair of bundle and watchlist from the hub, test it, try it, and go back where it fails."""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bundle import Bundle, default_bundle
from edge.bundle_pair import Pair
from edge.encoder import compile_queries
from edge.errors import (
    BundleError,
    FieldcubeError,
    MissingDependencyError,
    StoreError,
    SyncError,
    UsageError,
)
from edge.store_runs import StoreRuns
from edge.update_arguments import Settings, parse_arguments, settings_of
from edge.update_check import self_test
from edge.update_install import Installed, Trial
from edge.utf8 import print_utf8
from edge.watchlist import Watchlist, load_watchlist

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


def visit(installed: Installed, client: Any, watchlist: str, rules: Rules) -> str:
    """Judge a pair on trial, else look for a newer one; return what became of it, for people.

    client: an UpdateClient. Raises BundleError for what must not be trusted, SyncError where nothing comes, StoreError; what
    ran before goes on running.
    """
    installed.recover()
    verdict = judge(installed, rules)
    if verdict:
        return verdict
    pair = client.newest(watchlist)
    if pair is None:
        return "nothing is published"
    if not installed.is_wanted(pair):
        return "refused before" if pair.number in installed.state.refused else "up to date"
    try:
        staged = installed.stage(pair, client.fetch)
    except OSError as error:
        raise StoreError(
            f"{installed.folder}: expected room for pair {pair.number}, found {error}; free space"
        ) from error
    failures = rules.test(staged)
    if failures:
        is_refused = installed.failed_self_test(pair)
        told = "; ".join(failures)
        raise BundleError(
            f"pair {pair.number}: expected to pass the self-test, found {told}; "
            + ("it is refused from now on" if is_refused else "the next visit tries it again")
        )
    epoch, n_made = _made(rules.store)
    installed.switch(staged, pair, Trial(rules.now_ns(), epoch, n_made))
    if not rules.restart():
        installed.roll_back("edge-monitor does not start again")
        rules.restart()
        return "rolled back"
    client.forget()
    return f"pair {pair.number} is on trial"


def judge(installed: Installed, rules: Rules) -> str:
    """Decide about the pair on trial, if any; this needs no hub. Returns as Installed.judge does."""
    pair = installed.pair()
    if pair is None:
        return ""

    def n_codes(trial: Trial) -> int:
        return codes_since(rules.store, trial, pair)

    verdict = installed.judge(rules.now_ns(), n_codes, rules.trial_s, rules.least_codes)
    if verdict == "rolled back":
        rules.restart()
    return verdict


def codes_since(store: Path, trial: Trial, pair: Pair) -> int:
    """Return how many observations were made in a pair's code space since its trial began; a new epoch is all new."""
    try:
        with StoreRuns.open(store) as runs:
            first = trial.first_seq if runs.epoch == trial.epoch else 0
            found = runs.runs(first, max(0, runs.made()[0] - first))
            return sum(run.n for run in found if run.code_space == pair.code_space)
    except StoreError as error:
        LOG.warning("no codes are counted: %s", error)
        return 0


def _made(store: Path) -> tuple[int, int]:
    """Return (epoch, observations) of a store, zeros where there is none yet."""
    try:
        with StoreRuns.open(store) as runs:
            return runs.epoch, runs.made()[0]
    except StoreError:
        return 0, 0


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run edge-update; return 0, 1 when it failed, 2 for bad usage."""
    print_utf8(sys.stdout)
    args = parse_arguments(argv)
    logging.basicConfig(format="edge-update: %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        settings = settings_of(args)
        if settings is None:  # an installation whose owner wants no updates: nothing to do
            print(f"{args.config}: [updates] folder is none: nothing is installed", file=sys.stderr)
            return 0
        installed = Installed(settings.folder)
        n_messages = 0
        if args.adopt:
            begin(installed, settings)
            result = "adopted"
        else:
            rules = _rules(settings)
            n_messages = _take_messages(installed, settings, rules)
            result = _update(installed, settings, rules) or (
                f"{n_messages} messages are taken" if n_messages else "nothing is new"
            )
        _tell(installed, result, n_messages, as_json=args.json)
    except FieldcubeError as error:
        print(f"edge-update: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def begin(installed: Installed, settings: Settings) -> None:
    """Take over what the recorder runs already: what the first update, or a list that came by radio, goes back to."""
    bundle = Bundle.load(settings.encoder.bundle or default_bundle())
    if settings.queries is None:
        raise UsageError("queries: expected a watchlist to begin with in [monitor] or as --adopt, found none")
    listed = load_watchlist(settings.queries, bundle.manifest.code_space, bundle.manifest.code_bits)
    if not isinstance(listed, Watchlist):
        listed = compile_queries(bundle, listed, settings.encoder.runtime, settings.encoder.threads)
    installed.adopt(bundle, listed)


def _tell(installed: Installed, result: str, n_messages: int, *, as_json: bool) -> None:
    state = installed.state if installed.is_begun else None
    if as_json:
        told = {
            "type": "update",
            "result": result,
            "pair": None if state is None else state.active,
            "on_trial": state is not None and state.trial is not None,
            "messages": n_messages,
        }
        print(json.dumps(told))
    elif state is None:
        print(result)
    else:
        print(f"{result}; pair {state.active} runs from {installed.current}")


def _rules(settings: Settings) -> Rules:
    updates, runtime = settings.updates, settings.encoder.runtime
    return Rules(
        lambda pair: self_test(pair, ["--runtime", runtime]),
        restarter(updates.restart, settings.folder),
        settings.store,
        time.time_ns,
        updates.trial_s,
        updates.trial_codes,
    )


def _take_messages(installed: Installed, settings: Settings, rules: Rules) -> int:
    """Take the queries that came by radio; return how many messages were new. Refused ones are told on stderr."""
    if settings.inbox is None:
        return 0
    try:
        from edge import update_downlink  # here, so that what is missing can be told
        from edge.frames import from_stream
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    try:
        content = settings.inbox.read_bytes()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise SyncError(f"{settings.inbox}: expected what the hub has sent, found {error}") from error
    messages = update_downlink.downlinks_in(from_stream(content))
    if not messages:
        return 0
    if not installed.is_begun:
        begin(installed, settings)
    installed.recover()
    pair = installed.pair()
    public = settings.hub_public or (None if pair is None else pair.hub_public)
    if public is None:
        raise UsageError("--hub-key: expected the hub's public key, as `edge-hub key` shows it, found none")
    with StoreRuns.open(settings.store) as runs:
        device_id = runs.device_id
    n_taken, refused = update_downlink.take_downlinks(installed, device_id, public, messages)
    for reason in refused:
        print(f"edge-update: {settings.inbox}: {reason}", file=sys.stderr)
    if n_taken and not rules.restart():
        raise SyncError(
            "edge-monitor: expected it to begin anew with the new list, found that it did not; restart it"
        )
    return n_taken


def _update(installed: Installed, settings: Settings, rules: Rules) -> str:
    """Return what became of the pair on trial, or of the newest one; "" where none is published for this recorder."""
    updates = settings.updates
    if updates.hub is None or updates.root is None:
        return judge(installed, rules) if installed.is_begun else ""
    try:
        from edge.update_client import UpdateClient  # here, so that what is missing can be told
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    try:
        root = updates.root.read_bytes()
    except OSError as error:
        raise UsageError(f"root: expected the hub's root.json, found {error}") from error
    with closing(UpdateClient(settings.folder / "tuf", updates.hub, root, settings.ca_file)) as client:
        if not installed.is_begun:
            if client.newest(updates.watchlist) is None:
                return f"no watchlist {updates.watchlist!r} is published"
            begin(installed, settings)
        return visit(installed, client, updates.watchlist, rules)


def _missing(error: ModuleNotFoundError) -> MissingDependencyError:
    return MissingDependencyError(
        f"edge-update needs {error.name}, which is not installed; run: pip install 'fieldcube[field]'"
    )


if __name__ == "__main__":
    sys.exit(main())
