"""How well one number tells a class from the rest: the area under the ROC curve, for all classes at once.

The area is the chance that an image of the class has more of the property than an image of another class. It doesn't
change with the share of the class, so a rare class is no finding by itself: the class prior is taken out rather than
subtracted. (cleanlab's `spurious_correlations` scores 5-fold accuracy of naive Bayes against the majority class; in
2.9.0 its baseline is the argmax of the class counts in place of their maximum, so imbalance looks like correlation.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pipeline.metrics.intervals import normal_quantile

Reals = NDArray[np.float64]


class Separation(NamedTuple):
    """Arrays over the classes; NaN where a class or the rest has no image."""

    area: Reals  # in [0, 1]; 0.5: the property says nothing of the class
    lower: Reals
    upper: Reals
    p: Reals  # two-sided Mann-Whitney
    n: NDArray[np.int64]  # images of the class


def separation(values: ArrayLike, member: ArrayLike, n_classes: int, level: float = 0.95) -> Separation:
    """Mann-Whitney's test and the area under the ROC curve of each class against all others.

    p is the normal approximation with correction for ties and continuity (as scipy.stats.mannwhitneyu). The interval
    is Newcombe's method 5 (2006, Statistics in Medicine 25, 559-573): a score interval that stays within [0, 1] and
    keeps its level at areas near 0 and 1. One sort for all classes: n log n.

    Args:
        values: (n,), finite.
        member: (n,), the class of each, in [0, n_classes).
    """
    from scipy.stats import rankdata  # here, for its import takes longer than most commands

    values, member = np.asarray(values, float), np.asarray(member, np.int64)
    total = len(values)
    ranks = rankdata(values)
    n = np.bincount(member, minlength=n_classes)
    rest = total - n
    u = np.bincount(member, weights=ranks, minlength=n_classes) - n * (n + 1) / 2
    _, tied = np.unique(values, return_counts=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = np.where((n > 0) & (rest > 0), u / (n * rest), np.nan)
        ties = float((tied.astype(float) ** 3 - tied).sum()) / (total * (total - 1)) if total > 1 else 0.0
        sd = np.sqrt(n * rest / 12 * (total + 1 - ties))
        z = np.where(sd > 0, np.maximum(np.abs(u - n * rest / 2) - 0.5, 0) / sd, 0.0)
    p = np.where(np.isnan(area), np.nan, 2 * special.ndtr(-z))
    lower, upper = area_interval(area, n, rest, level)
    return Separation(area, lower, upper, np.minimum(p, 1.0), n)


def area_interval(area: ArrayLike, m: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Reals, Reals]:
    """Bounds of an area under the ROC curve by Newcombe's method 5, from the area and the two sample sizes."""
    area, m, n = np.broadcast_arrays(np.asarray(area, float), np.asarray(m, float), np.asarray(n, float))
    z = normal_quantile(level)

    def outside(theta: Reals) -> NDArray[np.bool_]:
        size = (m + n) / 2 - 1
        variance = theta * (1 - theta) / (m * n) * (1 + size * ((1 - theta) / (2 - theta) + theta / (1 + theta)))
        return np.asarray((theta - area) ** 2 > z**2 * variance)

    with np.errstate(invalid="ignore", divide="ignore"):
        bounds = []
        for end in (0.0, 1.0):
            inner, outer = area.copy(), np.full(area.shape, end)
            for _ in range(50):  # bisection: the interval's end lies between the area and 0, or 1
                middle = (inner + outer) / 2
                out = outside(middle)
                outer, inner = np.where(out, middle, outer), np.where(out, inner, middle)
            bounds.append(np.where(np.isnan(area), np.nan, (inner + outer) / 2))
    return bounds[0], bounds[1]
