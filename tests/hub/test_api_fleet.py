from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edge.bundle import Bundle
from tests.hub.page_hub import RATE_HZ, WATCHLIST, PageHub, page_hub
from tests.simulate.recorder import Recorder

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageHub]:
    with page_hub(tmp_path_factory.mktemp("hub"), Bundle.load(TINY), n_days=8) as running:
        yield running


@pytest.fixture
def ask(fleet: PageHub) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fleet.url + "/api", trust_env=False, timeout=60) as client:
        yield client


def test_devices_tell_how_they_are(ask: httpx.Client) -> None:
    found = {each["name"]: each for each in ask.get("/devices").json()["devices"]}
    assert {name: each["state"] for name, each in found.items()} == {
        "north-ridge": "good",
        "spring": "good",
        "old-oak": "good",
        "ford": "late",
        "quarry": "silent",
        "new-board": "pending",
    }
    oak = found["old-oak"]
    assert (oak["n_missing"], oak["n_dropped"]) == (10, 30)
    assert oak["health"]["battery_percent"] == 50
    assert "last_code_ns" not in oak["health"]  # beyond what a browser can hold
    assert ask.get("/health").json()["states"] == {"good": 3, "late": 1, "silent": 1, "pending": 1}


def test_coverage_is_the_share_of_minutes_with_a_code(fleet: PageHub, ask: httpx.Client) -> None:
    found = ask.get("/devices/north-ridge/coverage").json()
    hours = [share for day in found["days"] for share in day["hours"]]
    assert (len(found["days"]), found["days"][-1]["day"]) == (7, "2026-05-17")
    known = [share for share in hours if share is not None]
    # 20,000 s are missing in the middle of 8 days, and what comes after NOW is not known
    assert known.count(0.0) == 5
    assert known.count(1.0) > 140
    assert hours[7:].count(None) == 17
    assert 0.96 < found["share"] < 0.97
    assert ask.get("/devices/new-board/coverage").json()["share"] is None
    quarry = ask.get("/devices/quarry/coverage").json()
    assert quarry["last_at"] < "2026-05-13T07"
    assert quarry["days"][-1]["hours"][0] == 0.0


def test_gaps_and_losses_are_listed(ask: httpx.Client) -> None:
    oak = ask.get("/devices/old-oak").json()
    assert [(each["n"], each["reason"]) for each in oak["dropped"]] == [(30, "the disk was full")]
    assert [(each["kind"], each["duration_s"]) for each in oak["events"]] == [("gap", 16_000 / RATE_HZ)]


def test_a_recorder_is_approved_named_placed_and_revoked(fleet: PageHub, ask: httpx.Client) -> None:
    assert ask.post("/devices/new-board", json={"status": "enrolled", "title": " Mill "}).status_code == 200
    assert ask.post("/devices/new-board", json={"latitude": 46.8, "longitude": 9.8}).status_code == 200
    device = fleet.hub.registry.devices.named("new-board")
    assert (device.status, device.title, device.latitude, device.longitude) == ("enrolled", "Mill", 46.8, 9.8)
    for wrong in ({"latitude": 91, "longitude": 0}, {"latitude": 3}, {"status": "pending"}):
        assert ask.post("/devices/new-board", json=wrong).status_code in (422, 503)
    assert fleet.hub.registry.devices.named("new-board").latitude == 46.8
    assert ask.post("/devices/new-board", json={"status": "revoked"}).json()["status"] == "revoked"
    assert ask.post("/devices/nobody", json={"title": "x"}).status_code == 404


def test_an_enrolment_code_lets_one_recorder_in(fleet: PageHub, ask: httpx.Client) -> None:
    code = ask.post("/enrolment-codes", json={}).json()["code"]
    for name, status in (("first", "enrolled"), ("second", "pending")):
        body = Recorder(name, seed=len(name)).enrolment(code)
        assert httpx.post(fleet.url + "/v1/enrolment", content=body, trust_env=False).status_code == 200
        assert fleet.hub.registry.devices.named(name).status == status


def test_a_cloned_card_is_told(fleet: PageHub, ask: httpx.Client) -> None:
    assert ask.get("/health").json()["conflicts"] == []
    clone = Recorder("ford", seed=3)
    fleet.hub.ingest.take(clone.sent(10, 5))
    (found,) = ask.get("/health").json()["conflicts"]
    assert (found["device"], found["stream"], found["first"], found["n"]) == ("ford", "observations", 10, 5)


def test_a_watchlist_is_kept_in_versions(fleet: PageHub, ask: httpx.Client) -> None:
    kept = ask.put("/watchlists/creek", json={"text": "frogs\n"}).json()
    assert (kept["version"], kept["installed"]) == (1, [])
    assert ask.put("/watchlists/creek", json={"text": "frogs | name=f\n"}).json()["version"] == 2
    assert ask.get("/watchlists/creek").json()["text"] == "frogs | name=f\n"
    assert {each["name"] for each in ask.get("/watchlists").json()["watchlists"]} == {"valley", "creek"}
    assert ask.put("/watchlists/creek", json={"text": "not a dog"}).status_code == 422
    assert ask.put("/watchlists/a b", json={"text": "frogs"}).status_code == 422
    assert fleet.hub.registry.people.watchlist("creek").version == 2


def test_lines_are_explained_and_wrong_ones_pointed_at(ask: httpx.Client) -> None:
    found = ask.post("/watchlists/explain", json={"text": WATCHLIST}).json()
    assert found["error"] is None
    assert [each["name"] for each in found["explanations"]] == ["owl", "dawn birds", "chainsaw"]
    assert found["explanations"][0]["wanted_per_day"] == 0.5
    assert any("reference codes" in note for note in found["notes"])  # the tiny bundle has none
    wrong = ask.post("/watchlists/explain", json={"text": "owl\n\nowl | alarms_per_day=x\n"}).json()
    assert (wrong["line"], "alarms_per_day" in wrong["error"]) == (3, True)
    empty = ask.post("/watchlists/explain", json={"text": "# nothing\n"}).json()
    assert (empty["line"], "at least one query" in empty["error"]) == (None, True)


@pytest.mark.parametrize("line", ["sound: /etc/passwd", " Decoy: IMAGE: x.jpg"])
def test_files_of_the_hub_cannot_be_asked_for(ask: httpx.Client, line: str) -> None:
    found = ask.post("/watchlists/explain", json={"text": f"owl\n{line}\n"}).json()
    assert (found["line"], "example file" in found["error"]) == (2, True)
    assert ask.put("/watchlists/creek", json={"text": f"owl\n{line}\n"}).status_code == 422


def test_suggestions_are_what_people_wrote_and_recorders_heard(ask: httpx.Client) -> None:
    found = {each["text"]: each["detail"] for each in ask.get("/suggestions").json()["suggestions"]}
    assert found["an owl hooting"] == "valley"
    assert found["a truck"] == "valley"  # each sentence of a line
    assert "wind in trees" not in found  # decoys are no questions


def test_the_bundle_is_told(ask: httpx.Client) -> None:
    (bundle,) = ask.get("/bundles").json()["bundles"]
    assert (bundle["name"], bundle["code_bits"]) == ("tiny", 256)


def test_the_page_is_served_fresh_and_keeps_other_sites_out(fleet: PageHub) -> None:
    answer = httpx.get(fleet.url, trust_env=False)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    script = httpx.get(fleet.url + "/app.js", trust_env=False)
    assert "javascript" in script.headers["content-type"]
    again = httpx.get(
        fleet.url + "/app.js", headers={"if-none-match": script.headers["etag"]}, trust_env=False
    )
    assert again.status_code == 304
