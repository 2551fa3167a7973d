"""What the checks of the data found, and what they found clean, as the page and the terminal show it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report import sentences
from pipeline.report.data import ReportData
from pipeline.report.sentences import number

Row = Mapping[str, Any]

TITLES = {
    "copies": "Copies",
    "halves": "The two halves",
    "order": "Order",
    "properties": "Properties that give a class away",
    "balance": "Balance of classes",
}
"""In the order of the page: what makes numbers wrong before what makes them weak."""
MOST_SHOWN = 40
"""Found rows on the page; the table has them all."""
MOST_PICTURED = 12
"""Found rows whose examples are shown."""


@dataclass(frozen=True)
class Example:
    """A picture beside a check: its image, and words for it."""

    image_id: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Found:
    """A check that found something."""

    title: str
    verdict: str
    numbers: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Checks:
    """The section of the page: found first; then, by check, what came out clean (words, and of how many classes)."""

    found: tuple[Found, ...]
    left_out: int
    clean: tuple[tuple[str, tuple[str, ...]], ...]
    tested: int

    @property
    def summary(self) -> str:
        """How many of the checks found something."""
        return summary(len(self.found) + self.left_out, self.tested)


def summary(found: int, tested: int) -> str:
    """`3 of 81 checks of the data found something.`"""
    if not tested:
        return ""
    return f"{found or 'None'} of {tested:,} checks of the data found something."


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """The found rows: by check as on the page, the strongest of each first, a whole set before its classes."""
    order = {name: place for place, name in enumerate(TITLES)}

    def key(row: Row) -> tuple[Any, ...]:
        statistic = number(row["statistic"])
        strength = abs(statistic - 0.5) if row["check"] == "properties" else statistic
        if row["check"] == "balance":
            strength = -strength
        return order.get(row["check"], len(order)), row["label"] != "", -strength if strength == strength else 0.0

    return sorted((row for row in rows if row["found"]), key=key)


def pictured(rows: Sequence[Row]) -> list[str]:
    """The image ids whose pictures the section shows."""
    shown = worst_first(rows)[:MOST_PICTURED]
    return list(dict.fromkeys(image_id for row in shown for image_id in row["examples"] or []))


def checks_of(data: ReportData) -> Checks:
    """The section's content."""
    found = worst_first(data.checks)
    cards = tuple(_found(row, data, place < MOST_PICTURED) for place, row in enumerate(found[:MOST_SHOWN]))
    clean: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in data.checks:
        if not row["found"]:
            clean[row["check"]][row["what"]].append(row)
    titles = [name for name in (*TITLES, *clean) if name in clean]
    listed = tuple((TITLES.get(name, name), tuple(_clean(clean[name]))) for name in dict.fromkeys(titles))
    return Checks(cards, max(len(found) - MOST_SHOWN, 0), listed, len(data.checks))


def _found(row: Row, data: ReportData, with_pictures: bool) -> Found:
    q = number(row["q"])
    numbers = [f"{int(row['n']):,} images"] + ([f"q {sentences.small(q)}"] if math.isfinite(q) else [])
    title = TITLES.get(row["check"], row["check"])
    examples = []
    for image_id in (row["examples"] or []) if with_pictures else []:
        if image_id in data.thumbs:
            image = data.images.get(image_id, {})
            alt = f"{sentences.words(image.get('label') or 'picture')}: {image.get('path', '')}"
            examples.append(Example(image_id, alt, image.get("width", 1), image.get("height", 1)))
    return Found(f"{title}: {printable(row['what'])}", printable(row["verdict"]), ", ".join(numbers), tuple(examples))


def _clean(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """What came out clean: a verdict that is of the whole set in its own words, those of classes as a count."""
    said = []
    for what, some in rows.items():
        said += [printable(row["verdict"]) for row in some if not row["label"] and row["check"] != "properties"]
        classes = [row for row in some if row["label"]]
        if classes:
            said.append(f"{printable(what)}: nothing in {len(classes)} {'class' if len(classes) == 1 else 'classes'}")
        said += [
            f"{printable(what)}: the same in all images"
            for row in some
            if not row["label"] and row["check"] == "properties"
        ]
    return said


def printable(text: str) -> str:
    """Text without control characters and marks that turn its direction."""
    return "".join(c for c in text if c.isprintable())
