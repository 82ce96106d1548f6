"""A real Chromium that notes what its pages complain of and where they send requests."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

_PATIENCE_MILLISECONDS = 60_000
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str:
    """The browser of this machine. Debian has one: that it is missing there is a failure. Where
    the distribution has none (Ubuntu's package only fetches a snap) the test is skipped.
    """
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is not None:
        return found
    if platform.freedesktop_os_release()["ID"] == "debian":
        pytest.fail("there is no Chromium here: apt-get install chromium")
    pytest.skip("this distribution has no package of Chromium")


@dataclass
class Watched:
    """A browser's window, and what went wrong in it. What a page was refused on purpose (a status
    of 4xx) is a complaint, too.
    """

    context: BrowserContext
    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def chromium(width: int = 1200, height: int = 800, scheme: str = "light") -> Iterator[Watched]:
    """As root Chromium needs to be without its sandbox; only our own pages are opened in it."""
    path = chromium_path()
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    arguments += ["--disable-dev-shm-usage", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments, timeout=120_000)
        try:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            context.set_default_timeout(_PATIENCE_MILLISECONDS)
            expect.set_options(timeout=_PATIENCE_MILLISECONDS)
            yield _watched(context, context.new_page())
        finally:
            browser.close()


def _watched(context: BrowserContext, page: Page) -> Watched:
    watched = Watched(context, page)
    page.on(
        "console",
        lambda said: (
            watched.complaints.append(said.text) if said.type in ("error", "warning") else None
        ),
    )
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on("dialog", lambda dialog: watched.complaints.append(f"dialog: {dialog.message}"))
    return watched
