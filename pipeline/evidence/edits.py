"""Counterfactual edits of a picture: pure functions of the picture, a donor picture and a specification.

A specification is plain data, so that an edit can be stored, found again in the cache and redone for the report:

- {"op": "fill", "fill": name, "boxes": [...], "keep": [...], "seed": n}: fill the boxes, but not the `keep` boxes;
- {"op": "paste", "donor": id, "from": box, "to": box, "keep": [...], "avoid": [...]}: copy the donor's box, less its
  `avoid` boxes, over a box of the picture, less the picture's `keep` boxes;
- {"op": "background", "donor": id, "keep": [...], "avoid": [...]}: the donor's picture, its `avoid` boxes painted
  over, with the picture's `keep` boxes laid on it;
- {"op": "property", "name": n, "amount": a, "placebo": bool, "seed": n}: change a measured property.

Boxes are normalised xyxy.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import as_boxes, to_pixels
from pipeline.images import RGB
from pipeline.models import registry
from pipeline.properties import apply_property

FEATHER = 0.02
"""Width of a soft edge, as a share of the picture's longer side: a hard edge would be a cue of its own."""


def apply_edit(spec: dict[str, Any], image: RGB, donor: RGB | None = None) -> RGB:
    """The edited picture, of the same shape."""
    if spec["op"] == "fill":
        mask = box_mask(image.shape, spec["boxes"]) & ~box_mask(image.shape, spec["keep"])
        fill = registry.factory("fill", spec["fill"])
        return fill(image, mask, np.random.default_rng(spec["seed"]))
    if spec["op"] == "property":
        rng = np.random.default_rng(spec["seed"])
        return apply_property(image, spec["name"], spec["amount"], rng, placebo=spec["placebo"])
    assert donor is not None
    if spec["op"] == "paste":
        return paste(image, donor, spec["from"], spec["to"], spec["keep"], spec["avoid"])
    return exchange_background(image, donor, spec["keep"], spec["avoid"])


def box_mask(shape: tuple[int, ...], boxes: list) -> NDArray[np.bool_]:
    """The pixels (height, width) that lie in any of the boxes."""
    mask = np.zeros(shape[:2], dtype=bool)
    for x0, y0, x1, y1 in to_pixels(as_boxes(boxes), shape[1], shape[0]):
        mask[y0:y1, x0:x1] = True
    return mask


def paste(image: RGB, donor: RGB, source: list, target: list, keep: list, avoid: list) -> RGB:
    """The picture with the donor's `source` box, scaled, over its `target` box, softly edged."""
    sx0, sy0, sx1, sy1 = to_pixels(as_boxes([source]), donor.shape[1], donor.shape[0])[0]
    tx0, ty0, tx1, ty1 = to_pixels(as_boxes([target]), image.shape[1], image.shape[0])[0]
    size = (int(tx1 - tx0), int(ty1 - ty0))
    patch = cv2.resize(np.ascontiguousarray(donor[sy0:sy1, sx0:sx1]), size, interpolation=cv2.INTER_AREA)
    wanted = ~box_mask(donor.shape, avoid)[sy0:sy1, sx0:sx1]
    alpha = np.zeros(image.shape[:2], dtype=np.float32)
    alpha[ty0:ty1, tx0:tx1] = cv2.resize(wanted.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    alpha[box_mask(image.shape, keep)] = 0
    layer = image.astype(np.float32)
    layer[ty0:ty1, tx0:tx1] = patch
    return blend(image, layer, soften(alpha))


def exchange_background(image: RGB, donor: RGB, keep: list, avoid: list) -> RGB:
    """The donor's picture with its own objects painted over and the picture's `keep` boxes laid on it."""
    ground = cv2.resize(np.ascontiguousarray(donor), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_AREA)
    holes = box_mask(ground.shape, avoid) & ~box_mask(image.shape, keep)
    ground = registry.factory("fill", "inpaint")(ground, holes, np.random.default_rng(0))
    alpha = 1 - soften(box_mask(image.shape, keep).astype(np.float32))
    return blend(image, ground.astype(np.float32), alpha)


def soften(alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """A mask in [0, 1] with a soft edge that stays inside it."""
    width = max(round(FEATHER * max(alpha.shape)), 1)
    inner = cv2.erode(alpha, np.ones((3, 3), np.uint8), iterations=width // 2, borderType=cv2.BORDER_REPLICATE)
    return np.minimum(cv2.blur(inner, (width | 1, width | 1), borderType=cv2.BORDER_REPLICATE), alpha)


def blend(image: RGB, layer: NDArray[np.float32], alpha: NDArray[np.float32]) -> RGB:
    """`layer` over the picture with opacity `alpha`; pixels with none are unchanged."""
    mixed = image + alpha[..., None] * (layer - image.astype(np.float32))
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
