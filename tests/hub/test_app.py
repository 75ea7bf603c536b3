from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2
import httpx
import pytest
from fastapi import FastAPI, Request

from edge.batch import Progress, decode_receipt
from hub.bodies import Bodies
from hub.enrolment import new_code
from hub.parts import Hub
from hub.refusal import BusyError, TooLargeError
from hub.serving import opened_hub, running
from hub.settings import Settings
from tests.hub.conftest import NOW_NS
from tests.simulate.recorder import Recorder


@dataclass
class Running:
    hub: Hub
    client: httpx.Client

    def post(self, path: str, body: bytes, **headers: str) -> httpx.Response:
        return self.client.post(path, content=body, headers=headers)

    def enrol(self, recorder: Recorder) -> None:
        code = new_code(self.hub.registry, recorder.name, NOW_NS)
        answer = self.post("/v1/enrolment", recorder.enrolment(code))
        assert (answer.status_code, cbor2.loads(answer.content)["status"]) == (200, "enrolled")


def run(settings: Settings) -> Iterator[Running]:
    with (
        opened_hub(settings, now_ns=lambda: NOW_NS) as app,
        running(app, settings) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        assert isinstance(app, FastAPI)
        yield Running(app.state.hub, client)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Running]:
    yield from run(Settings(tmp_path / "hub", port=0, quota_bytes_per_day=170_000, max_body_bytes=50_000))


def error(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/cbor"
    return str(cbor2.loads(answer.content)["error"])


def test_a_recorder_enrols_and_delivers(served: Running) -> None:
    recorder = Recorder("owl-1")
    served.enrol(recorder)
    answer = served.post("/v1/batches", recorder.sent(0, 10))
    assert answer.status_code == 200
    assert decode_receipt(answer.content).progress["observations"] == Progress(10)


def test_without_a_code_a_recorder_waits_for_approval(served: Running) -> None:
    recorder = Recorder("owl-1")
    answer = served.post("/v1/enrolment", recorder.enrolment())
    asked = cbor2.loads(answer.content)
    device = served.hub.registry.devices.named("owl-1")
    assert (asked["status"], asked["fingerprint"]) == ("pending", device.fingerprint)
    refused = served.post("/v1/batches", recorder.sent(0, 1))
    assert (refused.status_code, "pending" in error(refused)) == (401, True)
    served.hub.registry.devices.set_status("owl-1", "enrolled")
    assert served.post("/v1/batches", recorder.sent(0, 1)).status_code == 200


def test_damaged_bodies_are_400_and_big_ones_413(served: Running) -> None:
    recorder = Recorder("owl-1")
    served.enrol(recorder)
    for body in (b"", b"\xff", cbor2.dumps({"format_version": 9}), recorder.signed("batch", b"\x80")):
        assert served.post("/v1/batches", body).status_code == 400
    assert served.post("/v1/batches", bytes(50_001)).status_code == 413
    chunks = iter([bytes(30_000)] * 2)  # no length is told beforehand
    assert served.client.post("/v1/batches", content=chunks).status_code == 413


def test_bodies_together_have_a_limit_and_silent_ones_end() -> None:
    async def told(parts: list[bytes], bodies: Bodies, during: asyncio.Event | None = None) -> bytes:
        async def receive() -> dict[str, Any]:
            if not parts and during is not None:
                await during.wait()
            return {
                "type": "http.request",
                "body": parts.pop(0) if parts else b"",
                "more_body": bool(parts or during),
            }

        return await bodies.read(Request({"type": "http", "headers": []}, receive), silence_s=0.3)

    async def run() -> None:
        bodies = Bodies(100, 150)
        first = asyncio.ensure_future(told([bytes(90)], bodies, asyncio.Event()))
        await asyncio.sleep(0)
        assert await told([bytes(30), bytes(20)], bodies) == bytes(50)
        with pytest.raises(BusyError, match="at once"):
            await told([bytes(50), bytes(40)], bodies)
        with pytest.raises(TooLargeError):
            await told([bytes(101)], Bodies(100, 150))
        with pytest.raises(BusyError, match="missing"):
            await first  # nothing came any more
        assert await told([bytes(99)], bodies) == bytes(99)  # what the others had is free again

    asyncio.run(run())


def test_over_its_quota_a_recorder_is_told_when_to_come_again(served: Running) -> None:
    recorder = Recorder("owl-1")
    served.enrol(recorder)
    answers = [served.post("/v1/batches", recorder.sent(1000 * i, 1000)) for i in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    until_midnight_s = 86_400 - NOW_NS // 10**9 % 86_400
    assert int(answers[-1].headers["retry-after"]) == until_midnight_s
    other = Recorder("owl-2", seed=2)
    served.enrol(other)
    assert served.post("/v1/batches", other.sent(0, 10)).status_code == 200


def test_errors_are_json_for_who_asks_for_it(served: Running) -> None:
    answer = served.post("/v1/batches", b"", accept="application/json")
    assert answer.status_code == 400
    assert "expected CBOR" in answer.json()["error"]


def test_clips_come_only_when_somebody_asked(served: Running) -> None:
    recorder = Recorder("owl-1")
    served.enrol(recorder)
    assert served.post("/v1/clips", recorder.clip(3, b"sound")).status_code == 404
    served.hub.registry.people.want_clip(1, recorder.epoch, 3, NOW_NS)
    receipt = decode_receipt(served.post("/v1/batches", recorder.sent(0, 5)).content)
    assert receipt.clips == ((recorder.epoch, 3),)
    for _ in range(2):  # the first answer was lost
        assert served.post("/v1/clips", recorder.clip(3, b"sound", "x/../../7.FLAC")).status_code == 200
    clip = served.hub.registry.people.clip(1, recorder.epoch, 3)
    assert clip is not None
    assert clip.file is not None
    assert (served.hub.settings.clips_folder / clip.file).read_bytes() == b"sound"
    assert decode_receipt(served.post("/v1/batches", recorder.sent(0, 5)).content).clips == ()
    assert served.post("/v1/clips", recorder.clip(3, b"sound", "a.exe")).status_code == 400


def test_openapi_tells_of_the_routes(served: Running) -> None:
    paths: dict[str, Any] = served.client.get("/openapi.json").json()["paths"]
    assert {"/v1/enrolment", "/v1/batches", "/v1/clips"} <= set(paths)


def test_people_need_the_token_where_others_can_reach_the_hub(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "hub", host="0.0.0.0", port=0)
    for served in run(settings):
        url = str(served.client.base_url).replace("0.0.0.0", "127.0.0.1")
        token = settings.token_path.read_text().strip()
        assert settings.token_path.stat().st_mode & 0o777 == 0o600
        with httpx.Client(base_url=url, trust_env=False) as client:
            assert client.get("/api/devices").status_code == 401
            assert client.get("/openapi.json").status_code == 303
            assert (
                client.get("/openapi.json", headers={"authorization": f"Bearer {token}"}).status_code == 200
            )
            assert client.post("/login", data={"token": "guess"}).status_code == 401
            entered = client.post("/login", data={"token": token})
            assert entered.status_code == 303
            assert {"httponly", "samesite=strict"} <= set(entered.headers["set-cookie"].lower().split("; "))
            assert client.get("/openapi.json").status_code == 200
            assert client.post("/v1/batches", content=b"").status_code == 400  # recorders sign instead


def test_on_loopback_only_what_came_from_elsewhere_needs_the_token(served: Running) -> None:
    client = served.client
    assert client.get("/openapi.json").status_code == 200
    for headers in ({"host": "hub.example"}, {"x-forwarded-for": "192.0.2.1"}, {"via": "1.1 proxy"}):
        assert client.get("/openapi.json", headers=headers).status_code == 303
        assert client.get("/api/devices", headers=headers).status_code == 401


def test_behind_a_proxy_everybody_needs_the_token(tmp_path: Path) -> None:
    for served in run(Settings(tmp_path / "hub", port=0, behind_proxy=True)):
        assert served.client.get("/openapi.json").status_code == 303
