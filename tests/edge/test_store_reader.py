"""The store's reader: what went in comes out, search is exact, and a writer may go on meanwhile."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edge.errors import CodeSpaceError, StoreError, UsageError
from edge.observation import Observation
from edge.store import ObservationStore
from edge.store_reader import Period, StoreReader
from tests.simulate.large_store import build_large_store
from tests.simulate.observations import (
    FIRST_WALL_NS,
    RATE_HZ,
    SPACE,
    code_of,
    detection,
    fill,
    observation,
)


def stored(path: Path) -> list[Observation]:
    with StoreReader.open(path) as reader:
        return list(reader.observations())


def brute_force(observations: list[Observation], code: bytes) -> list[tuple[int, int]]:
    """Return (distance, seq) by counting bits one at a time."""
    query = np.unpackbits(np.frombuffer(code, np.uint8))
    bits = [np.unpackbits(np.frombuffer(each.code, np.uint8)) for each in observations]
    return sorted((int((row != query).sum()), each.seq) for row, each in zip(bits, observations, strict=True))


@contextmanager
def without_privileges() -> Iterator[None]:
    """Run as a user whom file permissions bind, also where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_every_observation_comes_back_as_it_was(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", "dev", block_observations=32) as store:
        added = fill(store, 101)  # three blocks and a tail
    assert stored(tmp_path / "a.sqlite") == added


def test_walk_can_begin_in_the_middle_of_a_block(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=32) as store:
        added = fill(store, 101)
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        assert list(reader.observations(40)) == added[40:]
        assert list(reader.observations(99)) == added[99:]


def test_detections_come_back_with_their_observation_and_filters(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=32) as store:
        pairs = []
        for seq in range(101):
            one = observation(store)
            found = [detection(one, "owl" if seq % 20 else "rain")] if seq % 10 == 0 else []
            store.add(one, found)
            pairs += [(one, each) for each in found]
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        assert list(reader.detections()) == pairs
        assert list(reader.detections(query="a rain")) == [p for p in pairs if p[1].query == "rain"]
        assert list(reader.detections(source="card/2.wav")) == [p for p in pairs if 40 <= p[0].seq < 60]
        limit = FIRST_WALL_NS + 30 * 5 * 10**9
        timed = [p for p in pairs if p[0].instant.wall_ns is not None and p[0].instant.wall_ns >= limit]
        assert list(reader.detections(Period(limit))) == timed


def test_gaps_and_skipped_sources_are_kept_in_order(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path) as store:
        store.record_gap("microphone:USB", 32_000, 4_800, "overflow", sample_rate_hz=RATE_HZ)
        fill(store, 2)
        store.record_skipped("card/broken.wav", "truncated")
    with StoreReader.open(tmp_path) as reader:  # a folder holds observations.sqlite
        gap, skipped = reader.events()
    assert (gap.kind, gap.source, gap.first_sample, gap.n_samples, gap.sample_rate_hz) == (
        "gap", "microphone:USB", 32_000, 4_800, RATE_HZ,
    )  # fmt: skip
    assert (skipped.kind, skipped.reason, skipped.before_seq) == ("skipped", "truncated", 2)


def test_a_block_holds_one_code_space_and_width(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=16) as store:
        for space, n_bytes in ((SPACE, 32), ("other-0", 32), (SPACE, 32)):
            for _ in range(10):
                store.add(observation(store, code_of(store.next_seq, n_bytes), space))
        added = 30
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        assert reader.counts() == {SPACE: 20, "other-0": 10}
        assert [each.seq for each in reader.observations()] == list(range(added))
        assert len(list(reader.top_k(np.zeros(32, np.uint8), "other-0", 0))) == 10


def test_size_stays_near_that_of_the_codes(tmp_path: Path) -> None:
    n = 100_000
    build_large_store(tmp_path / "a.sqlite", n, SPACE)
    assert (tmp_path / "a.sqlite").stat().st_size / n < 36


@pytest.mark.parametrize("k", [1, 7, 60, 101, 500, 0])
def test_search_is_exact_and_ties_keep_the_order_of_recording(tmp_path: Path, k: int) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=32) as store:
        added = []
        for seq in range(101):
            added.append(observation(store, code_of(seq % 30)))  # each code three or four times: many ties
            store.add(added[-1])
    expected = brute_force(added, code_of(12345))
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        hits = list(reader.top_k(np.frombuffer(code_of(12345), np.uint8), SPACE, k))
    assert [(hit.distance, hit.seq) for hit in hits] == (expected[:k] if k else expected)
    for hit in hits:
        one = added[hit.seq]
        assert (hit.source, hit.offset_s, hit.duration_s, hit.started_at) == (
            one.source, one.offset_s, one.duration_s, one.started_at,
        )  # fmt: skip


@pytest.mark.parametrize("k", [5, 0])
def test_asymmetric_search_weighs_the_bits_by_their_logits(tmp_path: Path, k: int) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=32) as store:
        added = fill(store, 70)
    logits = np.random.default_rng(1).normal(size=256).astype(np.float32)
    own = logits >= 0
    expected = []
    for each in added:
        bits = np.unpackbits(np.frombuffer(each.code, np.uint8), bitorder="little")
        expected.append((256 * float(np.abs(logits[bits != own]).sum() / np.abs(logits).sum()), each.seq))
    expected.sort()
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        hits = list(reader.asymmetric_top_k(logits, SPACE, k))
        even = reader.asymmetric_top_k(np.where(own, 2.0, -2.0).astype(np.float32), SPACE, 3)
        plain = reader.top_k(np.packbits(own, bitorder="little"), SPACE, 3)
        assert [(round(hit.distance), hit.seq) for hit in even] == [(hit.distance, hit.seq) for hit in plain]
    assert [hit.seq for hit in hits] == [seq for _, seq in (expected[:k] if k else expected)]
    assert np.allclose(
        [hit.distance for hit in hits], [distance for distance, _ in expected[: len(hits)]], rtol=1e-4
    )


@pytest.mark.parametrize(("since", "until"), [(10, 80), (33, 34), (None, 50), (90, None), (64, 96)])
def test_a_period_contains_exactly_the_known_times_in_it(
    tmp_path: Path, since: int | None, until: int | None
) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=32) as store:
        added = fill(store, 101)
    period = Period(*(None if at is None else FIRST_WALL_NS + at * 5 * 10**9 for at in (since, until)))
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        hits = list(reader.top_k(np.zeros(32, np.uint8), SPACE, 0, period))
        assert reader.n_without_time() == 33
    wanted = [each.seq for each in added if each.seq % 3 != 2 and (since or 0) <= each.seq < (until or 999)]
    assert sorted(hit.seq for hit in hits) == wanted


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-05-04", 1_777_852_800),
        ("2026-05-04T03:02:01Z", 1_777_863_721),
        ("2026-05-04T03:02:01.5+02:00", 1_777_856_521.5),
        ("2026-05-04 03:02", 1_777_863_720),
    ],
)
def test_times_are_read_as_utc(text: str, seconds: float) -> None:
    assert Period.parse(text, None).since_ns == seconds * 10**9


def test_impossible_times_are_refused() -> None:
    with pytest.raises(UsageError, match="--until: expected a time like .*, found 'tomorrow'"):
        Period.parse(None, "tomorrow")
    with pytest.raises(UsageError, match="--until: expected a time after --since"):
        Period.parse("2026-05-05", "2026-05-04")


def test_another_code_space_or_width_is_refused(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite") as store:
        fill(store, 3)
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        with pytest.raises(
            CodeSpaceError, match=rf"a.sqlite: expected .*other-1, found {SPACE}; search with"
        ):
            reader.top_k(np.zeros(32, np.uint8), "other-1", 5)
        with pytest.raises(CodeSpaceError, match="a.sqlite: expected codes of 128 bits, found 256"):
            reader.top_k(np.zeros(16, np.uint8), SPACE, 5)


def test_an_empty_store_answers_nothing(tmp_path: Path) -> None:
    ObservationStore.open(tmp_path / "a.sqlite").close()
    with StoreReader.open(tmp_path / "a.sqlite") as reader:
        assert list(reader.top_k(np.zeros(32, np.uint8), SPACE, 5)) == []
        assert list(reader.observations()) == []


def test_readers_see_what_is_committed_while_the_writer_goes_on(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "a.sqlite", block_observations=32) as store:
        added = fill(store, 50)
        store.flush()
        with StoreReader.open(store.path) as reader:
            walk = reader.observations()
            seen = [next(walk)]
            added += fill(store, 70)
            store.flush()  # folds the tail into blocks under the reader
            seen += walk
            assert seen == added
            assert len(list(reader.top_k(np.zeros(32, np.uint8), SPACE, 0))) == 120


@pytest.mark.parametrize("writable", [True, False])
def test_a_closed_store_can_be_read_also_in_a_read_only_folder(writable: bool) -> None:
    folder = Path(tempfile.mkdtemp())  # tmp_path lies below folders that only its owner may enter
    try:
        with ObservationStore.open(folder / "a.sqlite") as store:
            added = fill(store, 50)
        assert not (folder / "a.sqlite-wal").exists()
        folder.chmod(0o777 if writable else 0o555)
        with without_privileges():
            assert stored(folder / "a.sqlite") == added
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_a_killed_store_in_a_read_only_folder_is_read_or_refused_but_never_read_in_part() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        store = ObservationStore.open(folder / "live.sqlite")
        added = fill(store, 50)
        store.flush()
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(folder / f"live.sqlite{suffix}", folder / f"a.sqlite{suffix}")
        store.close()
        folder.chmod(0o555)
        with without_privileges():
            assert stored(folder / "a.sqlite") == added
        folder.chmod(0o755)
        (folder / "a.sqlite-shm").unlink()
        folder.chmod(0o555)
        with (
            without_privileges(),
            pytest.raises(StoreError, match=r"a.sqlite-wal: copy both files to a folder"),
        ):
            stored(folder / "a.sqlite")
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_a_missing_store_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none.sqlite: expected a fieldcube store, found no such file"):
        StoreReader.open(tmp_path / "none.sqlite")
    assert list(tmp_path.iterdir()) == []
