"""A real Chromium without a window, that tells what a page asked for and complained about; for tests and pictures of the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

DESKTOP = (1280, 900)
PHONE = (390, 844)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_TIMEOUT_MS = 10_000


def chromium_path() -> str | None:
    """Return where a Chromium is installed, None where there is none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; it can reach nothing but this computer."""
    from playwright.sync_api import sync_playwright

    arguments = [
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--disable-background-networking",
        "--disable-component-update",
        "--autoplay-policy=no-user-gesture-required",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium_path(), args=arguments)
        try:
            yield started
        finally:
            started.close()


@dataclass
class Watched:
    """A page, the addresses that it asked for, and what went wrong on it: errors, warnings, violations of its policy."""

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    waiting: set[Request] = field(default_factory=set)

    def began(self, request: Request) -> None:
        """Take note of a request."""
        self.requests.append(request.url)
        self.waiting.add(request)

    def ended(self, request: Request) -> None:
        """Take note of an answer, or that none comes."""
        self.waiting.discard(request)

    def foreign(self) -> list[str]:
        """Return the requests to other hosts than the hub."""
        inside = (f"{self.url}/", "data:", "blob:")
        return [each for each in self.requests if not each.startswith(inside)]

    def go(self, view: str) -> None:
        """Open a view and wait until it is there."""
        self.page.goto(f"{self.url}/#/{view}")
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is asked for any more, and nothing is shown as on its way."""
        shown = self.page.locator(".loading, [aria-busy=true]")
        n_quiet = 0
        for _ in range(500):
            if n_quiet == 3:
                return
            self.page.wait_for_timeout(20)
            n_quiet = 0 if self.waiting or shown.count() else n_quiet + 1
        raise AssertionError(
            f"expected answers within 10 s, found waiting {[each.url for each in self.waiting]}"
        )


@contextmanager
def opened(
    browser: Browser, url: str, size: tuple[int, int] = DESKTOP, scale: float = 1.0, dark: bool = False
) -> Iterator[Watched]:
    """Give an empty page in a context of its own, by the clock of UTC. size: in CSS pixels."""
    is_phone = size[0] < 600
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        device_scale_factor=scale,
        has_touch=is_phone,
        is_mobile=is_phone,
        timezone_id="UTC",
        locale="en-GB",
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        accept_downloads=True,
    )
    context.set_default_timeout(_TIMEOUT_MS)
    page = context.new_page()
    watched = Watched(page, url)
    page.on("request", watched.began)
    page.on("requestfinished", watched.ended)
    page.on("requestfailed", watched.ended)
    page.on("pageerror", lambda error: watched.troubles.append(f"exception: {error}"))
    page.on(
        "console",
        lambda said: watched.troubles.append(said.text) if said.type in {"error", "warning"} else None,
    )
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI}`))"
    )
    try:
        yield watched
    finally:
        context.close()
