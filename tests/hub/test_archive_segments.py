from __future__ import annotations

import numpy as np
import pytest

from edge.store_blocks import UNKNOWN_WALL_NS
from hub.archive import Filter
from hub.archive_segments import HOUR_NS, Piece, Segment, hour_bits, hours_present, passes, selected

DAY_NS = 24 * HOUR_NS


@pytest.mark.parametrize(
    "offset_s", [0, 3600, -3600, 5 * 3600 + 1800, -(3 * 3600 + 900), 1234, -14 * 3600, 50_400]
)
def test_what_is_known_of_whole_hours_agrees_with_every_minute(offset_s: int) -> None:
    random = np.random.default_rng(abs(offset_s))
    walls = 20_000 * DAY_NS + np.arange(0, DAY_NS, 10**10)  # a whole day
    utc_hours = np.arange(0, DAY_NS, 10**10) // HOUR_NS
    for _ in range(20):
        asked = frozenset(random.choice(24, random.integers(0, 24), replace=False).tolist())
        some, every = hour_bits(asked, offset_s)
        passing = passes(walls, Filter(hours=asked, utc_offset_s=offset_s))
        for hour in range(24):
            assert bool(some >> hour & 1) == passing[utc_hours == hour].any()
            assert bool(every >> hour & 1) == passing[utc_hours == hour].all()


def segment_of(pieces: list[tuple[int, int, np.ndarray]]) -> tuple[Segment, np.ndarray, np.ndarray]:
    """Return a segment of (device, first uid, walls), with the device and the time of each row."""
    segment = Segment(0)
    for number, (device, first_uid, walls) in enumerate(pieces):
        known = walls[walls != UNKNOWN_WALL_NS]
        low, high = (int(known.min()), int(known.max())) if known.size else (UNKNOWN_WALL_NS, UNKNOWN_WALL_NS)
        piece = Piece(
            number,
            len(walls),
            first_uid,
            device,
            1,
            0,
            known.size == walls.size,
            low,
            high,
            hours_present(known),
        )
        segment.append(piece, 0, len(walls))
    devices = np.concatenate([np.full(len(walls), device) for device, _, walls in pieces])
    return segment, devices, np.concatenate([walls for _, _, walls in pieces])


def test_a_selection_misses_nothing_and_says_when_it_is_exact() -> None:
    random = np.random.default_rng(1)
    planes = np.arange(20_000, dtype=np.uint64)[None]
    n_exact = n_gathered = 0
    for _ in range(150):
        pieces = []
        for i in range(random.integers(1, 200)):
            start = 19_000 * DAY_NS + int(random.integers(0, 4 * DAY_NS))
            walls = start + np.arange(random.integers(1, 100)) * int(random.integers(1, 600)) * 10**9
            if random.random() < 0.1:
                walls[random.random(walls.size) < 0.5] = UNKNOWN_WALL_NS
            pieces.append((int(random.integers(1, 6)), 1000 * i, walls))
        segment, devices, walls = segment_of(pieces)
        view = segment.view()
        where = Filter(
            None if random.random() < 0.4 else frozenset(random.choice(7, 3, replace=False).tolist()),
            None if random.random() < 0.5 else 19_000 * DAY_NS + int(random.integers(0, 2 * DAY_NS)),
            None if random.random() < 0.5 else 19_002 * DAY_NS + int(random.integers(0, 2 * DAY_NS)),
            None if random.random() < 0.5 else frozenset(random.choice(24, 8, replace=False).tolist()),
            int(random.choice([0, 3600, -5400, 20_700])),
        )
        wanted = passes(walls, where)
        if where.devices is not None:
            wanted &= np.isin(devices, list(where.devices))
        found = selected(view, where)
        if found is None:
            assert not wanted.any()
            continue
        rows = [
            part[0] if isinstance(place, int) else place for part, place in found.parts(planes[:, : view.n])
        ]
        offered = np.concatenate(rows).astype(np.int64)
        assert np.array_equal(offered, np.unique(offered))
        assert set(np.flatnonzero(wanted)) <= set(offered.tolist())
        assert found.first_uid == view.uids(offered).min()
        if found.is_exact:
            assert np.array_equal(offered, np.flatnonzero(wanted))
        n_exact += found.is_exact
        n_gathered += found.rows is not None
    assert n_exact > 5
    assert n_gathered > 5


def test_rows_are_found_by_uid_in_whatever_order_pieces_came() -> None:
    walls = np.zeros(10, np.int64)
    segment, _, _ = segment_of([(1, 500, walls), (2, 20, walls), (1, 100, walls)])
    view = segment.view()
    here, rows = view.find(np.array([19, 20, 29, 30, 100, 509, 510]))
    assert here.tolist() == [1, 2, 4, 5]
    assert rows.tolist() == [10, 19, 20, 9]
    assert view.uids(rows).tolist() == [20, 29, 100, 509]


def test_a_view_stays_as_it_was() -> None:
    segment, _, _ = segment_of([(1, 0, np.zeros(10, np.int64))])
    view = segment.view()
    before = view.table.copy()
    for i in range(100):
        segment.append(Piece(9, 5, 1000 * i, 2, 1, 0, True, 0, 0, 1), 0, 5)
    assert (view.n, segment.n) == (10, 510)
    assert np.array_equal(view.table, before)
