"""Operators on the whole picture: turned, nearer or farther, seen from aside, lit otherwise.

Each has a signed strength; 0 changes nothing and the opposite sign is the opposite way: for what moves pixels the
inverse, as far as the picture's edge allows. What comes in from outside the picture is its mirror image at the edge.

| name | strength |
| --- | --- |
| rotate | degrees clockwise about the middle |
| zoom | natural logarithm of the magnification about the middle |
| shift_x, shift_y | shares of the picture's width to the right, of its height down |
| tilt_x, tilt_y | how much nearer the right (upper) edge is than the left (lower): log of the ratio of their lengths |
| mirror, flip | left and right (up and down) exchanged, whatever the strength but 0 |
| spotlight | how much darker it is outside a disc in the middle; negative: as much brighter |
| vignette | how much darker it is in the corners, growing from the middle; negative: as much brighter |
| the names of properties.DIRECTIONS | see there: brightness, contrast, saturation, blur, noise, tints |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.images import RGB
from pipeline.properties import DIRECTIONS, apply_direction, first_root, rms, working_copy

GEOMETRIC, PHOTOMETRIC = "geometric", "photometric"
SAMPLE = 64
"""Pixels of the longer side of the copy on which equally large changes are found."""
SEED = 0


@dataclass(frozen=True)
class Operator:
    """One operator of the library, its kind, and the strengths that are tried: two each way where it has two ways."""

    name: str
    kind: str
    strengths: tuple[float, ...]


def _both(*strengths: float) -> tuple[float, ...]:
    return (*strengths, *(-strength for strength in strengths))


LIBRARY: dict[str, Operator] = {
    operator.name: operator
    for operator in (
        Operator("rotate", GEOMETRIC, _both(10.0, 20.0)),
        Operator("zoom", GEOMETRIC, _both(math.log(1.3), math.log(1.7))),
        Operator("shift_x", GEOMETRIC, _both(0.08, 0.25)),
        Operator("shift_y", GEOMETRIC, _both(0.08, 0.25)),
        Operator("tilt_x", GEOMETRIC, _both(0.4, 0.8)),
        Operator("tilt_y", GEOMETRIC, _both(0.4, 0.8)),
        Operator("mirror", GEOMETRIC, (1.0,)),
        Operator("flip", GEOMETRIC, (1.0,)),
        Operator("spotlight", PHOTOMETRIC, _both(0.5, 0.8)),
        Operator("vignette", PHOTOMETRIC, _both(0.4, 0.8)),
        Operator("brightness", PHOTOMETRIC, _both(0.15, 0.3)),
        Operator("contrast", PHOTOMETRIC, _both(0.15, 0.3)),
        Operator("saturation", PHOTOMETRIC, (0.15, 0.4, -0.5, -1.0)),
        Operator("blur", PHOTOMETRIC, (0.3, 0.5, -0.3, -0.6)),
        Operator("noise", PHOTOMETRIC, (0.15, 0.3, -0.5, -1.0)),
        *(Operator(name, PHOTOMETRIC, _both(0.15, 0.3)) for name in DIRECTIONS if name.endswith("tint")),
    )
}

TINTS = tuple(name for name in DIRECTIONS if name.endswith("tint"))
FITTING: dict[str, tuple[str, ...]] = {
    "Orientation": ("rotate", "mirror", "flip"),
    "Relative Size": ("zoom",),
    "Perspective and Angle": ("tilt_x", "tilt_y", "zoom", "mirror", "flip", "rotate"),  # a close-up is one too
    "Lighting and Shadows": ("spotlight", "vignette", "brightness", "contrast"),
    "Colorization": (*TINTS, "saturation"),
    "Texture and Noise": ("blur", "noise", "contrast"),
}
"""The operators that may put in or take out a cue of each type; a type that is missing has none."""

Layer = NDArray[np.float32]


def apply_geometry(image: RGB, name: str, strength: float) -> RGB:
    """The picture after an operator of the library, of the same shape.

    Raises:
        KeyError: no such operator.
    """
    operator = LIBRARY[name]
    if strength == 0:
        return image.copy()
    if name == "mirror":
        return np.ascontiguousarray(image[:, ::-1])
    if name == "flip":
        return np.ascontiguousarray(image[::-1])
    if name in DIRECTIONS:
        return apply_direction(image, name, strength, SEED)
    if operator.kind == PHOTOMETRIC:
        return _lit(image, name, strength)
    height, width = image.shape[:2]
    # OpenCV asks where each pixel of the result comes from, in pixels whose centres have whole numbers
    to_shares = np.array([[1 / width, 0, 0.5 / width - 0.5], [0, 1 / height, 0.5 / height - 0.5], [0, 0, 1]])
    back = np.linalg.inv(to_shares) @ np.linalg.inv(_moved(name, strength, width / height)) @ to_shares
    return np.asarray(
        cv2.warpPerspective(
            image,
            back,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        ),
        dtype=np.uint8,
    )


def _moved(name: str, strength: float, aspect: float) -> NDArray[np.float64]:
    """(3, 3): where a point goes, in shares of the picture from its middle; `aspect` is width over height."""
    matrix = np.eye(3)
    if name == "rotate":
        c, s = math.cos(math.radians(strength)), math.sin(math.radians(strength))
        matrix[:2, :2] = [[c, -s / aspect], [s * aspect, c]]
    elif name == "zoom":
        matrix[:2, :2] *= math.exp(strength)
    elif name in ("shift_x", "shift_y"):
        matrix[int(name == "shift_y"), 2] = strength
    else:
        # lengths at the edges (1/2 from the middle) are in the ratio e^strength: 1 / (1 -+ p / 2)
        p = 2 * math.tanh(strength / 2)
        matrix[2] = (-p, 0, 1) if name == "tilt_x" else (0, p, 1)
    return matrix


def _lit(image: RGB, name: str, strength: float) -> RGB:
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    square = x**2 + y**2
    dark = 1 - 1 / (1 + (square / np.float32(0.4)) ** 3) if name == "spotlight" else square / 2
    field = 1 - np.float32(abs(strength)) * dark
    field = field if strength > 0 else 1 / np.maximum(field, np.float32(0.05))
    return np.clip(np.rint(image * field[..., None]), 0, 255).astype(np.uint8)


def as_strong_as(image: RGB, name: str, limit: float, like: str, strength: float) -> float:
    """The strength of an operator that changes the picture as much (root mean square) as another does.

    Between 0 and `limit`, or whichever comes nearest there. Found on a small copy.
    """
    small = np.rint(working_copy(image, SAMPLE) * 255).astype(np.uint8)

    def change(operator: str, amount: float) -> float:
        return rms(apply_geometry(small, operator, amount).astype(np.float32) - small.astype(np.float32))

    wanted = change(like, strength)
    return first_root(lambda amount: change(name, amount) - wanted, limit, 0.02 * wanted)
