"""edge-update: take the newest pair of bundle and watchlist from the hub, test it, try it, and go back where it fails."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from edge.bundle import Bundle, default_bundle
from edge.encoder import compile_queries
from edge.errors import (
    BundleError,
    FieldcubeError,
    MissingDependencyError,
    StoreError,
    SyncError,
    UsageError,
)
from edge.run_start import read_start
from edge.store_runs import StoreRuns
from edge.update_arguments import Settings, parse_arguments, settings_of
from edge.update_check import self_test
from edge.update_install import Installed
from edge.update_lock import only_one
from edge.update_radio import carry
from edge.update_trial import Rules, is_recording, judge, new_trial, restarter, resume
from edge.utf8 import print_utf8
from edge.watchlist import Watchlist, load_watchlist


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
    if installed.was_tried(pair) and not is_recording(installed, rules):
        return f"pair {pair.number} is tried again when codes are made without it"
    try:
        staged = installed.stage(pair, client.fetch)
    except OSError as error:
        raise StoreError(
            f"{installed.folder}: expected room for pair {pair.number}, found {error}; free space"
        ) from error
    carry(installed.folder, staged)
    failures = rules.test(staged)
    if failures:
        is_refused = installed.failed_self_test(pair)
        told = "; ".join(failures)
        raise BundleError(
            f"pair {pair.number}: expected to pass the self-test, found {told}; "
            + ("it is refused from now on" if is_refused else "the next visit tries it again")
        )
    start = read_start(rules.store)
    installed.switch(staged, pair, new_trial(rules), start)
    if not rules.restart():
        installed.roll_back("edge-monitor does not start again", start)
        rules.restart()
        return "rolled back"
    client.forget()
    return f"pair {pair.number} is on trial"


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
        with only_one(settings.folder):
            installed = Installed(settings.folder)
            n_messages = 0
            if args.adopt:
                begin(installed, settings)
                result = "adopted"
            else:
                rules = _rules(settings)
                n_messages = _take_messages(installed, settings)
                if installed.is_begun:
                    resume(installed, rules)
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


def _take_messages(installed: Installed, settings: Settings) -> int:
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
