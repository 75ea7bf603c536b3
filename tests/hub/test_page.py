"""The page in a real Chromium, against a real hub: what people do with it, and what it must never do."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from edge.bundle import Bundle
from edge.encoder import available_runtimes
from edge.observation import Detection
from hub.publisher import Publisher
from tests.hub.browser import PHONE, Watched, chromium, chromium_path, opened
from tests.hub.page_hub import NOW_NS, WATCHLIST, PageHub, enrol, keep_clip, page_hub
from tests.hub.published import FieldRecorder
from tests.simulate.recorder import Recorder

pytest.importorskip("playwright", reason="the browser is driven by playwright (pip install playwright)")
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"
VIEWS = ("search", "search?query=an+owl+hooting", "detections", "recorders", "watchlists")
EVIL = "<img src=x onerror=evil()><script>evil()</script>"
UNNAMED = re.compile(
    r"- (button|link|textbox|searchbox|combobox|spinbutton|checkbox|img|application)(:| \[|$)"
)

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


@pytest.fixture
def phone(fleet: PageHub, browser: Browser) -> Iterator[Watched]:
    with opened(browser, fleet.url, PHONE) as page:
        yield page
        assert page.foreign() == []
        assert page.troubles == []


def ask(fleet: PageHub, path: str, **parameters: Any) -> Any:
    answer = httpx.get(f"{fleet.url}/api/{path}", params=parameters, trust_env=False, timeout=60)
    return answer.raise_for_status().json()


def items(watched: Watched, name: str) -> Locator:
    return watched.page.get_by_role("list", name=name).locator("> li")


def times(results: Locator) -> list[str]:
    found: list[str] = results.locator("time").evaluate_all("all => all.map(each => each.dateTime)")
    return found


def test_a_sentence_finds_where_and_when(watched: Watched) -> None:
    page = watched.page
    watched.go("search")
    page.get_by_role("combobox", name="What to look for").fill("an owl hooting")
    page.get_by_role("button", name="Search", exact=True).click()
    results = items(watched, "Results")
    expect(results).to_have_count(50)
    expect(page.get_by_role("heading", name="50 results for “an owl hooting”")).to_be_visible()
    assert "query=an+owl+hooting" in page.url  # can be sent to somebody else
    assert times(results)[0].startswith("2026-05-1")
    expect(results.first.get_by_title("Only this recorder")).to_be_visible()
    expect(results.first.locator(".sure")).to_contain_text(re.compile(r"%|bits|false"))
    where = page.get_by_role("group", name=re.compile("Map of 5 recorders"))
    expect(where.get_by_role("button", name=re.compile(r"spring: \d+ result"))).to_be_visible()


def test_filters_leave_what_they_say(watched: Watched) -> None:
    page = watched.page
    watched.go("search?query=an+owl+hooting")
    results = items(watched, "Results")
    page.get_by_role("combobox", name="Hours", exact=True).select_option("20-5")
    page.get_by_role("combobox", name="Recorder", exact=True).select_option("spring")
    page.get_by_role("combobox", name="Period", exact=True).select_option("7")
    page.get_by_label("How many").select_option("20")
    expect(results).to_have_count(20)
    watched.settle()
    assert {int(each[11:13]) for each in times(results)} <= {20, 21, 22, 23, 0, 1, 2, 3, 4}
    assert set(results.locator(".result-where button").all_inner_texts()) == {"spring"}
    watched.go("search?query=an+owl+hooting")
    page.get_by_role("button", name=re.compile("^ford:")).click()
    expect(page.get_by_role("combobox", name="Recorder", exact=True)).to_have_value("ford")
    watched.settle()
    assert set(results.locator(".result-where button").all_inner_texts()) == {"ford"}


def test_a_box_on_the_map_is_a_filter(watched: Watched) -> None:
    page = watched.page
    watched.go("detections")
    frame = page.locator(".map").bounding_box()
    dot = page.get_by_role("button", name=re.compile("^quarry:")).locator(".mark").bounding_box()
    assert frame is not None
    assert dot is not None
    page.mouse.move(dot["x"] - 25, dot["y"] - 25)
    page.mouse.down()
    page.mouse.move(dot["x"] + 30, dot["y"] + 30, steps=3)
    page.mouse.up()
    expect(page.get_by_role("button", name="Remove the filter: box on the map")).to_be_visible()
    watched.settle()
    shown = items(watched, "Detections")
    assert set(shown.locator(".result-where button").all_inner_texts()) == {"quarry"}


def test_the_heat_map_is_of_the_query_and_leads_into_it(watched: Watched, fleet: PageHub) -> None:
    page = watched.page
    watched.go("detections?query=owl")
    counted = ask(fleet, "heatmap", query="owl")
    total = sum(cell[2] for cell in counted["cells"])
    grid = page.get_by_role("application", name=re.compile("detections by hour of day and date"))
    expect(page.locator(".heat-told")).to_contain_text(f"{total} detections")
    grid.focus()
    for key in ("ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    day = counted["last"]
    n = sum(cell[2] for cell in counted["cells"] if cell[:2] == [day, 1])
    expect(page.locator(".heat-told")).to_have_text(re.compile(f"^{day}, 01.02 h: {n} detections$"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="judged")).to_contain_text(f"{n} detection")
    assert all(each.startswith(f"{day}T01") for each in times(items(watched, "Detections")))


def test_a_verdict_is_kept(watched: Watched, fleet: PageHub) -> None:
    page = watched.page
    watched.go("detections?query=chainsaw")
    first = items(watched, "Detections").first
    expect(page.get_by_text("none judged yet")).to_be_visible()
    first.get_by_role("button", name="Right").click()
    expect(page.get_by_text("1 of 1 judged are right (100 %)")).to_be_visible()
    first.get_by_role("button", name="Wrong").click()  # people may change their mind
    expect(page.get_by_text("0 of 1 judged are right (0 %)")).to_be_visible()
    page.reload()
    expect(first.get_by_role("button", name="Wrong")).to_have_attribute("aria-pressed", "true")
    assert ask(fleet, "detections", query="chainsaw")["verdicts"]["wrong"] == 1


def test_everything_can_be_done_with_the_keyboard(watched: Watched, fleet: PageHub) -> None:
    page = watched.page
    watched.go("detections")
    page.keyboard.press("/")
    box = page.get_by_role("combobox", name="What to look for")
    expect(box).to_be_focused()
    watched.settle()
    page.keyboard.type("chain")
    suggested = page.get_by_role("listbox", name="Suggestions").get_by_role("option")
    expect(suggested).to_have_count(1)
    page.keyboard.press("ArrowDown")
    expect(suggested.first).to_have_attribute("aria-selected", "true")
    assert box.get_attribute("aria-activedescendant") == suggested.first.get_attribute("id")
    page.keyboard.press("Enter")
    results = items(watched, "Results")
    expect(results).to_have_count(50)
    watched.settle()
    for _ in range(40):  # from the head of the page into the list
        page.keyboard.press("Tab")
        if page.evaluate("Boolean(document.activeElement.closest('.result'))"):
            break
    page.keyboard.press("j")
    expect(results.nth(1)).to_be_focused()
    page.keyboard.press("r")
    expect(results.nth(1).get_by_role("button", name="Right")).to_have_attribute("aria-pressed", "true")
    uid = int(results.nth(1).get_attribute("data-uid") or 0)
    expect(page.get_by_role("status").filter(has_text="Kept: right.")).to_be_visible()
    marks = ask(fleet, "marks", query="a chainsaw", uid=[uid])["marks"]
    assert marks[str(uid)]["verdict"] == "right"


def test_a_clip_is_heard_and_seen(watched: Watched, fleet: PageHub) -> None:
    found = ask(fleet, "search", query="birds singing", top=1)["results"][0]
    keep_clip(fleet.hub, fleet.recorders[found["device"]], found["seq"], np.random.default_rng(0))
    watched.go("search?query=birds+singing")
    first = items(watched, "Results").first
    first.get_by_role("button", name="Play").click()
    expect(first.get_by_text("16 kHz, 5.0 s")).to_be_visible()
    picture = first.get_by_role("img", name=re.compile("Spectrogram"))
    expect(picture).to_be_visible()
    assert picture.evaluate("async each => (await each.decode(), each.naturalWidth)") > 100
    sound = first.locator("audio")
    watched.page.wait_for_function("() => document.querySelector('audio').currentTime > 0.1")
    assert sound.evaluate("each => each.duration") == pytest.approx(5, abs=0.1)
    second = items(watched, "Results").nth(1)
    second.get_by_role("button", name="Get sound").click()
    expect(second.get_by_text("asked for")).to_be_visible()
    asked = ask(fleet, "search", query="birds singing", top=2)["results"][1]
    assert ask(fleet, "marks", query="x", uid=[asked["uid"]])["marks"][str(asked["uid"])]["clip"] == "wanted"


def test_a_watchlist_of_the_page_arrives_at_a_recorder(
    watched: Watched, fleet: PageHub, tmp_path: Path
) -> None:
    page = watched.page
    watched.go("watchlists")
    lines = page.get_by_role("textbox", name="Lines of valley")
    expect(lines).to_have_value(WATCHLIST)
    table = page.get_by_role("table").filter(has=page.get_by_role("columnheader", name="Line"))
    expect(table.get_by_role("rowheader")).to_have_text(["owl", "dawn birds", "chainsaw"])
    lines.fill("an owl hooting | alarms_per_day=lots\n")
    expect(page.get_by_role("button", name="Line 1")).to_be_visible()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").filter(has_text="Not saved")).to_be_visible()
    lines.fill("a woodpecker drumming | name=woodpecker\n" + WATCHLIST)
    expect(table.get_by_role("rowheader").first).to_have_text("woodpecker")
    lines.press("Control+s")
    expect(page.get_by_role("status").filter(has_text="Saved valley, version 2")).to_be_visible()

    root = (fleet.hub.settings.updates_folder / "metadata" / "1.root.json").read_bytes()
    publisher = Publisher(fleet.hub.settings.updates_folder, lambda: datetime.now(timezone.utc))
    until_s = time.monotonic() + 20
    while {pair.watchlist: pair.watchlist_version for pair in publisher.pairs()} != {"valley": 2}:
        assert time.monotonic() < until_s
        time.sleep(0.1)  # the hub signs in a thread of its own
    recorder = FieldRecorder(tmp_path / "recorder", fleet.url, root)
    assert recorder.visit("valley").endswith("on trial")
    assert recorder.runs()[1] == "woodpecker"
    spring = fleet.recorders["spring"]
    health = {"at_ns": NOW_NS + 1, **recorder.installed.report()}
    fleet.hub.ingest.take(spring.envelope(spring.batch(health=health)))
    page.reload()
    expect(page.get_by_text("version 2, changed")).to_have_text(
        "version 2, changed 0 s ago; arrived at 1 of 1 recorders"
    )


def test_recorders_tell_how_they_are(watched: Watched) -> None:
    page = watched.page
    watched.go("recorders")
    oak = page.locator("[data-device=old-oak]")
    for fact in ("codes arrive", "Still to come", "Dropped", "50 %", "50 °C", "21.0 GB"):
        expect(oak).to_contain_text(fact)
    expect(page.locator("[data-device=quarry]")).to_contain_text("silent")
    oak.scroll_into_view_if_needed()
    strip = oak.get_by_role("img", name=re.compile(r"Listened in \d+ % of the minutes since its first code"))
    expect(strip).to_be_visible()
    page.get_by_role("button", name="old-oak: codes arrive").press("Enter")
    oak.get_by_role("button", name="Gaps and what was lost").click()
    expect(oak).to_contain_text("microphone unplugged")
    expect(oak).to_contain_text("the disk was full")
    board = page.locator("[data-device=new-board]")
    board.get_by_role("button", name="Approve").click()
    expect(board).to_contain_text("nothing yet")
    page.get_by_role("button", name="New enrolment code").click()
    code = page.get_by_role("dialog", name="Enrolment code").locator(".code")
    expect(code).to_have_text(re.compile("^[0-9a-z]{4}(-[0-9a-z]{4}){3}$"))


@pytest.mark.parametrize("view", VIEWS)
def test_screen_readers_are_told_what_everything_is(watched: Watched, view: str) -> None:
    watched.go(view)
    told = watched.page.locator("body").aria_snapshot()
    assert [line for line in told.splitlines() if UNNAMED.search(line)] == []
    for landmark in ("banner", "navigation", "main"):
        expect(watched.page.get_by_role(landmark).first).to_be_visible()  # type: ignore[arg-type]
    assert watched.page.get_by_role("heading", level=1).count() == 1
    assert watched.page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("view", VIEWS)
def test_a_phone_shows_everything_without_sideways_scrolling(phone: Watched, view: str) -> None:
    phone.go(view)
    assert phone.page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    small = """() => [...document.querySelectorAll('button, select, input, .tabs a')].map((each) => [each.outerHTML, each.getBoundingClientRect()])
        .filter(([, { width, height, right }]) => width && (height < 24 || width < 24 || right > innerWidth + 1)).map(([html]) => html)"""
    assert phone.page.evaluate(small) == []  # WCAG 2.2, 2.5.8: targets of 24 pixels


def test_what_others_write_is_shown_and_never_run(watched: Watched, fleet: PageHub) -> None:
    assert fleet.hub.bundle is not None
    crow = Recorder("crow", 77, space=fleet.hub.bundle.manifest.code_space)
    enrol(fleet.hub, crow)
    found = Detection(crow.name, crow.epoch, 0, EVIL, EVIL, 40, 0.9, 0.1, None)
    batch = crow.batch(
        [crow.run(0, 3)],
        detections=((0, found),),
        events=(crow.event(0, EVIL),),
        health={"at_ns": NOW_NS, "note": EVIL},
    )
    fleet.hub.ingest.take(crow.envelope(batch))
    named = {"title": EVIL}
    httpx.post(f"{fleet.url}/api/devices/crow", json=named, trust_env=False).raise_for_status()
    page = watched.page
    page.add_init_script("window.evil = () => console.error('it ran')")
    watched.go("detections?device=crow")
    expect(items(watched, "Detections").first).to_contain_text(EVIL)
    watched.go("recorders")
    board = page.locator("[data-device=crow]")
    expect(board.get_by_role("heading")).to_have_text(EVIL)
    board.get_by_text("Details and settings").click()
    board.get_by_role("button", name="Gaps and what was lost").click()
    expect(board.get_by_role("cell", name=EVIL)).to_have_count(1)
    watched.go("search")
    page.get_by_role("combobox", name="What to look for").fill(EVIL)
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(EVIL)
    assert page.locator("main script, main img[onerror]").count() == 0


def test_a_request_to_another_host_would_be_seen_and_stopped(fleet: PageHub, browser: Browser) -> None:
    with opened(browser, fleet.url) as watched:
        watched.go("recorders")
        stopped = watched.page.evaluate("fetch('http://example.org/').then(() => 'came', () => 'stopped')")
        assert stopped == "stopped"
        watched.page.evaluate(
            "document.body.append(document.createElement('script').appendChild(new Text('')))"
        )
        assert any("policy: connect-src" in each or "Content Security" in each for each in watched.troubles)
        watched.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<b onclick=\"1\">x</b>')")
        watched.page.get_by_text("x", exact=True).last.click()
        assert any("script-src-attr" in each for each in watched.troubles)
