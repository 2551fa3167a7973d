"""Agreement between several people who name things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence


def krippendorff_alpha(units: Iterable[Sequence[Hashable]]) -> float:
    """Krippendorff's alpha for nominal values, any number of people, and units that some didn't judge.

    1 - observed / expected disagreement, from the coincidences of values: Krippendorff (2011), "Computing
    Krippendorff's Alpha-Reliability", sections C and D. 1 is perfect agreement, 0 what chance would give.

    Args:
        units: for each unit the values that it was given, in any order, without missing ones. Units with fewer than
            two values can't be paired and don't count.

    Returns:
        NaN where no unit has two values, or all values are the same: then nothing could have disagreed.
    """
    values: Counter[Hashable] = Counter()
    disagreements = 0.0
    for unit in units:
        if len(unit) < 2:
            continue
        counted = Counter(unit)
        values.update(counted)
        m = len(unit)
        disagreements += (m * m - sum(k * k for k in counted.values())) / (m - 1)
    n = values.total()
    expected = n * n - sum(k * k for k in values.values())
    return 1 - (n - 1) * disagreements / expected if expected else float("nan")
