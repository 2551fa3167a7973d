"""Household things, tools, toys and instruments, each drawn in [-1, 1] x [-1, 1], upright."""

from __future__ import annotations

import numpy as np

from .pen import GOLD, INK, PAPER, STEEL, WOOD, Color, Pen, contrast, shade


def _turned(points: list[tuple[float, float]], angle: float) -> list[tuple[float, float]]:
    c, s = float(np.cos(np.deg2rad(angle))), float(np.sin(np.deg2rad(angle)))
    return [(u * c - v * s, u * s + v * c) for u, v in points]


def cup(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.ring(0.66, 0.14, 0.26, 0.3, shade(color, -0.15), 0.13)
    pen.blob(((-0.74, -0.5), (0.66, -0.5), (0.6, 0.3), (0.4, 0.74), (-0.48, 0.74), (-0.68, 0.3)), color)
    pen.ellipse(-0.04, -0.5, 0.7, 0.18, shade(color, 0.3))
    pen.ellipse(-0.04, -0.48, 0.58, 0.12, (84, 50, 32) if rng.random() < 0.7 else (120, 150, 60))
    if rng.random() < 0.5:
        pen.line(((-0.66, 0.16), (0.58, 0.16)), contrast(color), 0.1)
    pen.ellipse(-0.5, 0.05, 0.06, 0.26, shade(color, 0.5), -5)
    pen.ellipse(-0.04, 0.78, 0.62, 0.09, shade(color, -0.25))


def lamp(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.line(((0, -0.2), (0, 0.84)), GOLD, 0.1)
    bulge = rng.uniform(0.12, 0.26)
    pen.ellipse(0, 0.42, bulge, 0.3, shade(GOLD, -0.2))
    pen.ellipse(0, 0.88, 0.44, 0.12, shade(GOLD, -0.3))
    pen.ellipse(0, -0.06, 0.7, 0.12, (255, 240, 170))
    pen.poly(((-0.4, -0.95), (0.4, -0.95), (0.78, -0.08), (-0.78, -0.08)), color)
    pen.poly(((-0.2, -0.95), (0.1, -0.95), (0.12, -0.08), (-0.36, -0.08)), shade(color, 0.35))
    pen.line(((-0.78, -0.08), (0.78, -0.08)), shade(color, -0.3), 0.07)
    pen.line(((0.5, -0.06), (0.5, 0.24)), GOLD, 0.04)


def chair(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    dark = shade(color, -0.3)
    pen.line(((-0.46, 0.1), (-0.52, 0.94)), dark, 0.14)
    pen.line(((0.3, 0.1), (0.3, 0.8)), dark, 0.12)
    pen.line(((0.56, 0.2), (0.62, 0.96)), dark, 0.14)
    pen.line(((-0.5, -0.96), (-0.46, 0.2)), color, 0.14)
    pen.line(((0.22, -0.96), (0.28, 0.0)), color, 0.14)
    if rng.random() < 0.5:
        for y in (-0.82, -0.52, -0.22):
            pen.line(((-0.46, y), (0.22, y)), shade(color, 0.15), 0.15)
    else:
        pen.poly(((-0.48, -0.9), (0.22, -0.9), (0.25, -0.2), (-0.46, -0.2)), shade(color, 0.15))
    pen.poly(((-0.52, 0.12), (0.28, 0.0), (0.66, 0.2), (-0.46, 0.34)), shade(color, 0.35))
    pen.line(((-0.48, 0.36), (0.64, 0.24)), dark, 0.09)


def clock(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.circle(0, 0, 0.98, color)
    pen.circle(0, 0, 0.76, PAPER)
    for a in np.deg2rad(np.arange(0, 360, 30)):
        c, s = float(np.cos(a)), float(np.sin(a))
        pen.line(((0.6 * c, 0.6 * s), (0.69 * c, 0.69 * s)), INK, 0.05)
    for length, width in ((0.42, 0.11), (0.6, 0.07)):
        a = rng.uniform(0, 2 * np.pi)
        pen.line(((0, 0), (length * np.cos(a), length * np.sin(a))), INK, width)
    pen.circle(0, 0, 0.08, (200, 50, 50))


def key(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.line(((-0.3, 0), (0.94, 0)), color, 0.17)
    teeth = rng.uniform(0.22, 0.36, 3)
    for x, y in zip((0.5, 0.68, 0.88), teeth, strict=True):
        pen.rect(x - 0.07, 0, x + 0.07, float(y), color)
    pen.ring(-0.62, 0, 0.28, 0.3, color, 0.2)
    pen.line(((-0.25, -0.04), (0.9, -0.04)), shade(color, 0.5), 0.04)
    pen.arc(-0.62, 0, 0.3, 0.32, 190, 280, shade(color, 0.5), 0.05)


def hammer(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.line(((0, -0.5), (0, 0.9)), WOOD if rng.random() < 0.5 else shade(WOOD, 0.2), 0.19)
    pen.line(((0, 0.35), (0, 0.9)), color, 0.24)
    pen.rect(-0.2, -0.84, 0.46, -0.46, STEEL)
    pen.rect(0.46, -0.92, 0.66, -0.38, shade(STEEL, -0.3))
    pen.blob(((-0.14, -0.84), (-0.5, -0.82), (-0.8, -0.5), (-0.46, -0.6), (-0.14, -0.5)), shade(STEEL, -0.12))
    pen.line(((-0.1, -0.77), (0.42, -0.77)), shade(STEEL, 0.5), 0.05)


def guitar(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.line(((0, 0.1), (0, -0.7)), shade(WOOD, -0.4), 0.13)
    pen.poly(((-0.12, -0.68), (0.12, -0.68), (0.16, -0.98), (-0.16, -0.98)), INK)
    for y in (-0.74, -0.9):
        pen.line(((-0.22, y), (0.22, y)), STEEL, 0.05)
    waist = rng.uniform(0.24, 0.3)
    half = [(0.16, -0.14), (0.36, 0.0), (0.32, 0.18), (waist, 0.3), (0.44, 0.5), (0.52, 0.74), (0.34, 0.96)]
    pen.mirrored([*half, (0, 1)], color)
    pen.circle(0, 0.3, 0.15, shade(color, -0.6))
    pen.rect(-0.18, 0.66, 0.18, 0.74, INK)
    pen.line(((-0.03, -0.7), (-0.03, 0.7)), PAPER, 0.02)
    pen.line(((0.03, -0.7), (0.03, 0.7)), PAPER, 0.02)


def ball(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.circle(0, 0, 0.97, color)
    other = contrast(color)
    turn = rng.uniform(0, 360)
    for k in range(3):  # a beach ball: alternating gores from a pole off the middle
        a = turn + 120 * k
        rim = [(0.97 * np.cos(t), 0.97 * np.sin(t)) for t in np.deg2rad(np.linspace(a, a + 60, 8))]
        pen.poly([(0.16, -0.2), *rim], other if k else shade(color, 0.35))
    pen.circle(0.16, -0.2, 0.16, contrast(other, (240, 200, 60), color))


def hat(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.ellipse(0, 0.5, 1, 0.26, shade(color, -0.2))
    pen.ellipse(0, 0.44, 1, 0.24, color)
    top = rng.uniform(-0.75, -0.55)
    pen.mirrored(((0, top + 0.08), (0.2, top), (0.5, top + 0.1), (0.56, 0.4), (0, 0.54)), color)
    band = contrast(color, GOLD, (60, 50, 60))
    pen.poly(((-0.55, 0.12), (0.55, 0.12), (0.57, 0.4), (0.3, 0.48), (0, 0.51), (-0.3, 0.48), (-0.57, 0.4)), band)


def book(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    back = ((-0.7, -0.92), (0.66, -0.92), (0.78, -0.8), (0.78, 0.95), (-0.58, 0.95), (-0.7, 0.82))
    pen.poly(back, shade(color, -0.4))
    pen.poly(((-0.6, 0.78), (0.62, 0.78), (0.72, 0.88), (-0.52, 0.88)), PAPER)
    pen.poly(((0.62, -0.88), (0.73, -0.78), (0.73, 0.88), (0.62, 0.78)), shade(PAPER, -0.12))
    pen.rect(-0.7, -0.95, 0.64, 0.8, color)
    pen.rect(-0.7, -0.95, -0.5, 0.8, shade(color, -0.3))
    ink = contrast(color, GOLD, (70, 50, 50))
    pen.line(((-0.3, -0.6), (0.46, -0.6)), ink, 0.1)
    pen.line(((-0.3, -0.38), (0.2, -0.38)), ink, 0.08)
    if rng.random() < 0.5:
        pen.circle(0.08, 0.22, 0.24, ink)
    else:
        pen.poly(((0.08, -0.06), (0.34, 0.26), (0.08, 0.56), (-0.18, 0.26)), ink)


def bottle(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.rect(-0.12, -0.98, 0.12, -0.82, WOOD if rng.random() < 0.5 else GOLD)
    width = rng.uniform(0.32, 0.4)
    pen.mirrored(((0.12, -0.84), (0.13, -0.45), (width, -0.1), (width, 0.9), (0, 0.99)), color)
    pen.rect(-width, 0.12, width, 0.62, PAPER)
    pen.line(((-width * 0.6, 0.28), (width * 0.6, 0.28)), INK, 0.06)
    pen.circle(0, 0.45, 0.1, shade(color, -0.1))
    pen.line(((-width * 0.62, -0.06), (-width * 0.62, 0.06)), shade(color, 0.6), 0.08)


def drum(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.ellipse(0, 0.55, 0.86, 0.3, shade(GOLD, -0.3))
    shell = ((-0.86, -0.3), (0.86, -0.3), (0.86, 0.48), (0.5, 0.7), (0, 0.78), (-0.5, 0.7), (-0.86, 0.48))
    pen.poly(shell, color)
    zig = [(-0.86, -0.1), (-0.58, 0.6), (-0.29, 0.02), (0, 0.72), (0.29, 0.02), (0.58, 0.6), (0.86, -0.1)]
    pen.line(zig, contrast(color), 0.06)
    pen.ellipse(0, -0.26, 0.88, 0.32, GOLD)
    pen.ellipse(0, -0.32, 0.84, 0.28, PAPER)
    swing = rng.uniform(-0.1, 0.1)
    pen.line(((-0.1, -0.34), (-0.7, -0.84 + swing)), WOOD, 0.08)
    pen.line(((0.14, -0.3), (0.76, -0.84 - swing)), WOOD, 0.08)
    pen.circle(-0.1, -0.34, 0.09, WOOD)
    pen.circle(0.14, -0.3, 0.09, WOOD)


def robot(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    dark = shade(color, -0.35)
    pen.line(((0, -0.7), (0, -0.92)), INK, 0.06)
    pen.circle(0, -0.92, 0.08, (230, 60, 60))
    for s in (-1, 1):
        pen.line(((s * 0.5, 0.0), (s * 0.78, 0.2), (s * 0.72, 0.5)), dark, 0.15)
        pen.rect(s * 0.26 - 0.12, 0.6, s * 0.26 + 0.12, 0.98, dark)
    pen.pill(-0.5, -0.1, 0.5, 0.68, color, 0.1)
    pen.pill(-0.42, -0.74, 0.42, -0.16, shade(color, 0.3), 0.1)
    eye: Color = (90, 230, 240) if rng.random() < 0.5 else (255, 220, 80)
    for x in (-0.18, 0.18):
        pen.circle(x, -0.5, 0.12, INK)
        pen.circle(x, -0.5, 0.07, eye)
    pen.line(((-0.2, -0.28), (0.2, -0.28)), INK, 0.06)
    pen.rect(-0.3, 0.08, 0.3, 0.44, PAPER)
    for x, lamp_color in ((-0.16, (230, 60, 60)), (0.0, (250, 200, 60)), (0.16, (70, 190, 90))):
        pen.circle(x, 0.26, 0.06, lamp_color)


def crown(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    high = rng.uniform(-0.74, -0.6)
    side, dip = high + 0.1, 0.02
    pen.poly(
        ((-0.8, 0.62), (-0.96, side), (-0.46, dip), (0, high - 0.14), (0.46, dip), (0.96, side), (0.8, 0.62)),
        color,
    )
    pen.rect(-0.8, 0.4, 0.8, 0.7, shade(color, -0.25))
    for x, y in ((-0.94, high + 0.08), (0, high - 0.14), (0.94, high + 0.08)):
        pen.circle(x * 0.96, y, 0.11, PAPER)
    for x, gem in ((-0.5, (60, 120, 220)), (0.0, (210, 40, 60)), (0.5, (60, 160, 90))):
        pen.circle(x, 0.55, 0.1, gem)


def ice_cream(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.poly(((-0.42, -0.02), (0.42, -0.02), (0, 1)), (216, 160, 90))
    for k in (-0.2, 0.0, 0.2):
        pen.line(((k - 0.16, 0.02), (k * 0.4 + 0.1, 0.6)), (170, 116, 58), 0.04)
        pen.line(((k + 0.16, 0.02), (k * 0.4 - 0.1, 0.6)), (170, 116, 58), 0.04)
    pen.circle(0.16, -0.56, 0.38, shade(color, 0.4))
    pen.circle(-0.1, -0.24, 0.46, color)
    drip = (
        (-0.54, -0.1),
        (-0.3, -0.04),
        (-0.1, 0.12),
        (0.1, -0.02),
        (0.42, -0.06),
        (0.4, -0.26),
        (-0.5, -0.26),
    )
    pen.blob(drip, color)
    if rng.random() < 0.6:
        pen.circle(0.2, -0.88, 0.12, (206, 30, 50))
    for x, y in rng.uniform((-0.35, -0.5), (0.2, -0.1), (6, 2)):
        pen.line(((x, y), (x + 0.07, y + 0.04)), contrast(color), 0.05)


def bell(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.ring(0, -0.82, 0.13, 0.13, shade(color, -0.3), 0.09)
    pen.circle(rng.uniform(-0.15, 0.15), 0.82, 0.17, shade(color, -0.5))
    pen.mirrored(((0, -0.76), (0.36, -0.6), (0.48, -0.1), (0.6, 0.4), (0.84, 0.72), (0, 0.78)), color)
    pen.ellipse(0, 0.72, 0.84, 0.1, shade(color, -0.25))
    pen.line(((-0.56, 0.36), (0.56, 0.36)), shade(color, -0.25), 0.06)
    pen.ellipse(-0.24, -0.2, 0.07, 0.3, shade(color, 0.6), 8)


def scissors(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    spread = rng.uniform(14, 26)
    for s in (-1, 1):
        blade = [(-0.1, 0.1), (0.1, 0.1), (0.06, -0.6), (0.0, -1.0), (-0.08, -0.6)]
        pen.poly(_turned(blade, s * spread), STEEL if s < 0 else shade(STEEL, 0.3))
        ((x, y),) = _turned([(0.0, 0.36)], s * spread)
        pen.line(((0, 0), (x, y)), color, 0.16)
        ((x, y),) = _turned([(0.0, 0.66)], s * (spread + 4))
        pen.ring(x, y, 0.2, 0.27, color, 0.15)
    pen.circle(0, 0, 0.08, INK)
