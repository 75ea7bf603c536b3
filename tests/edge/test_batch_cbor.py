"""CBOR from outside: what is refused, and that refusing takes no memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

pytest.importorskip("cbor2")

import cbor2

from edge.batch import decode_batch, decode_envelope, encode_envelope
from edge.batch_cbor import MAX_DEPTH, decode_mapping, look_through
from edge.errors import WireError


def peak_bytes(run: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("item", [b"\xa0", b"\x80", b"\x01"])
def test_a_message_of_very_many_items_is_refused_before_it_is_built(item: bytes) -> None:
    n = 1_000_000
    many = b"\x9a" + n.to_bytes(4, "big") + item * n
    for decode, body in (
        (decode_envelope, b"\xa5" + encode_envelope("owl-1", b"a", bytes(64))[1:] + cbor2.dumps("z") + many),
        (decode_batch, b"\xa2" + cbor2.dumps("format_version") + b"\x01" + cbor2.dumps("runs") + many),
    ):

        def refused(decode: Callable[[bytes], object] = decode, body: bytes = body) -> None:
            with pytest.raises(WireError, match="more than"):
                decode(body)

        assert peak_bytes(refused) < 100_000


def test_an_envelope_may_have_more_keys_but_no_lists() -> None:
    known = {"format_version": 1, "device": "owl-1", "payload": b"p", "signature": bytes(64)}
    assert decode_envelope(cbor2.dumps(known | {"later": 1.5})) == ("owl-1", b"p", bytes(64))
    for odd in ({"later": []}, {"later": {}}, {str(i): i for i in range(13)}, {"device": "x" * 1001}):
        with pytest.raises(WireError):
            decode_envelope(cbor2.dumps(known | odd))


def test_an_error_does_not_repeat_all_that_was_sent() -> None:
    for table in ({"x" * 10_000: 1}, {"format_version": "x" * 10_000}, {"format_version": 1, "k" * 9999: 0}):
        with pytest.raises(WireError) as refused:
            decode_mapping("clip", cbor2.dumps(table), ("epoch",), is_flat=True)
        assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "value",
    [
        *(0, 23, 24, 2**16, 2**64 - 1, -1, -(2**64), 1.5, True, None, "", "é" * 300, b"x" * 70_000),
        *([], {}, [[[]]], {"a": [1, {"b": b"c"}], "d": 1.1}, list(range(300)), ["x"] * 70_000),
    ],
)
def test_what_the_encoder_writes_is_looked_through_to_its_end(value: object) -> None:
    written = cbor2.dumps(value)
    look_through(written, 70_001, MAX_DEPTH)
    for damaged in (written[:-1], written + b"\0"):
        with pytest.raises(ValueError, match="end"):
            look_through(damaged, 70_001, MAX_DEPTH)


@pytest.mark.parametrize(
    ("hexadecimal", "why"),
    [
        ("c000", "tag"),
        ("d9010280", "tag"),
        ("9f01ff", "not told"),
        ("5f4101ff", "not told"),
        ("bf00ff", "not told"),
        ("1c", "not told"),
        ("9bffffffffffffffff", "more than"),
        ("bb7fffffffffffffff", "more than"),
        ("5bffffffffffffffff", "missing"),
        ("8181818181818180", "in one another"),
        ("", "missing"),
    ],
)
def test_what_no_message_has_is_refused(hexadecimal: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        look_through(bytes.fromhex(hexadecimal), 100, MAX_DEPTH)


def test_depth_counts_containers_in_one_another_not_beside() -> None:
    look_through(cbor2.dumps([[[1]], [[2]], [[3]]]), 100, 3)
    with pytest.raises(ValueError, match="in one another"):
        look_through(cbor2.dumps([[[[1]]]]), 100, 3)
