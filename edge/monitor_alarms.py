"""The alarms of a run of edge-monitor: opened from the bundle, taught by the state and the store of runs before, kept for the next."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from edge.alarm_schedule import activity
from edge.alarms import Alarms
from edge.bundle import Bundle
from edge.config import Config
from edge.errors import StoreError
from edge.reference import load_reference
from edge.store_reader import StoreReader
from edge.store_schema import store_path
from edge.watchlist import Query, Watchlist

LOG = logging.getLogger(__name__)

SAVE_EVERY_S = 600.0
LEARN_S = (
    2 * 86_400.0
)  # of stored observations, for a query that no state knows: no waiting for a new question


def open_alarms(
    bundle: Bundle, watchlist: Watchlist, config: Config, hop_s: float, store: Path | None
) -> Alarms | None:
    """Return the alarms of a run; None where the bundle has no reference codes: the rule is then the nearest query's probability.

    store: the database of the run, whose neighbour keeps the state; None = nothing is kept.
    """
    reference = load_reference(bundle)
    if reference is None:
        return None
    deployment = config.deployment
    is_active = activity(watchlist.queries, deployment.latitude, deployment.longitude)
    alarms = Alarms(watchlist, reference, hop_s, config.monitor.alarms_per_day, is_active)
    if store is not None:
        _teach(alarms, alarms.restore(state_path(store)), store, hop_s)
    return alarms


def unused_options(watchlist: Watchlist) -> dict[str, list[str]]:
    """Return what lines ask for that the rule without calibrated alarms does not know, with the names of these lines."""
    unused: dict[str, list[str]] = {}
    for query in watchlist.queries:
        asked = {
            "alarms_per_day": query.alarms_per_day is not None,
            "confirm": query.confirm != (1, 1),
            "cooldown": query.cooldown_s is not None,
            "active": query.active is not None,
            "& and OR (the first sentence alone is asked)": query.combine is not None,
        }
        for option in (option for option, is_asked in asked.items() if is_asked):
            unused.setdefault(option, []).append(query.name)
    return unused


def state_path(store: Path) -> Path:
    """Return where the learnt background of a store is kept."""
    chosen = store_path(store)
    return chosen.with_name(f"{chosen.stem}-background.npz")


def _teach(alarms: Alarms, unknown: list[Query], store: Path, hop_s: float) -> None:
    """Let queries that no state knows learn from what is stored."""
    if not unknown or not store_path(store).is_file():
        return
    try:
        with StoreReader.open(store) as reader:
            n = sum(reader.counts().values())
            first = max(0, n - round(LEARN_S / hop_s))
            n_learnt = alarms.learn(reader.observations(first), unknown)
    except StoreError as error:  # the writer, which opens it next, says what to do
        LOG.warning("%s: nothing learnt from it: %s", store, error)
        return
    LOG.info("%d queries are new: learnt from %d stored observations", len(unknown), n_learnt)


class StateKeeper:
    """Writes the learnt background now and then, and at the end."""

    def __init__(self, alarms: Alarms, store: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._alarms, self._path, self._clock = alarms, state_path(store), clock
        self._due_s = clock() + SAVE_EVERY_S

    def save_if_due(self) -> None:
        """Write when SAVE_EVERY_S have passed."""
        if self._clock() >= self._due_s:
            self._due_s = self._clock() + SAVE_EVERY_S
            self.save()

    def save(self) -> None:
        """Write now."""
        self._alarms.save(self._path)
