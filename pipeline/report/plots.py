"""Interval plots on one scale: positions in percent, so that the page can be any width."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pipeline.report.data import ReportData, Rows
from pipeline.report.sentences import interval, number, of_100


@dataclass(frozen=True)
class Mark:
    """A dot of an interval plot: where it lies (percent of the width), its shape, what it says."""

    x: float
    shape: int
    fill: str
    text: str


@dataclass(frozen=True)
class Plot:
    """One line of an interval plot; positions in percent of its width."""

    name: str
    start: float
    end: float
    point: float
    number: str
    bounds: str
    n: int
    clear: bool  # the interval leaves out zero
    text: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Scale:
    """The common scale of all interval plots, so that they compare at a glance."""

    low: float
    high: float

    def __call__(self, share: float) -> float:
        return round(100 * (min(max(share, self.low), self.high) - self.low) / (self.high - self.low), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        step = next(s for s in (0.1, 0.2, 0.25, 0.5) if (self.high - self.low) / s <= 7 or s == 0.5)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(self(i * step), of_100(i * step, signed=True)) for i in range(first, last + 1)]


def scale_of(data: ReportData) -> Scale:
    """From the smallest to the largest bound or fill of any finding, in tenths, at least -10 to 30 of 100."""
    values = [
        number(row[f"{d}_effect{end}"])
        for row in data.findings
        for d in ("removal", "insertion")
        for end in ("", "_lower", "_upper")
    ]
    values += [number(row["estimate"]) for row in data.effects]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min([-0.1, *finite]), max([0.3, *finite])
    return Scale(max(-1.0, math.floor(low * 10 + 1e-9) / 10), min(1.0, math.ceil(high * 10 - 1e-9) / 10))


def plot(
    row: dict[str, Any], direction: str, name: str, scale: Scale, fills: Rows, all_fills: list[str]
) -> Plot | None:
    """The line of one experiment; None where its effect was not measured."""
    effect, low, high = (number(row[f"{direction}_effect{end}"]) for end in ("", "_lower", "_upper"))
    if not math.isfinite(effect):
        return None
    low, high = (effect if not math.isfinite(bound) else bound for bound in (low, high))
    bounds = interval(number(row[f"{direction}_effect_lower"]), number(row[f"{direction}_effect_upper"]))
    marks = tuple(
        Mark(
            scale(fill["estimate"]),
            all_fills.index(fill["fill"]) % 4,
            fill["fill"],
            f"{fill['fill']}: {of_100(fill['estimate'], True)} of 100",
        )
        for fill in (fills if len(fills) > 1 else [])  # one fill alone is the estimate itself
    )
    text = f"{name.capitalize()}: {of_100(effect, True)} of 100 {bounds}"
    if marks:
        text += "; by fill " + ", ".join(mark.text for mark in marks)
    return Plot(
        name,
        scale(low),
        scale(high),
        scale(effect),
        of_100(effect, signed=True),
        bounds,
        int(number(row[f"{direction}_n"])) if math.isfinite(number(row[f"{direction}_n"])) else 0,
        low > 0 or high < 0,
        text,
        marks,
    )
