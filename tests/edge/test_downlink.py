"""Queries by satellite: five in 270 bytes, taken once, from the hub alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("cbor2")
pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.bundle import Bundle
from edge.device_key import DeviceKey
from edge.downlink import (
    Downlink,
    DownlinkQuery,
    decode_downlink,
    encode_downlink,
    split_queries,
)
from edge.downlink_memory import MAX_TAKEN, RADIO_GROUP, WINDOW_S, DownlinkMemory
from edge.errors import StoreError, WireError
from edge.query import Query
from edge.update_downlink import take_downlinks
from edge.update_install import Installed
from edge.update_radio import settle
from edge.watchlist import Watchlist, load_watchlist

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "downlink-v1.bin"
HUB = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"h" * 32))
OTHER = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"o" * 32))
SPACE = "test-0123456789ab"
FIVE = tuple(
    DownlinkQuery(f"query{i}", bytes([i]) * 32, rate)
    for i, rate in enumerate((0.001, 0.1, 2.0, 1000.0, None))
)


def read(content: bytes, last_at_s: int = 0, device: str = "owl-1", space: str = SPACE) -> Downlink:
    return decode_downlink(HUB.public, device, space, 32, content, last_at_s)


def test_five_queries_fit_into_270_bytes_as_they_did_in_version_1() -> None:
    content = encode_downlink(HUB, "owl-1", SPACE, Downlink(1_790_000_000, FIVE))
    assert len(content) <= 270
    assert content == GOLDEN.read_bytes()
    found = read(content)
    assert [(each.name, each.code) for each in found.queries] == [(each.name, each.code) for each in FIVE]
    for was, now in zip(FIVE, found.queries, strict=True):
        if was.alarms_per_day is None:
            assert now.alarms_per_day is None
        else:
            assert now.alarms_per_day == pytest.approx(was.alarms_per_day, rel=0.03)


def test_what_does_not_fit_is_split_or_refused() -> None:
    with pytest.raises(WireError, match="fewer"):
        encode_downlink(HUB, "owl-1", SPACE, Downlink(1, (*FIVE, FIVE[0])))
    groups = split_queries(FIVE * 3)
    assert [len(each) for each in groups] == [5, 5, 5]
    assert all(len(encode_downlink(HUB, "owl-1", SPACE, Downlink(1, each))) <= 270 for each in groups)
    with pytest.raises(WireError, match="shorter"):
        split_queries([DownlinkQuery("x" * 127, bytes(32))], 200)


@pytest.mark.parametrize("for_all", [False, True])
def test_only_the_hubs_word_for_this_recorder_counts(for_all: bool) -> None:
    content = encode_downlink(HUB, "owl-1", SPACE, Downlink(9, FIVE, for_all))
    assert read(content).for_all == for_all
    if for_all:
        assert read(content, device="owl-2").queries
    else:
        with pytest.raises(WireError, match="signature"):
            read(content, device="owl-2")
    with pytest.raises(WireError, match="signature"):
        read(content, space="other-0123456789ab")
    with pytest.raises(WireError, match="signature"):
        read(encode_downlink(OTHER, "owl-1", SPACE, Downlink(9, FIVE, for_all)))
    for i in range(len(content)):
        changed = bytearray(content)
        changed[i] ^= 1
        with pytest.raises(WireError):
            read(bytes(changed))


def test_a_message_is_taken_once() -> None:
    content = encode_downlink(HUB, "owl-1", SPACE, Downlink(9, FIVE))
    assert read(content, 8).at_s == 9
    for last in (9, 10):
        with pytest.raises(WireError, match="newer"):
            read(content, last)


def test_signed_nonsense_is_refused_too() -> None:
    chance, refusals = random.Random(3), list[str]()
    for _ in range(300):
        body = b"\x18\x00\x09\x00\x00\x00" + chance.randbytes(chance.randrange(1, 80))
        signed = b"\x05\x00owl-1\x11\x00" + SPACE.encode() + body
        try:
            found = read(body + HUB.sign("downlink", signed))
        except WireError as error:
            refusals.append(str(error))
        else:
            assert all(each.code is None or len(each.code) == 32 for each in found.queries)
    assert len(refusals) > 200
    assert not any("signature" in each for each in refusals)
    for wrong in (b"", b"\x18", bytes(200)):
        with pytest.raises(WireError):
            read(wrong)


def test_queries_are_added_replaced_and_removed() -> None:
    listed = Watchlist(
        SPACE, 256, "b", (Query("a", "an a", code=bytes(32)), Query("b", "a b", code=bytes(32)))
    )
    added = Downlink(1, (DownlinkQuery("b", b"\1" * 32, 0.5), DownlinkQuery("c", b"\2" * 32)))
    memory = DownlinkMemory().with_downlink(added, listed)
    more = memory.applied_to(listed)
    assert [(each.name, each.code, each.alarms_per_day) for each in more.queries] == [
        ("a", bytes(32), None),
        ("b", b"\1" * 32, 0.5),
        ("c", b"\2" * 32, None),
    ]
    replacing = Downlink(2, (DownlinkQuery("a", None), DownlinkQuery("d", b"\3" * 32)), replaces=True)
    fewer = memory.with_downlink(replacing, listed).applied_to(listed)
    assert [each.name for each in fewer.queries] == ["d"]
    with pytest.raises(WireError, match="256 bits"):
        memory.with_downlink(Downlink(1, (DownlinkQuery("x", bytes(8)),)), listed).applied_to(listed)
    swapped = DownlinkMemory().with_downlink(replacing, listed).with_downlink(added, listed)
    assert swapped.applied_to(listed) == fewer  # in whatever order they come
    newer = (Query("a", "an a", code=b"\7" * 32), Query("c", "a new c", code=bytes(32)))
    again = Watchlist(SPACE, 256, "b", newer)
    assert memory.applied_to(again) == again  # c is in it now, and b was taken out of it


def test_a_message_that_was_overtaken_is_taken_for_thirty_days() -> None:
    newest = WINDOW_S * 3
    memory = DownlinkMemory().with_number(newest)
    found = [memory.is_new(newest - ago) for ago in (0, 1, WINDOW_S - 1, WINDOW_S)]
    assert found == [False, True, True, False]
    assert not memory.with_number(newest - 1).is_new(newest - 1)
    for i in range(MAX_TAKEN):
        memory = memory.with_number(newest + 10 + i)
    assert len(memory.taken) == MAX_TAKEN
    assert not memory.is_new(newest)
    assert memory.is_new(newest + 9)


def test_a_recorder_takes_messages_from_the_air(tmp_path: Path, tiny: Bundle, watchlist: Watchlist) -> None:
    installed = Installed(tmp_path / "updates")
    installed.adopt(tiny, watchlist)
    space = tiny.manifest.code_space

    def message(at_s: int, *queries: DownlinkQuery, key: DeviceKey = HUB) -> bytes:
        return encode_downlink(key, "owl-1", space, Downlink(at_s, queries))

    saw, fox = DownlinkQuery("saw", b"\1" * 32, 0.1), DownlinkQuery("fox", b"\2" * 32)
    air = [
        message(20, DownlinkQuery("saw", None), fox),
        b"\x17noise that is a frame",
        message(10, saw),
        message(30, saw, key=OTHER),
    ]
    taken, refused = take_downlinks(installed, "owl-1", HUB.public, air)
    settle(installed, None)
    assert taken == 2
    assert len(refused) == 1
    names = [each.name for each in listed(installed).queries]
    assert names == ["low", "high", "fox"]
    assert listed(installed).queries[-1].group == RADIO_GROUP
    late = [message(15, DownlinkQuery("elk", b"\3" * 32), DownlinkQuery("fox", None))]  # overtaken on its way
    assert take_downlinks(installed, "owl-1", HUB.public, late)[0] == 1
    settle(installed, None)
    assert [each.name for each in listed(installed).queries] == ["low", "high", "elk", "fox"]
    assert installed.state.awaited == ""
    before = (installed.current / "watchlist.json").read_bytes()
    assert take_downlinks(installed, "owl-1", HUB.public, [*air, *late])[0] == 0
    settle(installed, None)
    assert (installed.current / "watchlist.json").read_bytes() == before
    (installed.folder / "downlink.json").write_text("{")
    with pytest.raises(StoreError, match="old message"):
        take_downlinks(installed, "owl-1", HUB.public, air)


def listed(installed: Installed) -> Watchlist:
    found = load_watchlist(installed.current / "watchlist.json")
    assert isinstance(found, Watchlist)
    return found
