"""Text over a finished picture: watermarks, caption bars and date stamps."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .scene import Overlay

_FONT = cv2.FONT_HERSHEY_SIMPLEX


@lru_cache(maxsize=512)
def _lettering(text: str, weight: int) -> NDArray[np.uint8]:
    """The text's coverage as uint8 (h, w), capital letters about 80 px high, cut close."""
    mask = np.zeros((160, 90 * len(text) + 80), np.uint8)
    cv2.putText(mask, text, (20, 110), _FONT, 3.4, 255, weight, cv2.LINE_AA)
    x, y, w, h = cv2.boundingRect(mask)
    return mask[y : y + h, x : x + w]


def _written(
    text: str, weight: int, size: int, x: float, y: float, width: float, height: float, angle: float = 0.0
) -> NDArray[np.float32]:
    """Coverage (size, size) in [0, 1] of the text centred at (x, y) within width x height, all in pixels."""
    letters = _lettering(text, weight)
    h, w = letters.shape
    scale = min(width / w, height / h)
    # Shrinking by area first keeps thin strokes even; the turn and the fraction of a pixel come after.
    shrunk = (max(1, round(w * scale)), max(1, round(h * scale)))
    small = cv2.resize(letters, shrunk, interpolation=cv2.INTER_AREA)
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    linear = np.array([[c, -s], [s, c]])
    offset = np.array((x, y)) - 0.5 - linear @ ((small.shape[1] - 1) / 2, (small.shape[0] - 1) / 2)
    placed = cv2.warpAffine(small, np.column_stack([linear, offset]), (size, size), flags=cv2.INTER_LINEAR)
    return np.asarray(placed, np.float32) * np.float32(1 / 255)


def _blend(image: NDArray[np.uint8], cover: NDArray[np.float32], color: tuple[float, float, float]) -> None:
    share = cover[..., None]
    image[:] = (image * (1 - share) + np.array(color, np.float32) * share + 0.5).astype(np.uint8)


def lay_over(image: NDArray[np.uint8], overlay: Overlay) -> tuple[float, float, float, float]:
    """Write an overlay into the picture, in place; its normalised xyxy box."""
    size = image.shape[0]
    rng = np.random.default_rng([overlay.seed, 6])
    x, y, extent = overlay.x * size, overlay.y * size, overlay.size * size
    shadow = (max(1, size // 96),) * 2
    if overlay.kind == "caption bar":
        top, bottom = max(0, round(y - extent / 2)), min(size, round(y + extent / 2))
        colors = ((20, 22, 30), (150, 24, 30), (24, 50, 110))
        bar = np.zeros((size, size), np.float32)
        bar[top:bottom] = 0.88
        _blend(image, bar, colors[int(rng.integers(3))])
        _blend(image, _written(overlay.text, 10, size, x, y, 0.9 * size, 0.56 * extent), (250, 250, 250))
        return (0.0, top / size, 1.0, bottom / size)
    if overlay.kind == "date stamp":
        cover = _written(overlay.text, 11, size, x, y, extent, size)
        _blend(image, 0.6 * np.roll(cover, shadow, (0, 1)), (60, 20, 0))
        _blend(image, 0.95 * cover, (255, 150, 40))
    else:
        slant = rng.uniform(-34, -14) if overlay.size > 0.6 else 0.0
        cover = _written(overlay.text, 14, size, x, y, extent, size, slant)
        strength = rng.uniform(0.5, 0.75)
        _blend(image, 0.5 * strength * np.roll(cover, shadow, (0, 1)), (10, 10, 14))
        _blend(image, strength * cover, (255, 255, 255))
    left, top, w, h = cv2.boundingRect((cover > 0.15).astype(np.uint8))
    return (left / size, top / size, (left + w) / size, (top + h) / size)
