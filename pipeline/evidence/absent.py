"""Pictures of a class without its object, made from the class's own: does a multimodal LLM still see it there?

SpurLens (arXiv 2503.08884) measures hallucinations on pictures without the object from three sources. Pictures of other
classes are one (evidence/perception.py). The other two are made of the class's own pictures, so that everything that
goes with the object is still there:

- masked: the object's boxes are painted black, as the authors do with the box round its mask;
- removed: its pixels (evidence/masks.py) are painted over from what surrounds them. The authors drop the model's visual
  tokens instead, which needs the model's inside.

Only pictures in which the detector found the object take part: a picture with an object left in it is no test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import Audit
from pipeline.evidence.boxes import MOST_BOXES, BoxFinder
from pipeline.evidence.edits import apply_edit
from pipeline.geometry import Boxes, area
from pipeline.images import RGB
from pipeline.store import key_of

OTHERS, MASKED, REMOVED = "other classes", "object masked", "object removed"
SOURCES = (OTHERS, MASKED, REMOVED)
TRIED = 50
"""Of so many times the pictures that are asked for it is looked up whether a detector found their object."""
MOST_AREA = 0.6
"""An object that fills more of the picture than this leaves too little to see without it."""


@dataclass(frozen=True)
class Absent:
    """A picture without its object: the row of `images` it is made from, its class, its source, and the edit."""

    row: int
    label: int
    source: str
    spec: dict[str, Any]
    key: str


def in_turn(images: pa.Table, half: NDArray[np.bool_], audit: Audit, classes: Sequence[str]) -> list[int]:
    """Rows of `images` of this half in the order they are tried in, at most TRIED times `measure.absent` of a class.

    Which ones follows from the seed and their ids, so that a data set that grows keeps most of them.
    """
    ids, labels = (images[name].to_pylist() for name in ("image_id", "label"))
    order = sorted(np.flatnonzero(half).tolist(), key=lambda row: key_of(audit.seed, "absent", ids[row]))
    left = dict.fromkeys(classes, TRIED * audit.measure.absent)
    tried: list[int] = []
    for row in order:
        if left.get(labels[row], 0):
            left[labels[row]] -= 1
            tried.append(row)
    return tried


def without_object(
    images: pa.Table, half: NDArray[np.bool_], boxes: BoxFinder, audit: Audit, classes: Sequence[str]
) -> list[Absent]:
    """At most `measure.absent` pictures of each class in this half, near-duplicates once, each masked and removed."""
    ids, labels, groups = (images[name].to_pylist() for name in ("image_id", "label", "group"))
    tried = in_turn(images, half, audit, classes)
    made: list[Absent] = []
    for number, name in enumerate(classes):
        taken: set[str] = set()
        for row in tried:
            if len(taken) == audit.measure.absent:
                break
            if labels[row] != name or groups[row] in taken:
                continue
            found = boxes.object(ids[row], audit.words(name))
            if not usable(found):
                continue
            taken.add(groups[row])
            for source, spec in specifications(found).items():
                made.append(Absent(row, number, source, spec, key_of(ids[row], spec)))
    return made


def usable(found: Boxes) -> bool:
    """Whether all of an object was found (of a crowd only the surest boxes are kept), and leaves something to see."""
    return 0 < len(found) < MOST_BOXES and area(found).sum() <= MOST_AREA


def specifications(found: Boxes) -> dict[str, dict[str, Any]]:
    """Source to the edit (see evidence/edits.py) that takes out what is in these boxes."""
    boxes = found.tolist()
    return {
        MASKED: {"op": "mask", "boxes": boxes},
        REMOVED: {"op": "erase", "fill": "inpaint", "boxes": boxes, "mask": "grabcut", "seed": 0},
    }


def pictures_of(
    made: Sequence[Absent], images: pa.Table, load: Callable[[pa.Table], list[RGB]]
) -> Callable[[list[int]], list[RGB]]:
    """A function that makes some of these pictures, by their numbers."""

    def pictures(numbers: list[int]) -> list[RGB]:
        chosen = [made[number] for number in numbers]
        shown = load(images.take([one.row for one in chosen]))
        return [apply_edit(one.spec, image) for one, image in zip(chosen, shown, strict=True)]

    return pictures
