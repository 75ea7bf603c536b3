"""How the recorder is: coverage without counting overlaps twice, and only what is known."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("cbor2")

from edge.batch import Batch, decode_batch, encode_batch
from edge.observation import Instant, Observation
from edge.store import ObservationStore
from edge.store_runs import StoreRuns
from edge.sync_health import health

NS = 10**9
DAY_S = 86_400
NOW_NS = 20_594 * DAY_S * NS + 12 * 3600 * NS  # 2026-05-21T12:00:00Z


def record(path: Path, spans: list[tuple[float, float]]) -> None:
    """Record windows of 10 s, one every 5 s, in spans of hours before now."""
    with ObservationStore.open(path, "owl-1") as store:
        for start_h, end_h in spans:
            for s in range(int(start_h * 3600), int(end_h * 3600) - 9, 5):
                wall_ns = NOW_NS + s * NS
                instant = Instant("boot", 10**15 + s * NS, wall_ns, "ntp")
                store.add(
                    Observation(
                        "owl-1", store.epoch, store.next_seq, bytes(32), "x", "mic", 0, 100, 1000, instant
                    )
                )


def now(wall_ns: int | None = NOW_NS) -> Instant:
    return Instant("boot", 7 * NS, wall_ns, "unset" if wall_ns is None else "ntp")


def test_coverage_counts_each_second_once(tmp_path: Path) -> None:
    record(tmp_path / "s.sqlite", [(-30, -24), (-20, -16), (-3, 0)])
    with StoreRuns.open(tmp_path / "s.sqlite") as store:
        told = health(store, now(), NOW_NS, "lte", tmp_path)
    assert told["coverage"] == pytest.approx(7 / 24, abs=0.001)
    assert told["last_code_ns"] == NOW_NS - 10 * NS
    assert told["n_observations"] == (6 + 4 + 3) * 720 - 3
    assert told["uptime_s"] == 7
    assert not any(key.startswith("listened") for key in told)
    assert not {"temperature_c", "battery_percent"} & told.keys()


def test_over_a_satellite_the_hours_that_were_listened_to_are_told(tmp_path: Path) -> None:
    record(tmp_path / "s.sqlite", [(-14, -13.5), (-2, -1)])
    with StoreRuns.open(tmp_path / "s.sqlite") as store:
        told = health(store, now(), NOW_NS, "satellite", tmp_path)
        assert decode_batch(encode_batch(Batch("owl-1", 1, (0, 0, 0), health=told))).health == told
    yesterday = [int(s) for s in told["listened_s 2026-05-20"].split(",")]
    today = [int(s) for s in told["listened_s 2026-05-21"].split(",")]
    assert (len(yesterday), len(today)) == (24, 24)
    assert {i: s for i, s in enumerate(yesterday) if s} == {22: 1800}
    assert {i: s for i, s in enumerate(today) if s} == {10: 3600}


def test_without_a_clock_nothing_is_said_about_time(tmp_path: Path) -> None:
    record(tmp_path / "s.sqlite", [(-1, 0)])
    with StoreRuns.open(tmp_path / "s.sqlite") as store:
        told = health(store, now(None), 5, "satellite", tmp_path)
    assert "coverage" not in told
    assert told["clock"] == "unset"


def test_an_empty_store_and_a_board_that_tells(tmp_path: Path) -> None:
    with ObservationStore.open(tmp_path / "s.sqlite", "owl-1"):
        pass
    for name, content in (
        ("thermal/thermal_zone0/temp", "41200\n"),
        ("thermal/thermal_zone1/temp", "63850\n"),
        ("thermal/thermal_zone2/temp", "none"),
        ("power_supply/AC/online", "1"),
        ("power_supply/BAT0/capacity", "83\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="ascii")
    with StoreRuns.open(tmp_path / "s.sqlite") as store:
        told = health(store, now(), NOW_NS, "lte", tmp_path)
    assert (told["temperature_c"], told["battery_percent"], told["n_observations"]) == (63.9, 83.0, 0)
    assert "last_code_ns" not in told
