"""CBOR from outside: looked through before anything is built of it, so that few bytes cannot become very much memory.

Messages have definite lengths and no tags; among tags are regular expressions, cycles, and numbers of any length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cbor2

from edge import require
from edge.errors import WireError

FORMAT_VERSION = 1  # of all messages between a recorder and its hub
MAX_ITEMS = (
    600_000  # of one message; a batch with all the records it may have needs 530,000, some 50 MB once built
)
MAX_DEPTH = 6  # of nesting in a batch
_MAX_FLAT_KEYS = 16  # of a message without containers: those it has, and what a later version adds

_BYTES, _TEXT, _ARRAY, _MAP, _TAG = 2, 3, 4, 5, 6  # major types of RFC 8949


def decode_mapping(
    what: str, payload: bytes, keys: Sequence[str], *, is_flat: bool = False
) -> Mapping[str, Any]:
    """Return the CBOR mapping in bytes from outside, of this format and with these keys. Raises WireError.

    is_flat: it has at most 16 keys and no list or mapping in it; needed where nobody's signature was checked yet.
    """
    try:
        if is_flat:
            look_through(payload, 1 + 2 * _MAX_FLAT_KEYS, 1)
        else:
            look_through(payload, MAX_ITEMS, MAX_DEPTH)
        table = cbor2.loads(payload, allow_duplicate_keys=False, strict_hashable_types=True)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise WireError(f"{what}: expected CBOR, found damaged bytes ({error})") from error
    require.version(WireError, what, table, FORMAT_VERSION, "update whichever side is older")
    return require.keys(WireError, what, table, ("format_version", *keys))


def look_through(payload: bytes, max_items: int, max_depth: int) -> None:
    """Require one item of CBOR with at most max_items in it and max_depth lists and mappings in one another.

    Nothing is built of it. Raises ValueError for that and for bytes that are missing or too many.
    """
    end, at, n_items = len(payload), 0, 1
    outer: list[int] = []  # items still to come in the containers around this one
    left = 1  # in this one
    while left or outer:
        if not left:
            left = outer.pop()
            continue
        left -= 1
        if at >= end:
            raise ValueError("its end is missing")
        major, value = payload[at] >> 5, payload[at] & 31
        at += 1
        if value >= 24:
            if value > 27:
                raise ValueError("a length that is not told")
            size = 1 << (value - 24)
            value = int.from_bytes(payload[at : at + size], "big")
            at += size
        if major in (_BYTES, _TEXT):
            at += value
        elif major in (_ARRAY, _MAP):
            n_within = value * (major - 3)
            n_items += n_within
            outer.append(left)
            left = n_within
            if n_items > max_items:
                raise ValueError(f"more than {max_items} items")
            if len(outer) > max_depth:
                raise ValueError(f"more than {max_depth} lists and mappings in one another")
        elif major == _TAG:
            raise ValueError("a tag, which no message has")
    if at != end:
        raise ValueError("its end is missing" if at > end else f"{end - at} bytes after its end")
