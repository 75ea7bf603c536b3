"""The page in a real Chromium, against a real hub: what people do with it, and what it must never do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge.bundle import Bundle
from edge.encoder import available_runtimes
from tests.hub.browser import Watched, chromium, chromium_path, opened
from tests.hub.page_hub import PageHub, page_hub

pytest.importorskip("playwright", reason="the browser is driven by playwright (pip install playwright)")
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"
VIEWS = ("search", "search?query=an+owl+hooting", "detections", "recorders", "watchlists")

pytestmark = [
    pytest.mark.skipif(chromium_path() is None, reason="no Chromium is installed (apt install chromium)"),
    pytest.mark.skipif("onnx" not in available_runtimes(), reason="sentences cannot be compiled"),
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageHub]:
    with page_hub(tmp_path_factory.mktemp("hub"), Bundle.load(TINY), n_days=5) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def watched(fleet: PageHub, browser: Browser) -> Iterator[Watched]:
    with opened(browser, fleet.url) as page:
        yield page
        assert page.foreign() == []
        assert page.troubles == []


def test_a_sentence_finds_where_and_when(watched: Watched) -> None:
    page = watched.page
    watched.go("search")
    page.get_by_role("combobox", name="What to look for").fill("an owl hooting")
    page.get_by_role("button", name="Search", exact=True).click()
    results = page.get_by_role("list", name="Results, best first").get_by_role("listitem")
    expect(results).to_have_count(50)
    expect(page.get_by_role("status").filter(has_text="results")).to_have_text(
        "50 results for “an owl hooting”"
    )
    assert "query=an+owl+hooting" in page.url  # can be sent to somebody else
    first = results.first
    assert (first.locator("time").get_attribute("datetime") or "").startswith("2026-05-1")
    expect(first.get_by_title("Only this recorder")).to_be_visible()
