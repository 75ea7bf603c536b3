"""The probability of a match for bundles without training: from labelled observations, or from reference codes."""

from __future__ import annotations

import numpy as np
import pytest

from edge.bundle import Bundle, default_bundle
from edge.calibration import probability
from edge.codes import pack
from export.calibration import NOTHING, as_signs, fitted_calibration
from export.reference import calibration_of

N_CLASSES, N_BITS = 8, 256


def heard(n: int = 160, share: float = 0.2, seed: int = 0):
    """Observations that differ from their sentence in a share of the bits, every fourth of none: (logits, classes, sentences, decoys)."""
    random = np.random.default_rng(seed)
    sentences = np.where(random.random((N_CLASSES, N_BITS)) < 0.5, 1, -1).astype(np.float32)
    classes = np.arange(n) % N_CLASSES
    observations = sentences[classes] * np.where(random.random((n, N_BITS)) < share, -1, 1)
    other = np.arange(n) % 4 == 3
    observations[other] = np.where(random.random((other.sum(), N_BITS)) < 0.5, 1, -1)
    decoys = np.where(random.random((2, N_BITS)) < 0.5, 1, -1).astype(np.float32)
    return observations.astype(np.float32), np.where(other, NOTHING, classes), sentences, decoys


def fitted(observations, classes, sentences, decoys):
    owners = np.arange(len(observations))
    return fitted_calibration(observations, classes, owners, sentences, decoys, "noise")


def test_a_probability_tells_near_from_far():
    found = fitted(*heard())
    assert found is not None
    assert found["source"] == "noise"
    assert found["coefficient"] < 0
    at = [1 / (1 + np.exp(-(found["coefficient"] * d + found["intercept"]))) for d in (51, 115)]
    assert at[0] > 0.9  # a fifth of the bits
    assert at[1] < 0.2  # the nearest of several by chance


@pytest.mark.parametrize(
    "change",
    [
        lambda o, c, s, d: (o[:48], c[:48], s, d),  # too few
        lambda o, c, s, d: (o, np.where(c > 1, NOTHING, c), s, d),  # two classes
        lambda o, c, s, d: (s[(c + 1) % N_CLASSES], c, s, d),  # labels of others: the nearest is wrong
    ],
)
def test_no_probability_is_better_than_a_wrong_one(change):
    assert fitted(*change(*heard())) is None


def test_a_data_set_of_few_classes_still_has_windows_without_an_answer():
    observations, classes, sentences, decoys = heard(300)
    few = np.flatnonzero((classes < 4) & (classes != NOTHING))
    found = fitted(observations[few], classes[few], sentences[:4], decoys)
    assert found is not None
    assert 1 / (1 + np.exp(-(found["coefficient"] * 115 + found["intercept"]))) < 0.5


def test_signs_are_those_that_were_packed():
    logits = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    assert np.array_equal(as_signs(np.stack([pack(row) for row in logits]), 64), np.where(logits >= 0, 1, -1))


def test_reference_codes_give_a_probability():
    """Those of the starter, whose checkpoint brings one that was fitted with more care."""
    starter = Bundle.load(default_bundle())
    arrays = starter.arrays(starter.manifest.reference)
    found = calibration_of(starter, arrays, "reference codes")
    assert found is not None
    assert (found.method, found.source) == ("logistic", "reference codes")
    own = np.unpackbits(arrays["sounds"] ^ arrays["text_codes"][arrays["sound_text"]], axis=1).sum(axis=1)
    loud = own[arrays["snr_db"] == 20]
    assert np.mean([probability(found, int(d)) for d in loud]) > 0.6
    assert probability(found, N_BITS // 2) < 0.05
