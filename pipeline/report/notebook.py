"""Findings in a notebook: a small table that carries its own style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape as escape_html
from typing import Any

from pipeline.errors import plain
from pipeline.report import sentences
from pipeline.report.sentences import number, of_100


def escape(text: str) -> str:
    """Text for HTML, in which nothing hides."""
    return escape_html(plain(text))


COLORS = {"confirmed": "#c2410c", "associated only": "#a16207", "core": "#2563a8", "inconclusive": "#7a8288"}
SIGNS = {"confirmed": "●", "associated only": "◐", "core": "◆", "inconclusive": "○"}
CELL = "padding:.3em .8em;text-align:{side};vertical-align:top;white-space:nowrap"
MAX_ROWS = 50


def findings_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the findings table as HTML: colours that read on light and dark, every name escaped.

    At most 50 rows are shown, in the order given; a last line says how many more there are.
    """
    if not rows:
        return "<p><em>No findings.</em></p>"
    sides = {"class": "left", "cue": "left", "verdict": "left"}
    heads = [(name, sides.get(name, "right")) for name in (*sides, "removed", "inserted", "harm", "q")]
    head = "".join(f'<th scope="col" style="{_cell(side)}">{name}</th>' for name, side in heads)
    body = "".join(f'<tr title="{escape(sentences.sentence(row))}">{_row(row)}</tr>' for row in rows[:MAX_ROWS])
    rest = len(rows) - MAX_ROWS
    more = f"<p>and {rest:,} more</p>" if rest > 0 else ""
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;font-size:.92em;'
        f'font-variant-numeric:tabular-nums"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "<p><small>Effects and harm of 100, with 95 % intervals; removed: images of the class lost without "
        "the cue, inserted: other images taken for the class with it, each less its placebo.</small></p>"
        f"{more}</div>"
    )


def _row(row: Mapping[str, Any]) -> str:
    verdict = str(row["verdict"])
    color = COLORS.get(verdict, "inherit")
    badge = f'<span style="color:{color};font-weight:600">{SIGNS.get(verdict, "")} {escape(verdict)}</span>'
    cells = [
        (escape(sentences.words(str(row["class"]))), "left"),
        (f"<strong>{escape(sentences.words(str(row['cue'])))}</strong>", "left"),
        (badge, "left"),
        *((_span(row, name, signed), "right") for name, signed in _EFFECTS),
        (escape(sentences.small(row["q"])), "right"),
    ]
    return "".join(f'<td style="{_cell(side)}">{text}</td>' for text, side in cells)


_EFFECTS = (("removal_effect", True), ("insertion_effect", True), ("harm", False))


def _span(row: Mapping[str, Any], name: str, signed: bool) -> str:
    value, low, high = (number(row[name + end]) for end in ("", "_lower", "_upper"))
    return escape(f"{of_100(value, signed)} {sentences.interval(low, high)}".strip())


def _cell(side: str) -> str:
    return CELL.format(side=side)
