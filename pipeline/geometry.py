"""Boxes. Inside Cuescope a box is normalised xyxy in [0, 1]; this module alone converts to other conventions."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]  # (n, 4): x0, y0, x1, y1, each in [0, 1], x0 <= x1, y0 <= y1


def as_boxes(boxes: object) -> Boxes:
    """Any sequence of boxes as a clipped float array of shape (n, 4); an empty one has shape (0, 4)."""
    array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.clip(array, 0.0, 1.0)


def to_pixels(boxes: Boxes | list[list[float]], width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Pixel boxes (x0, y0, x1, y1) that cover the normalised ones; never empty while the image has a pixel.

    Plain numbers: edits ask for one box at a time, of which arrays take ten times as long.
    """
    rows = boxes.tolist() if isinstance(boxes, np.ndarray) else boxes
    spans = [(_span(x0, x1, width), _span(y0, y1, height)) for x0, y0, x1, y1 in rows]
    return [(left, top, right, bottom) for (left, right), (top, bottom) in spans]


def _span(low: float, high: float, pixels: int) -> tuple[int, int]:
    """The pixels [first, end) of a side that an interval in [0, 1] touches; one at the least."""
    first = min(max(math.floor(min(low, 1.0) * pixels + 1e-9), 0), pixels - 1)
    return first, min(max(math.ceil(min(high, 1.0) * pixels - 1e-9), first + 1), pixels)


def from_pixels(boxes: object, width: int, height: int) -> Boxes:
    """Pixel xyxy boxes (n, 4) as normalised ones."""
    scale = np.array([width, height, width, height], dtype=np.float64)
    return as_boxes(np.asarray(boxes, dtype=np.float64).reshape(-1, 4) / scale)


def to_percent_xywh(boxes: Boxes) -> Boxes:
    """Label Studio's convention: x, y, width, height in percent of the image, kept inside [0, 100] (n, 4)."""
    boxes = as_boxes(boxes)
    low = np.round(boxes[:, :2] * 100, 4)
    high = np.round(boxes[:, 2:] * 100, 4)
    return np.concatenate([low, np.maximum(high - low, 0.0)], axis=1)


def from_percent_xywh(boxes: object) -> Boxes:
    """The inverse of :func:`to_percent_xywh`."""
    array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) / 100
    return as_boxes(np.concatenate([array[:, :2], array[:, :2] + array[:, 2:]], axis=1))


def to_pixel_xywh(boxes: Boxes, width: int, height: int) -> Boxes:
    """COCO's convention: x, y, width, height in pixels (n, 4), as floats."""
    pixels = as_boxes(boxes) * np.array([width, height, width, height], dtype=np.float64)
    return np.concatenate([pixels[:, :2], pixels[:, 2:] - pixels[:, :2]], axis=1)


def area(boxes: Boxes) -> NDArray[np.float64]:
    """Share of the image that each box covers (n,)."""
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0.0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0.0)


def intersection(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Area common to each pair of boxes (len(a), len(b))."""
    wide, tall = (
        np.minimum(a[:, None, 2 + side], b[None, :, 2 + side]) - np.maximum(a[:, None, side], b[None, :, side])
        for side in (0, 1)
    )
    return np.maximum(wide, 0.0) * np.maximum(tall, 0.0)


def iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Intersection over union of each pair (len(a), len(b)); 0 where both are empty."""
    common = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def inside(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Share of each box of `a` that lies in each box of `b` (len(a), len(b))."""
    own = area(a)[:, None]
    common = intersection(a, b)
    return np.divide(common, own, out=np.zeros_like(common), where=own > 0)


def suppress(boxes: Boxes, scores: NDArray[np.float64], threshold: float = 0.5) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: indices of the boxes kept, best score first (ties: lower index first)."""
    if len(scores) == 1:
        return np.zeros(1, dtype=np.int64)
    order = np.lexsort((np.arange(len(scores)), -np.asarray(scores)))
    overlaps = iou(boxes, boxes)
    kept: list[int] = []
    for index in order:
        if all(overlaps[index, other] <= threshold for other in kept):
            kept.append(int(index))
    return np.array(kept, dtype=np.int64)


def grid(divisions: tuple[int, ...]) -> Boxes:
    """Every cell of an n x n grid, for each n: class-agnostic regions (sum n^2, 4)."""
    cells = [
        (column / n, row / n, (column + 1) / n, (row + 1) / n)
        for n in divisions
        for row in range(n)
        for column in range(n)
    ]
    return as_boxes(cells)


def borders(share: float) -> Boxes:
    """The top, bottom, left and right strip of the picture, each `share` of it deep (4, 4)."""
    return as_boxes([(0, 0, 1, share), (0, 1 - share, 1, 1), (0, 0, share, 1), (1 - share, 0, 1, 1)])


def join(boxes: Boxes, tiled: float = 0.8) -> Boxes:
    """Boxes (n, 4) with those that together tile one larger box replaced by that box, in the better one's place.

    A thing that is larger than the regions it was looked for in is found piece by piece; it is one place all the same.

    Args:
        tiled: two boxes are one if they cover at least this share of the box that holds both.
    """
    left: list[list[float]] = boxes.tolist()
    done = len(left) < 2
    while not done:  # plain numbers: of so few boxes arrays take ten times as long
        done = True
        for i, j in itertools.combinations(range(len(left)), 2):
            a, b = left[i], left[j]
            both = [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]
            common = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
            if _area(a) + _area(b) - common >= tiled * _area(both):
                left[i] = both
                del left[j]
                done = False
                break
    return as_boxes(left)


def _area(box: list[float]) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)
