"""What a model under test that is asked questions said: by prompt, by the pictures shown, and by habit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report import sentences
from pipeline.report.sentences import number, of_100

Row = Mapping[str, Any]

OTHERS = "other classes"
SHOWN = {
    OTHERS: "of other classes",
    "object masked": "its own, object masked",
    "object removed": "its own, object removed",
}


@dataclass(frozen=True)
class PromptRow:
    """One row of a class's table, in words; every cell is a text."""

    prompt: str
    pictures: str
    right: str
    wrong: str
    cue: str
    right_gap: str
    wrong_gap: str
    neither: str
    blank: str
    no_picture: str


@dataclass(frozen=True)
class ClassAnswers:
    """What was said of one class."""

    name: str
    rows: tuple[PromptRow, ...]


def by_class(variants: Sequence[Row], cue_names: Mapping[str, str]) -> list[ClassAnswers]:
    """The rows of `variants`, class by class, in their order."""
    classes: dict[str, list[PromptRow]] = {}
    for row in variants:
        classes.setdefault(row["label"], []).append(_row(row, cue_names))
    return [ClassAnswers(sentences.words(label), tuple(rows)) for label, rows in classes.items()]


def _row(row: Row, cue_names: Mapping[str, str]) -> PromptRow:
    cue_id = str(row["cue_id"] or "")
    return PromptRow(
        prompt=sentences.words(row["variant"]) + ("" if row["counts"] else " (only compared)"),
        pictures=SHOWN.get(row["source"], str(row["source"])),
        right=_share(row, "pa", "n_present"),
        wrong=_share(row, "hr", "n_absent"),
        cue=sentences.words(cue_names.get(cue_id) or cue_id) if cue_id else sentences.DASH,
        right_gap=of_100(number(row["pa_gap_top_k"]), True),
        wrong_gap=of_100(number(row["hr_gap_top_k"]), True),
        neither=of_100(number(row["neither"])),
        blank=of_100(number(row["blank_yes"])),
        no_picture=of_100(number(row["no_image_yes"])),
    )


def _share(row: Row, name: str, size: str) -> str:
    """`31 (22 to 40) of 45 pictures`; a dash where none was shown."""
    shown = int(number(row[size])) if math.isfinite(number(row[size])) else 0
    if not shown:
        return sentences.DASH
    value, low, high = (number(row[name + end]) for end in ("", "_lower", "_upper"))
    return f"{of_100(value)} {sentences.interval(low, high)}, {shown:,} pictures"


def averages(variants: Sequence[Row]) -> list[dict[str, Any]]:
    """Means over the classes, a row a (prompt, source): variant, source, counts, pa, hr, neither, blank_yes and
    no_image_yes, NaN where no class has one."""
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for row in variants:  # own pictures have a row a cue, which differ in the gaps alone
        groups.setdefault((row["variant"], row["source"]), {}).setdefault(row["label"], row)
    names = ("pa", "hr", "neither", "blank_yes", "no_image_yes")
    return [
        {
            "variant": variant,
            "source": source,
            "counts": all(row["counts"] for row in rows.values()),
            **{name: _mean([number(row[name]) for row in rows.values()]) for name in names},
        }
        for (variant, source), rows in groups.items()
    ]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def asked(answers: tuple[int, int]) -> str:
    """How many questions about the data's pictures were answered, and how many answers can't be read, in a sentence."""
    total, neither = answers
    if not total:
        return ""
    if not neither:
        return f"{total:,} questions about the pictures of the data were asked; every answer said Yes or No."
    said = "1 answer said" if neither == 1 else f"{neither:,} answers said"
    return (
        f"{total:,} questions about the pictures of the data were asked; {said} neither Yes nor No, and "
        f"{'counts' if neither == 1 else 'count'} as not Yes."
    )


def own_pictures(variants: Sequence[Row]) -> str:
    """That no picture was shown with its object masked or removed, as a sentence; empty where some were."""
    if not variants or any(row["source"] != OTHERS for row in variants):
        return ""
    return (
        "No picture was shown with its object masked or removed: hallucinations are known from pictures of other "
        "classes alone. What was not tested says why."
    )
