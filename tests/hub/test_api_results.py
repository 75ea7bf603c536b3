from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import soundfile
from PIL import Image

from edge.bundle import Bundle
from edge.verdict import Verdict
from tests.hub.page_hub import NOW_NS, PageHub, page_hub

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"
RIDGE_OWLS = {"query": "owl", "device": "north-ridge"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageHub]:
    with page_hub(tmp_path_factory.mktemp("hub"), Bundle.load(TINY), n_days=5) as running:
        yield running


@pytest.fixture
def ask(fleet: PageHub) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fleet.url + "/api", trust_env=False, timeout=60) as client:
        yield client


def test_detections_are_filtered_counted_and_paged(ask: httpx.Client) -> None:
    owls = ask.get("/detections", params={**RIDGE_OWLS, "limit": 500}).json()
    assert owls["total"] == sum(owls["by_device"].values()) == sum(owls["verdicts"].values()) > 50
    assert owls["total"] == len(owls["detections"])
    assert {each["query"] for each in owls["detections"]} == {"owl"}
    times = [each["started_at"] for each in owls["detections"]]
    assert times == sorted(times, reverse=True)
    second = ask.get("/detections", params={**RIDGE_OWLS, "limit": 10, "offset": 10}).json()
    assert second["detections"] == owls["detections"][10:20]
    at_three = ask.get("/detections", params={**RIDGE_OWLS, "hours": "3", "limit": 500}).json()
    assert at_three["total"] == sum(time[11:13] == "03" for time in times) > 0
    moved = ask.get("/detections", params={**RIDGE_OWLS, "hours": "3", "offset_s": 7200}).json()
    assert moved["total"] == sum(time[11:13] == "01" for time in times)
    cut = {**RIDGE_OWLS, "since": times[9], "until": times[0]}
    assert ask.get("/detections", params=cut).json()["total"] == sum(
        times[9] <= time < times[0] for time in times
    )
    ridge = ask.get("/detections", params={"device": ["north-ridge", "ford"]}).json()
    assert set(ridge["by_device"]) == {"north-ridge", "ford"}
    boxed = ask.get("/detections", params={"box": "46.809,9.8,46.82,9.83"}).json()
    assert set(boxed["by_device"]) == {"north-ridge"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"since": "yesterday"}, "ISO 8601"),
        ({"hours": "25"}, "hours from 0 to 23"),
        ({"box": "1,2,3"}, "south,west,north,east"),
        ({"offset_s": 90_000}, "offset_s"),
        ({"verdict": "maybe"}, "right, wrong, unsure, none"),
    ],
)
def test_filters_that_mean_nothing_are_refused(ask: httpx.Client, wrong: dict[str, str], told: str) -> None:
    answer = ask.get("/detections", params=wrong)
    assert answer.status_code == 422
    assert told in answer.json()["error"]


def test_an_unknown_recorder_is_404(ask: httpx.Client) -> None:
    assert ask.get("/detections", params={"device": "nobody"}).status_code == 404


def test_a_verdict_is_kept_with_what_it_is_about(fleet: PageHub, ask: httpx.Client) -> None:
    first, second = ask.get("/detections", params={"query": "chainsaw", "limit": 2}).json()["detections"]
    body = {"uid": first["uid"], "query": "chainsaw", "answer": "right", "note": "heard it"}
    assert ask.post("/verdicts", json=body).status_code == 200
    by_name = {name: second[name] for name in ("device", "epoch", "seq", "query")}
    assert ask.post("/verdicts", json={**by_name, "answer": "unsure"}).status_code == 200
    assert ask.post("/verdicts", json={**by_name, "answer": "wrong"}).status_code == 200
    kept = fleet.hub.registry.results.verdicts()
    assert kept[first["device"], int(first["epoch"]), first["seq"], "chainsaw"] == Verdict(
        first["device"],
        int(first["epoch"]),
        first["seq"],
        "chainsaw",
        "a chainsaw",
        fleet.hub.bundle.manifest.code_space,
        first["distance"],
        first["probability"],
        "right",
        NOW_NS,
        "heard it",
    )
    assert kept[second["device"], int(second["epoch"]), second["seq"], "chainsaw"].answer == "wrong"
    counted = ask.get("/detections", params={"query": "chainsaw"}).json()
    assert (counted["verdicts"]["right"], counted["verdicts"]["wrong"]) == (1, 1)
    wrong = ask.get("/detections", params={"verdict": "wrong"}).json()["detections"]
    assert [each["uid"] for each in wrong] == [second["uid"]]
    marks = ask.get("/marks", params={"query": "chainsaw", "uid": [first["uid"], 10**9]}).json()["marks"]
    assert marks[str(first["uid"])]["verdict"] == "right"
    assert list(marks) == [str(first["uid"])]


def test_what_was_only_found_by_search_can_be_judged_too(ask: httpx.Client) -> None:
    body = {"uid": 5, "query": "a fox", "answer": "wrong", "distance": 80, "probability": 0.3}
    assert ask.post("/verdicts", json=body).status_code == 200
    assert ask.get("/marks", params={"query": "a fox", "uid": 5}).json()["marks"]["5"]["verdict"] == "wrong"
    for changes in ({"distance": None}, {"probability": 2}, {"uid": None}):
        assert ask.post("/verdicts", json={**body, **changes}).status_code == 422
    assert ask.post("/verdicts", json={**body, "uid": 10**9}).status_code == 404
    assert ask.post("/verdicts", json={**body, "answer": "perhaps"}).status_code == 422


def test_the_heat_map_counts_every_detection_once_in_its_hour(ask: httpx.Client) -> None:
    owls = ask.get("/detections", params={**RIDGE_OWLS, "limit": 500}).json()["detections"]
    heat = ask.get("/heatmap", params=RIDGE_OWLS).json()
    counted = {(day, hour): n for day, hour, n in heat["cells"]}
    for day, hour in {(each["started_at"][:10], int(each["started_at"][11:13])) for each in owls}:
        n = sum(each["started_at"].startswith(f"{day}T{hour:02d}") for each in owls)
        assert counted[day, hour] == n
    shifted = ask.get("/heatmap", params={**RIDGE_OWLS, "offset_s": 3600}).json()
    assert sum(n for *_, n in shifted["cells"]) == sum(counted.values())
    assert {(day, hour) for day, hour, _ in shifted["cells"]} != set(counted)
    assert ask.get("/heatmap", params={"query": "nothing"}).json() == {
        "first": None,
        "last": None,
        "cells": [],
    }


def test_queries_are_listed_by_how_often_they_were_heard(ask: httpx.Client) -> None:
    found = ask.get("/queries").json()["queries"]
    assert {each["query"] for each in found} == {"owl", "dawn birds", "chainsaw"}
    assert [each["n"] for each in found] == sorted((each["n"] for each in found), reverse=True)


def test_a_clip_comes_with_its_spectrogram(ask: httpx.Client) -> None:
    here = next(
        each
        for each in ask.get("/detections", params={"limit": 500}).json()["detections"]
        if each["clip"] == "here"
    )
    sound = ask.get(f"/clips/{here['uid']}")
    assert sound.headers["content-type"] in ("audio/flac", "audio/x-flac")
    samples, rate_hz = soundfile.read(io.BytesIO(sound.content))
    assert ask.get(f"/clips/{here['uid']}/facts").json() == {
        "rate_hz": rate_hz,
        "duration_s": len(samples) / rate_hz,
    }
    part = ask.get(f"/clips/{here['uid']}", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, sound.content[10:20])
    by_name = f"/clips/{here['epoch']}-{here['seq']}@{here['device']}"
    assert ask.get(by_name).content == sound.content
    picture = Image.open(io.BytesIO(ask.get(f"{by_name}/spectrogram").content)).convert("L")
    rows = [sum(picture.crop((0, y, picture.width, y + 1)).tobytes()) for y in range(picture.height)]
    loudest_hz = (picture.height - 1 - rows.index(max(rows))) / picture.height * rate_hz / 2
    assert 300 < loudest_hz < 3000  # low tones are at the bottom


def test_a_clip_is_asked_for_once(fleet: PageHub, ask: httpx.Client) -> None:
    none = next(
        each
        for each in ask.get("/detections", params={"limit": 500}).json()["detections"]
        if each["clip"] == "none"
    )
    assert ask.get(f"/clips/{none['uid']}").status_code == 404
    for _ in range(2):
        assert ask.post(f"/clips/{none['uid']}/request").json() == {"clip": "wanted"}
    number = fleet.hub.registry.devices.named(none["device"]).number
    wanted = fleet.hub.registry.people.clip(number, int(none["epoch"]), none["seq"])
    assert wanted is not None
    assert wanted.file is None
    assert ask.post("/clips/1-2@nobody/request").status_code == 404
    assert ask.post("/clips/x-2@ford/request").status_code == 422
