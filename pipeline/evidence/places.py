"""Where an edit and its placebo may go: boxes, without a look at any pixel.

A placebo needs a place as large as the cue's, clear of the cue and the object, and where the cue could have been: as
high in the picture and as far from its middle. Several are proposed; the pixels choose among them when the edit is
made (pipeline/evidence/edits.py), by contrast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Boxes, area, as_boxes, inside, intersection, iou

CANDIDATES = 8
"""Places proposed for one placebo."""
STEPS = 25
"""Places are sought on a grid of this many positions each way."""
GAP = 0.015
"""Share of the picture left between a placebo and what it must not touch: boxes are rounded to whole pixels."""
SHAPES = (0.5, 0.7, 1.4, 2.0)
"""Where a box has no second place as it is, these changes of its width (and the inverse of its height) are tried."""
CUTS = (1, 2, 4)
"""Where no shape has a place in one piece, a placebo is made of this many pieces..."""
MOST_PIECES = 6
"""...unless there were already more than this many."""


def grow(boxes: Boxes, share: float = 0.1) -> Boxes:
    """Boxes larger by a share of their size on each side: an edit must hide the outline too."""
    margin = share * (boxes[:, 2:] - boxes[:, :2])
    return as_boxes(np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1))


def visible(boxes: Boxes, keep: Boxes) -> float:
    """Share of the boxes' area that lies outside the `keep` boxes."""
    if not len(keep) or not len(boxes):
        return 1.0
    covered = np.minimum(intersection(boxes, keep).sum(axis=1), area(boxes))
    return float(1 - covered.sum() / max(area(boxes).sum(), 1e-12))


def free_places(box: Boxes, avoid: Boxes, rng: np.random.Generator) -> Boxes:
    """At most CANDIDATES boxes (n, 4) as large as `box` (4,) that touch none of `avoid`, the likeliest for it first.

    Of the box's own shape where there is room, else of another shape of equal area. Likely is what lies as high in
    the picture and as far from its middle; near neighbours of a likelier place are left out.
    """
    near = as_boxes(np.concatenate([avoid[:, :2] - GAP, avoid[:, 2:] + GAP], axis=1))
    width, height = box[2:] - box[:2]
    square = np.sqrt(height / max(width, 1e-9))
    for shapes in ((1.0,), (*SHAPES, square, square**2)):
        sizes = np.array([(width * s, height / s) for s in shapes])
        sizes = sizes[(sizes <= 1 + 1e-9).all(axis=1)]
        low = np.linspace(0, 1, STEPS)[:, None, None] * np.clip(1 - sizes, 0, 1)  # (steps, sizes, x and y)
        high = low + sizes
        # what two boxes have in common is a product of their sides', so a row and a column tell for the whole grid
        meets = np.minimum(high[..., None], near[:, 2:].T) > np.maximum(low[..., None], near[:, :2].T)
        across, down = meets.transpose(2, 1, 0, 3).astype(np.float32)  # (sizes, steps, near)
        row, column, size = np.nonzero((down @ across.transpose(0, 2, 1)).transpose(1, 2, 0) == 0)
        places = np.stack([low[column, size, 0], low[row, size, 1], high[column, size, 0], high[row, size, 1]], axis=1)
        if len(places):
            break
    else:
        return as_boxes([])
    unlike = _prior(places, box) + rng.uniform(0, 0.02, len(places))  # equals in no fixed order
    left = places[np.argsort(unlike, kind="stable")]
    chosen: list[NDArray[np.float64]] = []
    while len(left) and len(chosen) < CANDIDATES:
        chosen.append(left[0])
        left = left[iou(left, left[:1])[:, 0] < 0.5]
    return np.array(chosen)


def _prior(places: Boxes, box: Boxes) -> NDArray[np.float64]:
    """How much less likely than its own place each is (n,): differences of height and of distance to the middle."""
    middles, middle = (places[:, :2] + places[:, 2:]) / 2, (box[:2] + box[2:]) / 2
    distance = np.hypot(*(middles - 0.5).T) - np.hypot(*(middle - 0.5))
    return np.abs(middles[:, 1] - middle[1]) + np.abs(distance)


def arrangements(boxes: Boxes, keep: Boxes, rng: np.random.Generator) -> tuple[Boxes, list[Boxes]]:
    """Ways to put all of `boxes` (n, 4) elsewhere at once: the boxes, and for each way their places (n, 4) in order.

    No place touches a box, `keep` or another place. The boxes returned cover what was given, but are cut in pieces
    where there is no room otherwise, as for the sides of a frame. No ways: there is no room at all.
    """
    pieces, found = boxes, list[Boxes]()
    for cuts in CUTS:
        pieces = np.concatenate([_cut(box, cuts) for box in boxes])
        order = np.argsort(-area(pieces), kind="stable")
        found = []
        for first in free_places(pieces[order[0]], np.concatenate([boxes, keep]), rng):
            places = _arrange(pieces, order, first, np.concatenate([boxes, keep]), rng)
            if places is None:
                break
            found.append(places)
        if found or len(pieces) > MOST_PIECES:
            break
    return pieces, found


def _arrange(
    pieces: Boxes, order: NDArray[np.int64], first: Boxes, avoid: Boxes, rng: np.random.Generator
) -> Boxes | None:
    """A place for each piece, in this order: the first one's is given, the others' are the likeliest that are left."""
    places = np.zeros_like(pieces)
    places[order[0]] = first
    for done, index in enumerate(order[1:], start=1):
        options = free_places(pieces[index], np.concatenate([avoid, places[order[:done]]]), rng)
        if not len(options):
            return None
        places[index] = options[0]
    return places


def _cut(box: Boxes, pieces: int) -> Boxes:
    """A box (4,) cut across its longer side into equal pieces (n, 4)."""
    side = int(box[3] - box[1] > box[2] - box[0])
    edges = np.linspace(box[side], box[side + 2], pieces + 1)
    cut = np.repeat(box[None], pieces, axis=0)
    cut[:, side], cut[:, side + 2] = edges[:-1], edges[1:]
    return cut


def window_on(thing: Boxes, shape: Boxes) -> Boxes | None:
    """The smallest box (4,) round `thing` (4,) with the proportions of `shape` (4,); None if it leaves the picture."""
    size, wanted = shape[2:] - shape[:2], thing[2:] - thing[:2]
    size = size * (wanted / np.maximum(size, 1e-9)).max()
    if (size > 1).any():
        return None
    low = np.clip((thing[:2] + thing[2:] - size) / 2, 0, 1 - size)
    return np.concatenate([low, low + size])


def other_patches(box: Boxes, avoid: Boxes, things: Boxes, rng: np.random.Generator) -> Boxes:
    """What of a donor may stand in for its cue in `box` (4,): boxes (n, 4) clear of `avoid`, the things first."""
    windows = [window for thing in things if (window := window_on(thing, box)) is not None]
    clear = [w for w in windows if not len(avoid) or inside(w[None], avoid).sum() <= 1e-9]
    places = free_places(box, avoid, rng)
    return np.concatenate([as_boxes(clear[: CANDIDATES // 2]), as_boxes(places)])[:CANDIDATES]


def place_like(box: Boxes, keep: Boxes, rng: np.random.Generator) -> Boxes | None:
    """The same place as in the donor, or its mirror image, or a random one: whichever first is clear of the object."""
    width, height = box[2:] - box[:2]
    mirrored = np.array([1 - box[2], box[1], 1 - box[0], box[3]])
    corners = rng.random((8, 2)) * (1 - np.array([width, height]))
    for place in [box, mirrored, *np.concatenate([corners, corners + np.array([width, height])], axis=1)]:
        if not len(keep) or inside(place[None], keep).sum() <= 0.2:
            return place
    return None
