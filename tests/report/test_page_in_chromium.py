"""The report in a real browser: nothing in the console, nothing asked of the network, filters that filter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.bench.report.synthetic import report
from pipeline.report.render import render_report
from tests import chromium
from tests.chromium import Visit
from tests.report.test_render import hostile_report


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium.browser() as started:
        yield started


def opened(browser: Any, path: Path, html: str, **options: Any) -> Visit:
    path.write_text(html, encoding="utf-8")
    return Visit(browser, path.as_uri(), **options)


def decoded(image: Any) -> None:
    """Scroll to a picture and wait until it is really there."""
    from playwright.sync_api import expect

    image.scroll_into_view_if_needed()
    expect(image).to_have_attribute("src", re.compile("^data:image/"), timeout=60_000)
    image.evaluate("image => image.decode()")


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(report())


@pytest.fixture
def visit(browser: Any, tmp_path: Path, html: str) -> Iterator[Visit]:
    visit = opened(browser, tmp_path / "report.html", html)
    yield visit
    visit.page.close()


def test_quiet_and_closed(visit: Visit) -> None:
    visit.page.locator("#f0 details.more > summary").click()
    decoded(visit.page.locator("#f0 .triple img").first)
    decoded(visit.page.locator(".heat img").first)
    assert visit.said == [] and visit.outside() == []


def test_pictures_wait_until_they_are_near(visit: Visit) -> None:
    last = visit.page.locator("article.finding > .shown .gallery img").last
    assert last.get_attribute("src") is None
    decoded(last)


def test_details_are_laid_out_when_they_are_opened(visit: Visit) -> None:
    quiet = visit.page.locator("article.finding.quiet").last
    assert quiet.locator("table").count() == 0
    quiet.locator("details.more > summary").click()
    assert quiet.locator("table.facts").is_visible()
    decoded(quiet.locator(".gallery img").first)


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_it_is_accessible_and_fits(browser: Any, tmp_path: Path, html: str, scheme: str, width: int) -> None:
    visit = opened(browser, tmp_path / "report.html", html, width=width, color_scheme=scheme)
    page = visit.page
    for details in page.locator("#f0 details.more > summary, #f12 details.more > summary").all():
        details.click()
    decoded(page.locator("#f0 .gallery img").first)
    visit.keep(f"report-{scheme}-{width}-finding")
    page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
    visit.keep(f"report-{scheme}-{width}-top")
    assert visit.violations() == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_print_shows_every_finding_with_its_numbers(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    page.emulate_media(media="print")
    assert not page.locator(".rail").is_visible() and not page.locator("#tools").is_visible()
    pdf = page.pdf(path=str(tmp_path / "report.pdf"))
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page") > 8
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("article.finding table.facts").count() == 30
    assert page.locator("img[data-picture]:not([src])").count() == 0


def test_hostile_names_run_nothing(browser: Any, tmp_path: Path) -> None:
    visit = opened(browser, tmp_path / "hostile.html", render_report(hostile_report()))
    for summary in visit.page.locator("details.more > summary").all()[:6]:
        summary.click()
    assert visit.said == [] and visit.outside() == []
    assert visit.page.locator("article.finding").count() == 30
    visit.page.close()


def test_an_empty_report_has_no_script_error(browser: Any, tmp_path: Path) -> None:
    empty = replace(report(findings=0, pictures=False), cues=[], untested=[])
    visit = opened(browser, tmp_path / "empty.html", render_report(empty))
    assert visit.said == [] and visit.page.get_by_text("No findings", exact=True).is_visible()
    assert visit.violations() == []
    visit.keep("report-empty")
    visit.page.close()
