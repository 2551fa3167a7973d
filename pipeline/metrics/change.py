"""Whether a number differs between two audits, most of whose images are the same.

Each number of an audit is a smooth function of means over groups of near-duplicate images. Its error is linear in what
each group adds (the influence function: the infinitesimal jackknife of Efron 1982, The Jackknife, the Bootstrap and
Other Resampling Plans, section 6.3; Deville 1999, Survey Methodology 25, 193-203). So is that of a difference: a group
that is in both audits counts with what it adds to the later one less what it adds to the earlier one. Where nothing
about it changed that is next to nothing; where the model changed it is the paired difference; and two audits without
a common image are two independent samples. One formula serves all three, and needs no random numbers.

    variance = sum over groups of (after's influence - before's influence)^2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Reals = NDArray[np.float64]

POWER = 0.8
"""Of the smallest change that could have been seen."""


@dataclass(frozen=True)
class Mean:
    """A mean over groups; `values` is (groups,), over the groups of both audits, NaN where this one has none."""

    values: Reals

    @property
    def n(self) -> int:
        """Groups that have a value."""
        return int((~np.isnan(self.values)).sum())

    @property
    def value(self) -> float:
        """The mean; NaN without a group."""
        return float(np.nanmean(self.values)) if self.n else float("nan")

    @property
    def influence(self) -> Reals:
        """What each group adds to the error of the mean, (groups,); 0 where it has no value."""
        return np.where(np.isnan(self.values), 0.0, self.values - self.value) / max(self.n, 1)


def mean_of(values: ArrayLike, groups: ArrayLike, n_groups: int) -> Mean:
    """Values (n,), averaged first within groups (n,), which are numbers below `n_groups`; NaN is left out."""
    values, groups = np.asarray(values, float), np.asarray(groups, np.int64)
    known = ~np.isnan(values)
    counts = np.bincount(groups[known], minlength=n_groups)
    sums = np.bincount(groups[known], values[known], minlength=n_groups)
    with np.errstate(invalid="ignore"):
        return Mean(np.where(counts > 0, sums / counts, np.nan))


@dataclass(frozen=True)
class Term:
    """A mean in both audits, the slopes of the number in question along it, and half the range of its values."""

    before: Mean
    after: Mean
    slope_before: float
    slope_after: float
    reach: float


@dataclass(frozen=True)
class Change:
    """A difference, after less before, with its 95 % interval and the two-sided p that there is none."""

    estimate: float
    lower: float
    upper: float
    p: float
    smallest: float  # true difference that would have been seen (p < 0.05) with 80 % power


NO_CHANGE = Change(*(float("nan"),) * 5)


def change(estimate: float, terms: Sequence[Term], level: float = 0.95) -> Change:
    """The test of a difference that is a function of the means in `terms`.

    Few images, none of which an edit flips, have a variance of zero and yet prove little. So each audit that has a
    group of its own (one that the other lacks, or sees differently) gets two pseudo-groups at the ends of the range,
    which count in the variance alone (Agresti and Caffo 2000, American Statistician 54, 280-288; for paired data Bonett
    and Price 2012). The reference is Student's t with Satterthwaite's (1946) degrees of freedom, where a term has as
    many as groups that weigh in its difference: sum(w^2)^2 / sum(w^4) - 1, for w what a group weighs in one mean less
    what it weighs in the other.
    """
    if not terms:
        return NO_CHANGE
    total = np.zeros_like(terms[0].before.values)
    variances, freedom = [], []
    padding = 0.0
    for term in terms:
        part = term.slope_after * term.after.influence - term.slope_before * term.before.influence
        total += part
        here = [~np.isnan(mean.values) for mean in (term.before, term.after)]
        both = here[0] & here[1]
        equal = np.nan_to_num(term.before.values) == np.nan_to_num(term.after.values)
        own = [mine & ~(both & equal) for mine in here]
        a, b = (
            slope * mine / max(mean.n, 1)
            for slope, mine, mean in zip(
                (term.slope_before, term.slope_after), here, (term.before, term.after), strict=True
            )
        )
        # where the model sees even one common image differently, it might have seen each of them so
        weights = np.where(both & (both & ~equal).any(), np.maximum(np.abs(a), np.abs(b)), np.abs(b - a))
        extra = sum(
            2 * (slope * term.reach / mean.n) ** 2
            for mean, slope, mine in zip(
                (term.before, term.after), (term.slope_before, term.slope_after), own, strict=True
            )
            if mine.any()
        )
        padding += extra
        variances.append(float((part**2).sum()) + extra)
        square, fourth = float((weights**2).sum()), float((weights**4).sum())
        freedom.append(max(square**2 / fourth - 1, 1.0) if fourth else np.inf)
    variance = float((total**2).sum()) + padding
    if not variance > 1e-24:
        return Change(estimate, estimate, estimate, 1.0, 0.0)
    parts = sum(v**2 / f for v, f in zip(variances, freedom, strict=True))
    df = max(sum(variances) ** 2 / parts, 1.0) if parts else 1.0
    error = variance**0.5
    half = float(special.stdtrit(df, 0.5 + level / 2)) * error
    smallest = float(special.stdtrit(df, 0.975) + special.stdtrit(df, POWER)) * error
    p = float(2 * special.stdtr(df, -abs(estimate) / error))
    return Change(estimate, estimate - half, estimate + half, p, smallest)


@dataclass(frozen=True)
class Direction:
    """One direction of a finding in both audits: how common its images are (shares), and its effects on them.

    Of removal these are the class's images with the cue, of insertion other classes' images without it. Effects are
    flips in [-1, 1], divided by `dose`, which is one for both audits: its noise is then no change.
    """

    shares: tuple[Mean, Mean]
    effects: tuple[Mean, Mean]
    dose: float = 1.0


@dataclass(frozen=True)
class HarmChange:
    """A change of a finding's harm, and its two parts: `data` and `effect` add up to `total`."""

    total: Change
    data: Change  # because the cue is more or less common
    effect: Change  # because the model reacts more or less to it

    @property
    def p(self) -> float:
        """Of no change: twice the smaller of the parts' (Bonferroni), as harm changes only if one of them does."""
        return min(1.0, 2 * min(self.data.p, self.effect.p))

    @property
    def leading(self) -> Change:
        """The part that is shown more surely."""
        return min((self.data, self.effect), key=lambda part: part.p)


def harm_change(directions: Sequence[Direction]) -> HarmChange:
    """The change of harm, half the sum over directions of share x effect (stages/rank.py), and what it is made of.

    The parts are those of Kitagawa (1955, Journal of the American Statistical Association 50, 1168-1194): a product's
    change is (change of one) x (mean of the other) and the other way round. Told apart they are seen sooner than their
    sum: a share is a mean over all images of a class, an effect one over the few that were edited. That an effect is
    not known exactly counts in the part of the shares too: without a sure effect a cue that spreads does no sure harm.
    """
    total: list[Term] = []
    data: list[Term] = []
    effect: list[Term] = []
    sums = np.zeros(3)
    for one in directions:
        (p0, p1), (e0, e1) = one.shares, one.effects
        half = 0.5 / one.dose
        spread, reaction = p1.value - p0.value, e1.value - e0.value
        mean_share, mean_effect = (p0.value + p1.value) / 2, (e0.value + e1.value) / 2
        sums += half * np.array(
            [p1.value * e1.value - p0.value * e0.value, spread * mean_effect, reaction * mean_share]
        )
        total += [
            Term(p0, p1, half * e0.value, half * e1.value, 0.5),
            Term(e0, e1, half * p0.value, half * p1.value, 1),
        ]
        level = half * mean_effect
        data += [Term(p0, p1, level, level, 0.5), Term(e0, e1, -half * spread / 2, half * spread / 2, 1)]
        level = half * mean_share
        effect += [Term(e0, e1, level, level, 1), Term(p0, p1, -half * reaction / 2, half * reaction / 2, 0.5)]
    return HarmChange(change(sums[0], total), change(sums[1], data), change(sums[2], effect))
