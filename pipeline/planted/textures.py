"""Tiles of seeded multi-octave noise and patterns, made once a process and cropped for every picture."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from .pen import Color

Tile = NDArray[np.uint8]
SPAN = 1.9  # a tile's side in canvas sides, so that a random crop differs from the next


@lru_cache(maxsize=64)
def noise(
    seed: int, side: int, base: int = 4, octaves: int = 6, stretch: float = 1.0, fall: float = 0.55
) -> NDArray[np.float32]:
    """Value noise (side, side) in [0, 1]: `base` cells down, each octave twice as fine and `fall` as strong.

    `stretch` > 1 elongates the cells horizontally. A seed gives the same picture at every side, only finer.
    """
    total = np.zeros((side, side), np.float32)
    weight = 1.0
    for octave in range(octaves):
        rows = base * 2**octave
        columns = max(2, round(rows / stretch))
        if rows > side:
            break
        rng = np.random.default_rng([seed, octave])
        cells = rng.random((512, 512), dtype=np.float32)[: rows + 1, : columns + 1]
        total += weight * cv2.resize(cells, (side, side), interpolation=cv2.INTER_CUBIC)
        weight *= fall
    low, high = np.percentile(total, (0.5, 99.5))
    return np.clip((total - low) / (high - low), 0, 1)


def ramp(values: NDArray[np.float32], *colors: Color) -> Tile:
    """Values in [0, 1] (h, w) as colours interpolated through the list, uint8 (h, w, 3)."""
    table = np.array(colors, np.float32)
    at = np.linspace(0, 255, len(colors))
    lut = np.stack([np.interp(np.arange(256), at, table[:, k]) for k in range(3)], axis=1)
    return lut.astype(np.uint8)[(values * 255).astype(np.uint8)]


def _mottled(tile: NDArray, seed: int, amount: float, base: int = 16) -> Tile:
    """The tile with its brightness varied by noise, by +-`amount`."""
    grain = noise(seed, tile.shape[0], base, 5, fall=0.7)[..., None]
    return np.clip(tile * (1 + amount * (2 * grain - 1)), 0, 255).astype(np.uint8)


def _bricks(side: int, variant: int) -> Tile:
    rng = np.random.default_rng([variant, 71])
    clay = ((176, 84, 62), (158, 92, 72), (190, 170, 150))[variant % 3]
    tile = np.full((side, side, 3), (196, 188, 176), np.float32)
    rows, columns = 22, 11
    h, w = side / rows, side / columns
    for r in range(rows):
        for c in range(-1, columns):
            x0, y0 = (c + 0.5 * (r % 2)) * w + 0.05 * w, r * h + 0.1 * h
            tone = np.array(clay) * rng.uniform(0.78, 1.15) + rng.normal(0, 4, 3)
            across = slice(max(0, int(x0)), max(0, int(x0 + 0.91 * w)))
            tile[int(y0) : int(y0 + 0.84 * h), across] = tone
            tile[int(y0) : int(y0) + max(1, int(h / 9)), across] = tone * 1.14
    return _mottled(tile, 11 + variant, 0.16, 24)


def _planks(side: int, variant: int) -> Tile:
    rng = np.random.default_rng([variant, 72])
    wood = ((178, 124, 74), (134, 90, 56), (204, 164, 112))[variant % 3]
    grain = noise(30 + variant, side, 48, 3, stretch=14)
    tile = np.array(wood, np.float32) * (0.8 + 0.4 * grain[..., None])
    rows = 9
    edges = np.linspace(0, side, rows + 1).astype(int)
    seam = max(1, side // 200)
    for y0, y1 in pairwise(edges):
        tile[y0:y1] = np.roll(tile[y0:y1], int(rng.integers(side)), axis=1) * rng.uniform(0.85, 1.12)
        tile[y0 : y0 + seam] *= 0.55
        x = int(rng.integers(side))
        tile[y0:y1, x : x + seam] *= 0.6
    return _mottled(tile, 33 + variant, 0.08)


def _floor_tiles(side: int, variant: int) -> Tile:
    rng = np.random.default_rng([variant, 73])
    light = ((226, 224, 218), (232, 222, 200), (214, 226, 222))[variant % 3]
    dark = ((122, 140, 156), (186, 136, 104), (84, 130, 122))[variant % 3]
    count = 14
    tile = np.full((side, side, 3), (170, 168, 164), np.float32)
    edges = np.linspace(0, side, count + 1).astype(int)
    gap = max(1, side // 180)
    for r in range(count):
        for c in range(count):
            tone = np.array(light if (r + c) % 2 else dark) * rng.uniform(0.94, 1.05)
            tile[edges[r] + gap : edges[r + 1], edges[c] + gap : edges[c + 1]] = tone
    return _mottled(tile, 41 + variant, 0.07, 6)


def _carpet(side: int, variant: int) -> Tile:
    a, b, c = (
        ((140, 40, 48), (214, 178, 110), (60, 40, 70)),
        ((46, 74, 120), (210, 200, 176), (170, 70, 60)),
        ((70, 96, 72), (216, 190, 140), (120, 60, 50)),
    )[variant % 3]
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) * (7.0 / side)
    u, v = np.abs(x % 1 - 0.5), np.abs(y % 1 - 0.5)
    tile = np.empty((side, side, 3), np.float32)
    tile[:] = a
    tile[np.abs(u + v - 0.42) < 0.05] = b
    tile[u + v < 0.2] = c
    tile[u + v < 0.1] = b
    tile[np.maximum(u, v) > 0.47] = c
    return _mottled(_mottled(tile, 51, 0.18, 64), 52 + variant, 0.1, 5)


def _marble(side: int, variant: int) -> Tile:
    warp = noise(61 + variant, side, 3, 6)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    veins = np.abs(np.sin(14 * (x + 0.6 * y) + 11 * warp)) ** 0.5
    veins = np.clip(0.62 * veins + 0.38 * noise(66 + variant, side, 6, 6), 0, 1)
    light: Color = ((244, 242, 240), (232, 224, 214), (84, 100, 96))[variant % 3]
    dark: Color = ((140, 142, 152), (168, 130, 104), (216, 222, 214))[variant % 3]
    return ramp(veins.astype(np.float32), dark, dark, light, light)


def _sky(side: int, variant: int) -> Tile:
    top = ((70, 134, 214), (96, 150, 206), (52, 112, 190))[variant % 3]
    low = ((188, 220, 242), (214, 226, 232), (160, 204, 236))[variant % 3]
    down = np.linspace(0, 1, side, dtype=np.float32)[:, None, None] ** 0.8
    blue = np.array(top, np.float32) * (1 - down) + np.array(low, np.float32) * down
    cloud = np.clip(noise(21 + variant, side, 5, 6, stretch=1.7) * 2.4 - 1.15, 0, 1)[..., None]
    lit = noise(25 + variant, side, 10, 4, stretch=1.7)[..., None]
    return (blue * (1 - 0.92 * cloud) + (214 + 40 * lit) * 0.92 * cloud).clip(0, 255).astype(np.uint8)


def _stars(side: int, variant: int) -> Tile:
    rng = np.random.default_rng([variant, 74])
    haze = noise(65 + variant, side, 3, 5)
    tile = ramp(haze, (10, 12, 34), (22, 26, 66), (52, 44, 96)).copy()
    for x, y, light, r in zip(*rng.random((4, 420)), strict=True):
        radius = side / 256 * (0.28 + 0.75 * r**6)
        tone = 120 + 135 * light
        at = (int(x * side * 16), int(y * side * 16))
        color = (tone, tone, min(255, tone * 1.05))
        cv2.circle(tile, at, max(4, int(radius * 16)), color, -1, cv2.LINE_AA, 4)
    return tile


def _grass(side: int, variant: int) -> Tile:
    blades = noise(81 + variant, side, 32, 4, stretch=0.35, fall=0.8)
    patches = noise(85 + variant, side, 4, 3)
    lush = ((48, 92, 34), (96, 150, 56), (156, 190, 88))
    dry = ((62, 96, 40), (124, 152, 66), (186, 190, 104))
    return ramp(np.clip(0.6 * blades + 0.4 * patches, 0, 1), *(dry if variant % 2 else lush))


def _water(side: int, variant: int) -> Tile:
    waves = noise(91 + variant, side, 20, 4, stretch=4.5, fall=0.7)
    deep: Color = ((20, 70, 120), (16, 88, 116), (40, 76, 104))[variant % 3]
    mid: Color = ((44, 112, 168), (40, 132, 150), (84, 122, 148))[variant % 3]
    return ramp(waves, deep, mid, mid, (190, 222, 232))


def _sand(side: int, variant: int) -> Tile:
    ripples = noise(101 + variant, side, 14, 5, stretch=2.2, fall=0.75)
    return ramp(ripples, (190, 154, 104), (222, 190, 136), (240, 216, 168))


def _dune(side: int, variant: int) -> Tile:
    warp = noise(111 + variant, side, 3, 4)
    y = np.linspace(0, 1, side, dtype=np.float32)[:, None]
    lines = 0.5 + 0.5 * np.sin(180 * y + 26 * warp)
    light = np.clip(0.55 * lines + 0.45 * noise(115, side, 40, 3), 0, 1)
    return ramp(light, (188, 112, 58), (218, 146, 82), (240, 182, 116))


def _snow(side: int, variant: int) -> Tile:
    drifts = noise(121 + variant, side, 5, 7, stretch=1.8, fall=0.6)
    return ramp(drifts, (196, 212, 232), (232, 240, 248), (254, 254, 255))


def _asphalt(side: int, variant: int) -> Tile:
    return ramp(noise(131 + variant, side, 24, 4, fall=0.9), (72, 72, 78), (96, 96, 102), (122, 122, 126))


def _soil(side: int, variant: int) -> Tile:
    return ramp(noise(141 + variant, side, 14, 5, fall=0.8), (44, 40, 22), (84, 74, 40), (110, 116, 56))


def _foliage(side: int, variant: int) -> Tile:
    leaves = noise(151 + variant, side, 10, 6, fall=0.8)
    return ramp(leaves, (14, 34, 20), (34, 74, 36), (74, 120, 54), (150, 180, 96))


def _windows(side: int, variant: int) -> Tile:
    rng = np.random.default_rng([variant, 75])
    wall = ((150, 116, 98), (128, 134, 146), (186, 168, 140))[variant % 3]
    tile = np.empty((side, side, 3), np.float32)
    tile[:] = wall
    rows, columns = 18, 22
    h, w = side / rows, side / columns
    panes = ((70, 92, 116), (150, 186, 210), (246, 222, 150))
    for r in range(rows):
        for c in range(columns):
            pane = panes[rng.choice(3, p=(0.55, 0.3, 0.15))]
            tile[int((r + 0.22) * h) : int((r + 0.78) * h), int((c + 0.25) * w) : int((c + 0.75) * w)] = pane
    return _mottled(tile, 161 + variant, 0.08, 8)


_MAKERS: dict[str, Callable[[int, int], Tile]] = {
    "bricks": _bricks,
    "planks": _planks,
    "floor tiles": _floor_tiles,
    "carpet": _carpet,
    "marble": _marble,
    "sky": _sky,
    "stars": _stars,
    "grass": _grass,
    "water": _water,
    "sand": _sand,
    "dune": _dune,
    "snow": _snow,
    "asphalt": _asphalt,
    "soil": _soil,
    "foliage": _foliage,
    "windows": _windows,
}


@lru_cache(maxsize=256)
def _tile(name: str, side: int, variant: int) -> Tile:
    return _MAKERS[name](side, variant)


def tile(name: str, canvas: int, variant: int) -> Tile:
    """The named texture, uint8 (side, side, 3), fit for a canvas of that many; variants 0 to 2 differ."""
    side = 256
    while side < SPAN * canvas * 0.9:
        side *= 2
    return _tile(name, side, variant)
