"""One scale for the scores of all detectors.

What follows a detector knows one scale: what counts as a region, as the object, as present (pipeline/stages/embed.py,
pipeline/evidence/boxes.py, presence.py) is said in scores of a YOLO, whose published threshold is 0.25. A cue's own
threshold is found from its own scores (Otsu), so calibration changes no order and no ranking; it says where "surely
there" and "surely not there" begin. A calibration is a table of (raw, calibrated) points with straight lines between.

Without a fit a detector's published threshold is put at 0.25. A fit (`fit`) needs no box: an audit knows in which
images its own classes are, and the detector was asked for them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.errors import UserError

Share = Annotated[float, Field(ge=0, le=1)]
Points = Sequence[tuple[Share, Share]]
Table = tuple[tuple[float, float], ...]
KNOTS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The raw scores at which a fitted curve is written down."""
FEWEST = 20
"""Fewest images with and without their object from which two numbers are fitted."""
STEEPEST = 100.0


def check(points: Points) -> Table:
    """The points in order with the ends (0, 0) and (1, 1); none at all leaves scores as they are.

    Raises:
        UserError: a raw score twice, or a calibrated score that doesn't grow with it.
    """
    table = sorted({(0.0, 0.0), (1.0, 1.0), *((float(raw), float(score)) for raw, score in points)})
    if any(b[0] <= a[0] or b[1] <= a[1] for a, b in itertools.pairwise(table)):
        raise UserError(
            f"detect: the option 'calibration' {[list(point) for point in points]} must hold [raw, calibrated] points "
            "between 0 and 1, in which the second number grows with the first."
        )
    return tuple(table)


def calibrated(scores: NDArray[np.floating], table: Table) -> NDArray[np.float64]:
    """Raw scores on the common scale."""
    raw, common = zip(*table, strict=True)
    return np.interp(scores, raw, common)


def raw(scores: NDArray[np.floating], table: Table) -> NDArray[np.float64]:
    """The inverse of :func:`calibrated`."""
    before, common = zip(*table, strict=True)
    return np.interp(scores, common, before)


def fit(scores: NDArray[np.floating], present: NDArray[np.bool_]) -> Table:
    """The table by which a score is the probability that what was asked for is there, as likely there as not before.

    Logistic regression on the score's log-odds (Platt, 1999; the two-parameter case of beta calibration, Kull et al.
    2017), each group weighing the same.

    Args:
        scores: (n,) raw best score of a name in an image, 0 where nothing was found.
        present: (n,) whether what the name says is in the image.

    Raises:
        UserError: too few of either group, or scores that don't tell them apart.
    """
    groups = int(present.sum()), int((~present).sum())
    if min(groups) < FEWEST:
        raise UserError(
            f"calibrate: {groups[0]} images with and {groups[1]} without: at least {FEWEST} each are needed."
        )
    x = _log_odds(scores)
    weights = np.where(present, 0.5 / groups[0], 0.5 / groups[1])
    slope, shift = _logistic(x, present.astype(np.float64), weights)
    if slope <= 0.01:
        raise UserError("calibrate: the detector's scores don't tell images with the object from those without it.")
    curve = 1 / (1 + np.exp(-(slope * _log_odds(np.array(KNOTS)) + shift)))
    points = [(knot, round(float(value), 4)) for knot, value in zip(KNOTS, curve, strict=True)]
    # a flat end tells scores apart no more; the straight line to its corner does
    kept: list[tuple[float, float]] = []
    for knot, value in points:
        if (kept[-1][1] if kept else 0.0) < value < 1.0:
            kept.append((knot, value))
    return check(kept)


def _log_odds(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    inner = np.clip(np.asarray(scores, dtype=np.float64), 0.005, 0.995)
    return np.log(inner / (1 - inner))


def _logistic(x: NDArray, y: NDArray, weights: NDArray) -> tuple[float, float]:
    """Slope and intercept by weighted maximum likelihood; a slope is bounded where the groups don't overlap."""
    from scipy.optimize import minimize

    def loss(parameters: NDArray) -> float:
        margin = parameters[0] * x + parameters[1]
        return float(weights @ (np.logaddexp(0, margin) - y * margin) + 1e-4 * parameters[0] ** 2)

    found = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(-STEEPEST, STEEPEST), (None, None)])
    return float(found.x[0]), float(found.x[1])
