"""Fit the pooled probability of an alarm: how often the nearest query is right, given its distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.metrics import hamming_table

N_WATCHLISTS = 400
WATCHLIST_SIZES = (3, 16)  # queries in a random watchlist: at least, less than
PRESENT_SHARE = 0.5  # watchlists that hold the right query of a window that has one
SAME_MEANING = 0.15  # share of differing bits under which a decoy says the same as a query and is left out


@dataclass(frozen=True, slots=True)
class Pairs:
    """Outcomes of the alarm rule: the nearest query's distance, and whether it was right."""

    distances: NDArray[np.float64]  # [n]
    correct: NDArray[np.bool_]  # [n]
    owners: NDArray[np.int64]  # [n], the recording that a pair is from
    n_answerable: int  # windows whose right query was in the watchlist, decoys or not


@dataclass(frozen=True, slots=True)
class Logistic:
    """probability = sigmoid(coefficient * distance + intercept)."""

    coefficient: float
    intercept: float

    def __call__(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of distances, any shape."""
        return 1 / (1 + np.exp(-(self.coefficient * distances + self.intercept)))


def simulate(
    audio: NDArray[np.float32],
    classes: NDArray[np.int64],
    owners: NDArray[np.int64],
    queries: NDArray[np.float32],
    decoys: NDArray[np.float32],
    background_class: int,
    seed: int = 0,
) -> Pairs:
    """Put validation windows to random watchlists with the bundle's decoys, as a recorder would.

    Args:
        audio: [n_windows, n_bits] logits; classes, owners: [n_windows].
        queries: [n_classes, n_bits] logits of each class's plain query; decoys: [n_decoys, n_bits].
        background_class: is never asked for.
    """
    random = np.random.default_rng(seed)
    to_queries = hamming_table(queries, audio)  # [n_classes, n_windows]
    to_decoys = hamming_table(decoys, audio)  # [n_decoys, n_windows]
    apart = hamming_table(queries, decoys)  # [n_classes, n_decoys]
    limit = SAME_MEANING * audio.shape[1]
    heard = np.setdiff1d(np.unique(classes), [background_class])
    others = np.setdiff1d(np.arange(len(queries)), [background_class])
    distances, correct, found_owners, n_answerable = [], [], [], 0
    for _ in range(N_WATCHLISTS):
        size = int(random.integers(*WATCHLIST_SIZES))
        # half of a watchlist is of sounds that do occur, the rest of anything the encoder knows; few classes are not all listed
        n_heard = min(-(-size // 2), max(1, len(heard) // 2))
        listed = np.union1d(
            random.choice(heard, size=n_heard, replace=False),
            random.choice(others, size=min(size // 2, n_heard)),
        )
        rivals = ~(apart[listed] < limit).any(axis=0)
        nearest_query = to_queries[listed].argmin(axis=0)  # [n_windows]
        distance = to_queries[listed].min(axis=0)
        decoy = to_decoys[rivals].min(axis=0) if rivals.any() else np.full(len(classes), np.inf)
        is_listed = np.isin(classes, listed)
        # windows without an answer are drawn so that they make up the share of a mixed site
        n_present = int(is_listed.sum())
        absent = np.flatnonzero(~is_listed)
        n_absent = min(len(absent), int(n_present * (1 - PRESENT_SHARE) / PRESENT_SHARE))
        chosen = np.concatenate(
            [np.flatnonzero(is_listed), random.choice(absent, size=n_absent, replace=False)]
        )
        n_answerable += n_present
        wins = chosen[distance[chosen] < decoy[chosen]]
        distances.append(distance[wins])
        correct.append(listed[nearest_query[wins]] == classes[wins])
        found_owners.append(owners[wins])
    return Pairs(
        np.concatenate(distances).astype(np.float64),
        np.concatenate(correct),
        np.concatenate(found_owners),
        n_answerable,
    )


def fit_logistic(distances: NDArray[np.float64], correct: NDArray[np.bool_]) -> Logistic:
    """Maximum likelihood by Newton's method on standardised distances, with a tiny ridge that keeps separable data finite."""
    centre, scale = float(distances.mean()), float(distances.std()) or 1.0
    x = np.stack([(distances - centre) / scale, np.ones_like(distances)], axis=1)
    weights = np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (correct - p) - 1e-3 * weights
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights += step
        if np.abs(step).max() < 1e-9:
            break
    coefficient = float(weights[0] / scale)
    return Logistic(coefficient, float(weights[1] - coefficient * centre))


@dataclass(frozen=True, slots=True)
class Reliability:
    """How true the stated probabilities are, measured on recordings that did not fit them."""

    brier: float  # mean squared error of the probability
    calibration_error: float  # mean |stated - observed| over ten bins of stated probability, weighted
    precision: float  # of alarms at probability >= 0.5
    recall: float  # of windows whose query was in the watchlist


def cross_fitted(pairs: Pairs, n_folds: int = 5) -> Reliability:
    """Fit on four fifths of the recordings, measure on the rest, in turn."""
    stated = np.zeros(len(pairs.distances))
    recordings = np.unique(pairs.owners)
    for fold in range(n_folds):
        held = np.isin(pairs.owners, recordings[fold::n_folds])
        stated[held] = fit_logistic(pairs.distances[~held], pairs.correct[~held])(pairs.distances[held])
    bins = np.minimum((stated * 10).astype(int), 9)
    error = sum(
        abs(float(stated[bins == b].mean()) - float(pairs.correct[bins == b].mean()))
        * float((bins == b).mean())
        for b in np.unique(bins)
    )
    alarms = stated >= 0.5
    return Reliability(
        float(np.square(stated - pairs.correct).mean()),
        error,
        float(pairs.correct[alarms].mean()) if alarms.any() else 0.0,
        float((pairs.correct & alarms).sum() / max(pairs.n_answerable, 1)),
    )


def as_notes(fitted: Logistic, pairs: Pairs, source: str) -> dict[str, object]:
    """What a checkpoint keeps."""
    return {
        "coefficient": round(fitted.coefficient, 6),
        "intercept": round(fitted.intercept, 6),
        "n_pairs": len(pairs.distances),
        "source": source,
    }


def mixed_in(
    windows: NDArray[np.float32],
    backgrounds: Sequence[NDArray[np.float32]],
    snr_db: tuple[float, float],
    random: np.random.Generator,
) -> NDArray[np.float32]:
    """Lay each window over a random background window at a random level; float32 [n, window_samples]."""
    mixed = np.empty_like(windows)
    for row, window in enumerate(windows):
        background = backgrounds[int(random.integers(len(backgrounds)))]
        loud = float(np.sqrt(np.square(window).mean())) or 1e-6
        quiet = float(np.sqrt(np.square(background).mean())) or 1e-6
        mixed[row] = window + background * (loud / quiet * 10 ** (-random.uniform(*snr_db) / 20))
    return mixed / np.maximum(np.abs(mixed).max(axis=1, keepdims=True), 1e-6) * 0.7
