"""A comparison of two audits in plain words: in the terminal, in the report, as Markdown and in a message."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.json_text import json_text
from pipeline.report import sentences
from pipeline.report.sentences import number, of_100

SIGNS = {"new": "+", "worse": "▲", "better": "▼", "gone": "✓", "unchanged": "=", "not compared": "?"}
STYLES = {"new": "bold red", "worse": "red", "better": "green", "gone": "green", "not compared": "yellow"}
NEWS = ("new", "worse", "better", "gone")
WHY_NOT = "it can't be told which of these, or the data, a change comes from"

Row = Mapping[str, Any]


def subject(row: Row) -> str:
    """`boat: buoy`."""
    return f"{sentences.words(row['class'])}: {sentences.words(row['cue'])}"


def sentence(row: Row) -> str:
    """What changed about a finding, and how sure that is."""
    said = [f"{row['why'][0].upper()}{row['why'][1:]}."] if row["why"] else []
    if not math.isnan(number(row["p"])):
        said.insert(0, _measured(row))
        said += [part for part in (_data(row), _effect(row)) if part]
    elif row["change"] == "new":
        said.insert(0, f"Confirmed now: harm {of_100(number(row['harm_after']))} of 100 predictions.")
    return " ".join(said)


def _measured(row: Row) -> str:
    change, low, high = (number(row[f"harm_change{end}"]) for end in ("", "_lower", "_upper"))
    q = f"q {sentences.small(row['q'])}"
    if of_100(change) == "0":
        seen = number(row["smallest_change"])
        could = f"; a change of {of_100(seen)} would have been seen" if seen > 0 else ""
        return f"Harm as before{could} ({q})."
    way, bounds = ("rose", (low, high)) if change > 0 else ("fell", (-high, -low))
    span = f"{of_100(bounds[0])} to {of_100(bounds[1])}"
    chance = ", which may be chance" if low <= 0 <= high else ""
    return f"Harm {way} by {of_100(abs(change))} of 100 predictions ({span}){chance} ({q})."


def _data(row: Row) -> str:
    """How the cue spread, where that is sure and of weight."""
    if not (_sure(row, "data_part") and abs(number(row["data_part"])) >= abs(number(row["harm_change"])) / 4):
        return ""
    label = sentences.plural(row["class"])
    shares = [of_100(number(row[f"prevalence_class_{end}"])) for end in ("before", "after")]
    others = [of_100(number(row[f"prevalence_other_{end}"])) for end in ("before", "after")]
    if shares[0] == shares[1] and others[0] == others[1]:
        return ""
    return (
        f"It shows in {shares[1]} of 100 {label}, before in {shares[0]} "
        f"(of 100 other images in {others[1]}, before in {others[0]})."
    )


def _effect(row: Row) -> str:
    """How the model's reaction changed, where that is sure and of weight."""
    if not (_sure(row, "effect_part") and abs(number(row["effect_part"])) >= abs(number(row["harm_change"])) / 4):
        return ""
    said = []
    claims = {
        "removal": "taking it out costs {} of 100, before {}",
        "insertion": "putting it in wins {} of 100 others, before {}",
    }
    for way, what in claims.items():
        values = [of_100(number(row[f"{way}_effect_{end}"])) for end in ("after", "before")]
        if sentences.DASH not in values:
            said.append(what.format(*values))
    how = "more" if number(row["effect_part"]) > 0 else "less"
    return f"The model reacts {how} to it{': ' if said else ''}{'; '.join(said)}."


def _sure(row: Row, part: str) -> bool:
    return number(row[f"{part}_lower"]) > 0 or number(row[f"{part}_upper"]) < 0


def images(summary: Row) -> str:
    """`12 images added (8 boat, 4 car), none removed.`"""
    parts = []
    for kind in ("added", "removed", "relabelled"):
        count = summary[kind]
        by_class = summary[f"{kind}_by_class"]
        listed = sorted(by_class.items(), key=lambda item: (-item[1], item[0]))
        which = ", ".join(f"{n:,} {sentences.words(label)}" for label, n in listed[:6])
        more = f", {len(listed) - 6} more classes" if len(listed) > 6 else ""
        if count or kind != "relabelled":
            parts.append(f"{count:,} {kind}" + (f" ({which}{more})" if count else ""))
    return f"Images: {summary['before']:,} before, {summary['after']:,} now; {', '.join(parts)}."


def causes(rows: Sequence[Row]) -> list[str]:
    """What else differs, a line each."""
    return [
        f"{sentences.words(row['what'])} (before {_short(row['before'])}, now {_short(row['after'])})" for row in rows
    ]


def _short(value: str) -> str:
    return value if len(value) <= 60 else value[:57] + "..."


def attribution(rows: Sequence[Row]) -> str:
    """Whether a change can be the data's alone."""
    if not rows:
        return "Model, configuration and code are the same: what changed is the data."
    model = [row["what"] for row in rows if row["what"].startswith("the ") or row["what"].startswith("configuration")]
    if not model:
        return f"Code or packages differ ({len(rows)} differences), so that {WHY_NOT}."
    return f"More than the data changed ({', '.join(sentences.words(what) for what in model[:4])}), so that {WHY_NOT}."


def drift(summary: Row) -> list[str]:
    """What changed in the data beside the number of images, a line each; audits of older versions did not look."""
    return [row["verdict"] for row in summary.get("drift") or ()]


def headline(counts: Mapping[str, int]) -> str:
    """`1 new, 2 worse, 1 better, 0 gone, 20 unchanged, 3 not compared`."""
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def news(rows: Sequence[Row]) -> list[Row]:
    """The findings that are worth a line: what is new, worse, better or gone, and what was lost sight of."""
    return [row for row in rows if row["change"] in NEWS or _lost(row)]


def _lost(row: Row) -> bool:
    return row["change"] == "not compared" and row["verdict_before"] == "confirmed"


def print_changes(console: Console, summary: Row, rows: Sequence[Row]) -> None:
    """Print a comparison: `summary` as in run.json, `rows` of the table `changes`. Names are never read as markup."""
    console.print(Text(headline(summary["counts"]), "bold"))
    console.print(Text(attribution(summary["causes"])))
    for line in causes(summary["causes"]):
        console.print(Text(f"  {line}", "dim"))
    console.print(Text(images(summary["images"])))
    for line in drift(summary):
        console.print(Text(f"  {line}", "dim"))
    shown = news(rows)
    if shown:
        found = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption="harm of 100 predictions, with 95 % intervals")
        for name in ("", "class: cue"):
            found.add_column(name, overflow="fold", max_width=32)
        for name in ("harm", "change"):
            found.add_column(name, justify="right", no_wrap=True)
        found.add_column("q", justify="right", no_wrap=True)
        for row in shown:
            style = STYLES.get(row["change"], "")
            low, high = number(row["harm_change_lower"]), number(row["harm_change_upper"])
            harm = " → ".join(of_100(number(row[f"harm_{end}"])) for end in ("before", "after"))
            change = f"{of_100(number(row['harm_change']), signed=True)} {sentences.interval(low, high)}".strip()
            cells = (
                Text(f"{SIGNS[row['change']]} {row['change']}", style),
                Text(subject(row)),
                Text(harm),
                Text(change),
            )
            found.add_row(*cells, Text(sentences.small(row["q"])))
        console.print(found)
        for row in shown:
            console.print(Text(f"{subject(row)}. ", "bold").append(sentence(row), ""))
    else:
        console.print(Text("No finding changed."))


def markdown(summary: Row, rows: Sequence[Row]) -> str:
    """The same as Markdown, for Prefect's artifacts. Names come from data: what Markdown would read is escaped."""
    lines = [f"**{headline(summary['counts'])}**", "", escaped(attribution(summary["causes"])), ""]
    lines += [f"- {escaped(line)}" for line in causes(summary["causes"])]
    lines += ["", escaped(images(summary["images"])), ""]
    lines += [f"- {escaped(line)}" for line in drift(summary)]
    lines += [""] if drift(summary) else []
    lines += [f"- **{row['change']}** {escaped(subject(row))}. {escaped(sentence(row))}" for row in news(rows)]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    plain = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]()<>#+-!|~&" else c for c in plain)


def as_json(summary: Row, rows: Sequence[Row]) -> str:
    """The whole comparison as JSON, where what was not measured is null."""
    return json_text({**summary, "findings": rows})
