"""How often a recorder says how it is: at each visit where that is cheap, seldom where each message is dear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("cbor2")
pytest.importorskip("cryptography")
pytest.importorskip("urllib3")

from edge.config import Link, Sync
from tests.edge.test_sync_delivery import Recorder
from tests.simulate.small_hub import SmallHub, refusal, small_hub

QUARTER_S = 900


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    with small_hub() as running:
        yield running


@pytest.fixture
def recorder(tmp_path: Path, hub: SmallHub) -> Recorder:
    return Recorder(tmp_path / "s.sqlite", Sync(hub=hub.url))


def told(hub: SmallHub) -> int:
    """Return how many heartbeats came since this was last asked."""
    n = sum(bool(batch.health) for batch in hub.batches)
    hub.batches.clear()
    return n


@pytest.mark.parametrize(("link", "n"), [("lte", 96), ("satellite", 4), ("lora", 4)])
def test_a_day_of_visits_says_how_it_is_as_often_as_the_link_bears(
    recorder: Recorder, hub: SmallHub, link: Link, n: int
) -> None:
    recorder.record(3, detections=1)
    recorder.settings = replace(recorder.settings, link=link)
    for _ in range(96):
        recorder.sync()
        recorder.clock.now_s += QUARTER_S
    assert told(hub) == n


def test_a_dear_line_is_silent_where_nothing_is_new_and_detections_go_at_once(
    recorder: Recorder, hub: SmallHub
) -> None:
    recorder.settings = replace(recorder.settings, link="satellite")
    recorder.record(3, detections=1)
    recorder.sync()
    told(hub)
    n = len(hub.paths)
    recorder.clock.now_s += QUARTER_S
    recorder.sync()
    assert len(hub.paths) == n
    recorder.record(3, detections=1)
    assert recorder.sync().n_detections == 1
    assert told(hub) == 0


def test_a_heartbeat_that_did_not_arrive_goes_at_the_next_visit(recorder: Recorder, hub: SmallHub) -> None:
    recorder.settings = replace(recorder.settings, link="satellite", heartbeat_s=QUARTER_S)
    recorder.record(1)
    recorder.sync()
    recorder.clock.now_s += QUARTER_S
    told(hub)
    hub.faults = [lambda answer: refusal(500, "not now")]
    recorder.sync()
    assert recorder.clock.slept
    assert told(hub) == 1
    recorder.sync()
    assert told(hub) == 0
