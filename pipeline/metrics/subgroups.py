"""How unequal a model's accuracy is over subgroups of a class: spread, common to counter, worst group."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.metrics.intervals import Interval, newcombe_difference

Reals = NDArray[np.float64]


class Subgroups(NamedTuple):
    """Accuracy by class and subgroup, each (n_classes, n_subgroups)."""

    accuracy: Reals  # NaN for an empty subgroup
    n: Reals


class MacroStd(NamedTuple):
    """Spread of accuracy within classes."""

    macro: float  # mean over the classes that have images
    by_class: Reals  # (n_classes,), in [0, 0.5]


class GroupDrop(NamedTuple):
    """Accuracy on the common group less that on the counter group."""

    macro: float  # mean over the classes that have both groups
    by_class: Interval  # (n_classes,)


class WorstGroup(NamedTuple):
    """The (class, subgroup) with the lowest accuracy."""

    accuracy: float
    label: int
    subgroup: int
    n: int


def subgroup_accuracy(
    correct: ArrayLike, labels: ArrayLike, subgroups: ArrayLike, n_classes: int, n_subgroups: int
) -> Subgroups:
    """Accuracy of each (class, subgroup).

    Args:
        correct: (n_images,), truth values.
        labels, subgroups: (n_images,), indices of the class and of the value of an attribute (background,
            colour).
    """
    labels, subgroups = np.asarray(labels, np.int64), np.asarray(subgroups, np.int64)
    n, right = np.zeros((n_classes, n_subgroups)), np.zeros((n_classes, n_subgroups))
    np.add.at(n, (labels, subgroups), 1)
    np.add.at(right, (labels, subgroups), np.asarray(correct, float))
    with np.errstate(invalid="ignore"):
        return Subgroups(right / n, n)


def macro_std(groups: Subgroups) -> MacroStd:
    """MacroStd: macro average over classes of the weighted standard deviation of the subgroups' accuracies.

    After "Better May Not Be Fairer" (Chiu, Chen, Ma, ICCV 2023, arXiv 2212.08649). The weight of a subgroup
    is its share of the class's images, and the deviation is taken from the class's accuracy: sqrt(sum_g w_g
    (a_g - a)^2). Only the abstract's definition was at hand; it doesn't say whether the paper corrects for
    the number of subgroups (we don't).
    """
    accuracy = np.where(groups.n > 0, groups.accuracy, 0.0)
    with np.errstate(invalid="ignore"):
        weight = groups.n / groups.n.sum(1, keepdims=True)
    mean = (weight * accuracy).sum(1, keepdims=True)
    by_class = np.sqrt((weight * (accuracy - mean) ** 2).sum(1))
    return MacroStd(_mean_of_known(by_class), by_class)


def common_counter_drop(
    correct: ArrayLike, labels: ArrayLike, common: ArrayLike, n_classes: int, level: float = 0.95
) -> GroupDrop:
    """Drop from the common group (images with the class's usual cue) to the counter group.

    As CounterAnimal measures CLIPs (Wang et al., NeurIPS 2024, arXiv 2403.11497): classes weigh the same.

    Args:
        correct, common: (n_images,), truth values; an image that isn't in the common group is in the counter
            group.
        labels: (n_images,), class indices.
    """
    accuracy, n = subgroup_accuracy(correct, labels, np.asarray(common, bool).astype(np.int64), n_classes, 2)
    right = np.where(n > 0, accuracy, 0.0) * n
    by_class = newcombe_difference(right[:, 1], n[:, 1], right[:, 0], n[:, 0], level)
    return GroupDrop(_mean_of_known(by_class.estimate), by_class)


def worst_group_accuracy(groups: Subgroups, minimum_size: int = 1) -> WorstGroup:
    """Worst-group accuracy (Sagawa et al., ICLR 2020) over groups of `minimum_size` images or more.

    Equals go to the larger group, which is the better evidence. No group of that size gives NaN and indices
    of -1.
    """
    kept = groups.n >= max(minimum_size, 1)
    if not kept.any():
        return WorstGroup(float("nan"), -1, -1, 0)
    candidates = np.flatnonzero(kept)
    accuracy, n = groups.accuracy.ravel()[candidates], groups.n.ravel()[candidates]
    worst = candidates[np.lexsort((-n, accuracy))[0]]
    label, subgroup = np.unravel_index(worst, groups.n.shape)
    return WorstGroup(
        float(groups.accuracy[label, subgroup]), int(label), int(subgroup), int(groups.n[label, subgroup])
    )


def _mean_of_known(values: Reals) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
