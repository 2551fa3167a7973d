"""Findings in the terminal: the worst of them as a table, and a line a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.records import worst_first
from pipeline.report import answers, checks, sentences
from pipeline.report.sentences import number, of_100

STYLES = {"confirmed": "bold red", "associated only": "yellow", "core": "blue", "inconclusive": "dim"}
SIGNS = {"confirmed": "●", "associated only": "◐", "core": "◆", "inconclusive": "○"}
NARROW = 100  # columns; below it, the verdict is its sign alone

Row = Mapping[str, Any]


def print_findings(console: Console, run: Mapping[str, Any], findings: Sequence[Row], top: int = 15) -> None:
    """Print the `top` most harmful findings, confirmed ones first, and one line for each class of the audit.

    Args:
        console: where to; names are shown as they are, never read as markup.
        run: run.json (its classes).
        findings: rows of the findings table.
        top: most rows of the table; all confirmed findings are shown even when they are more.
    """
    tested = [row for row in findings if _tested(row) or row["labelers"] == "spurious"]
    ordered = sorted(tested, key=worst_first)
    shown = ordered[: max(top, sum(row["verdict"] == "confirmed" for row in tested))]
    if shown:
        console.print(_table(shown, narrow=console.width < NARROW))
        if len(shown) < len(findings):
            rest = len(findings) - len(shown)
            console.print(Text(f"{rest} more {'finding is' if rest == 1 else 'findings are'} in the report.", "dim"))
    else:
        why = sentences.OBSERVATIONAL if run.get("observational") else "The report says why."
        console.print(f"No cue was put to the test. {why}")
    console.print()
    labels = dict.fromkeys([*(run.get("classes") or []), *(row["class"] for row in findings)])
    for label in labels:
        console.print(_line(label, [row for row in findings if row["class"] == label]))


def print_answers(console: Console, run: Row, variants: Sequence[Row], counted: tuple[int, int]) -> None:
    """Print what a model that is asked questions said, by prompt as means over the classes, and what calls came to.

    Args:
        console, run: as for `print_findings`.
        variants: rows of the table; without any nothing is printed of answers.
        counted: see report.assemble.counted.
    """
    costs = run.get("costs") or {}
    if variants:
        caption = "of 100 pictures, means over the classes; blank, none: Yes to blank pictures, to no picture"
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption)
        for name in ("prompt", "pictures without it"):
            table.add_column(name, overflow="fold", max_width=28)
        names = {
            "pa": "Yes: is",
            "hr": "Yes: isn't",
            "neither": "neither",
            "blank_yes": "blank",
            "no_image_yes": "none",
        }
        for name in names.values():
            table.add_column(name, justify="right", no_wrap=True)
        for row in answers.averages(variants):
            cells = [Text(of_100(number(row[name]))) for name in names]
            what = Text(sentences.words(row["variant"]), "" if row["counts"] else "dim")
            table.add_row(what, Text(answers.SHOWN.get(row["source"], row["source"])), *cells)
        console.print()
        console.print(table)
        for line in (answers.asked(counted), answers.own_pictures(variants)):
            if line:
                console.print(Text(line, "dim"))
    if variants or costs.get("calls"):
        console.print(Text(f"Calls of services: {sentences.calls(costs)}."))


def print_checks(console: Console, rows: Sequence[Row]) -> None:
    """Print in a line how many checks of the data found something, and which."""
    found = Counter(str(checks.TITLES.get(row["check"], row["check"])).lower() for row in rows if row["found"])
    which = f" See the report for: {', '.join(found)}." if found else ""
    console.print(Text(checks.summary(found.total(), len(rows)) + which, "yellow" if found else "dim"))


def _tested(row: Row) -> bool:
    return any(of_100(number(row[f"{way}_effect"])) != sentences.DASH for way in ("removal", "insertion"))


def _table(rows: Sequence[Row], narrow: bool) -> Table:
    caption = "effects and harm of 100, with 95 % intervals"
    if narrow:
        caption += "\n" + "  ".join(f"{SIGNS[verdict]} {verdict}" for verdict in SIGNS)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption)
    for name in ("class", "cue"):
        table.add_column(name, overflow="fold", max_width=28)
    table.add_column("" if narrow else "verdict", no_wrap=True)
    for name in ("removed", "inserted", "harm"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("q", justify="right", no_wrap=True)
    for row in rows:
        style = STYLES.get(row["verdict"], "")
        strong = "bold" if row["verdict"] == "confirmed" else ""
        name = sentences.words(sentences.called(row))
        table.add_row(
            Text(sentences.words(row["class"])),
            Text(name + (f" (labelers: {row['labelers']})" if row["labelers"] else ""), strong),
            Text(f"{SIGNS.get(row['verdict'], '')} {'' if narrow else row['verdict']}".strip(), style),
            *(Text(_span(row, f"{way}_effect")) for way in ("removal", "insertion")),
            Text(of_100(number(row["harm"]))),
            Text(sentences.small(row["q"])),
        )
    return table


def _span(row: Row, name: str) -> str:
    value, low, high = (number(row[name + end]) for end in ("", "_lower", "_upper"))
    return f"{of_100(value, signed=True)} {sentences.interval(low, high)}".strip()


def _line(label: str, rows: Sequence[Row]) -> Text:
    """`boat: leans on buoy, sea` or what else is known of the class."""
    text = Text(f"{sentences.words(label)}: ", "bold")
    confirmed = [
        sentences.words(sentences.called(row)) for row in sorted(rows, key=worst_first) if row["verdict"] == "confirmed"
    ]
    tested = [row for row in rows if _tested(row)]
    undecided = sum(row["verdict"] == "inconclusive" for row in tested)
    if confirmed:
        return text.append(f"leans on {', '.join(confirmed)}", "red")
    if not tested:
        return text.append("not tested", "dim")
    cues = f"{len(tested)} {'cue' if len(tested) == 1 else 'cues'} tested"
    if undecided:
        return text.append(f"nothing confirmed, {cues}, {undecided} undecided", "yellow")
    return text.append(f"found clean, {cues}", "green")
