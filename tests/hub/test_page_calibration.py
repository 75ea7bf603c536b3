"""What recorders have learnt, on the page: a table that a phone shows and a screen reader reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.batch_calibration import SiteCalibration, SiteCalibrations
from hub.serving import opened_hub, running
from hub.settings import Settings
from tests.hub.browser import PHONE, chromium, chromium_path, opened
from tests.hub.page_hub import NOW_NS, enrol
from tests.simulate.recorder import Recorder

pytest.importorskip("playwright", reason="the browser is driven by playwright (pip install playwright)")

pytestmark = pytest.mark.skipif(
    chromium_path() is None, reason="no Chromium is installed (apt install chromium)"
)

OWL = SiteCalibration("owl", bytes(8), 71.25, 0.5, 0.437, 60.0, 60, (4 * 600,))
EVIL = SiteCalibration("<b>x</b>", bytes(8), None, 2.0, None, 60.0, 0, ())


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    settings = Settings(tmp_path / "hub", port=0)
    with opened_hub(settings, now_ns=lambda: NOW_NS) as app:
        for seed, name in enumerate(("pond", "mill")):
            recorder = Recorder(name, seed)
            enrol(app.state.hub, recorder)
            told = SiteCalibrations(NOW_NS - 2 * 3600 * 10**9, 2, (OWL, EVIL)[: 2 - seed])
            batch = recorder.batch(
                [recorder.run(0, 3)], detections=((0, recorder.detection(1)),), calibrations=told
            )
            app.state.hub.ingest.take(recorder.envelope(batch))
        with running(app, settings) as started:
            yield started


def test_false_alarms_to_expect_stand_in_a_table(url: str) -> None:
    with chromium() as browser, opened(browser, url, PHONE) as watched:
        watched.go("recorders")
        page = watched.page
        section = page.get_by_role("region", name="False alarms to expect", exact=True)
        rows = section.get_by_role("region", name="of each query").get_by_role("row").all_inner_texts()
        assert [row.split("\t") for row in rows[1:]] == [
            ["<b>x</b>", "1", "\u2013", "2", "0", "0", "0"],
            ["owl", "2", "0.874", "1", "2", "0", "0"],
        ]
        section.get_by_text("Each recorder by itself, 3 lines").press("Enter")
        sites = section.get_by_role("region", name="at each recorder")
        assert sites.get_by_role("rowheader").all_inner_texts() == ["pond", "pond", "mill"]
        assert sites.get_by_role("row").nth(2).inner_text().split("\t")[1:6] == [
            "owl",
            "71.3",
            "0.437",
            "0.5",
            "10",
        ]
        sites.focus()
        assert (
            page.evaluate("document.activeElement.getAttribute('aria-label')")
            == "False alarms to expect at each recorder"
        )
        width = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert width[0] <= width[1]
        assert (watched.troubles, watched.foreign()) == ([], [])
