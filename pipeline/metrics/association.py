"""Presence x class: which cue goes with which class in the data, and where the model errs with it.

All (class, cue) pairs at once: a sparse one-hot of the labels times the presence matrix, so the cost is one
pass over the presence matrix, whatever the number of classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.metrics.intervals import Interval, log_odds_ratio, newcombe_difference

Reals = NDArray[np.float64]

BLOCK = 1 << 21
"""Bytes of presence as numbers that are held at a time."""


@dataclass(frozen=True)
class Counts:
    """Images by class and cue, each (n_classes, n_cues); sums of weights where images are weighted."""

    class_with: Reals
    class_without: Reals
    other_with: Reals
    other_without: Reals

    @property
    def table(self) -> Reals:
        """(n_classes, n_cues, 2, 2): rows in the class or not, columns cue present or not."""
        rows = [self.class_with, self.class_without, self.other_with, self.other_without]
        return np.stack(rows, axis=-1).reshape(*self.class_with.shape, 2, 2)


@dataclass(frozen=True)
class Gaps:
    """Observed gaps of all pairs, each array (n_classes, n_cues); NaN where a side has no image."""

    presence_accuracy: Interval  # accuracy on the class's images with the cue, less without
    hallucination: Interval  # share of other classes' images taken for the class with the cue, less without
    counts: Counts
    correct_with: Reals
    correct_without: Reals
    taken_with: Reals  # images of other classes predicted as the class
    taken_without: Reals


def group_weights(groups: ArrayLike) -> Reals:
    """1 / size of its group for each image (n,): near-duplicates then count as one image."""
    _, member, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return 1.0 / sizes[member]


def _sums(labels: NDArray[np.int64], n_classes: int, presence: NDArray, weights: Reals) -> tuple[Reals, Reals]:
    from scipy import sparse  # here, for its import takes longer than most commands

    # weights summed by class and cue (n_classes, n_cues), and by class (n_classes,); labels of -1 count
    # nowhere
    kept = np.flatnonzero((labels >= 0) & (weights != 0))
    one_hot = sparse.csr_array((weights[kept], (labels[kept], kept)), shape=(n_classes, len(labels)))
    return _times(one_hot, presence), np.asarray(one_hot.sum(axis=1)).ravel()


def _times(rows: Any, presence: NDArray) -> Reals:
    """rows (..., n_images) @ presence (n_images, n_cues), as many columns of it made numbers at a time as fit BLOCK."""
    n, cues = presence.shape
    step = max(1, BLOCK // max(8 * n, 1))
    parts = [rows @ presence[:, first : first + step].astype(np.float64) for first in range(0, cues, step)]
    return np.concatenate(parts, axis=-1) if parts else np.zeros((*rows.shape[:-1], 0))


def _checked(
    presence: ArrayLike, labels: ArrayLike, n_classes: int, weights: ArrayLike | None
) -> tuple[NDArray, NDArray[np.int64], Reals]:
    cues = np.asarray(presence)
    index = np.asarray(labels, np.int64)
    if cues.ndim != 2 or len(cues) != len(index):
        raise ValueError(f"presence must have shape ({len(index)}, n_cues), not {cues.shape}")
    if len(index) and (index.min() < 0 or index.max() >= n_classes):
        raise ValueError(f"labels must lie in [0, {n_classes})")
    weight = np.ones(len(index)) if weights is None else np.asarray(weights, float)
    return cues, index, weight


def count(
    presence: ArrayLike,
    labels: ArrayLike,
    n_classes: int,
    weights: ArrayLike | None = None,
    also: ArrayLike | None = None,
) -> Counts:
    """Images of each class, and of all the others, with and without each cue.

    Args:
        presence: (n_images, n_cues), truth values.
        labels: (n_images,), class index in [0, n_classes).
        weights: (n_images,), for instance `group_weights`; 1 by default.
        also: (n_images, n_classes), truth values: of which classes beside its label an image is too. It counts neither
            for such a class, where it has a row of its own, nor among that class's others.
    """
    cues, index, weight = _checked(presence, labels, n_classes, weights)
    class_with, class_total = _sums(index, n_classes, cues, weight)
    cue_total, total = _times(weight, cues), weight.sum()
    if also is not None:  # then by class and cue, and by class
        left_out = np.asarray(also, float) * weight[:, None]
        cue_total, total = cue_total - _times(left_out.T, cues), total - left_out.sum(axis=0)
    class_without = class_total[:, None] - class_with
    other_with = cue_total - class_with
    other_without = (total - class_total)[:, None] - other_with
    # weighted sums leave crumbs such as -1e-16 where the count is 0
    cells = (
        np.where(np.abs(cell) < 1e-9, 0.0, cell) for cell in (class_with, class_without, other_with, other_without)
    )
    return Counts(*cells)


def association(counts: Counts, level: float = 0.95) -> Interval:
    """Log odds ratio of class and cue (n_classes, n_cues), Haldane-Anscombe corrected; NaN if undefined."""
    return log_odds_ratio(counts.table, level)


def cramers_v(table: ArrayLike) -> Reals:
    """Cramer's V in [0, 1] of contingency tables (..., rows, columns).

    sqrt(chi2 / (n min(rows - 1, columns - 1))), Cramer 1946, without bias correction: the V that RaVL
    controls in its planted sets. A zero margin gives NaN.
    """
    table = np.asarray(table, float)
    n = table.sum((-2, -1))
    rows, columns = table.sum(-1, keepdims=True), table.sum(-2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = rows * columns / n[..., None, None]
        chi2 = ((table - expected) ** 2 / expected).sum((-2, -1))
        value = np.sqrt(chi2 / (n * (min(table.shape[-2:]) - 1)))
    return np.minimum(value, 1.0)


def observed_gaps(
    presence: ArrayLike,
    labels: ArrayLike,
    predictions: ArrayLike,
    n_classes: int,
    weights: ArrayLike | None = None,
    level: float = 0.95,
    also: ArrayLike | None = None,
) -> Gaps:
    """Gaps in accuracy and in hallucination of every (class, cue), with Newcombe intervals.

    The thresholded form of SpurLens's two gaps (arXiv 2503.08884): presence is yes or no and every image
    counts, where `spurlens.pa_gap` takes the K highest and lowest scores.

    Args:
        presence: (n_images, n_cues), truth values.
        labels, predictions: (n_images,), class indices in [0, n_classes).
        weights: (n_images,), for instance `group_weights`; 1 by default.
        also: see `count`.
    """
    cues, index, weight = _checked(presence, labels, n_classes, weights)
    predicted = np.asarray(predictions, np.int64)
    if len(predicted) != len(index) or (len(predicted) and not 0 <= predicted.min() <= predicted.max() < n_classes):
        raise ValueError(f"predictions must be {len(index)} class indices in [0, {n_classes})")
    hit = predicted == index
    counts = count(presence, labels, n_classes, weights, also)
    correct_with, correct_total = _sums(index, n_classes, cues, weight * hit)
    true = hit if also is None else hit | np.asarray(also, bool)[np.arange(len(index)), predicted]
    taken_with, taken_total = _sums(np.where(true, -1, predicted), n_classes, cues, weight)
    return _gaps(counts, counts, (correct_with, correct_total), (taken_with, taken_total), level)


def answered_gaps(
    presence: ArrayLike,
    labels: ArrayLike,
    yes: ArrayLike,
    weights: ArrayLike | None = None,
    level: float = 0.95,
    also: ArrayLike | None = None,
) -> Gaps:
    """`observed_gaps` of a model that is asked about each class and may say Yes to several, or to none.

    Args:
        presence: (n_images, n_cues), truth values.
        labels: (n_images,), class indices in [0, n_classes).
        yes: (n_images, n_classes), 1 where it says Yes, 0 where No, NaN where it wasn't asked; such a pair counts
            for the association of class and cue, but for no gap.
        weights: (n_images,), for instance `group_weights`; 1 by default.
        also: see `count`.
    """
    said = np.asarray(yes, float)
    n_classes = said.shape[1]
    cues, index, weight = _checked(presence, labels, n_classes, weights)
    own = np.zeros(said.shape, bool)
    own[np.arange(len(index)), index] = True
    other = ~own if also is None else ~own & ~np.asarray(also, bool)
    asked = ~np.isnan(said) * weight[:, None]
    affirmed = np.nan_to_num(said) * weight[:, None]

    def sums(values: Reals) -> tuple[Reals, Reals]:
        return _times(values.T, cues), values.sum(axis=0)

    (with_own, all_own), (with_other, all_other) = sums(asked * own), sums(asked * other)
    cells = (with_own, all_own[:, None] - with_own, with_other, all_other[:, None] - with_other)
    answered = Counts(*(np.where(np.abs(cell) < 1e-9, 0.0, cell) for cell in cells))
    counts = count(presence, labels, n_classes, weights, also)
    return _gaps(counts, answered, sums(affirmed * own), sums(affirmed * other), level)


def _gaps(
    counts: Counts, asked: Counts, correct: tuple[Reals, Reals], taken: tuple[Reals, Reals], level: float
) -> Gaps:
    # with the cue (n_classes, n_cues), and in all (n_classes,); a weighted count may pass its total by a rounding
    # error
    correct_with = np.clip(correct[0], 0, asked.class_with)
    correct_without = np.clip(correct[1][:, None] - correct_with, 0, asked.class_without)
    taken_with = np.clip(taken[0], 0, asked.other_with)
    taken_without = np.clip(taken[1][:, None] - taken_with, 0, asked.other_without)
    return Gaps(
        presence_accuracy=newcombe_difference(
            correct_with, asked.class_with, correct_without, asked.class_without, level
        ),
        hallucination=newcombe_difference(taken_with, asked.other_with, taken_without, asked.other_without, level),
        counts=counts,
        correct_with=correct_with,
        correct_without=correct_without,
        taken_with=taken_with,
        taken_without=taken_without,
    )
