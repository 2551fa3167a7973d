"""Findings in the terminal and in a notebook."""

from __future__ import annotations

import io
import re

from rich.console import Console

from pipeline.bench.report.synthetic import around, finding, report, run
from pipeline.report.notebook import MAX_ROWS, findings_html
from pipeline.report.terminal import print_findings


def printed(rows: list[dict], labels: list[str], width: int = 120, top: int = 15) -> str:
    out = io.StringIO()
    print_findings(Console(file=out, width=width), run(labels), rows, top=top)
    return out.getvalue()


CONFIRMED = finding(verdict="confirmed", q=0.003, **around("removal_effect", 0.31, 0.09), **around("harm", 0.2, 0.05))
NULL = finding(cue="sea", cue_id="sea", verdict="associated only", **around("removal_effect", 0.01, 0.04))


def test_the_terminal_shows_numbers_and_a_line_a_class() -> None:
    text = printed([NULL, CONFIRMED], ["boat", "owl"])
    assert re.search(r"boat\s+buoy\s+● confirmed\s+\+31 \(22 to 40\)\s+–\s+20\s+0\.003", text)
    assert text.index("buoy") < text.index("sea"), "confirmed findings come first"
    assert "boat: leans on buoy" in text and "owl: not tested" in text


def test_classes_without_confirmed_cues() -> None:
    assert "boat: found clean, 1 cue tested" in printed([NULL], ["boat"])
    undecided = {**NULL, "verdict": "inconclusive"}
    assert "boat: nothing confirmed, 1 cue tested, 1 undecided" in printed([undecided], ["boat"])
    assert "No cue was put to the test" in printed([finding()], ["boat"])


def test_all_confirmed_findings_are_shown_however_many() -> None:
    rows = [{**CONFIRMED, "cue": f"cue{i}"} for i in range(5)] + [NULL]
    text = printed(rows, ["boat"], top=2)
    assert all(f"cue{i}" in text for i in range(5)) and "1 more finding is in the report." in text


def test_a_narrow_terminal_keeps_the_numbers() -> None:
    text = printed(report().findings, [], width=80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "+44 (35 to 53)" in text and "● confirmed" in text


def test_names_are_no_markup() -> None:
    text = printed([{**CONFIRMED, "cue": "[bold]x[/bold]", "class": "[red]y"}], ["[red]y"])
    assert "[bold]x[/bold]" in text and "[red]y: leans on" in text


def test_the_notebook_table_is_escaped_and_self_contained() -> None:
    html = findings_html([{**CONFIRMED, "cue": "<script>alert(1)</script>", "class": '"><img src=x>'}])
    assert "<script" not in html and "<img" not in html and "http" not in html
    assert "+31 (22 to 40)" in html and "&lt;script&gt;" in html


def test_the_notebook_table_ends_somewhere() -> None:
    html = findings_html([CONFIRMED] * (MAX_ROWS + 7))
    assert html.count("<tr") == MAX_ROWS + 1 and "and 7 more" in html
    assert "No findings" in findings_html([])
