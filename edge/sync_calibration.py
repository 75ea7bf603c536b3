"""What of the learnt backgrounds is sent home: all of them over a mobile network, their near ends over a satellite, once a day."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import cbor2
import numpy as np
from numpy.typing import NDArray

from edge.alarms_learnt import Learnt, LearntQuery, read_learnt
from edge.batch_calibration import (
    MAX_NAME_CHARACTERS,
    MAX_SITE_CALIBRATIONS,
    SiteCalibration,
    SiteCalibrations,
    quarters_of,
    record_of,
)
from edge.config import Link
from edge.errors import WireError
from edge.monitor_alarms import state_path

LOG = logging.getLogger(__name__)

SATELLITE_BYTES = 1_800  # of all that goes in a day, without the envelope
TAIL_LEVEL = 0.1  # no tail model looks further (edge.false_alarms); over a satellite the rest is one count
_HEAD_BYTES = 32  # of a batch's calibrations beside their records


def calibrations(store: Path, link: Link, n_bytes: int, day: int) -> list[SiteCalibrations]:
    """Return what is sent of a store's learnt backgrounds, in parts of at most n_bytes, or of one query.

    day: since 1970; over a satellite the queries take turns where SATELLITE_BYTES are too few for all.
    """
    if link == "lora":
        return []
    learnt = read_learnt(state_path(store))
    if learnt is None:
        return []
    sites = list(_sites(learnt, is_whole=link == "lte"))
    n_queries = len(sites)
    if link == "satellite":
        sites = _of_the_day(sites, day)
    return [SiteCalibrations(learnt.written_ns, n_queries, part) for part in _parts(sites, n_bytes)]


def _sites(learnt: Learnt, *, is_whole: bool) -> Iterator[SiteCalibration]:
    for each in learnt.queries:
        if len(each.name) > MAX_NAME_CHARACTERS:
            LOG.warning(
                "%.40s...: its name is too long for the hub: what was learnt of it is not sent", each.name
            )
            continue
        try:
            yield _site(each, learnt.hop_s, is_whole=is_whole)
        except WireError as error:
            LOG.warning("%s: what was learnt of it is not sent: %s", each.name, error)


def _site(query: LearntQuery, hop_s: float, *, is_whole: bool) -> SiteCalibration:
    counts = query.counts if is_whole else near_end(query.counts)
    first, quarters = quarters_of(counts.tolist())
    facts = (query.threshold_bits, query.wanted_per_day, query.expected_per_day)
    return SiteCalibration(query.name, query.digest, *facts, hop_s, first, quarters)


def near_end(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a histogram [n_bins] whose windows beyond its nearest tenth are counted together, one bit further."""
    total = counts.sum()
    if not total > 0:
        return counts
    last = int(np.searchsorted(np.cumsum(counts) / total, TAIL_LEVEL))  # the bin that reaches the level
    cut = counts[: last + 2].copy()
    cut[-1] = counts[last + 1 :].sum() if last + 1 < len(counts) else cut[-1]
    return cut


def _n_bytes(site: SiteCalibration) -> int:
    return len(cbor2.dumps(record_of(site)))


def _of_the_day(sites: Sequence[SiteCalibration], day: int) -> list[SiteCalibration]:
    """Return those that fit into a day's bytes, and tomorrow those after them."""
    sizes = [_n_bytes(each) for each in sites]
    room = SATELLITE_BYTES - _HEAD_BYTES
    if sum(sizes) <= room:
        return list(sites)
    start = day * max(1, room // max(sizes)) % len(sites)
    chosen = []
    for number in (*range(start, len(sites)), *range(start)):
        if sizes[number] > room:
            break
        room -= sizes[number]
        chosen.append(sites[number])
    return chosen


def _parts(sites: Sequence[SiteCalibration], n_bytes: int) -> Iterator[tuple[SiteCalibration, ...]]:
    part: list[SiteCalibration] = []
    room = n_bytes - _HEAD_BYTES
    for each in sites:
        size = _n_bytes(each)
        if part and (size > room or len(part) >= MAX_SITE_CALIBRATIONS):
            yield tuple(part)
            part, room = [], n_bytes - _HEAD_BYTES
        part.append(each)
        room -= size
    if part:
        yield tuple(part)
