"""Take the pictures of the hub's page that the documentation shows: python -m tests.hub.page_pictures docs/pictures

A hub with a small fleet and the starter bundle, in a real Chromium; the same pictures every time but for what fonts do.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from edge.bundle import Bundle, default_bundle
from tests.hub.browser import DESKTOP, PHONE, Watched, chromium, opened
from tests.hub.page_hub import PageHub, keep_clip, page_hub

QUERY = "an owl hooting"
_N_DAYS = 14
_SIZES = {"desktop": (DESKTOP, 1.0), "phone": (PHONE, 1.5)}


def main(argv: Sequence[str] | None = None) -> int:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where they go")
    folder: Path = parser.parse_args(argv).folder
    folder.mkdir(parents=True, exist_ok=True)
    bundle = Bundle.load(default_bundle())
    with tempfile.TemporaryDirectory() as work, page_hub(Path(work), bundle, _N_DAYS) as fleet:
        bring_clips(fleet)
        with chromium() as browser:
            for device, (size, scale) in _SIZES.items():
                with opened(browser, fleet.url, size, scale) as watched:
                    take(watched, folder, device)
            with opened(browser, fleet.url, DESKTOP, dark=True) as watched:
                search(watched)
                shoot(watched, folder, "desktop-dark-search")
    return 0


def bring_clips(fleet: PageHub) -> None:
    """Let the sound of the best results be there."""
    asked = {"query": QUERY, "top": 3}
    found = httpx.get(f"{fleet.url}/api/search", params=asked, trust_env=False, timeout=60).json()["results"]
    for each in found:
        keep_clip(fleet.hub, fleet.recorders[each["device"]], each["seq"], np.random.default_rng(each["seq"]))


def take(watched: Watched, folder: Path, device: str) -> None:
    """Take the pictures of one size."""
    page = watched.page
    watched.go("search")
    shoot(watched, folder, f"{device}-start")
    search(watched)
    shoot(watched, folder, f"{device}-search")
    page.locator(".side").evaluate("each => each.scrollIntoView()")
    if device == "phone":
        shoot(watched, folder, "phone-when")
    watched.go("detections?query=owl")
    shoot(watched, folder, f"{device}-detections")
    watched.go("recorders")
    shoot(watched, folder, f"{device}-recorders")
    watched.go("watchlists")
    page.locator("table.explain").wait_for()
    shoot(watched, folder, f"{device}-watchlists")


def search(watched: Watched) -> None:
    """Ask, say of two results what they are, and open the sound of the first."""
    page = watched.page
    watched.go(f"search?query={QUERY.replace(' ', '+')}")
    results = page.locator(".result")
    for i, answer in enumerate(("Right", "Right", "Wrong")):
        results.nth(i).get_by_role("button", name=answer).click()
    results.first.get_by_role("button", name="Play").click()
    page.get_by_text("16 kHz").wait_for()
    page.wait_for_function("() => document.querySelector('audio').currentTime > 1.5")
    page.locator("audio").evaluate("each => { each.pause(); each.currentTime = 2; }")
    page.evaluate("scrollTo(0, 0)")
    page.locator(".toast.is-shown").wait_for(state="detached", timeout=15_000)


def shoot(watched: Watched, folder: Path, name: str) -> None:
    """Keep what is to be seen, as WebP."""
    watched.settle()
    picture = watched.page.screenshot(animations="disabled")
    Image.open(io.BytesIO(picture)).convert("RGB").save(folder / f"{name}.webp", quality=80, method=6)


if __name__ == "__main__":
    sys.exit(main())
