"""The backgrounds of the rendered world: real texture, and for outdoor scenes a horizon and a few props.

A background is drawn on a canvas that reaches MARGIN beyond the picture on every side, so that a rolled
camera sees more of the same scene and not its edge.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from .pen import SHIFT, Color, shade
from .textures import Tile, tile

Canvas = NDArray[np.uint8]  # (n, n, 3) RGB
Rng = np.random.Generator
Background = Callable[[Rng, int, float], Canvas]
MARGIN = 0.2


def _fill(image: Canvas, points: object, color: Color) -> None:
    """A filled polygon; points in canvas shares."""
    scaled = np.asarray(points, np.float64) * (image.shape[0] * 2**SHIFT)
    cv2.fillPoly(image, [np.rint(scaled).astype(np.int32)], color, cv2.LINE_AA, SHIFT)


def _below(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The outline of everything under a line, in canvas shares."""
    return np.concatenate([np.stack([x, y], axis=1), [[1.0, 1.0], [0.0, 1.0]]])


def _disc(image: Canvas, x: float, y: float, r: float, color: Color) -> None:
    n = image.shape[0] * 2**SHIFT
    cv2.circle(image, (int(x * n), int(y * n)), int(r * n), color, -1, cv2.LINE_AA, SHIFT)


def _warped(texture: Tile, back: NDArray[np.float64], n: int) -> Canvas:
    """The texture through the affine map (2, 3) from canvas to texture pixels, mirrored at its edges."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(texture, back, (n, n), flags=flags, borderMode=cv2.BORDER_REFLECT), np.uint8)


def _flat(name: str, rng: Rng, n: int, angle: float = 0.0, scale: tuple[float, float] = (0.75, 1.3)) -> Canvas:
    """A random crop of a texture seen from straight ahead (n, n, 3), turned by up to +-`angle` degrees."""
    texture = tile(name, n, int(rng.integers(3)))
    side = texture.shape[0]
    zoom = rng.uniform(*scale) * n * 1.9 / side
    turn = np.deg2rad(rng.uniform(-angle, angle)) if angle else 0.0
    flip = -1.0 if rng.random() < 0.5 else 1.0
    c, s = np.cos(turn) / zoom, np.sin(turn) / zoom
    x, y = rng.uniform(0.15, 0.85, 2) * side
    back = np.array([[c * flip, -s, x], [s * flip, c, y]])
    back[:, 2] -= back[:, :2] @ (n / 2, n / 2)
    return _warped(texture, back, n)


def _ground(image: Canvas, name: str, rng: Rng, top: float, spread: float = 2.4) -> None:
    """Lay a texture on the ground below the row `top` (a share), nearer at the bottom."""
    n = image.shape[0]
    row = int(top * n)
    if row >= n:
        return
    texture = tile(name, n, int(rng.integers(3)))
    side = texture.shape[0]
    x, y = rng.uniform(0, 0.4, 2) * side
    w, h = side * rng.uniform(0.7, 1.0), side * rng.uniform(0.7, 1.0)
    wide, deep = n * (spread - 1) / 2, n - row
    source = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float32)
    target = np.array([[0, 0], [n, 0], [n + wide, deep], [-wide, deep]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, target)
    image[row:] = cv2.warpPerspective(texture, matrix, (n, deep), borderMode=cv2.BORDER_REFLECT)


def _sky(rng: Rng, n: int, horizon: float) -> Canvas:
    """Sky down to the horizon: the tile's gradient ends there."""
    texture = tile("sky", n, int(rng.integers(3)))
    side = texture.shape[0]
    w = side * rng.uniform(0.45, 0.7)
    x = rng.uniform(0, side - w)
    y = side * rng.uniform(0.2, 0.45)
    flip = rng.random() < 0.5
    a = w / n * (-1 if flip else 1)
    back = np.array([[a, 0, x + (w if flip else 0)], [0, (side - y) / (n * max(horizon, 0.3)), y]])
    return _warped(texture, back, n)


def _ridge(image: Canvas, rng: Rng, y: float, height: float, color: Color, waves: int = 3) -> None:
    """Rolling hills: everything below a smooth line about the row `y` (a share) takes the colour."""
    x = np.linspace(0, 1, 24)
    line = np.zeros_like(x)
    for k in range(1, waves + 1):
        line += rng.uniform(-1, 1) / k * np.sin(4 * k * x + rng.uniform(0, 7))
    _fill(image, _below(x, y - height * (0.5 + 0.5 * line)), color)


def _sun(image: Canvas, rng: Rng, color: Color, low: float, high: float, r: float = 0.05) -> None:
    x, y = rng.uniform(0.2, 0.8), rng.uniform(low, high)
    _disc(image, x, y, r * 1.5, shade(color, 0.25))
    _disc(image, x, y, r, shade(color, 0.7))


def beach(rng: Rng, n: int, horizon: float) -> Canvas:
    image = _sky(rng, n, horizon)
    _ground(image, "water", rng, horizon, 1.3)
    shore = horizon + rng.uniform(0.09, 0.16)
    sand = image.copy()
    _ground(sand, "sand", rng, horizon, 1.8)
    x = np.linspace(0, 1, 20)
    wave = 0.018 * np.sin(x * rng.uniform(5, 11) + rng.uniform(0, 7)) + rng.uniform(-0.08, 0.08) * (x - 0.5)
    for drop, color in ((0.0, (236, 244, 246)), (0.025, (176, 148, 104))):
        _fill(image, _below(x, shore + drop + wave), color)
    mask = np.zeros((n, n), np.uint8)
    cv2.fillPoly(mask, [np.rint(_below(x, shore + 0.055 + wave) * n).astype(np.int32)], 255)
    cv2.copyTo(sand, mask, image)
    return image


def ocean(rng: Rng, n: int, horizon: float) -> Canvas:
    image = _sky(rng, n, horizon)
    _ground(image, "water", rng, horizon - 0.06, 2.0)
    return image


def sky(rng: Rng, n: int, horizon: float) -> Canvas:
    return _sky(rng, n, 1.0)


def night_sky(rng: Rng, n: int, horizon: float) -> Canvas:
    image = _flat("stars", rng, n, 180)
    if rng.random() < 0.7:
        x, y = rng.uniform(0.22, 0.78), rng.uniform(0.22, 0.5)
        _disc(image, x, y, 0.06, (238, 234, 208))
        if rng.random() < 0.5:
            _disc(image, x + 0.03, y - 0.015, 0.05, (22, 24, 58))
    _ridge(image, rng, horizon + 0.3, 0.08, (10, 12, 22))
    return image


def meadow(rng: Rng, n: int, horizon: float) -> Canvas:
    image = _sky(rng, n, horizon)
    for k, color in enumerate(((122, 160, 140), (92, 146, 92))):
        _ridge(image, rng, horizon + 0.03 * k, 0.12 - 0.05 * k, color)
    _ground(image, "grass", rng, horizon + 0.02)
    for x, y in rng.uniform((0, horizon + 0.08), (1, 1), (int(rng.integers(6, 24)), 2)):
        tones: tuple[Color, ...] = ((250, 250, 240), (250, 220, 90), (230, 120, 140))
        _disc(image, x, y, 0.003 + 0.007 * (y - horizon), tones[int(rng.integers(3))])
    return image


def forest(rng: Rng, n: int, horizon: float) -> Canvas:
    image = _flat("foliage", rng, n, 10)
    _ground(image, "soil", rng, horizon + 0.08)
    for depth in np.sort(rng.uniform(0, 1, int(rng.integers(8, 13)))):
        x, w = rng.uniform(0, 1), 0.012 + 0.03 * depth
        bark = shade((92, 72, 52), 0.25 - 0.55 * depth)
        foot = horizon + 0.09 + 0.12 * depth
        for right, color in ((1.0, bark), (-0.4, shade(bark, 0.18))):  # the whole trunk, then its lit side
            _fill(
                image,
                ((x - w * 0.7, -0.1), (x + w * 0.7 * right, -0.1), (x + w * right, foot), (x - w, foot)),
                color,
            )
    return image


def desert(rng: Rng, n: int, horizon: float) -> Canvas:
    image = _sky(rng, n, horizon)
    image[:] = 0.55 * image + 0.45 * np.array((250, 214, 150))
    _sun(image, rng, (255, 220, 130), 0.22, max(0.24, horizon - 0.1))
    for k, color in enumerate(((222, 168, 112), (204, 138, 82))):
        _ridge(image, rng, horizon + 0.05 * k, 0.14 - 0.05 * k, color, 2)
    _ground(image, "dune", rng, horizon + 0.06)
    return image


def snowfield(rng: Rng, n: int, horizon: float) -> Canvas:
    image = _sky(rng, n, horizon)
    image[:] = 0.5 * image + 0.5 * np.array((206, 214, 224))
    _ridge(image, rng, horizon, 0.14, (190, 204, 222))
    for x in rng.uniform(0, 1, int(rng.integers(5, 14))):
        h = rng.uniform(0.06, 0.13)
        y = horizon + 0.04
        _fill(image, ((x, y - h), (x + h * 0.32, y), (x - h * 0.32, y)), (58, 84, 84))
        _fill(image, ((x, y - h), (x + h * 0.12, y - h * 0.6), (x - h * 0.12, y - h * 0.6)), (236, 242, 248))
    _ground(image, "snow", rng, horizon + 0.03)
    return image


def city_street(rng: Rng, n: int, horizon: float) -> Canvas:
    image = _sky(rng, n, horizon)
    walls = _flat("windows", rng, n, scale=(0.5, 0.75))
    x: float = -0.05
    foot = int((horizon + 0.08) * n)
    while x < 1:
        w = rng.uniform(0.1, 0.22)
        a, b = max(0, int(x * n)), int((x + w) * n)
        top = int(rng.uniform(0.08, max(0.1, horizon - 0.12)) * n)
        tone = rng.uniform(0.65, 1.1, 3) * 0.3 + rng.uniform(0.65, 1.05) * 0.7
        image[top:foot, a:b] = np.clip(walls[top:foot, a:b] * tone, 0, 255)
        image[top : top + max(1, n // 90), a:b] = 60
        image[top:foot, a : a + max(1, n // 134)] = 70
        x += w
    _ground(image, "asphalt", rng, horizon + 0.08)
    kerb = horizon + 0.08
    _fill(image, ((0, kerb), (1, kerb), (1, kerb + 0.05), (0, kerb + 0.05)), (172, 168, 162))
    _fill(image, ((0, kerb + 0.05), (1, kerb + 0.05), (1, kerb + 0.06), (0, kerb + 0.06)), (110, 108, 106))
    y = kerb + rng.uniform(0.18, 0.26)
    start = rng.uniform(-0.2, 0)
    for k in range(6):
        x = start + 0.24 * k
        _fill(image, ((x, y), (x + 0.12, y), (x + 0.125, y + 0.022), (x - 0.005, y + 0.022)), (226, 222, 208))
    return image


def brick_wall(rng: Rng, n: int, horizon: float) -> Canvas:
    return _flat("bricks", rng, n, 2)


def wooden_table(rng: Rng, n: int, horizon: float) -> Canvas:
    return _flat("planks", rng, n, 12)


def carpet(rng: Rng, n: int, horizon: float) -> Canvas:
    return _flat("carpet", rng, n, 25)


def tiled_floor(rng: Rng, n: int, horizon: float) -> Canvas:
    image = _flat("marble", rng, n)
    image[:] = rng.uniform((180, 176, 160), (226, 222, 214))
    _fill(image, ((0, horizon - 0.03), (1, horizon - 0.03), (1, 1), (0, 1)), (240, 238, 232))
    _ground(image, "floor tiles", rng, horizon + 0.01, 2.8)
    return image


def mountain(rng: Rng, n: int, horizon: float) -> Canvas:
    image = _sky(rng, n, horizon)
    for k in range(3):
        x, h = rng.uniform(0.1, 0.9), rng.uniform(0.22, 0.42) * (1 - 0.15 * k)
        w, foot, rock = h * rng.uniform(0.8, 1.1), horizon + 0.05, shade((104, 112, 132), -0.1 * k)
        peak = horizon + 0.04 - h
        _fill(image, ((x, peak), (x + w, foot), (x - w, foot)), rock)
        dark = shade(rock, -0.25)
        _fill(image, ((x, peak), (x + w, foot), (x + 0.1 * w, foot), (x - 0.1 * w, peak + h * 0.4)), dark)
        cap = [(0, 0), (0.34, 0.34), (0.18, 0.28), (0.04, 0.42), (-0.12, 0.3), (-0.34, 0.34)]
        _fill(image, [(x + w * u, peak + h * v) for u, v in cap], (240, 244, 250))
    _ground(image, "grass", rng, horizon + 0.04)
    return image


def marble_wall(rng: Rng, n: int, horizon: float) -> Canvas:
    return _flat("marble", rng, n, 180)


def sunset(rng: Rng, n: int, horizon: float) -> Canvas:
    image = _sky(rng, n, horizon)
    down = np.linspace(0, 1, n, dtype=np.float32)[:, None, None] / max(horizon, 0.3)
    glow = np.array((120, 60, 120), np.float32) * (1 - down) + np.array((255, 150, 60), np.float32) * down
    image = np.clip(0.35 * image + 0.7 * glow, 0, 255).astype(np.uint8)
    _sun(image, rng, (255, 200, 90), horizon - 0.08, horizon, 0.07)
    _ground(image, "water", rng, horizon, 2.0)
    rows = int(horizon * n)
    image[rows:] = np.clip(image[rows:] * np.array((1.0, 0.62, 0.6)) + (40, 10, 0), 0, 255)
    return image


BACKGROUNDS: dict[str, Background] = {
    "beach": beach,
    "ocean": ocean,
    "sky": sky,
    "night sky": night_sky,
    "meadow": meadow,
    "forest": forest,
    "desert": desert,
    "snowfield": snowfield,
    "city street": city_street,
    "brick wall": brick_wall,
    "wooden table": wooden_table,
    "carpet": carpet,
    "tiled floor": tiled_floor,
    "mountain": mountain,
    "marble wall": marble_wall,
    "sunset": sunset,
}
HELD_OUT_BACKGROUNDS: tuple[str, ...] = ("mountain", "marble wall", "sunset")
TRAIN_BACKGROUNDS: tuple[str, ...] = tuple(name for name in BACKGROUNDS if name not in HELD_OUT_BACKGROUNDS)
