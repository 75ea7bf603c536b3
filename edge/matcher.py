"""Matcher: which query an observation fits best, and whether that is an alarm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge.alarms import Alarms
from edge.bundle import Calibration, Decoy, require_code_space
from edge.calibration import is_accepted, probability
from edge.codes import distances, hamming, to_planes
from edge.errors import CodeSpaceError, WatchlistError
from edge.observation import Detection, Observation
from edge.watchlist import Query, Watchlist

# Share of differing bits under which two sentences ask for one sound. Starter: 41 held-out sentences differ from the plain
# one for their sound in 12 bits of 256 (median; 90 %: 29), from the nearest one for another sound in 53 and more.
SAME_MEANING = 0.15


@dataclass(frozen=True, slots=True)
class Near:
    """A query, and how near an observation is to it; a decoy only competes."""

    query: Query
    distance: int
    probability: float


class Matcher:
    """Compares observations with the queries of a watchlist and the decoys of a bundle.

    The rule: the nearest of all alarms where it is no decoy and its probability is accepted. Of queries at
    equal distance the first in the list counts; a decoy goes before any. A decoy of the bundle that means the
    same as a query is left out. With alarms (edge.alarms) their rule decides instead: a wanted number of false
    alarms a day, on this site's background; of decoys only the watchlist's own compete. calibrations: of queries that have their own, by
    name; the others and decoys have the bundle's. Raises WatchlistError where nothing but decoys is left, CodeSpaceError where codes differ in width.
    """

    def __init__(
        self,
        watchlist: Watchlist,
        decoys: Sequence[Decoy],
        calibration: Calibration,
        alarms: Alarms | None = None,
        calibrations: Mapping[str, Calibration] | None = None,
    ) -> None:
        self._alarms = alarms
        asked = [query for query in watchlist.queries if not query.decoy]
        if not asked:
            raise WatchlistError("watchlist: expected at least one query that is no decoy, found none")
        competing = [
            Query(f"decoy: {decoy.text}", decoy.text, decoy=True, code=decoy.code)
            for decoy in decoys
            if not any(_means_the_same(decoy, query) for query in asked)
        ]
        # argmin takes the first of equals, so this order settles ties
        self._queries = (*competing, *sorted(watchlist.queries, key=lambda query: not query.decoy))
        codes = [np.frombuffer(query.code or b"", np.uint8) for query in self._queries]
        if any(code.size * 8 != watchlist.code_bits for code in codes):
            raise CodeSpaceError(f"decoys: expected codes of {watchlist.code_bits} bits like the watchlist's")
        self._planes = to_planes(np.stack(codes))
        self._code_space = watchlist.code_space
        self._probabilities = _table(calibration, watchlist.code_bits)
        self._own = {name: _table(each, watchlist.code_bits) for name, each in (calibrations or {}).items()}

    def match(self, observation: Observation) -> list[Detection]:
        """Return the detection of an observation, or none. Raises CodeSpaceError for another code space."""
        if self._alarms is not None:
            return self._calibrated(observation, self._alarms)
        near = self.nearest(observation)[0]
        if near.query.decoy or not is_accepted(near.probability, near.query.min_probability):
            return []
        return [
            Detection(
                device_id=observation.device_id,
                epoch=observation.epoch,
                seq=observation.seq,
                query=near.query.name,
                text=near.query.text,
                distance=near.distance,
                probability=near.probability,
                false_alarms_per_day=None,
                clip=None,
            )
        ]

    def _calibrated(self, observation: Observation, alarms: Alarms) -> list[Detection]:
        """Return the detection by the calibrated rule; a query's own `probability=` is asked for before it alarms."""
        heard = alarms.hear(observation, self._is_probable)
        if heard is None:
            return []
        return [
            Detection(
                device_id=observation.device_id,
                epoch=observation.epoch,
                seq=observation.seq,
                query=heard.query.name,
                text=heard.query.text,
                distance=heard.distance,
                probability=self._probability(heard.query, heard.distance),
                false_alarms_per_day=heard.per_day,
                clip=None,
            )
        ]

    def _is_probable(self, query: Query, distance: int) -> bool:
        """Return whether a query's own `probability=` lets a distance through; the calibrated rule asks for no other."""
        if query.min_probability is None:
            return True
        return is_accepted(self._probability(query, distance), query.min_probability)

    def nearest(self, observation: Observation, n: int = 1) -> list[Near]:
        """Return the n nearest queries and decoys, the nearest first."""
        if observation.code_space != self._code_space:
            require_code_space(self._code_space, observation.code_space, "observation", observation.source)
        found = distances(np.frombuffer(observation.code, np.uint8), self._planes)  # [n_queries]
        order = [int(found.argmin())] if n == 1 else np.argsort(found, kind="stable")[:n].tolist()
        return [self._near(self._queries[i], int(found[i])) for i in order]

    def _near(self, query: Query, distance: int) -> Near:
        return Near(query, distance, self._probability(query, distance))

    def _probability(self, query: Query, distance: int) -> float:
        own = None if query.decoy else self._own.get(query.name)
        return (own or self._probabilities)[distance]


def _table(calibration: Calibration, n_bits: int) -> tuple[float, ...]:
    """Return the probability at every distance."""
    return tuple(probability(calibration, distance) for distance in range(n_bits + 1))


def _means_the_same(decoy: Decoy, query: Query) -> bool:
    """Return whether two sentences are one question: the same words, or codes that hardly differ."""
    if _plain(decoy.text) == _plain(query.text):
        return True
    if query.code is None or len(query.code) != len(decoy.code):
        return False
    apart = int(hamming(np.frombuffer(decoy.code, np.uint8), np.frombuffer(query.code, np.uint8)[None])[0])
    return apart < SAME_MEANING * 8 * len(decoy.code)


def _plain(text: str) -> str:
    """Return a sentence without what does not change it: case, spaces, a full stop."""
    return " ".join(text.casefold().rstrip(". ").split())
