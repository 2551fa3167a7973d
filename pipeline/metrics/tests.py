"""Tests of significance: sign flips for paired effects, permutation, Fisher, strata, many tests."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pipeline.metrics.intervals import as_columns

Reals = NDArray[np.float64]
Alternative = Literal["greater", "two-sided"]

EXACT_UP_TO = 12
"""Up to this many observations all 2**n sign patterns are enumerated (4,096 at most)."""

_BLOCK = 4_000_000  # draws held in memory at a time


def _as_extreme(
    draws: NDArray[np.floating[Any]], observed: Reals, scale: Reals, alternative: Alternative
) -> NDArray[np.int64]:
    # sums of the same numbers in another order differ in the last bits: equal must count as equal
    tolerance = 1e-9 * scale
    if alternative == "greater":
        return np.asarray((draws >= observed - tolerance).sum(0))
    if alternative == "two-sided":
        return np.asarray((np.abs(draws) >= np.abs(observed) - tolerance).sum(0))
    raise ValueError(f"alternative must be 'greater' or 'two-sided', not {alternative!r}")


def sign_flip(
    values: ArrayLike,
    rng: np.random.Generator,
    n_permutations: int = 9999,
    alternative: Alternative = "greater",
) -> Reals:
    """p of the paired sign-flip (Fisher randomisation) test that effects are symmetric about 0.

    Exact for up to EXACT_UP_TO observations; else Monte Carlo with (1 + hits) / (1 + draws), which keeps the
    test valid at any number of draws (Phipson and Smyth 2010). Zeros and NaN carry no sign and change
    nothing.

    Args:
        values: one effect an independent unit, (n,) or (n, m); the m columns share their draws.

    Returns:
        0-d or (m,), in (0, 1]; NaN where a column has no value.
    """
    values = np.asarray(values, float)
    columns = as_columns(values)
    known = ~np.isnan(columns)
    filled = np.where(known, columns, 0.0)
    observed, scale = filled.sum(0), np.abs(filled).sum(0)
    n = len(filled)
    if n <= EXACT_UP_TO:
        patterns = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        p = _as_extreme(patterns @ filled, observed, scale, alternative) / 2**n
    else:
        hits = np.zeros(len(observed), np.int64)
        step = max(1, _BLOCK // n)
        for start in range(0, n_permutations, step):
            size = min(step, n_permutations - start)
            signs = 1.0 - 2.0 * rng.integers(0, 2, size=(size, n), dtype=np.int8)
            hits += _as_extreme(signs @ filled, observed, scale, alternative)
        p = (1 + hits) / (1 + n_permutations)
    return np.where(known.any(0), p, np.nan).reshape(values.shape[1:])


def bounded_mean(values: ArrayLike, mean: float, rng: np.random.Generator, n_draws: int = 9999) -> float:
    """p that effects in [-1, 1] have a mean of at most `mean`, whatever their distribution.

    The share of weighted means at most `mean`, with weights uniform on the simplex, over the values and one more at
    the lower end of the range: a Bayesian bootstrap with a pseudo-image on which the placebo did all the harm. This
    is Gaffke's (2005, Mathematical Methods of Statistics 14, 451-467) test; for yes-or-no data it is the exact
    binomial one. That it keeps its level for every distribution is conjectured, and no counterexample is known. A
    sign-flip test of values less `mean` doesn't keep it: it asks for symmetry, and where nearly all values lie just
    above `mean` and a few far below, it rejects half of the time (tests/metrics/test_significance.py).

    Args:
        values: (n,), independent; NaN is left out.

    Returns:
        In (0, 1]; NaN without a value.
    """
    effects = np.asarray(values, float)
    known = effects[~np.isnan(effects)]
    if not len(known):
        return float("nan")
    padded = np.append(known, -1.0) - mean
    weights = rng.standard_exponential((n_draws, len(padded)))
    return float((1 + (weights @ padded <= 0).sum()) / (1 + n_draws))


def permutation_gap(
    outcome: ArrayLike,
    presence: ArrayLike,
    rng: np.random.Generator,
    n_permutations: int = 9999,
    alternative: Alternative = "greater",
) -> Reals:
    """p of the two-sample permutation test that the mean outcome is as high without the cue as with it.

    Args:
        outcome: (n,), correctness or score of each independent unit.
        presence: (n,) or (n, m), truth values; the m cues share their permutations.

    Returns:
        0-d or (m,), in (0, 1]; NaN where a cue is in all or none of the images.
    """
    outcome, presence = np.asarray(outcome, float), np.asarray(presence, float)
    columns = as_columns(presence)
    n, n_with = len(outcome), columns.sum(0)
    centred = outcome - outcome.mean() if n else outcome
    # with the total fixed, the gap is a rising function of the sum of the centred outcomes among those with
    # the cue
    observed, scale = centred @ columns, np.full(len(n_with), np.abs(centred).sum())
    hits = np.zeros(len(n_with), np.int64)
    step = max(1, _BLOCK // max(n, 1))
    for start in range(0, n_permutations, step):
        size = min(step, n_permutations - start)
        shuffled = rng.permuted(np.broadcast_to(centred, (size, n)), axis=1)
        hits += _as_extreme(shuffled @ columns, observed, scale, alternative)
    p = (1 + hits) / (1 + n_permutations)
    return np.where((n_with > 0) & (n_with < n), p, np.nan).reshape(presence.shape[1:])


def fisher_exact(
    k1: ArrayLike, n1: ArrayLike, k2: ArrayLike, n2: ArrayLike, alternative: Alternative = "greater"
) -> Reals:
    """Fisher's exact p that the share k1/n1 is above (or differs from) k2/n2; NaN if a side is empty.

    Arrays of any shape. The one-sided p is the hypergeometric tail, computed for all pairs at once; the
    two-sided one is scipy's.
    """
    from scipy import stats  # here, for its import takes longer than most commands

    k1, n1, k2, n2 = np.broadcast_arrays(*(np.asarray(x, np.int64) for x in (k1, n1, k2, n2)))
    some = (n1 > 0) & (n2 > 0)
    p = np.full(k1.shape, np.nan)
    if alternative == "greater":
        p[some] = stats.hypergeom.sf(k1[some] - 1, (n1 + n2)[some], (k1 + k2)[some], n1[some])
    else:
        cells = np.stack([k1, n1 - k1, k2, n2 - k2], axis=-1)[some].reshape(-1, 2, 2)
        p[some] = [stats.fisher_exact(table, alternative=alternative).pvalue for table in cells]
    return np.minimum(p, 1.0)


class StratifiedTest(NamedTuple):
    """Result of a test over strata, arrays over leading axes of the tables."""

    odds_ratio: Reals  # Mantel and Haenszel's pooled odds ratio
    statistic: Reals  # chi-square with one degree of freedom
    p: Reals


def cochran_mantel_haenszel(tables: ArrayLike, correction: bool = False) -> StratifiedTest:
    """Association within strata: the cue's gap at equal object size, position or detector score.

    Mantel and Haenszel 1959. Strata with an empty margin or a single image add nothing, as they should.

    Args:
        tables: counts (..., n_strata, 2, 2).
        correction: subtract 1/2 from the deviation (continuity).
    """
    tables = np.asarray(tables, float)
    if tables.shape[-2:] != (2, 2):
        raise ValueError(f"tables must have shape (..., n_strata, 2, 2), not {tables.shape}")
    a, b, c, d = (tables[..., i, j] for i in (0, 1) for j in (0, 1))
    n = a + b + c + d
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(n > 0, (a + b) * (a + c) / n, 0.0)
        variance = np.where(n > 1, (a + b) * (c + d) * (a + c) * (b + d) / (n**2 * (n - 1)), 0.0)
        deviation = np.abs((a - expected).sum(-1))
        if correction:
            deviation = np.maximum(deviation - 0.5, 0.0)
        statistic = deviation**2 / variance.sum(-1)
        odds_ratio = np.where(n > 0, a * d / n, 0.0).sum(-1) / np.where(n > 0, b * c / n, 0.0).sum(-1)
    statistic = np.where(variance.sum(-1) > 0, statistic, np.nan)
    return StratifiedTest(odds_ratio, statistic, special.chdtrc(1, statistic))


def false_discovery(p: ArrayLike, method: Literal["bh", "by"] = "bh") -> Reals:
    """q-values over one family of tests.

    Benjamini-Hochberg 1995, or Benjamini-Yekutieli 2001 under any dependence. NaN is "not tested": it stays
    NaN and doesn't count in the family.
    """
    from scipy import stats  # here, for its import takes longer than most commands

    p = np.asarray(p, float)
    tested = ~np.isnan(p)
    q = np.full(p.shape, np.nan)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested], method=method)
    return q
