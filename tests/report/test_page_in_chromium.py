"""The report in a real browser: nothing in the console, nothing asked of the network, filters that filter."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.report.render import render_report
from tests.report.synthetic import report
from tests.report.test_render import hostile_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine's PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


class Visit:
    """A page opened from its file, with all that it said and asked for."""

    def __init__(self, browser: object, path: Path, html: str) -> None:
        path.write_text(html, encoding="utf-8")
        self.page = browser.new_page(viewport={"width": 1200, "height": 900})  # type: ignore[attr-defined]
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.goto(path.as_uri())

    def outside(self) -> list[str]:
        """Requests beyond the file itself and the pictures inside it."""
        return [url for url in self.asked if not url.startswith("data:") and url != self.page.url.partition("#")[0]]


def decoded(image: object) -> None:
    """Scroll to a picture and wait until it is really there."""
    image.scroll_into_view_if_needed()  # type: ignore[attr-defined]
    sync_api.expect(image).to_have_attribute("src", re.compile("^data:image/webp"))
    image.evaluate("image => image.decode()")  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(report())


@pytest.fixture
def visit(browser: object, tmp_path: Path, html: str) -> Iterator[Visit]:
    visit = Visit(browser, tmp_path / "report.html", html)
    yield visit
    visit.page.close()


def test_quiet_and_closed(visit: Visit) -> None:
    visit.page.locator("#f0 details.more > summary").click()
    decoded(visit.page.locator("#f0 .triple img").first)
    assert visit.said == [] and visit.outside() == []


def test_pictures_wait_until_they_are_near(visit: Visit) -> None:
    last = visit.page.locator("article.finding .gallery img").last
    assert last.get_attribute("src") is None
    last.locator("xpath=ancestor::details").evaluate("details => { details.open = true; }")
    decoded(last)


def test_filters_search_and_order(visit: Visit) -> None:
    page = visit.page
    shown = page.locator("article.finding:visible")
    assert shown.count() == 30
    page.select_option("#verdict", "confirmed")
    assert shown.count() == 5 and page.inner_text("#count") == "5 of 30 shown"
    page.fill("#search", "owl street")
    assert shown.count() == 1
    page.fill("#search", "no such thing")
    assert shown.count() == 0 and page.locator("#nothing").is_visible()
    page.click("#clear")
    assert shown.count() == 30
    page.select_option("#sort", "insertion")
    values = [float(item.get_attribute("data-insertion")) for item in page.locator("article.finding").all()]
    assert values == sorted(values, reverse=True)
    assert visit.said == []


def test_a_cell_of_the_overview_leads_to_its_finding_even_when_filtered_out(visit: Visit) -> None:
    visit.page.fill("#search", "no such thing")
    cell = visit.page.locator(".matrix td a").first
    cell.click()
    target = visit.page.locator(cell.get_attribute("href") or "")
    assert target.is_visible() and target.locator("details.more").get_attribute("open") is not None


def test_keyboard_reaches_the_search_and_the_theme(visit: Visit) -> None:
    visit.page.keyboard.press("/")
    assert visit.page.evaluate("document.activeElement.id") == "search"
    before = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    visit.page.focus("#theme")
    visit.page.keyboard.press("Enter")
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_no_sideways_scrolling_on_a_narrow_screen(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 390, "height": 800})
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_hostile_names_run_nothing(browser: object, tmp_path: Path) -> None:
    visit = Visit(browser, tmp_path / "hostile.html", render_report(hostile_report()))
    assert visit.said == [] and visit.outside() == []
    assert visit.page.locator("article.finding").count() == 30
    visit.page.close()


def test_an_empty_report_has_no_script_error(browser: object, tmp_path: Path) -> None:
    empty = replace(report(findings=0, pictures=False), cues=[], untested=[])
    visit = Visit(browser, tmp_path / "empty.html", render_report(empty))
    assert visit.said == [] and visit.page.get_by_text("No findings").is_visible()
    visit.page.close()
