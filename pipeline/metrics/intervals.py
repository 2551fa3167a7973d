"""Intervals for shares, their differences, odds ratios and means; and what a sample could have seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Reals = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and its bounds: arrays of one shape (0-d for one number), NaN if not measured."""

    estimate: Reals
    lower: Reals
    upper: Reals


def normal_quantile(level: float) -> float:
    """The two-sided quantile: 1.96 for a level of 0.95."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), not {level}")
    return float(special.ndtri(0.5 + level / 2))


def wilson(successes: ArrayLike, n: ArrayLike, level: float = 0.95) -> Interval:
    """Wilson's score interval for a share (Wilson 1927; Newcombe 1998a, method 3; no continuity correction).

    Args:
        successes: how many of `n`, in [0, n]; any shape, may be fractional (weighted counts).
        n: trials; 0 gives NaN.
    """
    z = normal_quantile(level)
    k, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    if np.any(k < 0) or np.any(k > n * (1 + 1e-12)):
        raise ValueError("successes must lie in [0, n]")
    with np.errstate(divide="ignore", invalid="ignore"):
        share = k / n
        centre = (k + z**2 / 2) / (n + z**2)
        half = z / (n + z**2) * np.sqrt(np.maximum(k * (1 - share), 0) + z**2 / 4)
    empty = n == 0
    lower = np.where(empty, np.nan, np.where(k == 0, 0.0, np.clip(centre - half, 0, 1)))
    upper = np.where(empty, np.nan, np.where(k == n, 1.0, np.clip(centre + half, 0, 1)))
    return Interval(share, lower, upper)


def newcombe_difference(k1: ArrayLike, n1: ArrayLike, k2: ArrayLike, n2: ArrayLike, level: float = 0.95) -> Interval:
    """Difference of two independent shares, k1/n1 - k2/n2, by the hybrid score method.

    Method 10 of Newcombe 1998b, Statistics in Medicine 17, 873-890. An empty side gives NaN.
    """
    p1, lower1, upper1 = wilson(k1, n1, level)
    p2, lower2, upper2 = wilson(k2, n2, level)
    difference = p1 - p2
    lower = difference - np.hypot(p1 - lower1, upper2 - p2)
    upper = difference + np.hypot(upper1 - p1, p2 - lower2)
    return Interval(difference, lower, upper)


def log_odds_ratio(table: ArrayLike, level: float = 0.95) -> Interval:
    """Natural log of the odds ratio of 2 x 2 tables, with 0.5 added to every cell.

    The correction is Haldane's and Anscombe's (1956). The interval is Woolf's, on the corrected cells. The
    correction is made for all tables, not only those with an empty cell, so that the estimate doesn't jump
    when a cell goes from 0 to 1.

    Args:
        table: counts (..., 2, 2); rows in the class or not, columns cue present or not. A zero margin (no
            image of the class, a cue that is everywhere) gives NaN: such a table says nothing of association.
    """
    counts = np.asarray(table, float)
    if counts.shape[-2:] != (2, 2):
        raise ValueError(f"tables must have shape (..., 2, 2), not {counts.shape}")
    a, b, c, d = (counts[..., i, j] + 0.5 for i in (0, 1) for j in (0, 1))
    estimate = np.log(a * d) - np.log(b * c)
    half = normal_quantile(level) * np.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
    silent = np.any(counts.sum(-1) == 0, axis=-1) | np.any(counts.sum(-2) == 0, axis=-1)
    estimate = np.where(silent, np.nan, estimate)
    return Interval(estimate, estimate - half, estimate + half)


def as_columns(values: Reals) -> Reals:
    """(n,) as one column (n, 1); (n, m) as it is."""
    return values[:, None] if values.ndim == 1 else values


def group_means(values: ArrayLike, groups: ArrayLike) -> Reals:
    """Mean of each group, in the order of the sorted names: near-duplicates come out as one observation.

    Args:
        values: (n,) or (n, m); NaN is left out.
        groups: (n,) names of any sortable kind.

    Returns:
        (n_groups,) or (n_groups, m); NaN where a group has no value.
    """
    values = np.asarray(values, float)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(member) != len(values):
        raise ValueError(f"{len(values)} values but {len(member)} groups")
    columns = as_columns(values)
    known = ~np.isnan(columns)
    sums = np.zeros((len(names), columns.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, member, np.where(known, columns, 0.0))
    np.add.at(counts, member, known)
    with np.errstate(invalid="ignore"):
        return (sums / counts).reshape((len(names), *values.shape[1:]))


def resample_counts(n: int, n_resamples: int, rng: np.random.Generator, n_drawn: int | None = None) -> Reals:
    """How often each of n observations is drawn in each resample (n_resamples, n): n, or n_drawn, in all."""
    draws = rng.integers(0, n, size=(n_resamples, n if n_drawn is None else n_drawn))
    flat = (draws + n * np.arange(n_resamples)[:, None]).ravel()
    return np.bincount(flat, minlength=n * n_resamples).reshape(n_resamples, n).astype(np.float64)


def percentile_bounds(draws: Reals, n: int, level: float = 0.95) -> tuple[Reals, Reals]:
    """Bounds from bootstrap draws (n_resamples, ...), widened for small samples.

    The plain percentile interval of a mean is too narrow by about sqrt((n - 1) / n) and by the normal in
    place of Student's t; the quantiles are moved outwards to mend it (Hesterberg 2015, American Statistician
    69, sec. 3.3: the expanded percentile interval). With n below 2 nothing is known of the spread: NaN.
    """
    if n < 2:
        nothing = np.full(draws.shape[1:], np.nan)
        return nothing, nothing
    t = float(special.stdtrit(n - 1, 0.5 + level / 2))
    tail = float(special.ndtr(-np.sqrt(n / (n - 1)) * t))
    lower, upper = np.nanquantile(draws, [tail, 1 - tail], axis=0)
    return lower, upper


def cluster_bootstrap_mean(
    values: ArrayLike,
    groups: ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = 2000,
    level: float = 0.95,
    block_size: int = 20_000_000,
) -> Interval:
    """Mean over groups, with an expanded percentile bootstrap interval over groups.

    A group (an image, or all near-duplicates of one) counts once: its values are averaged first, so copies
    of an image change nothing. All columns share their resamples, so differences between columns can be
    compared.

    Args:
        values: (n,) or (n, m) with m statistics; NaN is left out, column by column.
        groups: (n,) group of each row.
        block_size: resampled counts held in memory at a time; doesn't change the result.

    Returns:
        Interval of 0-d arrays or of shape (m,). Fewer than two groups give NaN bounds.
    """
    means = group_means(values, groups)
    shape = means.shape[1:]
    columns = as_columns(means)
    known = ~np.isnan(columns)
    totals, filled = known.sum(0), np.where(known, columns, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = filled.sum(0) / totals
    n_groups = len(columns)
    if n_groups == 0:
        nothing = np.full(shape, np.nan)
        return Interval(nothing, nothing, nothing)
    step = max(1, block_size // n_groups)
    draws = []
    for start in range(0, n_resamples, step):
        counts = resample_counts(n_groups, min(step, n_resamples - start), rng)
        with np.errstate(invalid="ignore", divide="ignore"):
            draws.append((counts @ filled) / (counts @ known))
    drawn = np.concatenate(draws)
    lower, upper = np.full(len(totals), np.nan), np.full(len(totals), np.nan)
    for size in np.unique(totals[totals >= 2]):
        same = totals == size
        lower[same], upper[same] = percentile_bounds(drawn[:, same], int(size), level)
    return Interval(estimate.reshape(shape), lower.reshape(shape), upper.reshape(shape))


def ratio(numerator: Interval, denominator: Interval) -> Interval:
    """The ratio of two independent estimates, for a denominator whose lower bound is above 0.

    The method of variance estimates recovery for ratios (Donner and Zou 2012, Statistical Methods in Medical Research
    21, 347-359, equations 9 and 10). Where the denominator's bounds reach 0 the ratio is unbounded: NaN.
    """
    (a, lower_a, upper_a), (b, lower_b, upper_b) = ((float(x) for x in one) for one in (numerator, denominator))
    if not lower_b > 0:
        return Interval(*(np.asarray(x) for x in (a / b if b else np.nan, np.nan, np.nan)))

    def bound(end: float, far: float, sign: float) -> float:
        product = a * b
        root = max(product**2 - end * far * (2 * a - end) * (2 * b - far), 0.0)
        return float((product + sign * np.sqrt(root)) / (far * (2 * b - far)))

    # the far end of the denominator must lie below twice its estimate for the formula's sign to hold
    upper_b = min(upper_b, 1.99 * b)
    lower = bound(lower_a, upper_b if lower_a > 0 else lower_b, -1.0)
    upper = bound(upper_a, lower_b if upper_a > 0 else upper_b, 1.0)
    return Interval(np.asarray(a / b), np.asarray(lower), np.asarray(upper))


def minimum_detectable_effect(
    n: ArrayLike,
    *,
    sd: ArrayLike | None = None,
    share: ArrayLike | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
    two_sided: bool = True,
) -> Reals:
    """Smallest true mean that a test of size `alpha` on n observations finds with the given power.

    (z_alpha + z_power) * sd / sqrt(n), the normal approximation (Cohen 1988). Give either the standard
    deviation of one observation, or a share p in [0, 1], whose standard deviation is sqrt(p (1 - p)). n
    below 1 gives NaN.
    """
    if (sd is None) == (share is None):
        raise ValueError("give either sd or share")
    spread = np.asarray(sd, float) if sd is not None else np.sqrt(np.asarray(share, float) * (1 - np.asarray(share)))
    n = np.asarray(n, float)
    z = special.ndtri(1 - alpha / (2 if two_sided else 1)) + special.ndtri(power)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(n >= 1, z * spread / np.sqrt(n), np.nan)
