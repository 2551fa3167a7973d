"""Fills: what stands in the place of a part that is taken out of a picture.

Each takes `image` (height, width, 3) uint8 RGB, `mask` (height, width) bool and a generator, returns a new
picture of the same shape, leaves every pixel outside the mask as it was, and never uses what was under it.
Separate parts of a mask are filled separately. Where nothing is left outside the mask, the fill is mid-grey.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.images import RGB

Mask = NDArray[np.bool_]
Layer = NDArray[np.float32]

GREY = 127
WORKING_SIZE = 256
"""Blur and inpainting of a larger part are done on a smaller copy of it: their result is smooth anyway."""
MOST_SHIFTS = 400


@dataclass(frozen=True)
class _Part:
    """A connected part of a mask, in a window of the picture; `outside` are its pixels in no part at all."""

    rows: slice
    columns: slice
    inside: Mask
    outside: Mask


def _parts(mask: Mask, margin: float) -> Iterator[_Part]:
    """The connected parts of a mask, each in a window wider by `margin` of its longer side."""
    import cv2

    masked = mask.astype(np.uint8)
    left, top, wide, tall = cv2.boundingRect(masked)
    if not wide:
        return
    masked = masked[top : top + tall, left : left + wide]
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(masked, connectivity=8)
    for label, (x, y, width, height, _) in enumerate(boxes.tolist()):
        if label == 0:
            continue
        pad = max(math.ceil(margin * max(width, height)), 4)
        rows = slice(max(top + y - pad, 0), min(top + y + height + pad, mask.shape[0]))
        columns = slice(max(left + x - pad, 0), min(left + x + width + pad, mask.shape[1]))
        outside = ~mask[rows, columns]
        inside = np.zeros(outside.shape, dtype=bool)
        above, before = top + y - rows.start, left + x - columns.start
        inside[above : above + height, before : before + width] = labels[y : y + height, x : x + width] == label
        yield _Part(rows, columns, inside, outside)


def _check(image: RGB, mask: Mask) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or mask.shape != image.shape[:2]:
        raise ValueError(
            f"a fill takes (h, w, 3) uint8 and (h, w) bool, not {image.shape} {image.dtype} and {mask.shape}"
        )


def mean(image: RGB, mask: Mask, rng: np.random.Generator) -> RGB:
    """One colour: the mean of a ring round the part, a tenth of its size wide."""
    mask = np.asarray(mask, dtype=bool)
    _check(image, mask)
    filled = image.copy()
    for part in _parts(mask, 0.1):
        window = image[part.rows, part.columns]
        filled[part.rows, part.columns][part.inside] = _ring_color(window, part)
    return filled


def _ring_color(window: RGB, part: _Part) -> NDArray[np.uint8]:
    import cv2

    width = max(math.ceil(0.1 * math.sqrt(part.inside.sum())), 2)
    ring = (cv2.distanceTransform((~part.inside).astype(np.uint8), cv2.DIST_L2, 3) <= width) & part.outside
    if not ring.any():
        ring = part.outside
    if not ring.any():
        return np.full(3, GREY, dtype=np.uint8)
    return np.rint(window[ring].mean(axis=0)).astype(np.uint8)


def blur(image: RGB, mask: Mask, rng: np.random.Generator) -> RGB:
    """The surroundings, blurred into the part (normalised convolution: what is masked has no weight).

    The width of the Gaussian goes with the part's depth, so that its middle is reached too.
    """
    mask = np.asarray(mask, dtype=bool)
    _check(image, mask)
    filled = image.copy()
    for part in _parts(mask, 0.5):
        smooth = _continued(image[part.rows, part.columns], part)
        filled[part.rows, part.columns][part.inside] = np.rint(smooth[part.inside]).astype(np.uint8)
    return filled


def _continued(window: RGB, part: _Part) -> Layer:
    """Normalised convolution (Knutsson and Westin 1993) of the window's outside pixels, in 0..255."""
    import cv2

    if not part.outside.any():
        return np.full(window.shape, GREY, dtype=np.float32)
    height, width = part.inside.shape
    scale = min(64 / max(height, width), 1.0)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    outside = part.outside.astype(np.float32)
    weighted, weight = _resized(_seen(window, part), size), _resized(outside, size)
    depth = cv2.distanceTransform((weight <= 0.5).astype(np.uint8), cv2.DIST_L2, 3).max()
    sigma = max(0.75 * min(float(depth), max(size)), 1.0)  # without any zero the distances are infinite
    total = cv2.GaussianBlur(weighted, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT).reshape(weighted.shape)
    norm = cv2.GaussianBlur(weight, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT).reshape(weight.shape)
    color = window[part.outside].mean(axis=0, dtype=np.float64).astype(np.float32)
    # a trace of the mean colour where the Gaussian doesn't reach
    smooth = (total + np.float32(1e-6) * color) / cv2.merge([norm + np.float32(1e-6)] * 3).reshape(total.shape)
    return _resized(smooth.astype(np.float32), (width, height))


def _seen(window: RGB, part: _Part) -> Layer:
    """The window in 0..255, with nothing where there is a hole."""
    seen = window.astype(np.float32)
    seen[~part.outside] = 0
    return seen


def _resized(array: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The array at (width, height), averaged where it shrinks; OpenCV drops the axes of single rows."""
    import cv2

    if (array.shape[1], array.shape[0]) == size:
        return array
    way = cv2.INTER_AREA if size[0] * size[1] < array.shape[0] * array.shape[1] else cv2.INTER_LINEAR
    shape = (size[1], size[0], *array.shape[2:])
    return np.asarray(cv2.resize(np.ascontiguousarray(array), size, interpolation=way)).reshape(shape)


def inpaint(image: RGB, mask: Mask, rng: np.random.Generator) -> RGB:
    """Lines and colours led in from the edge (Telea 2004, through OpenCV)."""
    import cv2

    mask = np.asarray(mask, dtype=bool)
    _check(image, mask)
    filled = image.copy()
    for part in _parts(mask, 0.2):
        window = image[part.rows, part.columns]
        if not part.outside.any():
            filled[part.rows, part.columns][part.inside] = GREY
            continue
        # other parts of the mask in the window are holes too: they must not lend their content
        share = part.outside.astype(np.float32)
        visible = _seen(window, part)
        height, width = share.shape
        scale = min(WORKING_SIZE / max(height, width), 1.0)
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        share = _resized(share, size)
        weight = cv2.merge([np.maximum(share, 1e-6)] * 3).reshape(*share.shape, 3)
        source = np.rint(_resized(visible, size) / weight).clip(0, 255)
        # the margin is for OpenCV, which reads beyond pictures of a single row or column
        margins = (2, 2, 2, 2, cv2.BORDER_REPLICATE)
        hole = cv2.copyMakeBorder((share < 0.5).astype(np.uint8), *margins)
        padded = cv2.copyMakeBorder(source.astype(np.uint8), *margins)
        done = cv2.inpaint(padded, hole, max(0.03 * max(size), 3.0), cv2.INPAINT_TELEA)[2:-2, 2:-2]
        done = _resized(done, (width, height))
        filled[part.rows, part.columns][part.inside] = done[part.inside]
    return filled


def patch(image: RGB, mask: Mask, rng: np.random.Generator) -> RGB:
    """A piece from elsewhere in the same picture: the shift whose surroundings match the part's edge best.

    The piece holds no masked pixel; it fades into the blurred surroundings towards the part's edge. Where no
    shift stays inside the picture, the fill is that of `blur`. `rng` picks the shifts tried where there are
    many.
    """
    import cv2

    mask = np.asarray(mask, dtype=bool)
    _check(image, mask)
    filled = image.copy()
    for part in _parts(mask, 0.5):
        smooth = _continued(image[part.rows, part.columns], part)
        ys, xs = np.nonzero(part.inside)
        ys, xs = ys + part.rows.start, xs + part.columns.start
        box = (int(ys.min()), int(ys.max()), int(xs.min()), int(xs.max()))
        shift = _best_shift(image, mask, part, box, rng)
        if shift is not None:
            donor = image[ys + shift[0], xs + shift[1]].astype(np.float32)
            padded = cv2.copyMakeBorder(part.inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
            depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1][part.inside]
            feather = max(0.06 * math.sqrt(len(ys)), 1.0)
            alpha = np.clip(depth / (feather + 1), 0, 1)[:, None]
            smooth[part.inside] += alpha * (donor - smooth[part.inside])
        done = np.rint(smooth[part.inside]).clip(0, 255).astype(np.uint8)
        filled[part.rows, part.columns][part.inside] = done
    return filled


def _best_shift(
    image: RGB, mask: Mask, part: _Part, box: tuple[int, int, int, int], rng: np.random.Generator
) -> tuple[int, int] | None:
    """(dy, dx) that keeps the part in the picture and off the mask, with the least difference at its edge."""
    import cv2

    height, width = mask.shape
    top, bottom, left, right = box
    grid = np.meshgrid(np.arange(-top, height - bottom), np.arange(-left, width - right), indexing="ij")
    dy, dx = grid[0].ravel(), grid[1].ravel()
    # masked pixels in the shifted bounding box, by an integral image: a quick bound before the exact test
    table = cv2.integral(mask.astype(np.uint8))
    y0, y1, x0, x1 = top + dy, bottom + dy + 1, left + dx, right + dx + 1
    clear = table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0] == 0
    dy, dx = dy[clear], dx[clear]
    if not len(dy):
        return None
    if len(dy) > MOST_SHIFTS:
        chosen = np.sort(rng.choice(len(dy), MOST_SHIFTS, replace=False))
        dy, dx = dy[chosen], dx[chosen]
    ring = cv2.dilate(part.inside.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & part.outside
    ry, rx = np.nonzero(ring)
    if not len(ry):
        return int(dy[0]), int(dx[0])
    step = max(len(ry) // 200, 1)
    ry, rx = ry[::step] + part.rows.start, rx[::step] + part.columns.start
    # a frame of masked pixels, as wide as the ring may reach beyond the picture, stands for what lies outside
    reach = 2
    usable = cv2.copyMakeBorder((~mask).astype(np.uint8), *4 * (reach,), cv2.BORDER_CONSTANT, value=0)
    framed = cv2.copyMakeBorder(image, *4 * (reach,), cv2.BORDER_CONSTANT, value=0).astype(np.int32)
    wide = width + 2 * reach
    there = ((dy + reach) * wide + dx + reach)[:, None] + (ry * wide + rx)
    known = usable.ravel().take(there).astype(np.int32)
    count = known.sum(axis=1)
    cost = np.zeros(len(dy))
    for channel in range(3):
        difference = framed[..., channel].ravel().take(there) - image[ry, rx, channel]
        cost += np.einsum("sp,sp,sp->s", known, difference, difference)
    cost /= np.maximum(count, 1)
    cost[count == 0] = np.inf
    best = int(cost.argmin())
    return int(dy[best]), int(dx[best])
