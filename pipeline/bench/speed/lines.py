"""A line of the benchmarks: what was measured, and what it is held against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """One measured figure.

    Args:
        bench: the benchmark's name. what: the figure in words.
        value: what was measured. target: what it must reach (`at_least`) or stay under; None where it only informs.
        unit: `x` for ratios, s, MiB, images/s, ...
        setting: sizes and models, for the reader.
    """

    bench: str
    what: str
    value: float
    target: float | None = None
    at_least: bool = True
    unit: str = "x"
    setting: str = ""

    @property
    def holds(self) -> bool:
        """Whether the target is met; true of a line without one."""
        if self.target is None:
            return True
        return self.value >= self.target if self.at_least else self.value <= self.target

    @property
    def words(self) -> str:
        """`images: a pass, as a share of bare forwards 0.93 x (at least 0.9): holds`."""
        said = f"{self.bench}: {self.what} {figure(self.value)} {self.unit}".rstrip()
        if self.target is None:
            return said
        way = "at least" if self.at_least else "at most"
        return f"{said} ({way} {figure(self.target)}): {'holds' if self.holds else 'MISSED'}"

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {**asdict(self), "holds": self.holds}


def figure(value: float) -> str:
    """A number with three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def seconds_of(work: Callable[[], Any], times: int = 3) -> float:
    """The median time of `work`, in seconds of the clock."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def ratio_of(ours: Callable[[], Any], theirs: Callable[[], Any], times: int = 3) -> tuple[float, float, float]:
    """(theirs / ours, seconds of ours, seconds of theirs), each the median; taken in turns, so that a machine that is
    busy for a while is so for both."""
    mine, other = [], []
    for _ in range(times):
        mine.append(seconds_of(ours, 1))
        other.append(seconds_of(theirs, 1))
    a, b = statistics.median(mine), statistics.median(other)
    return b / a, a, b
