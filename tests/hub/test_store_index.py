"""The progress of indexing: numbered in the order of files, whatever the order in which they are done."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge.batch import MAX_RUN, Batch, decode_batch, encode_batch
from edge.errors import HubError
from edge.store_schema import Event
from hub.index_encoding import Encoded, renumbered
from hub.index_files import Listed
from hub.store_index import IndexStore, Task
from tests.simulate.recorder import Recorder

RECORDER = Recorder("cards", epoch=3)


def piece(n: int, salt: int, *before: int) -> bytes:
    """Return n observations from 0, and an event before each of these."""
    events = tuple(Event(i, "gap", seq, f"{salt}.wav", i, 5, 8_000, "why") for i, seq in enumerate(before))
    runs = [RECORDER.run(0, n, salt)] if n else []
    return encode_batch(Batch("cards", 3, (n, 0, len(events)), tuple(runs), events=events))


def encoded(*pieces: bytes, digest: str = "d") -> Encoded:
    return Encoded(digest, pieces, sum(decode_batch(each).next[0] for each in pieces), 1.0)


@pytest.fixture
def store(tmp_path: Path) -> IndexStore:
    opened = IndexStore(tmp_path / "index.sqlite", "cards", 3, "/cards")
    opened.add_files(Listed(name.encode(), 10, "1") for name in "abc")
    return opened


def codes(batch: Batch) -> list[bytes]:
    return [each.code for run in batch.runs for each in run.observations("cards", 3)]


def test_what_is_done_out_of_order_is_delivered_in_order(store: IndexStore) -> None:
    a, b, c = store.tasks()
    store.keep([(c, encoded(piece(4, 2)))])
    assert store.next_delivery(0) is None
    store.keep([(a, encoded(piece(2, 0, 1)))])
    first = store.next_delivery(0)
    assert first is not None
    assert (first.batch.next, [run.first_seq for run in first.batch.runs]) == ((2, 0, 1), [0])
    assert store.next_delivery(0) == first
    store.delivered(first)
    assert store.next_delivery(0) is None
    store.keep([(b, encoded(piece(3, 1, 0, 3), piece(1, 5)))])
    second = store.next_delivery(0)
    assert second is not None
    assert codes(second.batch) == [
        *codes(decode_batch(piece(3, 1))),
        *codes(decode_batch(piece(1, 5))),
        *codes(decode_batch(piece(4, 2))),
    ]
    assert second.batch.runs[0].first_seq == 2
    assert second.batch.next == (10, 0, 3)
    assert [(each.number, each.before_seq) for each in second.batch.events] == [(1, 2), (2, 5)]
    store.delivered(second)
    assert store.next_delivery(0) is None
    assert [store.totals().n_done, store.totals().n_observations] == [3, 10]
    store.close()


def test_a_batch_is_full_before_it_is_sent_but_never_larger_than_a_run(store: IndexStore) -> None:
    a, b, c = store.tasks()
    store.keep([(a, encoded(piece(3000, 0))), (b, encoded(piece(900, 1)))])
    assert store.next_delivery(4096) is None
    store.keep([(c, encoded(piece(5000, 2)))])
    delivery = store.next_delivery(4096)
    assert delivery is not None
    assert delivery.batch.next[0] == 3900 < MAX_RUN
    store.delivered(delivery)
    rest = store.next_delivery(0)
    assert rest is not None
    assert (rest.batch.runs[0].first_seq, rest.batch.next[0]) == (3900, 8900)
    store.close()


def test_a_file_that_changes_before_its_turn_is_encoded_once(store: IndexStore) -> None:
    assert store.add_files([Listed(b"a", 11, "2")]) == 0
    task, *_ = store.tasks()
    assert (task.name, task.size_bytes) == ("a", 11)
    store.keep([(task, encoded(piece(1, 0), digest="old"))])
    assert store.add_files([Listed(b"a", 12, "3"), Listed(b"a", 12, "3")]) == 1
    *_, last = store.tasks()
    assert last == Task(3, b"a", 12, frozenset({"old"}))
    store.close()


def test_names_that_are_no_utf8_are_kept(store: IndexStore) -> None:
    store.add_files([Listed(b"\xff.wav", 1, "1")])
    *_, last = store.tasks()
    assert (last.path, last.name) == (b"\xff.wav", "\\xff.wav")
    store.close()


def test_another_programs_file_and_a_newer_one_are_refused(tmp_path: Path) -> None:
    for name, statement in (("other", "CREATE TABLE a (b)"), ("newer", "PRAGMA user_version = 9")):
        path = tmp_path / f"{name}.sqlite"
        if name == "newer":
            IndexStore(path, "cards", 3, "x").close()
        connection = sqlite3.connect(path)
        connection.execute(statement)
        connection.close()
        with pytest.raises(
            HubError, match="another SQLite database" if name == "other" else "update fieldcube"
        ):
            IndexStore(path, "cards", 3, "x")


def test_pieces_become_one_batch_in_their_order() -> None:
    batch = renumbered([decode_batch(piece(2, 0, 0)), decode_batch(piece(3, 1, 2))], 100, 7)
    assert (batch.next, batch.runs[0].first_seq, batch.runs[0].n) == ((105, 0, 9), 100, 5)
    assert [(each.number, each.before_seq, each.source) for each in batch.events] == [
        (7, 100, "0.wav"),
        (8, 104, "1.wav"),
    ]
