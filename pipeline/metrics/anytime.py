"""Evidence that may be looked at after every image: e-values by betting, confidence sequences, e-BH.

An e-value is non-negative and has an expectation of at most 1 under its hypothesis, so that it exceeds 1 / a with a
probability of at most a (Markov). Along a sequence it is the capital of a gambler whom the hypothesis can't make rich,
and the bound holds at any stopping time, however chosen from the data so far (Ville 1939): min(1, 1 / e) is then a
p-value whenever one stops.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.metrics.intervals import Interval, as_columns

Reals = NDArray[np.float64]

STAKES = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
"""Shares of the capital at stake: an even mixture of them costs at most log 6, and no stake need be learned. All are
below 1, so that no one value takes all (the truncation of Waudby-Smith and Ramdas 2024)."""

_STEPS = 40  # halvings of [-1, 1]: bounds to 2e-12


def e_process(values: ArrayLike, mean: float | Reals) -> Reals:
    """Capital after each value of a bet that effects in [-1, 1] have a mean above `mean`.

    With y = (1 + x) / 2 and mu = (1 + mean) / 2, both in [0, 1], a stake g turns the capital by 1 - g + g y / mu,
    whose expectation under a mean of at most `mean` is at most 1; the capital is averaged over the stakes. This is
    the capital process of Waudby-Smith and Ramdas (2024, JRSS-B 86, Estimating means of bounded random variables by
    betting), with a mixture of constant bets for a learned one (their diversified Kelly betting). Constant bets make
    the capital independent of the values' order; and where values come in blocks whose members differ in mean (one
    fill each), the capital after whole blocks is still fair, since the product of the members' factors has by the
    inequality of the means an expectation of at most 1.

    Args:
        values: (n,) or (n, m), in [-1, 1]; NaN is left out, column by column. Units independent.
        mean: the largest mean under the hypothesis, in (-1, 1); one, or one a column (m,).

    Returns:
        Of the shape of `values`, all above 0.
    """
    values = np.asarray(values, float)
    columns = as_columns(values)
    if np.any(np.abs(columns) > 1 + 1e-9):
        raise ValueError("effects must lie in [-1, 1]")
    ratio = (1 + np.clip(columns, -1, 1)) / (1 + np.asarray(mean, float))
    ratio = np.where(np.isnan(ratio), 1.0, ratio)
    logs = np.log1p(STAKES[:, None, None] * (ratio - 1)).cumsum(axis=1)
    most = logs.max(axis=0, initial=-np.inf)
    with np.errstate(over="ignore"):
        return (np.exp(logs - most).mean(axis=0) * np.exp(most)).reshape(values.shape)


def e_value(values: ArrayLike, mean: float | Reals) -> Reals:
    """The last capital of `e_process`, 0-d or (m,); 1 (no evidence) without a value."""
    values = np.asarray(values, float)
    if not len(values):
        return np.ones(values.shape[1:])
    return e_process(values, mean)[-1]


def confidence_sequence(values: ArrayLike, level: float = 0.95) -> Interval:
    """Bounds on the mean of effects in [-1, 1] that hold at every look at once.

    The means that neither a bet on more nor a bet on less has made 2 / (1 - level) times as rich (hedged capital,
    Waudby-Smith and Ramdas 2024). The capital falls as the mean rises, so the set is an interval, found by
    bisection. Only the last look's bounds are given; their intersection over looks holds too.

    Args:
        values: (n,) or (n, m); NaN is left out. Columns without values give NaN and [-1, 1].
    """
    values = np.asarray(values, float)
    columns = as_columns(values)
    known = ~np.isnan(columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = np.where(known, columns, 0.0).sum(0) / known.sum(0)
    lower, upper = _lower_bound(columns, level), -_lower_bound(-columns, level)
    shape = values.shape[1:]
    return Interval(estimate.reshape(shape), lower.reshape(shape), upper.reshape(shape))


def _lower_bound(columns: Reals, level: float) -> Reals:
    low, high = np.full(columns.shape[1], -1.0), np.full(columns.shape[1], 1.0)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        refuted = e_value(columns, middle) >= 2 / (1 - level)
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    return low


def either(e: ArrayLike) -> float:
    """One e-value that no effect is there in any of several independent experiments; NaN entries are left out.

    The mean of the e-values is one (Vovk and Wang 2021, section 3), and so is the product where experiments are
    independent; the mean of all of these is too. It pays where several experiments show a little each, and costs a
    factor of less than two where one shows it all.
    """
    known = np.asarray(e, float)
    known = known[~np.isnan(known)]
    if len(known) < 2:
        return float(known[0]) if len(known) else float("nan")
    return float(np.mean([*known, known.prod()]))


def e_bh(e: ArrayLike) -> Reals:
    """q-values of one family of e-values: those at most q are the discoveries of the e-BH procedure at rate q.

    The procedure rejects the k hypotheses with the largest e-values, for the largest k whose k-th largest is at
    least n / (q k) (Wang and Ramdas 2022, JRSS-B 84, False discovery rate control with e-values, section 3). The
    rate holds under any dependence. NaN is "not tested": it stays NaN and doesn't count.
    """
    e = np.asarray(e, float)
    tested = np.flatnonzero(~np.isnan(e))
    q = np.full(e.shape, np.nan)
    order = tested[np.argsort(-e[tested], kind="stable")]
    with np.errstate(divide="ignore"):
        each = len(order) / (np.arange(1, len(order) + 1) * e[order])
    q[order] = np.minimum(1.0, np.minimum.accumulate(each[::-1])[::-1])
    return q
