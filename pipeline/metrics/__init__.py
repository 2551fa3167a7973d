"""The statistics: pure functions over arrays, one module a source or an idea, no reading, writing or models.

NaN means "not measured" throughout: a class without images, a gap with an empty side, a fill that failed.
"""

from pipeline.metrics import (
    association,
    b2t,
    domino,
    effects,
    intervals,
    ravl,
    spurlens,
    subgroups,
    tests,
)

__all__ = ["association", "b2t", "domino", "effects", "intervals", "ravl", "spurlens", "subgroups", "tests"]
