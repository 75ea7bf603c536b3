from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2
import httpx
import pytest
from fastapi import FastAPI, Request

from edge.batch import Progress, decode_receipt
from hub.bodies import Bodies, Patience
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


class Sender:
    """Somebody who sends a body in parts; after those, "" ends it, and otherwise nothing more comes."""

    def __init__(self, bodies: Bodies, *parts: bytes, ends: bool = True, host: str = "192.0.2.1") -> None:
        self._parts, self._ends, self._bodies = list(parts), ends, bodies
        self._request = Request({"type": "http", "headers": [], "client": (host, 1)}, self._receive)
        self.let_go = asyncio.Event()

    async def _receive(self) -> dict[str, Any]:
        if not self._parts and not self._ends:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        body = self._parts.pop(0) if self._parts else b""
        return {"type": "http.request", "body": body, "more_body": bool(self._parts) or not self._ends}

    async def read(self) -> bytes:
        return await self._bodies.read(self._request)

    async def work(self) -> None:
        """Hold the body until let_go is set."""
        async with self._bodies.reading(self._request):
            await self.let_go.wait()


async def begun(running: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start it, and let it come as far as it does by itself."""
    task = asyncio.ensure_future(running)
    for _ in range(50):
        await asyncio.sleep(0)
    return task


def test_bodies_have_a_limit_each_and_together() -> None:
    async def run() -> None:
        bodies = Bodies(100, 150)
        assert await Sender(bodies, bytes(30), bytes(20)).read() == bytes(50)
        with pytest.raises(TooLargeError):
            await Sender(bodies, bytes(60), bytes(41)).read()
        worked_on = Sender(bodies, bytes(90))
        working = await begun(worked_on.work())
        with pytest.raises(BusyError, match="at once"):  # what is whole gives no way
            await Sender(bodies, bytes(50), bytes(40), host="192.0.2.2").read()
        assert await Sender(bodies, bytes(60)).read() == bytes(60)
        worked_on.let_go.set()
        await working
        assert await Sender(bodies, bytes(99)).read() == bytes(99)  # what the others had is free again

    asyncio.run(run())


def test_whoever_holds_most_gives_way_to_others() -> None:
    async def run() -> None:
        bodies = Bodies(100, 300)
        network = [f"2001:db8::{i}" for i in range(3)]  # addresses of one household
        slow = [
            await begun(Sender(bodies, bytes(n), ends=False, host=host).read())
            for n, host in zip((70, 80, 60), network, strict=True)
        ]
        other = await begun(Sender(bodies, bytes(85), ends=False).read())
        assert await Sender(bodies, bytes(50), host="192.0.2.9").read() == bytes(50)
        with pytest.raises(BusyError, match="at once"):
            await slow[1]
        assert not any(task.done() for task in (slow[0], slow[2], other))
        with pytest.raises(BusyError, match="at once"):  # no way for one who holds as much already
            await Sender(bodies, bytes(40), bytes(55), host="2001:db8::9").read()
        for task in (slow[0], slow[2], other):
            task.cancel()

    asyncio.run(run())


@pytest.mark.parametrize(
    "patience",
    [
        Patience(silence_s=0.05),
        Patience(silence_s=0.05, slowest_bytes_per_s=100),
        Patience(slowest_bytes_per_s=1e9, silence_s=0.05),
        Patience(longest_s=0.05),
    ],
)
def test_a_body_that_comes_too_slowly_ends(patience: Patience) -> None:
    async def run() -> None:
        bodies = Bodies(1000, 1000, patience)
        with pytest.raises(BusyError, match="in time"):
            await asyncio.wait_for(Sender(bodies, b"ab", ends=False).read(), 5)
        assert await Sender(bodies, bytes(1000)).read() == bytes(1000)

    asyncio.run(run())


def test_a_body_may_not_trickle_for_ever() -> None:
    class Trickling(Sender):
        async def _receive(self) -> dict[str, Any]:
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"x", "more_body": True}

    async def run() -> None:
        for patience in (Patience(silence_s=0.1, slowest_bytes_per_s=1000), Patience(longest_s=0.1)):
            with pytest.raises(BusyError, match="in time"):
                await asyncio.wait_for(Trickling(Bodies(10**6, 10**6, patience)).read(), 5)

    asyncio.run(run())


def test_a_request_for_enrolment_is_small(served: Running) -> None:
    assert served.post("/v1/enrolment", bytes(8193)).status_code == 413


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
