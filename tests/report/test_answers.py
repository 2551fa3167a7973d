"""Answers by prompt and what calls came to, on the page and in the terminal; and where there are none."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from pipeline.bench.report.synthetic import NAN, report, run, variant
from pipeline.records import SCHEMAS
from pipeline.report import answers
from pipeline.report.data import ReportData
from pipeline.report.render import render_report
from pipeline.report.sentences import calls
from pipeline.report.terminal import print_answers
from tests.report.test_render import HOSTILE, Elements

ROWS = [
    variant(),
    variant(variant="step by step", counts=False, pa=NAN, n_present=0, neither=0.03),
    variant(source="object masked", hr=0.5, hr_lower=0.4, hr_upper=0.6, n_absent=40, n_present=0),
    variant(source="object removed", hr=0.3, hr_lower=0.2, hr_upper=0.4, n_absent=40, n_present=0),
    variant(source="object removed", hr=0.3, hr_lower=0.2, hr_upper=0.4, n_absent=40, n_present=0, cue_id="cue1"),
    variant(label="owl", hr=0.10),
]
COSTS = {"calls": 1234, "tokens": 56000, "usd": 1.5, "retries": 3, "refused": 1, "unread": 2, "failed": 0, "dropped": 4}


def words(data: ReportData) -> str:
    return Elements(render_report(data)).words


def test_the_made_up_rows_are_rows_of_the_table() -> None:
    assert set(variant()) == set(SCHEMAS["variants"].names)


def test_the_page_shows_each_prompt_with_its_rates_and_habits() -> None:
    data = replace(report(), variants=ROWS, answers=(1200, 7))
    said = words(data)
    assert "is there of other classes 80 (70 to 90), 45 pictures 6 (4 to 8), 315 pictures buoy +31 +12 0 2 40" in said
    assert "step by step (only compared) of other classes – 6 (4 to 8)" in said
    assert "its own, object masked – 50 (40 to 60), 40 pictures" in said and "its own, object removed" in said
    assert "1,200 questions about the pictures of the data were asked; 7 answers said neither Yes nor No" in said
    assert "nan" not in said.lower().split()


def test_a_classifier_is_asked_nothing_and_the_page_says_so() -> None:
    assert "is asked no questions, so there are no prompts to compare" in words(report())
    assert "Calls of services: none." in words(report())


def test_no_picture_without_its_object_is_said() -> None:
    assert "No picture was shown with its object masked" in words(replace(report(), variants=ROWS[:1]))
    assert "No picture was shown with its object masked" not in words(replace(report(), variants=ROWS))
    assert "every answer said Yes or No" in words(replace(report(), variants=ROWS, answers=(9, 0)))


def test_what_calls_came_to_is_in_plain_words() -> None:
    assert calls({}) == "none" == calls({"calls": 0})
    assert calls(COSTS) == (
        "1,234 with 56,000 tokens, 1.50 US dollars; tried again 3 times; 1 refused by the model; "
        "2 replies that could not be read; 4 proposals dropped"
    )
    assert calls({"calls": 1, "tokens": 5, "usd": None}).endswith("; none tried again, refused or unread")
    data = report()
    assert "Calls of services: 1,234 with" in words(replace(data, run=data.run | {"costs": COSTS}))


def test_hostile_prompts_and_cues_stay_text() -> None:
    rows = [variant(label=HOSTILE, variant=HOSTILE, cue_id=HOSTILE, source=HOSTILE)]
    elements = Elements(render_report(replace(report(), variants=rows)))
    assert len(elements.all("script")) == 2 and all("onerror" not in attrs for _, attrs in elements.found)
    assert "<img src=x onerror=alert(1)>" in elements.words


def test_the_terminal_shows_means_over_the_classes() -> None:
    out = io.StringIO()
    hostile = variant(variant="[red]x[/red]", hr=0.5)
    print_answers(Console(file=out, width=120), run(["boat"]) | {"costs": COSTS}, [*ROWS, hostile], (1200, 1))
    text = out.getvalue()
    assert "[red]x[/red]" in text and "tried again 3 times" in text and "1 answer said neither" in text
    means = {(row["variant"], row["source"]): row for row in answers.averages(ROWS)}
    assert abs(means["is there", "other classes"]["hr"] - 0.08) < 1e-9
    assert means["is there", "object removed"]["hr"] == 0.3 and not means["step by step", "other classes"]["counts"]


def test_the_terminal_says_nothing_of_a_classifier_without_calls() -> None:
    out = io.StringIO()
    print_answers(Console(file=out), run(["boat"]), [], (0, 0))
    assert out.getvalue() == ""
