"""Damaged and hostile messages made of good ones: flipped and cut bytes, and CBOR whose values were exchanged."""

from __future__ import annotations

import struct
from collections.abc import Callable
from copy import deepcopy
from decimal import Decimal
from typing import Any

import cbor2
import numpy as np

_HUGE = 10**5000  # more digits than Python shows
_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 255, 256, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, _HUGE, -_HUGE, 0.5, -0.0,
    float("nan"), float("inf"), float("-inf"), "", "a", "\x00", "é" * 70, "x" * 5000, b"", b"\x00", b"\xff" * 64, b"x" * 5000, [], [[]],
    [[[[[[[[]]]]]]]], {}, {"": {}}, [0] * 300, {"at_ns": "x"}, cbor2.CBORTag(2, b"\xff" * 3000), cbor2.CBORTag(4, [10**6, 1]),
    cbor2.CBORTag(5, [10**4, 3]), cbor2.CBORTag(35, "(a+)+$"), cbor2.CBORTag(28, [cbor2.CBORTag(29, 0)]), cbor2.CBORTag(0, "2026"),
    cbor2.CBORTag(1, 1e300), cbor2.CBORTag(30, [1, 0]), cbor2.CBORTag(258, [1, 2]), cbor2.CBORTag(37, b"1"), cbor2.CBORTag(99999, 1),
    cbor2.undefined, cbor2.CBORSimpleValue(99), Decimal("1e30"),
)  # fmt: skip
# heads of CBOR that announce far more than there is
_HEADS = (b"\x9b" + b"\xff" * 8, b"\x5b" + struct.pack(">Q", 2**40), b"\x7b" + struct.pack(">Q", 2**62), b"\xbb" + b"\x7f" * 8, b"\x81" * 2000, b"\xd8\x1d\x00", b"\xf9\x7e\x00", b"\x9f", b"\x5f", b"\xbf")  # fmt: skip


def damaged(message: bytes, random: np.random.Generator) -> bytes:
    """Return a message with some bytes changed, cut out, put in or repeated."""
    changed = bytearray(message)
    for _ in range(int(random.integers(1, 4))):
        at = int(random.integers(0, len(changed) + 1))
        kind = int(random.integers(0, 6))
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 1 and at < len(changed):
            changed[at] = int(random.integers(0, 256))
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            del changed[at : at + int(random.integers(1, 9))]
        elif kind == 4:
            changed[at:at] = _HEADS[int(random.integers(0, len(_HEADS)))]
        else:
            changed[at:at] = changed[max(0, at - int(random.integers(1, 40))) : at]
    return bytes(changed)


def exchanged(message: bytes, random: np.random.Generator) -> bytes:
    """Return good CBOR with one to three of its values exchanged, taken out or added."""
    table = cbor2.loads(message)
    for _ in range(int(random.integers(1, 4))):
        holder, key = _place(table, random)
        value = _VALUES[int(random.integers(0, len(_VALUES)))]
        if isinstance(value, (list, dict)):
            value = deepcopy(value)  # a later round may change it
        kind = int(random.integers(0, 8))
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.insert(key, value)
        elif isinstance(holder[key], int) and kind < 5:
            holder[key] += int(random.integers(-3, 4)) * int(random.choice([1, 1000, 2**40]))
        else:
            holder[key] = value
        if not table:
            break
    return cbor2.dumps(table)


def _place(table: Any, random: np.random.Generator) -> tuple[Any, Any]:
    """Return a holder and a key in it, at a random depth."""
    holder, key = table, None
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = keys[int(random.integers(0, len(keys)))]
        inner = holder[key]
        if not isinstance(inner, (dict, list)) or not inner or random.random() < 0.15:
            return holder, key
        holder = inner


def fuzzed(payload: bytes, envelope: Callable[[bytes], bytes], random: np.random.Generator) -> bytes:
    """Return an envelope that is damaged itself, or that signs a damaged payload."""
    kind = int(random.integers(0, 4))
    if kind == 0:
        return damaged(envelope(payload), random)
    if kind == 1:
        return exchanged(envelope(payload), random)
    return envelope((damaged if kind == 2 else exchanged)(payload, random))
