"""Which pixels of a box are the thing in it.

GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004, through OpenCV) on a small window round the box: outside the box
all is background, the middle of the box is the thing, the rest is decided. A result that can't be the thing of that box
is refused, and the box itself stands in for it: an edit must rather keep too much of an object than too little.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Boxes, to_pixels
from pipeline.images import RGB

cv2.setNumThreads(0)  # of so small pictures its threads take more time than they save, and edits have their own

Mask = NDArray[np.bool_]  # (height, width)

WORKING_SIZE = 80
"""Pixels of the window's longer side on which the mask is found; a larger window is made smaller."""
MARGIN = 0.25
"""The window is wider than the box by this share of the box's size on each side: what shows the background. On rendered
scenes a half was slower and worse (mean IoU lower by 0.01): what is farther off tells less of what is behind."""
CORE = 0.2
"""This share of the box's width and height, about its middle, is taken for the thing."""
EVERY = 2
"""Colours are learned from every second pixel of every second row, and once: from all of them, and again before a cut,
it takes half as long again, and on rendered scenes the masks are no better (mean IoU within 0.005)."""
PLAUSIBLE = (0.15, 0.95)
"""A thing fills at least and at most these shares of its box; otherwise the box stands in for it."""
TIGHT = 0.6
"""A box is drawn tight round its thing (Lempitsky et al., ICCV 2009), so the bounding box of the mask must fill this
share of it: a mask that reaches less lost a part of the thing."""
LEAST_PIXELS = 16
"""Colour models of less than this many pixels say nothing."""


def box_mask(shape: tuple[int, ...], boxes: Boxes | list[list[float]]) -> Mask:
    """The pixels (height, width) that lie in any of the boxes (n, 4), normalised xyxy."""
    mask = np.zeros(shape[:2], dtype=bool)
    for x0, y0, x1, y1 in to_pixels(boxes, shape[1], shape[0]):
        mask[y0:y1, x0:x1] = True
    return mask


def foreground(image: RGB, boxes: Boxes | list[list[float]]) -> Mask:
    """The pixels (height, width) of the things in these boxes (n, 4), normalised xyxy; a pure function of both.

    Where GrabCut's result is implausible (see PLAUSIBLE and TIGHT) all pixels of the box.
    """
    mask = np.zeros(image.shape[:2], dtype=bool)
    for x0, y0, x1, y1 in to_pixels(boxes, image.shape[1], image.shape[0]):
        mask[y0:y1, x0:x1] |= _thing(image, x0, y0, x1, y1)
    return mask


def grown(mask: Mask, share: float = 0.01) -> Mask:
    """The mask and what lies within this share of the picture's longer side of it, at least one pixel."""
    reach = max(round(share * max(mask.shape)), 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)


def _thing(image: RGB, x0: int, y0: int, x1: int, y1: int) -> Mask:
    """The thing's pixels within its pixel box, (y1 - y0, x1 - x0)."""
    whole = np.ones((y1 - y0, x1 - x0), dtype=bool)
    across, down = max(round(MARGIN * (x1 - x0)), 3), max(round(MARGIN * (y1 - y0)), 3)
    left, top = max(x0 - across, 0), max(y0 - down, 0)
    window = np.ascontiguousarray(image[top : y1 + down, left : x1 + across])
    scale = min(WORKING_SIZE / max(window.shape[:2]), 1.0)
    size = (max(round(window.shape[1] * scale), 1), max(round(window.shape[0] * scale), 1))
    small = np.asarray(cv2.resize(window, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    corners = (scale * np.array([x0 - left, y0 - top, x1 - left, y1 - top])).tolist()
    found = _grabcut(small.tobytes(), small.shape, *corners)
    if found is None:
        return whole
    full = (
        np.asarray(
            cv2.resize(found.astype(np.float32), (window.shape[1], window.shape[0]), interpolation=cv2.INTER_LINEAR)
        )
        >= 0.5
    )
    thing = full[y0 - top : y1 - top, x0 - left : x1 - left]
    _, _, width, height = cv2.boundingRect(thing.astype(np.uint8))
    plausible = PLAUSIBLE[0] <= thing.mean() <= PLAUSIBLE[1] and width * height >= TIGHT * thing.size
    return thing if plausible else whole


@functools.lru_cache(maxsize=1024)  # the fills and arms of an experiment ask for the same masks again and again
def _grabcut(pixels: bytes, shape: tuple[int, ...], x0: float, y0: float, x1: float, y1: float) -> Mask | None:
    """The thing in a window (uint8 RGB of this shape); None where the colours can't be told apart."""
    window = np.frombuffer(pixels, dtype=np.uint8).reshape(shape)
    marks = np.full(window.shape[:2], cv2.GC_BGD, dtype=np.uint8)
    columns, rows = slice(round(x0), max(round(x1), round(x0) + 1)), slice(round(y0), max(round(y1), round(y0) + 1))
    marks[rows, columns] = cv2.GC_PR_FGD
    box = marks[rows, columns]
    if min(box.size, marks.size - box.size) < LEAST_PIXELS:
        return None
    middle = [slice(int(n * (0.5 - CORE / 2)), int(n * (0.5 + CORE / 2)) + 1) for n in box.shape]
    box[middle[0], middle[1]] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # the colour models start from k-means
    behind, before = np.zeros((1, 65)), np.zeros((1, 65))
    few, seen = window[::EVERY, ::EVERY], marks[::EVERY, ::EVERY]
    if not LEAST_PIXELS <= (seen & 1).sum() <= seen.size - LEAST_PIXELS:  # a small box, of which too few are left
        few, seen = window, marks
    cv2.grabCut(few.copy(), seen.copy(), (0, 0, 1, 1), behind, before, 0, cv2.GC_INIT_WITH_MASK)
    cv2.grabCut(window, marks, (0, 0, 1, 1), behind, before, 1, cv2.GC_EVAL_FREEZE_MODEL)
    thing = (marks & 1).astype(np.uint8)
    # what is enclosed by the thing is a part of it
    edge = cv2.copyMakeBorder(1 - thing, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(edge, None, (0, 0), 2)
    return (thing == 1) | (edge[1:-1, 1:-1] == 1)
