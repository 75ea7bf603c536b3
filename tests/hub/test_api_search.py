from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from edge.bundle import Bundle, default_bundle
from hub.enrolment import enrol
from hub.parts import Hub
from hub.serving import opened_hub, running
from hub.settings import Settings
from tests.hub.conftest import NOW_NS
from tests.simulate.archive_blocks import FIRST_WALL_NS, block_of
from tests.simulate.recorder import Recorder

FOREST = Path(__file__).parents[2] / "examples" / "forest_minute.ogg"
N = 2_000
PLACES = {"owl": (47.0, 8.0), "fox": (48.0, 9.0), "elk": None}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Hub]]:
    """Return a running hub with three recorders, of which each kept random codes, one every 5 s."""
    settings = Settings(tmp_path_factory.mktemp("hub"), port=0, max_body_bytes=1_000_000)
    bundle = Bundle.load(default_bundle())
    with (
        opened_hub(settings, bundle, now_ns=lambda: NOW_NS) as app,
        running(app, settings) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=60) as client,
    ):
        hub: Hub = app.state.hub
        random = np.random.default_rng(3)
        for i, (name, place) in enumerate(PLACES.items()):
            enrol(hub.registry, Recorder(name, seed=i).enrolment(), NOW_NS)
            hub.registry.devices.set_place(name, *(place or (None, None)))
            device = hub.registry.devices.named(name).number
            codes = random.integers(0, 256, (N, 32), np.uint8)
            walls = FIRST_WALL_NS + np.arange(N) * 5 * 10**9
            space = bundle.manifest.code_space
            hub.archive.add([block_of(i * N, device, 0, codes, walls, space, epoch=2**62 + i)])
        yield client, hub


@pytest.fixture
def client(served: tuple[httpx.Client, Hub]) -> httpx.Client:
    return served[0]


def results(client: httpx.Client, **asked: Any) -> list[dict[str, Any]]:
    answer = client.get("/api/search", params={"query": "a dog barking", **asked})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def test_a_sentence_is_answered_best_first(client: httpx.Client) -> None:
    answer = client.get("/api/search", params={"query": "a dog barking", "top": 50}).json()
    found = answer["results"]
    assert answer["query"] == "a dog barking"
    assert answer["notes"] == []
    assert [each["rank"] for each in found] == list(range(1, 51))
    assert [each["distance"] for each in found] == sorted(each["distance"] for each in found)
    first = found[0]
    assert first["device"] in PLACES
    assert int(first["epoch"]) == 2**62 + first["uid"] // N
    assert first["seq"] == first["uid"] % N
    assert first["offset_s"] == first["seq"] * 5
    assert first["duration_s"] == 5
    assert first["started_at"].startswith("2023-11-1")
    assert 0 < first["probability"] < 1
    assert first["false_alarms_per_day"] > 0


def test_filters_hold_what_they_say(client: httpx.Client) -> None:
    assert {each["device"] for each in results(client, device=["owl", "elk"], top=1000)} == {"owl", "elk"}
    assert {each["device"] for each in results(client, box="46,7,47.5,8.5")} == {"owl"}
    assert {each["device"] for each in results(client, box="-90,-180,90,180")} == {"owl", "fox"}
    assert results(client, box="46,7,47.5,8.5", device="fox") == []
    times = [
        each["started_at"]
        for each in results(client, since="2023-11-14T23:00:00Z", until="2023-11-15", top=1000)
    ]
    assert len(times) == 1000
    assert min(times) >= "2023-11-14T23:00:00" < max(times) < "2023-11-15"
    hours = {each["started_at"][11:13] for each in results(client, hours="0,1", offset_s=3600, top=1000)}
    assert hours == {"23", "00"}


def test_a_batch_is_answered_in_order(client: httpx.Client) -> None:
    queries = [{"text": "a dog barking"}, {"uid": 17}, {"code": "00" * 32}]
    answer = client.post("/api/search", params={"top": 5, "device": "owl"}, json={"queries": queries})
    first, second, third = answer.json()["answers"]
    assert first["results"] == results(client, top=5, device="owl")
    assert (second["results"][0]["uid"], second["results"][0]["distance"]) == (17, 0)
    assert third["code"] == "00" * 32
    assert all(len(each["results"]) == 5 for each in (first, second, third))


def test_an_example_sound_may_be_sent(client: httpx.Client) -> None:
    content = FOREST.read_bytes()
    answer = client.post("/api/search", content=content, headers={"Content-Type": "audio/ogg"}).json()
    assert answer["query"] == "example sound"
    assert len(answer["results"]) == 20


def test_what_is_like_an_observation(client: httpx.Client) -> None:
    answer = client.get("/api/search", params={"like": 4_321, "top": 1}).json()
    assert [(each["uid"], each["device"], each["distance"]) for each in answer["results"]] == [
        (4_321, "elk", 0)
    ]


def test_all_within_a_rate_of_false_alarms(client: httpx.Client) -> None:
    answer = client.get("/api/search", params={"query": "a dog barking", "per_day": 100, "top": 1000}).json()
    assert answer["false_alarms_per_day"] <= 100
    assert all(each["distance"] <= answer["max_distance"] for each in answer["results"])


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ({}, 422, "expected query or like"),
        ({"query": "a", "like": 3}, 422, "expected query or like"),
        ({"query": " "}, 422, "expected a sentence"),
        ({"query": "owl", "top": 0}, 422, "top: expected 1 to 1000"),
        ({"query": "owl", "hours": "24"}, 422, "hours"),
        ({"query": "owl", "box": "1,2,3"}, 422, "box"),
        ({"query": "owl", "since": "yesterday"}, 422, "since"),
        ({"query": "owl", "offset_s": 10**6}, 422, "offset_s"),
        ({"query": "owl", "device": "nobody"}, 404, "nobody"),
        ({"like": 10**15}, 404, "uid"),
        ({"query": "owl", "per_day": -1}, 422, "per_day"),
        ({"query": "owl", "prefix_bits": 65}, 422, "prefix_bits"),
    ],
)
def test_what_cannot_be_asked_is_told(
    client: httpx.Client, asked: dict[str, Any], status: int, told: str
) -> None:
    answer = client.get("/api/search", params=asked)
    assert (answer.status_code, told in answer.json()["error"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"a dog", 422),
        ("application/json", b"{", 422),
        ("application/json", b"[]", 422),
        ("application/json", b'{"queries": []}', 422),
        ("application/json", b'{"queries": [3]}', 422),
        ("application/json", b'{"queries": [{"code": "xyz"}]}', 422),
        ("application/json", b'{"queries": [{"code": "00"}]}', 422),
        ("application/json", b'{"queries": [{}]}', 422),
        ("application/json", b"[" * 100_000, 422),
        ("application/json", b'{"queries": [' + b'{"uid": 3},' * 64 + b'{"uid": 3}]}', 422),
        ("audio/wav", b"RIFF", 422),
        ("image/png", b"none", 422),
        ("audio/wav", b"0" * 1_000_001, 413),
    ],
)
def test_bodies_that_make_no_sense_are_told(
    client: httpx.Client, kind: str, body: bytes, status: int
) -> None:
    answer = client.post("/api/search", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, set(answer.json())) == (status, {"error"}), answer.text
    assert "/tmp" not in answer.text
