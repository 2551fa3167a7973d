"""Effects of an ablation less its placebo: paired within images, groups counted once, fills in doubt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.metrics.intervals import (
    Interval,
    as_columns,
    group_means,
    minimum_detectable_effect,
    percentile_bounds,
    ratio,
    resample_counts,
)
from pipeline.metrics.tests import Alternative, sign_flip

Reals = NDArray[np.float64]

FLIP_BOUNDS = (-1.0, 1.0)
"""Range of an effect on flips or probabilities."""


LEAST_DOSE = 0.1
"""A dose that may be smaller is taken for this: the bounds of the effect at the natural dose are then very wide."""
TRUSTED_DOSES = (0.5, 1.5)
"""An estimate is scaled by the dose at most as far as these: beyond them proportion is a guess."""


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
    bootstrap. Groups are resampled; to each resample is added the mean of fills drawn with replacement, one
    fewer than there are, which makes their variance unbiased for so small a number (Rao and Wu 1988). Only
    the part of the fills' disagreement that noise can't explain counts. So fills that disagree widen the
    interval: two that do so clearly are both spanned. Bounds are expanded percentiles (see `intervals`). p
    is the paired sign-flip test over groups, given these fills.

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
    values, cells = group_means(_over_fills(pairs), groups), group_means(pairs, groups)
    measured = ~np.isnan(values)
    known, cells = values[measured], cells[measured]
    if len(known) == 0:
        nan = float("nan")
        return Effect(nan, nan, nan, nan, 0, nan, nan, (nan,) * pairs.shape[1], nan)
    estimate = float(known.mean())
    # the pseudo-groups shape only the interval and the power, never the estimate
    padding = np.array(bounds if bounds is not None else (), float)
    draws = _draws(known, cells, padding, rng, n_resamples)
    lower, upper = percentile_bounds(draws, len(known), level)
    padded = np.concatenate([known, padding])
    spread = float(padded.std(ddof=1)) if len(known) > 1 else float("nan")
    one_sided = alternative == "greater"

    def change(after: Reals) -> float:
        moved = group_means(_over_fills(np.where(usable, sign * (original[:, None] - after), np.nan)), groups)
        return float(np.nanmean(moved))

    return Effect(
        estimate=estimate,
        lower=float(np.minimum(lower, estimate)),
        upper=float(np.maximum(upper, estimate)),
        p=float(sign_flip(known, rng, n_permutations, alternative)),
        n=len(known),
        edited_change=change(edited),
        placebo_change=change(placebo),
        by_fill=tuple(float(_over_fills(column[None])[0]) for column in cells.T),
        smallest=float(minimum_detectable_effect(len(known), sd=spread, two_sided=not one_sided)),
    )


def at_natural_dose(effect: Effect, dose: Interval) -> Interval:
    """What the cue does at its natural strength, from an edit that gave a part of it: see pipeline/evidence/dose.py.

    The interval spans both that of the edit's own effect and that of its ratio to the dose, as effects need not grow in
    proportion; it stays within [-1, 1].

    Args:
        effect: of flips or probabilities, beyond the placebo.
        dose: the edit's beyond the placebo's, in natural units; NaN where none was measured: the effect as it is.
    """
    raw = Interval(*(np.asarray(x) for x in (effect.estimate, effect.lower, effect.upper)))
    if np.isnan(dose.estimate) or np.isnan(effect.lower):
        return raw
    known = Interval(*(np.maximum(x, LEAST_DOSE) for x in (dose.estimate, np.nan_to_num(dose.lower), dose.upper)))
    scaled = ratio(raw, known)
    return Interval(
        np.clip(raw.estimate / np.clip(dose.estimate, *TRUSTED_DOSES), -1, 1),
        np.clip(np.minimum(raw.lower, scaled.lower), -1, 1),
        np.clip(np.maximum(raw.upper, scaled.upper), -1, 1),
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


def _over_fills(pairs: Reals) -> Reals:
    # mean over the fills that worked (n_images,), NaN where none did
    known = ~np.isnan(pairs)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, pairs, 0.0).sum(1) / known.sum(1)


def _fill_deviations(cells: Reals) -> Reals:
    """How far each fill's effect lies from the mean of the fills, shrunk by what noise alone would give.

    Two-way analysis of variance without interaction: the variance of the fills' means has the part
    residual / n_groups from noise, which the resampled groups already carry. Where each group has one fill (a
    race), groups and fills can't be parted, and it is the one-way analysis: images differ within a fill.

    Args:
        cells: (n_groups, n_fills), NaN where a fill failed.

    Returns:
        (n_usable_fills,), zeros where the fills differ no more than noise does.
    """
    cells = cells[:, ~np.isnan(cells).all(0)]
    known = ~np.isnan(cells)
    by_fill = np.nanmean(cells, axis=0)
    deviations = by_fill - by_fill.mean()
    spread = float((deviations**2).sum() / max(len(by_fill) - 1, 1))
    nested = bool((known.sum(1) == 1).all())
    freedom = known.sum() - len(by_fill) - (0 if nested else len(cells) - 1)
    if spread == 0 or freedom <= 0:
        return deviations
    expected = by_fill if nested else np.nanmean(cells, axis=1, keepdims=True) + deviations
    residual = np.where(known, cells - expected, 0.0)
    noise = (residual**2).sum() / freedom / known.sum(0).mean()
    return deviations * np.sqrt(max(0.0, 1.0 - noise / spread))


def _draws(values: Reals, cells: Reals, padding: Reals, rng: np.random.Generator, n_resamples: int) -> Reals:
    """Bootstrap draws of the effect (n_resamples,): groups (and the padding), plus a draw of the fills."""
    padded = np.concatenate([values, padding])
    draws = resample_counts(len(padded), n_resamples, rng) @ padded / len(padded)
    deviations = _fill_deviations(cells)
    if len(deviations) > 1:
        # one fill fewer than there are, so that the draws vary as much as a mean of that many fills does
        n_drawn = len(deviations) - 1
        draws += resample_counts(len(deviations), n_resamples, rng, n_drawn) @ deviations / n_drawn
    return draws
