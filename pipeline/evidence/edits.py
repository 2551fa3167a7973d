"""Counterfactual edits of a picture: pure functions of the picture, a donor picture and a specification.

A specification is plain data, so that an edit can be stored, found again in the cache and redone for the report:

- {"op": "fill", "fill": name, "boxes": [...], "keep": [...], "seed": n}: fill the boxes, but not what is kept;
  with "candidates": [[box, ...], ...] as a placebo: fill as many pixels elsewhere, in one of the candidates (one place
  a box each);
- {"op": "paste", "donor": id, "from": box, "to": box, "keep": [...], "avoid": [...]}: copy what is in the donor's box,
  less what it avoids, over a box of the picture, less what is kept; with "candidates": [box, ...] as a placebo: the
  same silhouette cut out of one of these boxes of the donor;
- {"op": "background", "donor": id, "keep": [...], "avoid": [...]}: the donor's picture, its `avoid` boxes painted
  over, with what is kept of the picture laid on it;
- {"op": "mask", "boxes": [...]}: paint the boxes black;
- {"op": "erase", "fill": name, "boxes": [...], "seed": n}: fill what is in the boxes, so that it is gone;
- {"op": "property", "name": n, "amount": a, "placebo": bool, "seed": n}: change a measured property, with
  "colors": (3, 4) along this map of colours; with "keep": [...]: but not what is kept;
- {"op": "geometry", "name": n, "strength": s}: an operator on the whole picture (pipeline/evidence/geometry_edits.py);
  with "like": {"name": n, "strength": s} as a placebo: as strong as changes as many pixels as that one does; with
  "keep": [...]: but not what is kept.

Of the candidates the one is taken whose local contrast is nearest to that of what the edit replaces or pastes. With
"mask": "grabcut" things are their pixels (pipeline/evidence/masks.py), without it their boxes. Boxes are normalised
xyxy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.evidence.geometry_edits import apply_geometry, as_strong_as
from pipeline.evidence.masks import Mask, box_mask, foreground, grown
from pipeline.geometry import to_pixels
from pipeline.images import RGB
from pipeline.models import registry
from pipeline.models.protocols import Fill
from pipeline.properties import LUMA, apply_property

FEATHER = 0.02
"""Width of a soft edge, as a share of the picture's longer side: a hard edge would be a cue of its own."""
LEAST_LEFT = 0.1
"""Where less than this share of a pasted box is the cue's own pixels, all of the box is pasted."""
FAINT = 2.0
"""Grey levels (0..255) added to contrasts before they are compared: less is the camera's noise."""


Finder = Callable[[RGB, list], Mask]
"""Tells the pixels (height, width) of the things in these boxes of a picture, and a little more."""


def things(image: RGB, boxes: list) -> Mask:
    """A Finder: GrabCut's pixels of the things, grown."""
    return grown(foreground(image, boxes))


def apply_edit(spec: dict[str, Any], image: RGB, donor: RGB | None = None, find: Finder = things) -> RGB:
    """The edited picture, of the same shape; `find` may remember what was asked before."""
    if spec["op"] == "geometry":
        strength = spec["strength"]
        if "like" in spec:
            strength = as_strong_as(image, spec["name"], strength, spec["like"]["name"], spec["like"]["strength"])
        return round_what_is_kept(spec, image, apply_geometry(image, spec["name"], strength), find)
    if spec["op"] == "property":
        rng = np.random.default_rng(spec["seed"])
        edited = apply_property(image, spec["name"], spec["amount"], rng, spec["placebo"], spec.get("colors"))
        return round_what_is_kept(spec, image, edited, find)
    if spec["op"] == "mask":
        return np.where(box_mask(image.shape, spec["boxes"])[..., None], np.uint8(0), image)
    if spec["op"] == "erase":
        rng = np.random.default_rng(spec["seed"])
        return fill_named(spec["fill"])(image, meant(spec, image, spec["boxes"], find), rng)
    keep = meant(spec, image, spec["keep"], find)
    if spec["op"] == "fill":
        return fill_named(spec["fill"])(image, filled(image, spec, keep), np.random.default_rng(spec["seed"]))
    assert donor is not None
    avoid = meant(spec, donor, spec["avoid"], find)
    if spec["op"] == "paste":
        cue = meant(spec, donor, [spec["from"]], find)
        return paste(image, donor, cue & ~avoid, spec["from"], spec["to"], keep, spec.get("candidates", []))
    return exchange_background(image, donor, keep, box_mask(donor.shape, spec["avoid"]))


def round_what_is_kept(spec: dict[str, Any], image: RGB, edited: RGB, find: Finder) -> RGB:
    """The edited picture with what is kept of the other laid on it, where the specification keeps something."""
    if "keep" not in spec:
        return edited
    kept = meant(spec, image, spec["keep"], find)
    return blend(image, edited.astype(np.float32), 1 - soften(kept.astype(np.float32)))


@functools.cache
def fill_named(name: str) -> Fill:
    """A fill; the registry reads the installed packages at each question, which takes longer than a fill."""
    return registry.factory("fill", name)


def meant(spec: dict[str, Any], image: RGB, boxes: list, find: Finder) -> Mask:
    """The pixels (height, width) that a specification means by these boxes: the things in them, or all pixels."""
    return find(image, boxes) if spec.get("mask") == "grabcut" and boxes else box_mask(image.shape, boxes)


def filled(image: RGB, spec: dict[str, Any], keep: Mask) -> Mask:
    """The pixels (height, width) that a fill changes: those of its boxes, or as many in the best candidate places."""
    silhouettes = []
    cue = np.zeros(keep.shape, dtype=bool)
    for x0, y0, x1, y1 in to_pixels(spec["boxes"], keep.shape[1], keep.shape[0]):
        silhouettes.append(~(keep | cue)[y0:y1, x0:x1])
        cue[y0:y1, x0:x1] = True
    mask = cue & ~keep
    if "candidates" not in spec:
        return mask
    wanted = contrast(image, mask)
    placed = []
    for places in spec["candidates"]:
        other = np.zeros(keep.shape, dtype=bool)
        for silhouette, place in zip(silhouettes, places, strict=True):
            put(other, silhouette, place)
        placed.append(other & ~(cue | keep))
    most = max(other.sum() for other in placed)  # in whole pixels some come a little nearer to what they must not touch
    whole = [other for other in placed if other.sum() >= 0.98 * most]
    return min(whole, key=lambda other: unlike(contrast(image, other), wanted))


def put(mask: Mask, silhouette: Mask, place: list[float]) -> None:
    """Set as many pixels of `mask` in a box as `silhouette` (h, w) has: in its form if the box is like its own."""
    height, width = mask.shape
    (x0, y0, x1, y1), (tall, wide) = to_pixels([place], width, height)[0], silhouette.shape
    if abs(x1 - x0 - wide) <= 1 and abs(y1 - y0 - tall) <= 1:
        x0, y0 = min(round(place[0] * width), width - wide), min(round(place[1] * height), height - tall)
        mask[y0 : y0 + tall, x0 : x0 + wide] |= silhouette
    else:
        part = np.arange((y1 - y0) * (x1 - x0)).reshape(y1 - y0, x1 - x0) < silhouette.sum()
        mask[y0:y1, x0:x1] |= part


def contrast(image: RGB, mask: Mask) -> tuple[float, float]:
    """Local contrast of a part (height, width) of a picture in grey levels: spread of its luma, mean slope of it.

    Slopes are those between pixels that both lie in the part.
    """
    if not mask.any():
        return 0.0, 0.0
    x, y, wide, tall = cv2.boundingRect(mask.view(np.uint8))
    inner = mask[y : y + tall, x : x + wide].view(np.uint8)
    luma = image[y : y + tall, x : x + wide] @ LUMA
    total, pairs = 0.0, 0
    for one, other in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        both = inner[one] & inner[other]
        if number := int(np.count_nonzero(both)):
            total += cv2.mean(cv2.absdiff(luma[one], luma[other]), both)[0] * number
            pairs += number
    return float(cv2.meanStdDev(luma, mask=inner)[1][0, 0]), total / pairs if pairs else 0.0


def unlike(found: tuple[float, float], wanted: tuple[float, float]) -> float:
    """How far one contrast is from another: the sum of the logarithms of their ratios."""
    return float(sum(abs(np.log((a + FAINT) / (b + FAINT))) for a, b in zip(found, wanted, strict=True)))


def paste(image: RGB, donor: RGB, cue: Mask, source: list, target: list, keep: Mask, candidates: list) -> RGB:
    """The picture with a part of the donor, scaled, over its `target` box, softly edged; `keep` is left as it is.

    Args:
        cue: the pixels of the donor that are meant, in its box `source`.
        candidates: boxes of the donor, one of which is cut out in the form of `cue` instead of it.
    """
    x0, y0, x1, y1 = to_pixels([target], image.shape[1], image.shape[0])[0]
    left, top, right, bottom = to_pixels([source], donor.shape[1], donor.shape[0])[0]
    form = cue[top:bottom, left:right]
    if form.mean() < LEAST_LEFT:
        form = np.ones_like(form)
    patch = donor[top:bottom, left:right]
    if candidates:
        wanted = contrast(patch, form)
        scaled = [resized(cut_out(donor, box), form.shape) for box in candidates]
        patch = min(scaled, key=lambda other: unlike(contrast(other, form), wanted))
    size = (y1 - y0, x1 - x0)
    alpha = np.zeros(image.shape[:2], dtype=np.float32)
    alpha[y0:y1, x0:x1] = resized(form.astype(np.float32), size)
    alpha[keep] = 0
    layer = image.astype(np.float32)
    layer[y0:y1, x0:x1] = resized(patch, size)
    return blend(image, layer, soften(alpha))


def cut_out(image: RGB, box: list) -> RGB:
    """The pixels of a box."""
    x0, y0, x1, y1 = to_pixels([box], image.shape[1], image.shape[0])[0]
    return image[y0:y1, x0:x1]


def resized(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The array at another (height, width)."""
    if array.shape[:2] == shape:
        return array
    return np.asarray(cv2.resize(np.ascontiguousarray(array), shape[::-1], interpolation=cv2.INTER_AREA))


def exchange_background(image: RGB, donor: RGB, keep: Mask, avoid: Mask) -> RGB:
    """The donor's picture, its `avoid` painted over, with the picture's `keep` laid on it."""
    ground = resized(donor, image.shape[:2])
    holes = (resized(avoid.astype(np.uint8), image.shape[:2]) > 0) & ~keep
    ground = fill_named("inpaint")(ground, holes, np.random.default_rng(0))
    alpha = 1 - soften(keep.astype(np.float32))
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
