"""What people say of a cue's presence in pictures, in the place of what its scores say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_OF_EACH = 5
"""With fewer pictures of the selection half that have the cue, or that haven't, a threshold stays as it was."""


def calibrated_cut(scores: NDArray[np.float64], shown: NDArray[np.bool_], automatic: float) -> float:
    """The threshold with the fewest errors among the answers; of equally good ones the nearest to the automatic one.

    Answered pictures are chosen by their scores, more of them near the threshold. That leaves the share of pictures
    of one score that show the cue as it is, and so the score from which more show it than don't: the threshold with
    the fewest errors in the whole set (the Bayes rule), where that share grows with the score.

    Args:
        scores: (n,) of the answered pictures of the selection half.
        shown: (n,) whether people see the cue there.
        automatic: the threshold that the scores alone gave; a score at it or above is presence.
    """
    known = np.isfinite(scores)
    scores, shown = np.asarray(scores, float)[known], np.asarray(shown, bool)[known]
    if min(shown.sum(), (~shown).sum()) < LEAST_OF_EACH:
        return automatic
    values = np.unique(scores)
    cuts = np.array([automatic, values[0], *((values[1:] + values[:-1]) / 2), np.nextafter(values[-1], np.inf)])
    errors = np.array([((scores >= cut) != shown).sum() for cut in cuts])
    best = np.flatnonzero(errors == errors.min())
    return float(cuts[best[np.argmin(np.abs(cuts[best] - automatic))]])
