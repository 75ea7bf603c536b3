"""What a recorder has learnt, as it travels: unchanged, and nothing but WireError for damage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cbor2")

import cbor2

from edge.batch import Batch, decode_batch, encode_batch
from edge.batch_calibration import (
    MAX_BINS,
    MAX_SITE_CALIBRATIONS,
    SiteCalibration,
    SiteCalibrations,
    pack_quarters,
    quarters_of,
    unpack_quarters,
)
from edge.errors import WireError

SITE = SiteCalibration("owl", bytes(range(8)), 71.25, 0.5, 0.48, 1.5, 60, (1, 0, 127, 128, 2**40))
SENT = Batch(
    "owl-1",
    7,
    (0, 0, 0),
    calibrations=SiteCalibrations(5, 9, (SITE, replace(SITE, name="fox", threshold_bits=None))),
)


def changed(**values: Any) -> bytes:
    """Return a batch whose first calibration has other values, by position."""
    table = cbor2.loads(encode_batch(SENT))
    for position, value in values.items():
        table["calibrations"][2][0][int(position[1:])] = value
    return cbor2.dumps(table)


def test_what_was_learnt_comes_as_it_was_sent() -> None:
    assert decode_batch(encode_batch(SENT)) == SENT
    without = Batch("owl-1", 7, (0, 0, 0))
    assert b"calibrations" not in encode_batch(without)
    assert decode_batch(encode_batch(without)) == without


def test_counts_lose_their_empty_ends_and_less_than_a_quarter_window() -> None:
    counts = np.zeros(MAX_BINS)
    counts[[70, 72, 256]] = 0.3, 812.13, 2.0
    first, quarters = quarters_of(counts.tolist())
    assert (first, len(quarters), quarters[:3], quarters[-1]) == (70, 187, (1, 0, 3249), 8)
    assert unpack_quarters(pack_quarters(quarters)) == quarters
    assert quarters_of([0.0, 0.1]) == (0, ())


def test_hours_are_those_of_the_windows_that_were_counted() -> None:
    site = replace(SITE, quarters=(4, 4 * 2399), hop_s=1.5)
    assert (site.n_windows, site.hours) == (2400, 1.0)


@pytest.mark.parametrize(
    "values",
    [
        {"p0": ""},
        {"p0": "x" * 501},
        {"p0": b"owl"},
        {"p1": bytes(7)},
        {"p1": "12345678"},
        {"p2": float("nan")},
        {"p2": "71"},
        {"p3": -1.0},
        {"p3": None},
        {"p4": float("inf")},
        {"p5": 0.0},
        {"p6": -1},
        {"p6": 253},  # and 5 counts go beyond 256 bits
        {"p7": b"\x80"},
        {"p7": b"\xff" * 7 + b"\x01"},
        {"p7": b"\x01" * 300},
        {"p7": b"\x01" * 10_000},
        {"p7": [1, 2]},
        {"p7": b"\x81\x80\x80\x80\x80\x40"},  # 2^41
    ],
)
def test_garbage_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        decode_batch(changed(**values))


@pytest.mark.parametrize(
    "told",
    [
        7,
        [],
        [5, 9],
        [5, 9, 3],
        [-1, 9, []],
        [5, "9", []],
        [5, 9, [[]]],
        [5, 9, [{}]],
        [5, 9, [None]],
        {"a": 1},
        "abc",
    ],
)
def test_another_shape_is_refused(told: Any) -> None:
    table = cbor2.loads(encode_batch(SENT))
    table["calibrations"] = told
    with pytest.raises(WireError):
        decode_batch(cbor2.dumps(table))


def test_more_than_a_batch_may_hold_is_refused() -> None:
    table = cbor2.loads(encode_batch(SENT))
    table["calibrations"][2] *= MAX_SITE_CALIBRATIONS
    with pytest.raises(WireError, match="number"):
        decode_batch(cbor2.dumps(table))


def test_flipped_bits_raise_nothing_else() -> None:
    random, content = np.random.default_rng(0), encode_batch(SENT)
    n_refused = 0
    for _ in range(3000):
        damaged = np.frombuffer(content, np.uint8).copy()
        for place in random.integers(0, len(damaged), random.integers(1, 4)):
            damaged[place] ^= 1 << random.integers(0, 8)
        try:
            decode_batch(damaged.tobytes())
        except WireError:
            n_refused += 1
    assert 500 < n_refused < 3000
