"""edge-update: take the newest pair of bundle and watchlist from the hub, test it, try it, and go back where it fails."""

from __future__ import annotations

import argparse
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
from edge.errors import BundleError, FieldcubeError, MissingDependencyError, StoreError, UsageError
from edge.store_runs import StoreRuns
from edge.store_schema import store_path
from edge.update_check import self_test
from edge.update_install import Installed, Trial
from edge.utf8 import print_utf8
from edge.watchlist import Watchlist, load_watchlist

LOG = logging.getLogger(__name__)

TRIAL_S = 3600.0
LEAST_CODES = 10
_EXAMPLE = """example:
  edge-update --folder /var/lib/fieldcube/updates --adopt watchlist.json
  edge-update --folder /var/lib/fieldcube/updates --hub https://hub.example.org --root root.json --store /var/lib/fieldcube"""


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
    trial_s: float = TRIAL_S
    least_codes: int = LEAST_CODES


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


def restarter(command: str | None) -> Callable[[], bool]:
    """Return what lets edge-monitor begin anew: a command, or nothing where something else watches the link."""

    def restart() -> bool:
        if command is None:
            return True
        try:
            done = subprocess.run(shlex.split(command), capture_output=True, timeout=120, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            LOG.warning("%s: %s", command, error)
            return False
        return done.returncode == 0

    return restart


def main(argv: Sequence[str] | None = None) -> int:
    """Run edge-update; return 0, 1 when it failed, 2 for bad usage."""
    print_utf8(sys.stdout)
    args = _parse_arguments(argv)
    logging.basicConfig(format="edge-update: %(message)s", level=logging.INFO, stream=sys.stderr)
    installed = Installed(args.folder)
    try:
        result = _adopt(installed, args) if args.adopt else _update(installed, args)
    except FieldcubeError as error:
        print(f"edge-update: error: {error}", file=sys.stderr)
        return error.exit_code
    state = installed.state
    told = {"type": "update", "result": result, "pair": state.active, "on_trial": state.trial is not None}
    print(json.dumps(told) if args.json else f"{result}; pair {state.active} runs from {installed.current}")
    return 0


def _adopt(installed: Installed, args: argparse.Namespace) -> str:
    bundle = Bundle.load(args.bundle or default_bundle())
    listed = load_watchlist(args.adopt, bundle.manifest.code_space, bundle.manifest.code_bits)
    if not isinstance(listed, Watchlist):
        raise UsageError(
            f"--adopt: expected a compiled watchlist, found a text: {args.adopt}; run: edge-queries compile"
        )
    installed.adopt(bundle, listed)
    return "adopted"


def _update(installed: Installed, args: argparse.Namespace) -> str:
    if args.hub is None or args.root is None:
        raise UsageError("--hub, --root: expected the URL of a hub and its root.json, found none")
    try:
        from edge.update_client import UpdateClient  # here, so that what is missing can be told
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"edge-update needs {error.name}, which is not installed; run: pip install 'fieldcube[field]'"
        ) from error
    try:
        root = args.root.read_bytes()
    except OSError as error:
        raise UsageError(f"--root: expected the hub's root.json, found {error}") from error
    options = [] if args.runtime is None else ["--runtime", args.runtime]
    rules = Rules(
        lambda pair: self_test(pair, options),
        restarter(args.restart),
        store_path(args.store),
        time.time_ns,
        args.trial,
        args.codes,
    )
    with closing(UpdateClient(args.folder / "tuf", args.hub, root, args.ca_file)) as client:
        return visit(installed, client, args.watchlist, rules)


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edge-update",
        description="Take the newest bundle and watchlist from the hub, as a pair, and go back where they fail.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="of pairs; edge-monitor runs from FOLDER/current/ of it")
    add("--adopt", type=Path, metavar="FILE", help="begin with this compiled watchlist and --bundle")
    add("--bundle", type=Path, metavar="FOLDER", help="to begin with (default: the starter)")
    add("--hub", metavar="URL", help="where pairs are published")
    add("--root", type=Path, metavar="FILE", help="root.json of the hub, brought here once by a safe way")
    add("--ca-file", type=Path, metavar="FILE", help="who may vouch for the hub (PEM; as the system says)")
    add("--watchlist", default="default", metavar="NAME", help="of the watchlist at the hub (default)")
    add("--store", type=store_path, metavar="PATH", help="of the recorder: a pair on trial must add to it")
    add("--restart", metavar="COMMAND", help="that lets edge-monitor begin anew with the new pair")
    add("--runtime", choices=("auto", "onnx", "tflite"), help="that the recorder uses (auto)")
    add("--trial", type=float, default=TRIAL_S, metavar="SECONDS", help="of a new pair (3600)")
    add("--codes", type=int, default=LEAST_CODES, metavar="N", help="that it must make in its trial (10)")
    add("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
