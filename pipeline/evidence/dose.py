"""How much of a cue an edit takes out or puts in, in units of the natural difference: the dose.

An edit is a treatment that the picture may receive only in part: a pasted thing is fainter than a real one, a changed
tint lacks what else the camera's cast did, a filled box takes more than the cue. So the edit's effect is not the cue's.
The dose is measured by the region encoder, in which the model under test has no part: along the direction in which
pictures with the cue differ from those of their class without it, an edit's shift is held against that difference. The
effect beyond the placebo divided by the dose beyond the placebo is then what the cue does at its natural strength:
Wald's (1940) estimator, the edit being the instrument (Angrist, Imbens and Rubin 1996). It asks that edits work through
the cue alone, which is what placebos are for, and in proportion; where it is far from 1 neither is sure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

SHRINKAGE = 0.1
"""Share of the mean variance that is added to every direction's (Friedman 1989), as images are few."""
LEAST_SIDE = 3
"""A class takes part where it has so many pictures with the cue, and as many without."""
LEAST_SURE = 4.0
"""The natural difference must be so many standard errors, or the encoder can't tell the cue."""


@dataclass(frozen=True)
class Scale:
    """Where pictures lie between "without the cue" and "with it": `direction` (d,), in natural units."""

    direction: Reals

    def of(self, vectors: NDArray[np.floating]) -> Reals:
        """(n,) positions of unit vectors (n, d): differences of them are doses."""
        return np.asarray(vectors @ self.direction, dtype=np.float64)


def natural_scale(
    vectors: NDArray[np.floating], present: NDArray[np.bool_], labels: NDArray[np.str_], selection: NDArray[np.bool_]
) -> Scale | None:
    """The scale of a cue: its direction from the selection half, its unit from the estimation half.

    The direction is Fisher's (1936) linear discriminant of presence within classes; the unit the mean over classes of
    the differences along it. None where a half has no class with both sides, or the difference drowns in the noise.

    Args:
        vectors: (n, d), unit vectors of whole pictures.
        present: (n,), whether a picture has the cue.
        labels: (n,), classes: what differs between them is not the cue's doing.
        selection: (n,), the half of the selection; the other is the estimation's. All true or all false: one half.
    """
    estimation = ~selection if selection.any() and not selection.all() else np.ones_like(selection)
    selection = ~estimation if not estimation.all() else estimation
    places: Reals = np.asarray(vectors, dtype=np.float64)
    pairs = _sides(places[selection], present[selection], labels[selection])
    if not pairs:
        return None
    contrasts = [having.mean(0) - lacking.mean(0) for having, lacking in pairs]
    centred = np.concatenate([side - side.mean(0) for pair in pairs for side in pair])
    scatter = centred.T @ centred / selection.sum()
    ridge = SHRINKAGE * np.trace(scatter) / len(scatter)
    if not ridge > 0:
        return None
    direction = np.linalg.solve(scatter + ridge * np.eye(len(scatter)), np.mean(contrasts, axis=0))
    along = places[estimation] @ direction
    sides = _sides(along, present[estimation], labels[estimation])
    if not sides:
        return None
    unit = float(np.mean([having.mean() - lacking.mean() for having, lacking in sides]))
    variance = sum(side.var(ddof=1) / len(side) for pair in sides for side in pair) / len(sides) ** 2
    if not unit > LEAST_SURE * np.sqrt(variance):
        return None
    return Scale(direction / unit)


def _sides(values: Reals, present: NDArray[np.bool_], labels: NDArray[np.str_]) -> list[tuple[Reals, Reals]]:
    """For each class that has enough of both: its values with and without the cue."""
    found = []
    for label in np.unique(labels):
        mine = labels == label
        having, lacking = values[mine & present], values[mine & ~present]
        if min(len(having), len(lacking)) >= LEAST_SIDE:
            found.append((having, lacking))
    return found
