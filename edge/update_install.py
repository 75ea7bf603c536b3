"""Pairs on a recorder: which one runs, which ran before, and whether the new one is on trial.

folder/pairs/N/{bundle/, watchlist.json, pair.json}; folder/current is a link to one of them, so that bundle and watchlist
change in one step; folder/state.json is written first and says where the link must point, whatever a power cut leaves.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edge import require
from edge.bundle import MANIFEST_NAME, Bundle, require_code_space, write_bundle
from edge.bundle_pair import Pair, PairFile, format_pair, parse_pair
from edge.bundle_update import files_of, update_bundle
from edge.config_installed import BUNDLE, PAIRS, WATCHLIST, current_pair
from edge.durable import sync_folder, write_file
from edge.errors import BundleError, WatchlistError
from edge.manifest import parse_manifest
from edge.run_start import RunStart
from edge.update_state import ADOPTED, Recorded, State, Trial
from edge.watchlist import Watchlist, load_watchlist, write_watchlist

LOG = logging.getLogger(__name__)

FORMAT_VERSION = 1
MAX_ATTEMPTS = 3  # self-tests and trials of one pair; one that fails may be the board's bad day
MAX_REQUESTS = 10  # to begin anew after one change: whoever does not then has been told otherwise


class Installed:
    """The pairs in a folder. Every method raises BundleError for what cannot be used and leaves what runs as it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current = current_pair(folder)
        self._pairs, self._state_path = folder / PAIRS, folder / "state.json"

    @property
    def is_begun(self) -> bool:
        """Return whether anything was installed here, or adopted."""
        return self._state_path.exists()

    @property
    def state(self) -> State:
        """Return what is installed. Raises BundleError where nothing was adopted yet."""
        try:
            table: Any = json.loads(self._state_path.read_bytes())
            require.version(BundleError, str(self._state_path), table, FORMAT_VERSION, "update fieldcube")
            trial = table["trial"]
            return State(
                int(table["active"]),
                None if table["previous"] is None else int(table["previous"]),
                None if trial is None else Trial(**trial),
                tuple(table["refused"]),
                int(table["newest"]),
                int(table["attempted"]),
                int(table["attempts"]),
                None if table.get("awaited") is None else str(table["awaited"]),
                int(table.get("n_requests", 0)),
            )
        except FileNotFoundError as error:
            raise BundleError(
                f"{self._state_path}: expected an installed pair, found none; run: edge-update --adopt"
            ) from error
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise BundleError(
                f"{self._state_path}: expected what is installed, found {error!r}; remove the file and adopt again"
            ) from error

    def adopt(self, bundle: Bundle, watchlist: Watchlist) -> None:
        """Begin with what the recorder runs already: what the first update can go back to."""
        require_code_space(bundle.manifest.code_space, watchlist.code_space, "watchlist", bundle.folder)
        filling = self._new_folder(ADOPTED)
        files: dict[str, bytes | Path] = {
            each.name: each
            for each in bundle.folder.iterdir()
            if each.is_file() and each.name != MANIFEST_NAME and not each.name.startswith(".")
        }
        write_bundle(filling / BUNDLE, bundle.manifest, files)
        write_watchlist(filling / WATCHLIST, watchlist)
        self._keep(filling, ADOPTED)
        self._save(State(ADOPTED))
        self.recover()

    def recover(self) -> State:
        """Let the link point where the state says, and remove what an interrupted installation left."""
        state = self.state
        target = Path(PAIRS) / str(state.active)
        if not self.current.is_symlink() or Path(os.readlink(self.current)) != target:
            fresh = self.folder / ".current.new"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(target)
            os.replace(fresh, self.current)
            sync_folder(self.folder)
        kept = {str(state.active), str(state.previous)}
        for each in self._pairs.iterdir():
            if each.name not in kept:
                shutil.rmtree(each, ignore_errors=True)
        return state

    def pair(self) -> Pair | None:
        """Return the description of the pair that is to run, None for the adopted one."""
        path = self._pairs / str(self.state.active) / "pair.json"
        return parse_pair(path.read_bytes(), str(path)) if path.is_file() else None

    def report(self) -> dict[str, str | int | bool]:
        """Return what the hub is told of it, as part of a recorder's health."""
        pair = self.pair()
        if pair is None:
            return {}
        return {
            "watchlist": pair.watchlist,
            "watchlist_version": pair.watchlist_version,
            "bundle": pair.bundle,
            "pair": pair.number,
            "on_trial": self.state.trial is not None,
        }

    def is_wanted(self, pair: Pair) -> bool:
        """Return whether a pair is to be installed: newer than all before, or the newest whose trial failed; and not refused."""
        state = self.state
        return pair.number not in state.refused and (pair.number > state.newest or self.was_tried(pair))

    def was_tried(self, pair: Pair) -> bool:
        """Return whether a pair ran already, without success."""
        state = self.state
        return pair.number == state.newest and pair.number != state.active

    def await_start(self, start: RunStart | None) -> None:
        """Remember that edge-monitor is to begin anew. start: the last one that there was."""
        self._save(replace(self.state, awaited=_run_of(start), n_requests=0))

    def is_awaited(self, start: RunStart | None) -> bool:
        """Return whether edge-monitor has yet to begin with what is installed, and is to be asked again."""
        state = self.state
        if state.awaited is None or state.n_requests >= MAX_REQUESTS:
            return False
        if start is not None and start.run != state.awaited and start.pair in (state.active, None):
            self._save(replace(state, awaited=None))  # pair None: its owner lets it run other files
            return False
        self._save(replace(state, n_requests=state.n_requests + 1))
        return True

    def is_running(self, start: RunStart | None) -> bool:
        """Return whether the pair that is to run was begun with since it was installed."""
        state = self.state
        return start is not None and start.pair == state.active and start.run != state.awaited

    def stage(self, pair: Pair, fetch: Callable[[PairFile], Path]) -> Path:
        """Put a pair together beside the one that runs, and check every byte of it; return its folder.

        Only what the running bundle lacks is fetched. A watchlist of another code space than its bundle is refused.
        """
        filling = self._new_folder(pair.number)
        running, update = self.current / BUNDLE, filling / "update"
        have = files_of(Bundle.load(running).manifest)
        update.mkdir()
        for name, described in pair.files.items():
            if have.get(name) != described.sha256 or not (running / name).is_file():
                shutil.copyfile(fetch(described), update / name)
        manifest = parse_manifest((update / MANIFEST_NAME).read_bytes(), f"pair {pair.number}: manifest.json")
        for name, sha256 in files_of(manifest).items():
            if name not in pair.files or pair.files[name].sha256 != sha256:
                raise BundleError(f"pair {pair.number}: expected {name} of its manifest, found another file")
        shutil.copytree(running, filling / BUNDLE)
        bundle = update_bundle(filling / BUNDLE, update)
        require_code_space(pair.code_space, bundle.manifest.code_space, "bundle", f"pair {pair.number}")
        shutil.copyfile(fetch(pair.compiled), filling / WATCHLIST)
        try:
            listed = load_watchlist(
                filling / WATCHLIST, bundle.manifest.code_space, bundle.manifest.code_bits
            )
        except WatchlistError as error:
            raise BundleError(f"pair {pair.number}: {error}") from error
        if not isinstance(listed, Watchlist):
            raise BundleError(f"pair {pair.number}: expected a compiled watchlist, found a text")
        write_file(filling / "pair.json", format_pair(pair))
        shutil.rmtree(update)
        return filling

    def failed_self_test(self, pair: Pair) -> bool:
        """Count a failed self-test; return whether the pair is refused from now on."""
        state = self.state
        attempts = state.attempts + 1 if state.attempted == pair.number else 1
        is_refused = attempts >= MAX_ATTEMPTS
        refused = (*state.refused, pair.number) if is_refused else state.refused
        self._save(replace(state, attempted=pair.number, attempts=attempts, refused=refused))
        self.recover()
        return is_refused

    def switch(self, staged: Path, pair: Pair, trial: Trial, start: RunStart | None) -> None:
        """Let a staged pair run, on trial. The state is on the disk before the link changes. start: the last one before."""
        state = self.state
        self._keep(staged, pair.number)
        self._save(
            State(
                pair.number,
                state.active,
                trial,
                state.refused,
                max(pair.number, state.newest),
                pair.number,
                state.attempts if state.attempted == pair.number else 0,
                _run_of(start),
            )
        )
        self.recover()

    def judge(
        self, now_ns: int, found: Recorded, start: RunStart | None, trial_s: float, least_codes: int
    ) -> str:
        """Decide about a pair on trial: "confirmed", "rolled back" or "on trial"; "" where none is.

        At the end of trial_s a run of the pair must have made least_codes, whatever else looks well. While what ran before
        goes on recording because nothing began anew, nothing is lost and the pair was not tried: the trial begins again.
        """
        state = self.state
        trial = state.trial
        if trial is None:
            return ""
        passed_s = (now_ns - trial.since_ns) / 1e9
        if passed_s < 0:  # the clock was set back: count anew
            trial = replace(trial, since_ns=now_ns)
        n_looks = trial.n_seen if found.is_seen else trial.n_visits
        if passed_s < trial_s or n_looks < 1:  # one look at least, however far the clock was set ahead
            n_seen = trial.n_seen + found.is_seen
            self._save(replace(state, trial=replace(trial, n_visits=trial.n_visits + 1, n_seen=n_seen)))
            return "on trial"
        if found.is_seen and found.n_codes >= least_codes:
            self._save(replace(state, trial=None))
            return "confirmed"
        if not found.is_seen and found.n_since >= least_codes:
            LOG.warning("pair %d: edge-monitor did not begin with it; restart it", state.active)
            self._save(replace(state, trial=Trial(now_ns, found.epoch, found.end_seq)))
            return "on trial"
        self.roll_back(f"{found.n_codes} codes in {passed_s:.0f} s, expected at least {least_codes}", start)
        return "rolled back"

    def roll_back(self, reason: str, start: RunStart | None) -> None:
        """Go back to the pair before; the one that failed is refused after MAX_ATTEMPTS. start: the last one before."""
        state = self.state
        if state.previous is None:
            raise BundleError(f"{self.folder}: expected a pair to go back to, found none; {reason}")
        LOG.warning("pair %d failed (%s): back to %d", state.active, reason, state.previous)
        attempts = state.attempts + 1
        self._save(
            replace(
                state,
                active=state.previous,
                previous=None,
                trial=None,
                refused=(*state.refused, state.active) if attempts >= MAX_ATTEMPTS else state.refused,
                attempts=attempts,
                awaited=_run_of(start),
                n_requests=0,
            )
        )
        self.recover()

    def _new_folder(self, number: int) -> Path:
        filling = self._pairs / f".{number}.new"
        shutil.rmtree(filling, ignore_errors=True)
        filling.mkdir(parents=True)
        return filling

    def _keep(self, filling: Path, number: int) -> None:
        """Give a filled folder its name, all of it on the disk."""
        final = self._pairs / str(number)
        for path in filling.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        sync_folder(filling)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(filling, final)
        sync_folder(self._pairs)

    def _save(self, state: State) -> None:
        table = {"format_version": FORMAT_VERSION, **asdict(state)}
        write_file(self._state_path, (json.dumps(table, indent=1) + "\n").encode())


def _run_of(start: RunStart | None) -> str:
    return "" if start is None else start.run
