"""A card that was restored from an older copy, or cloned: what it recorded since arrives too, by an epoch of its own."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("cbor2")
pytest.importorskip("cryptography")
pytest.importorskip("urllib3")

from edge.config import Link, Sync
from edge.store import ObservationStore
from edge.store_epochs import epochs_path
from edge.store_reader import StoreReader
from edge.sync_visits import status
from tests.edge.test_sync_delivery import Recorder
from tests.simulate.observations import detection, observation
from tests.simulate.small_hub import SmallHub, small_hub


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    with small_hub() as running:
        yield running


class Card:
    """A recorder on a memory card of which copies are made; salt: two of them hear different things."""

    def __init__(self, folder: Path, hub: SmallHub, link: Link = "lte", salt: int = 0) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.hub, self.salt = folder, hub, salt
        self.recorder = Recorder(folder / "s.sqlite", Sync(hub=hub.url, link=link))

    def record(self, n: int, *, every: int = 5, gap: bool = False) -> None:
        with ObservationStore.open(self.recorder.path, "owl-1", block_observations=64) as store:
            if gap:
                store.record_gap("microphone", store.next_seq, 500, f"gap {self.salt}", sample_rate_hz=32_000)
            for _ in range(n):
                code = random.Random(f"{self.salt} {store.next_seq}").randbytes(32)
                found = observation(store, code)
                store.add(found, [detection(found, f"owl {self.salt}")] if code[0] % every == 0 else [])

    def sync(self) -> object:
        return self.recorder.sync(for_s=0, at_once=True)

    def copied(self, folder: Path, salt: int, *, cursor: bool = True) -> Card:
        shutil.copytree(self.folder, folder)
        copy = Card(folder, self.hub, self.recorder.settings.link, salt)
        if not cursor:
            copy.recorder.lose_cursor()
        return copy

    def restore(self, copy: Card, *, cursor: bool) -> None:
        """Put an old store back, with or without what edge-sync remembered then."""
        for name in ("s.sqlite", "s-sync.sqlite") if cursor else ("s.sqlite",):
            (self.folder / name).write_bytes((copy.folder / name).read_bytes())
        self.salt = copy.salt

    def codes(self) -> list[bytes]:
        with StoreReader.open(self.recorder.path) as reader:
            return [each.code for each in reader.observations()]

    def facts(self) -> tuple[list[object], list[object]]:
        """Return what was detected and what happened, without numbers."""
        with StoreReader.open(self.recorder.path) as reader:
            found = [(o.code, d.query) for o, d in reader.detections()]
            return found, [(each.first_sample, each.reason) for each in reader.events()]


def assert_all_arrived(*cards: Card) -> None:
    """Require that the hub has everything of all cards, each once, under numbers without holes."""
    hub = cards[0].hub
    kept = {key: each.code for key, each in hub.observations.items()}
    assert set(kept.values()) == {code for card in cards for code in card.codes()}
    assert len(kept) == len(set(kept.values()))
    detections = {(kept[epoch, each.seq], each.query) for (epoch, _), each in hub.detections.items()}
    assert detections == {each for card in cards for each in card.facts()[0]}
    assert len(detections) == len(hub.detections)
    told = [each for each in hub.events.values() if each.kind != "recovered"]
    events = {(each.first_sample, each.reason) for each in told}
    assert events == {each for card in cards for each in card.facts()[1]}
    assert len(events) == len(told)
    for epoch in {epoch for epoch, _ in kept}:
        assert not hub.progress(epoch, "observations").missing


@pytest.mark.parametrize("cursor", ["of then", "of now", "lost"])
@pytest.mark.parametrize("n_since", [15, 150, 300, 900])
def test_what_a_restored_card_recorded_arrives_by_an_epoch_of_its_own(
    tmp_path: Path, hub: SmallHub, caplog: pytest.LogCaptureFixture, n_since: int, cursor: str
) -> None:
    card = Card(tmp_path / "card", hub)
    card.record(150, gap=True)
    card.sync()
    card.record(50)  # not yet delivered when the copy is made
    old = card.copied(tmp_path / "old", salt=1)
    before = card.copied(tmp_path / "before", salt=0)
    card.record(300, gap=True)
    card.sync()
    before.record(300, gap=True)  # what the card was before it was overwritten
    card.restore(old, cursor=cursor == "of then")
    if cursor == "lost":
        card.recorder.lose_cursor()
    card.record(n_since, gap=True)
    with caplog.at_level(logging.WARNING):
        totals = card.sync()
    assert "older copy of a card" in caplog.text
    assert totals.n_epochs_begun == 1  # type: ignore[attr-defined]
    assert_all_arrived(card, before)
    (note,) = (each for each in hub.events.values() if each.kind == "recovered")
    assert "from number 200 of epoch" in note.reason
    card.record(7, gap=True)
    again = card.sync()
    assert (again.n_observations, again.n_epochs_begun) == (7, 0)  # type: ignore[attr-defined]
    assert_all_arrived(card, before)


def test_a_restored_card_that_recorded_nothing_since_waits_and_then_delivers(
    tmp_path: Path, hub: SmallHub
) -> None:
    card = Card(tmp_path / "card", hub)
    card.record(20)
    old = card.copied(tmp_path / "old", salt=1)
    old.recorder.settings = replace(old.recorder.settings, key=card.folder / "device.key")
    card.record(20)
    card.sync()
    assert old.sync().n_epochs_begun == 0  # type: ignore[attr-defined]
    old.record(5)
    assert old.sync().n_epochs_begun == 1  # type: ignore[attr-defined]
    assert_all_arrived(card, old)


@pytest.mark.parametrize("lost", ["cursor", "epochs", "both"])
def test_what_is_lost_afterwards_gives_the_same_epoch_again(tmp_path: Path, hub: SmallHub, lost: str) -> None:
    card = Card(tmp_path / "card", hub)
    card.record(40)
    card.sync()
    old = card.copied(tmp_path / "old", salt=1)
    card.record(50)
    card.sync()
    old.record(80)
    old.sync()
    if lost in ("cursor", "both"):
        old.recorder.lose_cursor()
    if lost in ("epochs", "both"):
        epochs_path(old.recorder.path).unlink()
    old.record(5)
    assert old.sync().n_observations in (5, 85)  # type: ignore[attr-defined]
    assert len({epoch for epoch, _ in hub.observations}) == 2
    assert {*card.codes(), *old.codes()} == {each.code for each in hub.observations.values()}


def test_a_card_that_is_restored_twice_has_three_epochs(tmp_path: Path, hub: SmallHub) -> None:
    card = Card(tmp_path / "card", hub)
    card.record(400)
    card.sync()
    first = card.copied(tmp_path / "first", salt=1)
    card.record(200)
    card.sync()
    first.record(300)
    first.sync()
    second = first.copied(tmp_path / "second", salt=2, cursor=False)
    first.record(200)
    first.sync()
    second.record(400)
    second.sync()
    assert_all_arrived(card, first, second)
    assert len({epoch for epoch, _ in hub.observations}) == 3


def test_two_clones_that_visit_in_turns_lose_nothing(tmp_path: Path, hub: SmallHub) -> None:
    card = Card(tmp_path / "card", hub)
    card.record(40)
    card.sync()
    clone = card.copied(tmp_path / "clone", salt=1)
    for _ in range(3):
        card.record(20, gap=True)
        clone.record(25, gap=True)
        card.sync()
        clone.sync()
    kept = {each.code for each in hub.observations.values()}
    assert kept == {*card.codes(), *clone.codes()}


@pytest.mark.parametrize("link", ["satellite", "lora"])
def test_where_codes_stay_on_the_card_detections_tell_of_a_copy(
    tmp_path: Path, hub: SmallHub, link: Link
) -> None:
    card = Card(tmp_path / "card", hub, link)
    card.record(60)
    card.sync()
    old = card.copied(tmp_path / "old", salt=1)
    n_before = len(card.facts()[0])
    card.record(60)
    card.sync()
    old.record(100)
    assert old.sync().n_epochs_begun == 1  # type: ignore[attr-defined]
    found = sorted((each.query, each.probability) for each in hub.detections.values())
    assert len(found) == len(card.facts()[0]) + len(old.facts()[0]) - n_before


def test_sound_of_a_new_epoch_is_found_on_the_card(tmp_path: Path, hub: SmallHub) -> None:
    card = Card(tmp_path / "card", hub)
    card.recorder.settings = replace(card.recorder.settings, clips=True)
    card.record(40)
    card.sync()
    old = card.copied(tmp_path / "old", salt=1)
    old.recorder.settings = replace(card.recorder.settings, key=old.folder / "device.key")
    card.record(20)
    card.sync()
    old.record(60, every=1)
    old.sync()
    (old.folder / "clips").mkdir()
    (old.folder / "clips" / "a.flac").write_bytes(b"sound")
    epochs = [epoch for epoch, _ in hub.observations]
    hub.clips_wanted = ((epochs[-1], 3),)
    assert old.sync().n_clips == 1  # type: ignore[attr-defined]
    assert hub.clips == {3: b"sound"}


def test_status_counts_what_waits_of_every_epoch(tmp_path: Path, hub: SmallHub) -> None:
    card = Card(tmp_path / "card", hub)
    card.record(40)
    card.sync()
    old = card.copied(tmp_path / "old", salt=1)
    card.record(20)
    card.sync()
    old.record(60)
    old.sync()
    old.record(9)
    told = status(old.recorder.settings, old.recorder.path, old.recorder.clock.clocks())
    assert (told["observations_waiting"], told["epochs"]) == (9, 2)


def test_a_card_that_nobody_copied_is_asked_nothing_twice(tmp_path: Path, hub: SmallHub) -> None:
    card = Card(tmp_path / "card", hub)
    for _ in range(3):
        card.record(20, gap=True)
        card.sync()
    assert sum(run.n for batch in hub.batches for run in batch.runs) == 60
    card.recorder.lose_cursor()
    hub.batches.clear()
    card.sync()
    assert sum(run.n for batch in hub.batches for run in batch.runs) == 16  # the newest ones, compared
    assert not epochs_path(card.recorder.path).exists()
