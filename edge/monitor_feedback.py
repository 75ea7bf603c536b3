"""What people's verdicts say to a run of edge-monitor: a probability of their own for the queries that have enough of them."""

from __future__ import annotations

import logging
from pathlib import Path

from edge.bundle import Calibration
from edge.errors import StoreError
from edge.precision import precisions
from edge.store_verdicts import read_verdicts
from edge.watchlist import Watchlist

LOG = logging.getLogger(__name__)


def fitted_calibrations(
    watchlist: Watchlist, prior: Calibration, store: Path | None
) -> dict[str, Calibration]:
    """Return the calibration of each query whose detections have verdicts enough, by name.

    Only verdicts on this sentence in this code space count. prior: the bundle's; store: None = there is none.
    Verdicts that cannot be read are a warning: listening goes before.
    """
    if store is None:
        return {}
    try:
        verdicts = read_verdicts(store)
    except StoreError as error:
        LOG.warning("probabilities are the bundle's own, verdicts cannot be used: %s", error)
        return {}
    asked = {(query.name, query.text) for query in watchlist.queries if not query.decoy}
    fits = {
        each.query: each.fit(prior)
        for each in precisions(verdicts.values())
        if each.code_space == watchlist.code_space and (each.query, each.text) in asked
    }
    return {name: fit for name, fit in fits.items() if fit is not None}
