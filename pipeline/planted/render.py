"""Scenes into pictures: a pure function of the scene and the size, the same on every run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .backgrounds import BACKGROUNDS, MARGIN
from .objects import OBJECTS
from .overlays import lay_over
from .pen import COLORS, Pen
from .scene import Placed, Scene

Image = NDArray[np.float32]  # (size, size, 3) RGB, 0 to 255
OVERSAMPLE = 2
OUTLINE = 170  # opacity of the dark line round every object, of 255

_LUMA = np.array((0.3, 0.59, 0.11), np.float32)
_CASTS = {
    "red": (1.25, 0.62, 0.6),
    "green": (0.62, 1.15, 0.62),
    "blue": (0.58, 0.74, 1.3),
    "yellow": (1.15, 1.05, 0.48),
    "purple": (1.05, 0.58, 1.2),
}
# Gain and lift of the colours.
_LIGHTS = {"normal": (1.0, 0.0), "dark": (0.46, 0.0), "bright": (0.95, 58.0), "spotlight": (1.12, 0.0)}


@dataclass(frozen=True, eq=False)
class Picture:
    """A rendered scene.

    Attributes:
        image: uint8 (size, size, 3), RGB.
        boxes: float64 (n, 4), normalised xyxy of each placed object's visible part; zeros where none is seen.
        visible: float64 (n,), share of each object's own pixels that is neither hidden nor cut off.
        ids: uint8 (size, size), 0 for the background, k + 1 for the k-th object.
        overlay_boxes: float64 (m, 4), normalised xyxy of each overlay.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    visible: NDArray[np.float64]
    ids: NDArray[np.uint8]
    overlay_boxes: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Sprite:
    """A drawn object: premultiplied RGBA uint8 (side, side, 4), and its top left pixel's place."""

    rgba: NDArray[np.uint8]
    left: int
    top: int


def render(scene: Scene, size: int = 96) -> Picture:
    """Draw a scene, `size` pixels wide and high."""
    image = _background(scene, size)
    ids = np.zeros((size, size), np.uint8)
    own = np.zeros(len(scene.objects))
    for k, placed in enumerate(scene.objects):
        sprite = _sprite(scene, placed, size)
        own[k] = _composite(image, ids, k + 1, sprite, OBJECTS[placed.name].grounded)
    image = _light(scene, image)
    finished = _photograph(scene, image)
    overlay_boxes = np.zeros((len(scene.overlays), 4))
    for k, overlay in enumerate(scene.overlays):
        overlay_boxes[k] = lay_over(finished, overlay)
    boxes, visible = _seen(ids, own)
    return Picture(finished, boxes, visible, ids, overlay_boxes)


@lru_cache(maxsize=1024)
def visible_shares(scene: Scene, size: int = 96) -> tuple[float, ...]:
    """`Picture.visible` without painting; objects wholly in view and apart from all others have 1."""
    if not _may_hide(scene):
        return (1.0,) * len(scene.objects)
    ids = np.zeros((size, size), np.uint8)
    own = np.zeros(len(scene.objects))
    for k, placed in enumerate(scene.objects):
        sprite = _sprite(scene, placed, size)
        rows, columns, cut = _overlap(sprite, size)
        solid = sprite.rgba[..., 3] > 127
        ids[rows, columns][solid[cut]] = k + 1
        own[k] = np.count_nonzero(solid)
    return tuple(float(v) for v in _seen(ids, own)[1])


def _may_hide(scene: Scene) -> bool:
    """False only if no object can touch another or the picture's edge: circles round their squares don't."""
    circles: list[tuple[float, float, float]] = []
    for placed in scene.objects:
        x, y = _camera(scene, 1.0) @ (placed.x, placed.y, 1.0)
        r = 0.72 * placed.size * scene.zoom + 0.02
        if min(x, y) - r < 0 or max(x, y) + r > 1:
            return True
        if any((x - u) ** 2 + (y - v) ** 2 < (r + s) ** 2 for u, v, s in circles):
            return True
        circles.append((x, y, r))
    return False


def _camera(scene: Scene, size: float) -> NDArray[np.float64]:
    """(2, 3): scene shares to picture pixels."""
    turn = np.deg2rad(scene.roll)
    linear = size * scene.zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.column_stack([linear, size / 2 - linear @ (0.5, 0.5)])


def _background(scene: Scene, size: int) -> Image:
    rng = np.random.default_rng([scene.background_seed, 1])
    tone = (rng.uniform(0.86, 1.08) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)
    n = round(size * (1 + 2 * MARGIN))
    edge = (n - size) // 2
    canvas = BACKGROUNDS[scene.background](rng, n, (scene.horizon * size + edge) / n)
    if scene.roll == 0 and scene.zoom == 1:
        view = canvas[edge : edge + size, edge : edge + size]
    else:
        matrix = _camera(scene, size)
        matrix[:, :2] /= size
        matrix[:, 2] -= matrix[:, :2] @ (edge - 0.5, edge - 0.5) + 0.5
        warped = cv2.warpAffine(canvas, matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101)
        view = np.asarray(warped, np.uint8)
    return np.multiply(view, tone, dtype=np.float32)


def _sprite(scene: Scene, placed: Placed, size: int) -> _Sprite:
    """Draw one object larger than life on its own transparent canvas, outline it, and shrink it."""
    camera = _camera(scene, size)
    x, y = camera @ (placed.x, placed.y, 1.0)
    half = placed.size * scene.zoom * size / 2
    turn = np.deg2rad(placed.angle + scene.roll)
    c, s = np.cos(turn), np.sin(turn)
    reach = half * (abs(c) + abs(s)) * 1.04 + 2
    left, top = int(np.floor(x - reach)), int(np.floor(y - reach))
    side = int(np.ceil(2 * reach)) + 1
    scale = OVERSAMPLE * half * 0.97
    linear = scale * np.array([[c, -s], [s, c]])
    if placed.flip:
        linear[:, 0] *= -1
    matrix = np.column_stack([linear, (OVERSAMPLE * (x - left), OVERSAMPLE * (y - top))])
    canvas = np.zeros((side * OVERSAMPLE, side * OVERSAMPLE, 4), np.uint8)
    rng = np.random.default_rng([placed.seed, 2])
    tone = rng.uniform(0.88, 1.1) * rng.uniform(0.93, 1.07, 3)
    r, g, b = (min(255.0, float(v * t)) for v, t in zip(COLORS[placed.color], tone, strict=True))
    OBJECTS[placed.name].draw(Pen(canvas, matrix), rng, (r, g, b))
    # Premultiplied, so that growing the opacity alone draws a black line round the silhouette.
    alpha = canvas[..., 3]
    width = 2 * max(1, round(scale / 45)) + 1
    grown = cv2.dilate(alpha, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
    canvas[..., 3] = cv2.max(alpha, cv2.convertScaleAbs(grown, alpha=OUTLINE / 255))
    small = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    return _Sprite(np.asarray(small, np.uint8), left, top)


def _overlap(sprite: _Sprite, size: int) -> tuple[slice, slice, tuple[slice, slice]]:
    """Rows and columns of the picture that the sprite covers, and the same part of the sprite."""
    side = sprite.rgba.shape[0]
    top, bottom = min(size, max(0, sprite.top)), min(size, max(0, sprite.top + side))
    left, right = min(size, max(0, sprite.left)), min(size, max(0, sprite.left + side))
    cut = (slice(top - sprite.top, bottom - sprite.top), slice(left - sprite.left, right - sprite.left))
    return slice(top, bottom), slice(left, right), cut


@lru_cache(maxsize=1)
def _soft_disc() -> NDArray[np.float32]:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    return np.clip(1 - x**2 - y**2, 0, 1).astype(np.float32)


def _composite(image: Image, ids: NDArray[np.uint8], label: int, sprite: _Sprite, grounded: bool) -> int:
    """Put a sprite with its shading and shadow into the picture; how many pixels it has, seen or not."""
    size = image.shape[0]
    rows, columns, cut = _overlap(sprite, size)
    alpha8 = sprite.rgba[..., 3]
    solid = np.asarray(cv2.threshold(alpha8, 127, 1, cv2.THRESH_BINARY)[1], np.uint8)
    own = cv2.countNonZero(solid)
    if rows.start == rows.stop or columns.start == columns.stop or own == 0:
        return own
    side = alpha8.shape[0]
    alpha = alpha8.astype(np.float32) * (1 / 255)
    reach = max(1, side // 9)
    box = (2 * reach + 1, 2 * reach + 1)
    soft = np.asarray(cv2.blur(alpha, box, borderType=cv2.BORDER_CONSTANT), np.float32)
    # Light from the upper left: where the silhouette thickens to the lower right, the surface faces it.
    step = max(1, reach // 2)
    relief = np.ones_like(soft)
    relief[step:-step, step:-step] += 0.42 * (soft[2 * step :, 2 * step :] - soft[: -2 * step, : -2 * step])
    target = image[rows, columns]
    if grounded:
        _contact_shadow(image, solid, sprite)
    else:
        shadow = np.zeros_like(soft)
        drop = max(1, side // 18)
        shadow[drop:, drop:] = 1 - 0.3 * soft[:-drop, :-drop]
        shadow[:drop], shadow[:, :drop] = 1, 1
        target *= shadow[cut][..., None]
    rgb = sprite.rgba[cut][..., :3] * relief[cut][..., None]
    target *= (1 - alpha[cut])[..., None]
    target += rgb
    ids[rows, columns][solid[cut] > 0] = label
    return own


def _contact_shadow(image: Image, solid: NDArray[np.uint8], sprite: _Sprite) -> None:
    """Darken the ground below an object: a soft flat ellipse as wide as its lower part."""
    size = image.shape[0]
    _, y, _, h = cv2.boundingRect(solid)
    x, _, w, _ = cv2.boundingRect(solid[y + h - max(1, h // 6) : y + h])  # of its foot
    centre = sprite.left + x + w / 2
    width = max(3, round(w * 1.25))
    height = max(2, round(0.16 * w + 0.05 * h))
    left, top = round(centre - width / 2), round(sprite.top + y + h - 0.55 * height)
    blob = cv2.resize(_soft_disc(), (width, height), interpolation=cv2.INTER_LINEAR)
    x0, y0, x1, y1 = max(0, left), max(0, top), min(size, left + width), min(size, top + height)
    if x0 < x1 and y0 < y1:
        image[y0:y1, x0:x1] *= (1 - 0.5 * blob[y0 - top : y1 - top, x0 - left : x1 - left])[..., None]


def _light(scene: Scene, image: Image) -> Image:
    """Lighting and colour cast, as one affine map of the colours, and the spotlight's cone."""
    if scene.lighting == "normal" and scene.cast is None:
        return image
    gain, lift = _LIGHTS[scene.lighting]
    matrix = np.eye(3, dtype=np.float32)
    if scene.cast is not None:  # halfway to a monochrome of the cast's colour
        tint = np.array(_CASTS[scene.cast], np.float32)
        matrix = 0.45 * np.diag(tint) + 0.55 * np.outer(tint, _LUMA)
    affine = np.column_stack([gain * matrix, matrix @ np.full(3, lift, np.float32)])
    image = np.asarray(cv2.transform(image, affine), np.float32)
    if scene.lighting == "spotlight":
        size = image.shape[0]
        rng = np.random.default_rng([scene.seed, 3])
        x, y = rng.uniform(0.35, 0.65, 2) * size
        r = rng.uniform(0.26, 0.36) * size
        across = np.arange(size, dtype=np.float32)
        distance = ((across - x) ** 2)[None, :] + ((across - y) ** 2)[:, None]
        image *= (0.22 + 0.9 / (1 + (distance / r**2) ** 3))[..., None]
    return image


def _photograph(scene: Scene, image: Image) -> NDArray[np.uint8]:
    """Blur and sensor noise; uint8."""
    size = image.shape[0]
    sigma = scene.blur * size / 96
    if sigma > 0.15:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
    if scene.noise > 0:
        grain = _grain(1 << (size * 2 - 1).bit_length())
        limit = grain.shape[0] - size
        x, y = np.random.default_rng([scene.seed, 4]).integers(0, limit + 1, 2)
        image = image + grain[y : y + size, x : x + size] * np.float32(255 * scene.noise)
    return np.clip(image, 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def _grain(side: int) -> NDArray[np.float32]:
    return np.random.default_rng([side, 5]).standard_normal((side, side, 3), dtype=np.float32)


def _seen(ids: NDArray[np.uint8], own: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes (n, 4) and visible shares (n,) from the id map and each object's own number of pixels."""
    size = ids.shape[0]
    boxes, visible = np.zeros((len(own), 4)), np.zeros(len(own))
    for k, total in enumerate(own):
        mask = (ids == k + 1).view(np.uint8)
        x, y, w, h = cv2.boundingRect(mask)
        boxes[k] = (x / size, y / size, (x + w) / size, (y + h) / size)
        visible[k] = cv2.countNonZero(mask) / total if total else 0.0
    return boxes, visible
