"""Debian's Chromium by Playwright, for the tests of pages: what a page said and asked for, accessibility, pictures.

Where CUESCOPE_SCREENSHOTS names a folder, pictures of the pages are kept there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@contextmanager
def browser() -> Iterator[Any]:
    """A browser; skips the test where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine's PATH")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


class Visit:
    """A page that was opened, with all that it said and asked for."""

    def __init__(self, browser: Any, address: str, width: int = 1200, **options: Any) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        self.page.set_default_timeout(120_000)  # a busy machine is no fault
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.goto(address)

    def outside(self) -> list[str]:
        """Requests beyond the page itself and the pictures inside it."""
        return [url for url in self.asked if not url.startswith("data:") and url != self.page.url.partition("#")[0]]

    def violations(self, without: str = "") -> list[str]:
        """What axe finds against WCAG 2.2 AA and its best practices, a rule and a place a line; `without` one rule."""
        package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
        self.page.evaluate((files(package) / "axe.min.js").read_text(encoding="utf-8"))
        found = self.page.evaluate("rules => axe.run({runOnly: {type: 'tag', values: rules}})", RULES)
        return [
            f"{rule['id']}: {node['target'][0]}: {node['failureSummary']}"
            for rule in found["violations"]
            if rule["id"] != without
            for node in rule["nodes"]
        ]

    def keep(self, name: str, **options: Any) -> None:
        """A picture of the window, where somebody asked for pictures."""
        folder = os.environ.get("CUESCOPE_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"), **options)
