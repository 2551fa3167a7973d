"""The section of the data: found first, worst first, with pictures; then what was clean; and none of it is markup."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from rich.console import Console

from pipeline.bench.report.synthetic import report
from pipeline.evidence.checks import row
from pipeline.report.checks import MOST_SHOWN, checks_of, pictured
from pipeline.report.render import render_report
from pipeline.report.terminal import print_checks
from tests.report.test_render import HOSTILE, Elements

DARK = row(
    "properties", "brightness", "Pictures of “owl” are darker than the others.", label="owl", found=True, statistic=0.1
) | {"q": 0.0004, "n": 45, "examples": [f"{i:032x}" for i in range(2)]}
PALE = row(
    "properties", "saturation", "Pictures of “bus” are paler in colour.", label="bus", found=True, statistic=0.3, n=45
)
COPY = row("copies", "near, under other labels", "7 pictures are there under different labels.", found=True, n=360)
CLEAN = [row("copies", "exact", "No file is there twice.", n=360)] + [
    row("properties", "noise", f"Pictures of “{label}” differ by no more than chance.", label=label, statistic=0.5)
    for label in ("boat", "owl", "bus")
]


def page_of(*rows: dict[str, Any]) -> tuple[str, Elements]:
    page = render_report(replace(report(findings=4), checks=[*CLEAN, *rows]))
    return page, Elements(page)


def test_what_was_found_comes_first_and_the_worst_of_it_first() -> None:
    page, elements = page_of(PALE, DARK, COPY)
    places = [
        page.index(text) for text in ("7 pictures are there", "are darker", "are paler", "No file is there twice")
    ]
    assert places == sorted(places)
    assert "3 of 7 checks of the data found something." in elements.words
    assert "(45 images, q <0.001)" in elements.words and "(360 images)" in elements.words
    assert "noise: nothing in 3 classes" in elements.words


def test_examples_are_shown_once_with_words() -> None:
    _, elements = page_of(DARK)
    before = Elements(render_report(replace(report(findings=4), checks=CLEAN)))
    new = len(elements.all("img")) - len(before.all("img"))
    assert new == 2 and all(image["alt"] for image in elements.all("img"))


def test_a_check_whose_picture_is_missing_still_speaks() -> None:
    _, elements = page_of(DARK | {"examples": ["nowhere"]})
    assert "are darker" in elements.words


def test_hostile_words_stay_text() -> None:
    evil = dict.fromkeys(("what", "verdict", "label"), HOSTILE)
    page, elements = page_of({**DARK, **evil}, {**CLEAN[0], **evil, "label": ""}, {**DARK, "verdict": "a\u202eb\x00c"})
    assert len(elements.all("script")) == 2 and all("onerror" not in attrs for _, attrs in elements.found)
    assert elements.words.count("<img src=x onerror=alert(1)>") >= 3
    assert "abc" in page and "\u202e" not in page


def test_many_are_cut_and_counted() -> None:
    _, elements = page_of(*[{**DARK, "label": f"class {i}", "examples": []} for i in range(MOST_SHOWN + 5)])
    assert "and 5 more; the table of checks lists them all." in elements.words
    assert len([a for a in elements.all("article") if a["class"] == "check"]) == MOST_SHOWN


def test_no_checks_no_claims() -> None:
    words = Elements(render_report(report(findings=4))).words
    assert "The data were not checked" in words and "found something" not in words
    clean = Elements(render_report(replace(report(findings=4), checks=CLEAN))).words
    assert "None of 4 checks of the data found something." in clean


def test_pictures_are_asked_for_what_is_shown_alone() -> None:
    assert pictured([*CLEAN, PALE, DARK]) == DARK["examples"]
    assert checks_of(replace(report(findings=1), checks=CLEAN)).found == ()


def printed(rows: list[dict[str, Any]]) -> list[str]:
    stream = io.StringIO()
    print_checks(Console(file=stream, width=200), rows)
    return stream.getvalue().splitlines()


def test_the_terminal_has_one_line() -> None:
    assert printed([*CLEAN, DARK, PALE]) == [
        "2 of 6 checks of the data found something. See the report for: properties that give a class away."
    ]
    assert printed(CLEAN) == ["None of 4 checks of the data found something."]
