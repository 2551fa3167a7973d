"""Effects of an ablation less its placebo: paired within images, groups counted once, fills in doubt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.metrics.intervals import (
    as_columns,
    group_means,
    minimum_detectable_effect,
    percentile_bounds,
    resample_counts,
)
from pipeline.metrics.tests import Alternative, sign_flip

Reals = NDArray[np.float64]

FLIP_BOUNDS = (-1.0, 1.0)
"""Range of an effect on flips or probabilities."""


@dataclass(frozen=True)
class Effect:
    """What an edit does to a score beyond what its placebo does. NaN where nothing was measured."""

    estimate: float
    lower: float
    upper: float
    p: float
    n: int  # groups of near-duplicate images with at least one usable pair
    edited_change: float  # mean change from the original to the edited image, signed as the effect
    placebo_change: float  # the same for the placebo
    by_fill: tuple[float, ...]  # the effect with each fill alone
    smallest: float  # smallest true effect that this sample finds with 80 % power at p < 0.05

    @property
    def fill_spread(self) -> float:
        """Largest less smallest effect among the fills; 0 with one fill."""
        known = [value for value in self.by_fill if not np.isnan(value)]
        return max(known) - min(known) if known else float("nan")


def paired_effect(
    edited: ArrayLike,
    placebo: ArrayLike,
    original: ArrayLike,
    groups: ArrayLike,
    rng: np.random.Generator,
    *,
    direction: Literal["fall", "rise"] = "fall",
    bounds: tuple[float, float] | None = None,
    alternative: Alternative = "greater",
    n_resamples: int = 2000,
    n_permutations: int = 9999,
    level: float = 0.95,
) -> Effect:
    """Mean over groups of (original - edited) - (original - placebo), each image averaged over its fills.

    The original cancels from the effect; it is kept for the two changes. The interval is a two-level
    bootstrap: groups and fills are resampled independently (the pigeonhole bootstrap of Owen 2007 for crossed
    factors), one fill fewer than there are, which makes their variance unbiased for so small a number (Rao
    and Wu 1988). So fills that disagree widen it: with two, it spans both. Bounds are expanded percentiles
    (see `intervals`). p is the paired sign-flip test over groups, given these fills.

    Args:
        edited, placebo: (n_images, n_fills) or (n_images,), scores after the edit and after the placebo with
            the same fill; NaN where the edit failed or wasn't made.
        original: (n_images,), scores before.
        groups: (n_images,), near-duplicates (or edits of one image) share a name and count once.
        direction: 'fall' where the cue's removal should lower the score; 'rise' for insertion (signs are
            turned).
        bounds: the range of an effect on a bounded score, `FLIP_BOUNDS` for flips and probabilities. Two
            groups at its ends are then added to every resample, as Bonett and Price (2012) add to the paired
            table, so that a sample without a single flip doesn't get an interval of width 0.
    """
    original = np.asarray(original, float)
    edited, placebo = as_columns(np.asarray(edited, float)), as_columns(np.asarray(placebo, float))
    if edited.shape != placebo.shape:
        raise ValueError(f"edited {edited.shape} and placebo {placebo.shape} must have the same shape")
    sign = 1.0 if direction == "fall" else -1.0
    pairs = sign * (placebo - edited)
    usable = ~np.isnan(pairs)
    values = group_means(_over_fills(pairs), groups)
    known = values[~np.isnan(values)]
    if len(known) == 0:
        nan = float("nan")
        return Effect(nan, nan, nan, nan, 0, nan, nan, (nan,) * pairs.shape[1], nan)
    estimate = float(known.mean())
    # the pseudo-groups shape only the interval and the power, never the estimate
    padding = np.array(bounds if bounds is not None else (), float)
    draws = _draws(pairs, np.asarray(groups), padding, rng, n_resamples)
    lower, upper = percentile_bounds(draws, len(known), level)
    padded = np.concatenate([known, padding])
    spread = float(padded.std(ddof=1)) if len(known) > 1 else float("nan")
    one_sided = alternative == "greater"

    def change(after: Reals) -> float:
        moved = group_means(_over_fills(np.where(usable, sign * (original[:, None] - after), np.nan)), groups)
        return float(np.nanmean(moved))

    by_fill = group_means(pairs, groups)
    return Effect(
        estimate=estimate,
        lower=float(np.minimum(lower, estimate)),
        upper=float(np.maximum(upper, estimate)),
        p=float(sign_flip(known, rng, n_permutations, alternative)),
        n=len(known),
        edited_change=change(edited),
        placebo_change=change(placebo),
        by_fill=tuple(
            float(column[~np.isnan(column)].mean()) if (~np.isnan(column)).any() else float("nan")
            for column in by_fill.T
        ),
        smallest=float(minimum_detectable_effect(len(known), sd=spread, two_sided=not one_sided)),
    )


def flips(
    edited: ArrayLike,
    placebo: ArrayLike,
    original: ArrayLike,
    groups: ArrayLike,
    rng: np.random.Generator,
    *,
    target: float | None = None,
    direction: Literal["fall", "rise"] = "fall",
    n_resamples: int = 2000,
    n_permutations: int = 9999,
    level: float = 0.95,
) -> Effect:
    """Share of predictions that the edit changes beyond the share that the placebo changes, in [-1, 1].

    Args:
        edited, placebo: (n_images, n_fills) or (n_images,), predicted class index after the edit; NaN where
            it failed.
        original: (n_images,), predicted class index before.
        target: without it any change counts. With a class index, only flips away from it (direction 'fall':
            images lost by removal) or to it ('rise': images taken for it by insertion).
    """
    original = np.asarray(original, float)
    edited, placebo = as_columns(np.asarray(edited, float)), as_columns(np.asarray(placebo, float))

    def hits(predicted: Reals, before: Reals) -> Reals:
        same = predicted == (before if target is None else target)
        return np.where(np.isnan(predicted), np.nan, same)

    if target is None and direction != "fall":
        raise ValueError("direction 'rise' needs a target class")
    return paired_effect(
        hits(edited, original[:, None]),
        hits(placebo, original[:, None]),
        hits(original, original),
        groups,
        rng,
        direction=direction,
        bounds=FLIP_BOUNDS,
        n_resamples=n_resamples,
        n_permutations=n_permutations,
        level=level,
    )


def _over_fills(pairs: Reals, weight: Reals | None = None) -> Reals:
    # mean over the fills that worked (n_images,), NaN where none did
    known = ~np.isnan(pairs)
    weight = np.ones(pairs.shape[1]) if weight is None else weight
    with np.errstate(invalid="ignore", divide="ignore"):
        return (np.where(known, pairs, 0.0) @ weight) / (known @ weight)


def _draws(
    pairs: Reals, groups: NDArray, padding: Reals, rng: np.random.Generator, n_resamples: int
) -> Reals:
    """Bootstrap draws of the effect (n_resamples,). Each distinct mix of fills is averaged once."""
    n_groups, n_fills = len(np.unique(groups)), pairs.shape[1]
    rows = resample_counts(n_groups + len(padding), n_resamples, rng)
    # one fill fewer than there are, so that the draws vary as much as a mean of that many fills does
    fills = resample_counts(n_fills, n_resamples, rng, max(n_fills - 1, 1))
    mixes, mix = np.unique(fills, axis=0, return_inverse=True)
    draws = np.empty(n_resamples)
    for index, weight in enumerate(mixes):
        chosen = mix.ravel() == index
        values = np.concatenate([group_means(_over_fills(pairs, weight), groups), padding])
        known = ~np.isnan(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            draws[chosen] = (rows[chosen] @ np.where(known, values, 0.0)) / (rows[chosen] @ known)
    return draws
