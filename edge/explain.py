"""What a bundle can make of the lines of a watchlist: thresholds, expected alarms and recall, and warnings for lines that cannot work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.alarms import Alarms, sentences_of
from edge.background import MIN_WINDOWS
from edge.codes import hamming
from edge.explain_warnings import FAR_SHARE, Known, Warned, alike, unknown
from edge.false_alarms import Tail, Threshold
from edge.matcher import SAME_MEANING
from edge.reference import Codes, Reference
from edge.watchlist import Query, Watchlist

# Of the distances of the loudest known sounds to their own sentence: those that come nearest, and the typical one.
REACH_PERCENT, TYPICAL_PERCENT = 5.0, 50.0
EVERYDAY_PERCENT = 10.0  # of the background: a line as near to these windows asks for the background itself
LEAST_RECALL = 0.1  # of the loudest level: a line that finds less is one that finds nothing

Recall = tuple[tuple[float, float], ...]  # (level in dB, share found), the lowest level first


@dataclass(frozen=True, slots=True)
class Ground:
    """What thresholds are set on. is_site: by what the alarms have learnt, not by the bundle's background at the wanted rate."""

    alarms: Alarms
    reference: Reference
    is_site: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is expected of a line.

    threshold_bits: windows up to so many bits alarm, a fraction is the share of time in which one bit more does; None = not known.
    expected_per_day: false alarms a day of listening; is_learnt: by the site's own background.
    achieved_per_day: false alarms a day that the site had at most so far, with the ends of their 95 % interval; None = not known.
    recall: (level in dB, share of known sounds that are found), empty where none of them is what the line asks for.
    """

    query: Query
    threshold_bits: float | None
    wanted_per_day: float
    expected_per_day: float | None
    is_learnt: bool
    recall: Recall
    warnings: tuple[Warned, ...]
    achieved_per_day: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """A line with its place among the alarms' queries."""

    query: Query
    tail: Tail | None
    threshold: Threshold | None
    wanted_per_day: float
    is_learnt: bool


def explain(
    watchlist: Watchlist, known: Known | None, ground: Ground | None, wanted_per_day: float
) -> list[Explanation]:
    """Return what is expected of every line that is no decoy.

    known: None = not told whether a sentence is known; ground: of this watchlist, None = a bundle without reference codes, which has no
    thresholds; wanted_per_day: of a line that says nothing.
    """
    queries = [query for query in watchlist.queries if not query.decoy]
    decoys = [query for query in watchlist.queries if query.decoy]
    same_bits, far_bits = SAME_MEANING * watchlist.code_bits, FAR_SHARE * watchlist.code_bits
    rows = [_row(ground, query, wanted_per_day, number) for number, query in enumerate(queries)]
    if ground is None:
        measured = [_explanation(row) for row in rows]
    else:
        measured = _measured(ground, rows, decoys, same_bits)
    explanations = []
    for each in measured:
        warnings = (*alike(each.query, queries, decoys, same_bits), *unknown(each.query, known, far_bits))
        explanations.append(replace(each, warnings=(*each.warnings, *warnings)))
    return explanations


def _row(ground: Ground | None, query: Query, default_per_day: float, number: int) -> _Row:
    wanted = default_per_day if query.alarms_per_day is None else query.alarms_per_day
    tail = None if ground is None else ground.alarms.rule.background.tail(number)
    if ground is None or tail is None:
        return _Row(query, None, None, wanted, False)
    rule = ground.alarms.rule
    if ground.is_site:
        is_learnt = bool(rule.background.counts[number].sum() >= MIN_WINDOWS)
        return _Row(query, tail, rule.thresholds[number], wanted, is_learnt)
    return _Row(
        query, tail, tail.threshold(min(wanted / rule.background.windows_per_day, 0.5)), wanted, False
    )


def _explanation(
    row: _Row, expected: float | None = None, recall: Recall = (), lost: str | None = None
) -> Explanation:
    bits = None if row.threshold is None else row.threshold.distance + row.threshold.share
    warnings = (Warned("background", lost),) if lost else ()
    return Explanation(row.query, bits, row.wanted_per_day, expected, row.is_learnt, recall, warnings)


def _measured(
    ground: Ground, rows: Sequence[_Row], decoys: Sequence[Query], same_bits: float
) -> list[Explanation]:
    """Return what the reference says to each line, with a warning where it cannot be told from background."""
    reference, rule = ground.reference, ground.alarms.rule
    quiet, heard = (ground.alarms.distances(codes) for codes in (reference.background, reference.sounds))
    quiet_bits, heard_bits = rule.bits(quiet, reference.runs), rule.bits(heard, reference.sound_event)
    own = _own_distances(reference)
    found = []
    for number, row in enumerate(rows):
        columns = list(rule.queries[number].statistic.rows)
        let_through = _let_through(row, heard_bits[:, number])
        let_through *= _is_open(heard[:, columns], reference.sounds, decoys)
        recall = _recall(reference, _sounds_of(row.query, reference, same_bits), let_through)
        expected = None if row.threshold is None else ground.alarms.expected_per_day(number, row.threshold)
        told = _explanation(row, expected, recall, _lost(row, recall, own, quiet_bits[:, number]))
        achieved = rule.background.achieved_per_day(number) if ground.is_site else None
        found.append(replace(told, achieved_per_day=achieved))
    return found


def _is_open(distances: NDArray[Any], codes: Codes, decoys: Sequence[Query]) -> NDArray[np.bool_]:
    """Return which windows no decoy takes, [n_windows]; distances: [n_windows, n_sentences] of the line."""
    nearest = distances.min(axis=1)
    is_open = np.ones(len(nearest), bool)
    for decoy in decoys:
        is_open &= nearest < hamming(decoy.code or b"", codes)
    return is_open


def _let_through(row: _Row, bits: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of time in which each window is within the threshold, [n_windows]."""
    if row.threshold is None:
        return np.zeros(len(bits))
    one_more = np.where(bits == row.threshold.distance + 1, row.threshold.share, 0.0)
    return np.where(bits <= row.threshold.distance, 1.0, one_more)


def _sounds_of(query: Query, reference: Reference, same_bits: float) -> list[int]:
    """Return the numbers of the reference's sentences that a line asks for; none of `A & B`, which is to be heard at once."""
    if query.combine == "and":
        return []
    near = [hamming(code, reference.text_codes) < same_bits for code in sentences_of(query)]
    return np.flatnonzero(np.any(near, axis=0)).tolist() if near else []


def _recall(reference: Reference, texts: Sequence[int], let_through: NDArray[np.float64]) -> Recall:
    """Return (level, share of its events of these texts that have a window let through), the lowest level first."""
    is_asked = np.isin(reference.sound_text, texts)
    recall = []
    for level in np.unique(reference.snr_db[is_asked]):
        here = is_asked & (reference.snr_db == level)
        events = np.unique(reference.sound_event[here])
        best = [let_through[here & (reference.sound_event == event)].max() for event in events]
        recall.append((float(level), float(np.mean(best))))
    return tuple(recall)


def _own_distances(reference: Reference) -> NDArray[np.float64]:
    """Return the distances of the loudest known sounds to their own sentence, [n]."""
    own = np.zeros(len(reference.sounds))
    for number, code in enumerate(reference.text_codes):
        is_own = reference.sound_text == number
        own[is_own] = hamming(code, reference.sounds[is_own])
    loudest: NDArray[np.float64] = own[reference.snr_db == reference.snr_db.max(initial=-np.inf)]
    return loudest


def _lost(
    row: _Row,
    recall: Recall,
    own: NDArray[np.float64],
    quiet_bits: NDArray[np.int64],
) -> str | None:
    """Return why a line cannot be told from background, None where it can or nothing is known of it.

    own: distances of known sounds to their sentences; quiet_bits: [n_windows] of the background to this line.
    """
    if row.threshold is None or not len(own) or not len(quiet_bits):
        return None
    bits = row.threshold.distance + row.threshold.share
    if recall:
        level, found = recall[-1]
        if found >= LEAST_RECALL:
            return None
        why = f"it finds {found:.0%} of the known sounds at {level:g} dB"
    elif row.query.combine is not None:  # its bits are of another scale
        return None
    elif bits < (reach := float(np.percentile(own, REACH_PERCENT))):
        why = f"{row.wanted_per_day:g} false alarms a day leave it {bits:.1f} bits, and known sounds hardly come within {reach:.0f}"
    elif np.percentile(quiet_bits, EVERYDAY_PERCENT) < np.percentile(own, TYPICAL_PERCENT):
        why = "much of the background is as near to it as known sounds are to their sentences"
    else:
        return None
    return f"cannot be told from background: {why}; ask for a sound of its own, or allow more alarms_per_day"
