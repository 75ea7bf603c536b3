"""Alarms of a run: from the bundle's reference, taught by what was stored, kept for the next run."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import monitor, monitor_alarms
from edge.alarms import Alarms
from edge.bundle import Bundle, ReferenceEntry, write_bundle
from edge.config import Config, Deployment, Monitor
from edge.errors import ConfigError
from edge.monitor_alarms import SAVE_EVERY_S, StateKeeper, open_alarms, state_path
from edge.observation import Observation
from edge.store import ObservationStore
from edge.watchlist import Query, QueryPart, Watchlist, write_watchlist

Observe = Callable[..., Observation]

HOP_S = 60.0


def quiet(n: int, seed: int = 0) -> np.ndarray:
    """Return codes [n, 32] that are 128 +- 8 bits from everything."""
    return np.random.default_rng(seed).integers(0, 256, (n, 32), np.uint8)


@pytest.fixture
def bundle(tiny: Bundle, tmp_path: Path) -> Bundle:
    """Return the tiny bundle with a background."""
    stream, none = io.BytesIO(), np.zeros(0, np.int64)
    empty = np.zeros((0, 32), np.uint8)
    np.savez(
        stream, background=quiet(4_000), runs=np.zeros(4_000, np.int64), sounds=empty, sound_text=none,
        sound_event=none, snr_db=np.zeros(0), texts=np.zeros(0, "U1"), text_codes=empty,
    )  # fmt: skip
    content = stream.getvalue()
    entry = ReferenceEntry("reference.npz", hashlib.sha256(content).hexdigest(), HOP_S, "made up")
    files: dict[str, bytes | Path] = {p.name: p for p in tiny.folder.iterdir() if p.name != "manifest.json"}
    manifest = replace(tiny.manifest, reference=entry)
    return write_bundle(tmp_path / "bundle", manifest, {**files, "reference.npz": content})


def opened(bundle: Bundle, watchlist: Watchlist, store: Path | None, config: Config | None = None) -> Alarms:
    found = open_alarms(bundle, watchlist, config or Config(), HOP_S, store)
    assert found is not None
    return found


def filled(store: Path, observe: Observe, codes: np.ndarray) -> Path:
    """Write observations to a store."""
    with ObservationStore.open(store, "dev") as kept:
        for code in codes:
            made = observe(code.tobytes(), seq=kept.next_seq)
            kept.add(replace(made, device_id=kept.device_id, epoch=kept.epoch))
    return store


def n_learnt(alarms: Alarms) -> list[float]:
    found: list[float] = alarms.rule.background.counts.sum(axis=1).tolist()
    return found


def test_a_bundle_without_reference_codes_has_no_calibrated_alarms(
    tiny: Bundle, watchlist: Watchlist, tmp_path: Path
) -> None:
    assert open_alarms(tiny, watchlist, Config(), HOP_S, tmp_path / "s.sqlite") is None


def test_a_new_site_has_the_bundles_background_and_the_recorders_rate(
    bundle: Bundle, watchlist: Watchlist, tmp_path: Path
) -> None:
    config = Config(monitor=Monitor(alarms_per_day=5.0))
    for store in (None, tmp_path / "s.sqlite"):
        alarms = opened(bundle, watchlist, store, config)
        assert alarms.rule.background.wanted_per_day.tolist() == [5.0, 5.0]
        assert (alarms.rule.limits > 60).all()
        assert n_learnt(alarms) == [0, 0]


def test_new_queries_learn_from_the_store_at_once(
    bundle: Bundle, watchlist: Watchlist, observe: Observe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = filled(tmp_path / "s.sqlite", observe, quiet(350, 3))
    with caplog.at_level(logging.INFO):
        alarms = opened(bundle, watchlist, store)
    assert n_learnt(alarms) == [350, 350]
    assert "2 queries are new: learnt from 350 stored observations" in caplog.text
    assert alarms.rule.limits.tolist() != opened(bundle, watchlist, None).rule.limits.tolist()


def test_only_what_the_state_does_not_know_learns_from_the_store(
    bundle: Bundle, watchlist: Watchlist, observe: Observe, tmp_path: Path
) -> None:
    store = filled(tmp_path / "s.sqlite", observe, quiet(350, 3))
    known = replace(watchlist, queries=watchlist.queries[:1])
    first = opened(bundle, known, None)
    for code in quiet(10, 4):
        first.hear(observe(code.tobytes()))
    first.save(state_path(store))
    assert n_learnt(opened(bundle, watchlist, store)) == [10, 350]


def test_the_last_two_days_of_a_store_are_enough(
    bundle: Bundle, watchlist: Watchlist, observe: Observe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_alarms, "LEARN_S", 50 * HOP_S)
    store = filled(tmp_path / "s.sqlite", observe, quiet(350, 3))
    assert n_learnt(opened(bundle, watchlist, store)) == [50, 50]


def test_a_store_that_cannot_be_read_teaches_nothing_and_is_told(
    bundle: Bundle, watchlist: Watchlist, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "s.sqlite").write_bytes(b"no database" * 1000)
    assert n_learnt(opened(bundle, watchlist, tmp_path / "s.sqlite")) == [0, 0]
    assert "nothing learnt from it" in caplog.text


def test_a_line_about_the_sun_needs_the_place(bundle: Bundle, watchlist: Watchlist) -> None:
    pytest.importorskip("astral")
    queries = (replace(watchlist.queries[0], active="night"), *watchlist.queries[1:])
    timed = replace(watchlist, queries=queries)
    with pytest.raises(ConfigError, match="active=night needs the place"):
        opened(bundle, timed, None)
    assert opened(bundle, timed, None, Config(deployment=Deployment(latitude=52.0, longitude=4.4))).queries


def test_the_state_lies_beside_its_store(tmp_path: Path) -> None:
    assert state_path(tmp_path / "pond.sqlite") == tmp_path / "pond-background.npz"


def test_the_state_is_written_now_and_then(
    bundle: Bundle, watchlist: Watchlist, observe: Observe, tmp_path: Path
) -> None:
    store, now_s = tmp_path / "s.sqlite", [100.0]
    alarms = opened(bundle, watchlist, store)
    keeper = StateKeeper(alarms, store, clock=lambda: now_s[0])
    now_s[0] += SAVE_EVERY_S - 1
    keeper.save_if_due()
    assert not state_path(store).exists()
    now_s[0] += 1
    keeper.save_if_due()
    assert opened(bundle, watchlist, store).restore(state_path(store)) == []
    state_path(store).unlink()
    keeper.save_if_due()
    assert not state_path(store).exists()
    keeper.save()
    assert state_path(store).is_file()


@pytest.fixture
def base(bundle: Bundle, watchlist: Watchlist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return arguments that every run of edge-monitor needs; the working folder is tmp_path."""
    monkeypatch.chdir(tmp_path)
    queries = tuple(replace(query, priority="high", alarms_per_day=1000.0) for query in watchlist.queries)
    write_watchlist(tmp_path / "watchlist.json", replace(watchlist, queries=queries))
    return ["--queries", "watchlist.json", "--bundle", str(bundle.folder), "--json"]


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_edge_monitor_keeps_what_it_learnt_for_the_next_run(
    base: list[str], write_tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tones(tmp_path / "a.wav", (500, 1), (1500, 1), (700, 1))  # no window is as the one before
    for n_windows in (5, 10):  # far less than a step of ten minutes
        assert monitor.main([*base, "--input", "a.wav", "--store", "s.sqlite"]) == 0
        with np.load(tmp_path / "s-background.npz") as state:
            assert int(state["n_windows"]) == n_windows
    (detection, *_) = [line for line in told(capsys) if line["type"] == "detection"]
    assert (detection["query"], detection["priority"], detection["group"]) == ("low", "high", None)
    assert detection["false_alarms_per_day"] > 0


def asking(watchlist: Watchlist) -> Watchlist:
    """Return a list that asks for what only calibrated alarms know."""
    first, second = watchlist.queries
    parts = (QueryPart("a low tone", first.code), QueryPart("a high tone", second.code))
    low = replace(
        first,
        alarms_per_day=0.01,
        confirm=(2, 3),
        cooldown_s=3600.0,
        active="00:00-00:01",
        min_probability=0.4,
    )
    both = Query("both", "both", code=first.code, combine="and", parts=parts)
    return replace(watchlist, queries=(low, second, both, replace(both, name="again")))


def test_options_that_a_bundle_without_reference_codes_cannot_use_are_told_once(
    base: list[str], tiny: Bundle, watchlist: Watchlist, write_tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    write_watchlist(tmp_path / "asking.json", asking(watchlist))
    write_tones(tmp_path / "a.wav", (500, 3))
    run = ["--queries", "asking.json", "--bundle", str(tiny.folder), "--input", "a.wav", "--no-store", "--no-clips"]  # fmt: skip
    assert monitor.main([*run, "--json"]) == 0
    (ignored,) = [line for line in told(capsys) if line.get("state") == "options_ignored"]
    assert ignored == {
        "type": "state",
        "state": "options_ignored",
        "options": "alarms_per_day, confirm, cooldown, active, & and OR (the first sentence alone is asked)",
        "queries": "low, both, again",
        "reason": "the bundle has no reference codes",
    }
    assert monitor.main([*run, "--no-view"]) == 0
    assert capsys.readouterr().err.count("options_ignored: options alarms_per_day, confirm") == 1


def test_nothing_is_told_of_options_that_are_used_or_not_asked_for(
    base: list[str], tiny: Bundle, watchlist: Watchlist, write_tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    write_watchlist(tmp_path / "asking.json", asking(watchlist))
    plain = replace(
        watchlist, queries=tuple(replace(each, min_probability=0.4) for each in watchlist.queries)
    )
    write_watchlist(tmp_path / "plain.json", plain)
    write_tones(tmp_path / "a.wav", (500, 3))
    run = [*base, "--input", "a.wav", "--no-store", "--no-clips"]
    assert monitor.main([*run, "--queries", "asking.json"]) == 0
    assert monitor.main([*run, "--queries", "plain.json", "--bundle", str(tiny.folder)]) == 0
    assert not [line for line in told(capsys) if line.get("state") == "options_ignored"]


def test_edge_monitor_tells_a_query_at_its_limit_once(
    base: list[str], write_tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tones(tmp_path / "a.wav", (500, 90))
    assert monitor.main([*base, "--input", "a.wav", "--no-store", "--no-clips"]) == 0
    lines = told(capsys)
    n_detections = sum(line["type"] == "detection" for line in lines)
    (limited,) = [line for line in lines if line.get("state") == "alarms_limited"]
    assert (limited["query"], limited["per_hour"], limited["n_held_back"]) == ("low", 120, 1)
    assert lines.index(limited) < len(lines) - 1
    assert lines[-1]["n_limited"] == lines[-1]["n_windows"] - n_detections > 10
