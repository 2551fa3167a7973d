"""A pen for vector shapes: unit coordinates in, anti-aliased premultiplied RGBA pixels out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[float, float, float]  # R, G, B in [0, 255]
Points = Sequence[tuple[float, float]] | NDArray[np.float64]

COLORS: dict[str, Color] = {
    "red": (206, 44, 44),
    "orange": (238, 132, 34),
    "yellow": (244, 204, 56),
    "green": (64, 156, 74),
    "blue": (50, 104, 204),
    "purple": (128, 70, 178),
    "pink": (240, 134, 176),
    "brown": (134, 86, 50),
    "gray": (142, 146, 152),
    "white": (240, 240, 238),
    "black": (46, 46, 52),
}
INK: Color = (38, 36, 44)
PAPER: Color = (246, 243, 234)
STEEL: Color = (168, 174, 182)
WOOD: Color = (150, 100, 58)
GLASS: Color = (164, 208, 232)
GOLD: Color = (236, 190, 66)
LEAF: Color = (74, 148, 66)
SHIFT = 4  # fractional bits of the coordinates handed to OpenCV

_TURN = np.linspace(0, 2 * np.pi, 36, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)
_T = np.linspace(0, 1, 6, endpoint=False)[:, None]
# Catmull-Rom: the weights of the points before, at, after and two after, at six steps of a span.
_SPLINE = 0.5 * np.concatenate(
    [-(_T**3) + 2 * _T**2 - _T, 3 * _T**3 - 5 * _T**2 + 2, -3 * _T**3 + 4 * _T**2 + _T, _T**3 - _T**2], axis=1
)


def shade(color: Color, amount: float) -> Color:
    """Towards white for a positive amount, towards black for a negative one; amount in [-1, 1]."""
    r, g, b = color
    if amount >= 0:
        return (r + (255 - r) * amount, g + (255 - g) * amount, b + (255 - b) * amount)
    return (r * (1 + amount), g * (1 + amount), b * (1 + amount))


def contrast(color: Color, light: Color = PAPER, dark: Color = INK) -> Color:
    """The one of two colours that stands out on `color`."""
    return light if 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] < 150 else dark


@lru_cache(maxsize=256)
def _arc(start: float, end: float) -> NDArray[np.float64]:
    turn = np.deg2rad(np.linspace(start, end, max(4, int(abs(end - start) / 10) + 1)))
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


class Pen:
    """Draws on one canvas. Unit coordinates run over [-1, 1], y down; degrees run clockwise from the right.

    Args:
        canvas: uint8 (h, w, 4). Blending a colour with alpha 255 into all channels leaves premultiplied RGBA.
        matrix: float (2, 3), unit coordinates to continuous pixel coordinates of the canvas.
    """

    def __init__(self, canvas: NDArray[np.uint8], matrix: NDArray[np.float64]) -> None:
        self.canvas = canvas
        self.unit = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        self._linear = np.ascontiguousarray(matrix[:, :2].T) * 2**SHIFT
        self._offset = (matrix[:, 2] - 0.5) * 2**SHIFT  # OpenCV puts whole numbers at pixel centres

    def _pixels(self, points: Points) -> NDArray[np.int32]:
        return np.rint(np.asarray(points, dtype=np.float64) @ self._linear + self._offset).astype(np.int32)

    def poly(self, points: Points, color: Color) -> None:
        """A filled polygon."""
        cv2.fillPoly(self.canvas, [self._pixels(points)], (*color, 255), cv2.LINE_AA, SHIFT)

    def line(self, points: Points, color: Color, width: float, closed: bool = False) -> None:
        """A stroke with round ends, `width` in units, never thinner than a canvas pixel."""
        thickness = max(1, round(width * self.unit))
        cv2.polylines(self.canvas, [self._pixels(points)], closed, (*color, 255), thickness, cv2.LINE_AA, SHIFT)

    def rect(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        """A filled rectangle."""
        self.poly(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), color)

    def pill(self, x0: float, y0: float, x1: float, y1: float, color: Color, r: float) -> None:
        """A filled rectangle with corners rounded to radius `r`."""
        corners = ((x1 - r, y1 - r), (x0 + r, y1 - r), (x0 + r, y0 + r), (x1 - r, y0 + r))
        turned = [_arc(90 * k, 90 * k + 90) * r + corner for k, corner in enumerate(corners)]
        self.poly(np.concatenate(turned), color)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color, angle: float = 0.0) -> None:
        """A filled ellipse, turned by `angle` degrees."""
        points = _CIRCLE * (rx, ry)
        if angle:
            c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
            points = points @ np.array([[c, s], [-s, c]])
        self.poly(points + np.array((x, y)), color)

    def circle(self, x: float, y: float, r: float, color: Color) -> None:
        """A filled circle."""
        self.poly(_CIRCLE * r + (x, y), color)

    def ring(self, x: float, y: float, rx: float, ry: float, color: Color, width: float) -> None:
        """The outline of an ellipse."""
        self.line(_CIRCLE * (rx, ry) + (x, y), color, width, closed=True)

    def mirrored(self, points: Points, color: Color) -> None:
        """A filled closed curve, symmetrical about the vertical axis: its right side from top to bottom."""
        p = np.asarray(points, dtype=np.float64)
        self.blob(np.concatenate([p, p[p[:, 0] > 0][::-1] * (-1, 1)]), color)

    def arc(
        self, x: float, y: float, rx: float, ry: float, start: float, end: float, color: Color, width: float
    ) -> None:
        """A stroke along an ellipse from `start` to `end` degrees."""
        self.line(_arc(start, end) * (rx, ry) + (x, y), color, width)

    def segment(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        start: float,
        end: float,
        color: Color,
        pie: bool = False,
    ) -> None:
        """The part of a filled ellipse cut off by a chord, or a slice of a pie."""
        points = _arc(start, end) * (rx, ry) + (x, y)
        self.poly(np.concatenate([points, [[x, y]]]) if pie else points, color)

    def blob(self, points: Points, color: Color) -> None:
        """A filled closed Catmull-Rom curve through the points."""
        p = np.asarray(points, dtype=np.float64)
        spans = np.stack([np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)]).reshape(4, -1)
        self.poly((_SPLINE @ spans).reshape(len(_T), len(p), 2).transpose(1, 0, 2).reshape(-1, 2), color)
