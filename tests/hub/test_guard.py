from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hub.serving import opened_hub, running
from hub.settings import Settings


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[httpx.Client, str]]:
    """Return a client at the hub's own computer, and the token."""
    settings = Settings(tmp_path / "hub", port=0)
    with (
        opened_hub(settings) as app,
        running(app, settings) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        yield client, settings.token_path.read_text().strip()


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # another program's page on this computer
    ],
)
def test_a_page_of_another_site_changes_nothing_at_a_local_hub(
    hub: tuple[httpx.Client, str], headers: dict[str, str]
) -> None:
    client, token = hub
    assert client.post("/api/enrolment-codes", json={}, headers=headers).status_code == 401
    assert client.post("/api/clips/1/request", headers=headers).status_code == 401
    bearer = {**headers, "authorization": f"Bearer {token}"}
    assert client.post("/api/enrolment-codes", json={}, headers=bearer).status_code == 200


def test_the_hubs_own_page_and_programs_need_no_token_on_loopback(hub: tuple[httpx.Client, str]) -> None:
    client, _ = hub
    own = {"origin": str(client.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    for headers in ({}, own, {"sec-fetch-site": "none"}):
        assert client.post("/api/enrolment-codes", json={}, headers=headers).status_code == 200
    assert client.get("/api/devices", headers={"sec-fetch-site": "cross-site"}).status_code == 200
