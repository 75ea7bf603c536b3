from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import httpx
import pytest

from edge.bundle import Bundle
from edge.encoder import available_runtimes
from hub.publisher import Publisher
from hub.publishing import Publishing
from hub.serving import opened_hub, running
from hub.settings import Settings
from hub.store_registry import Registry
from tests.hub.conftest import NOW_NS

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"

pytestmark = pytest.mark.skipif("onnx" not in available_runtimes(), reason="sentences cannot be compiled")


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "updates", lambda: datetime.now(timezone.utc))


@pytest.fixture
def publishing(registry: Registry, publisher: Publisher) -> Iterator[Publishing]:
    with Publishing(registry, publisher, Bundle.load(TINY), time.monotonic) as opened:
        yield opened


def wait_until(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.02)  # another thread publishes


def versions(publisher: Publisher) -> dict[str, int]:
    return {pair.watchlist: pair.watchlist_version for pair in publisher.pairs()}


def test_watchlists_are_published_when_they_change(
    registry: Registry, publisher: Publisher, publishing: Publishing
) -> None:
    registry.people.keep_watchlist("night", "a low tone\n", NOW_NS)
    wait_until(lambda: versions(publisher) == {"night": 1})
    registry.people.keep_watchlist("night", "a high tone\n", NOW_NS)
    registry.people.keep_watchlist("day", "a low tone\n", NOW_NS)
    wait_until(lambda: versions(publisher) == {"night": 2, "day": 1})


def test_a_list_that_cannot_be_compiled_is_told_once_and_stops_no_other(
    registry: Registry, publisher: Publisher, publishing: Publishing, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        registry.people.keep_watchlist("a-broken-one", "decoy: only this\n| = |\n", NOW_NS)
        registry.people.keep_watchlist("night", "a low tone\n", NOW_NS)
        wait_until(lambda: versions(publisher) == {"night": 1})
        registry.people.keep_watchlist("night", "a high tone\n", NOW_NS)
        wait_until(lambda: versions(publisher) == {"night": 2})
    assert [record.args[0] for record in caplog.records if record.args] == ["a-broken-one"]


def test_a_hub_gives_out_what_it_signs(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "hub", port=0)
    with (
        opened_hub(settings, Bundle.load(TINY)) as app,
        running(app, settings) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        put = client.put("/api/watchlists/night", json={"text": "a low tone\n"})
        assert put.status_code == 200

        def published() -> bool:
            answer = client.get("/v1/updates/metadata/2.targets.json")
            return answer.status_code == 200 and "pairs/night.json" in answer.text

        wait_until(published)
        assert client.get("/v1/updates/metadata/1.root.json").status_code == 200
        assert client.get("/v1/updates/metadata/%2e%2e%2fkeys%2froot.pem").status_code == 404
    assert (settings.folder / "updates" / "keys" / "root.pem").stat().st_mode & 0o077 == 0
