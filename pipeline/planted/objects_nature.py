"""Plants and animals, each drawn in [-1, 1] x [-1, 1], upright, facing right."""

from __future__ import annotations

import numpy as np

from .pen import GOLD, INK, LEAF, PAPER, WOOD, Color, Pen, contrast, shade


def _eye(pen: Pen, x: float, y: float, r: float) -> None:
    pen.circle(x, y, r, PAPER)
    pen.circle(x + r * 0.25, y, r * 0.6, INK)


def tree(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.poly(((-0.11, 1), (0.13, 1), (0.09, 0.1), (-0.07, 0.1)), WOOD)
    if rng.random() < 0.3:  # a conifer
        for y, w in ((0.62, 0.68), (0.16, 0.54), (-0.3, 0.4)):
            pen.poly(((0, y - 0.72), (w, y), (-w, y)), shade(color, -0.15 - y * 0.2))
        return
    pen.line(((0.02, 0.5), (0.3, 0.15)), WOOD, 0.08)
    for x, y in ((-0.4, 0.05), (0.42, 0.02), (-0.28, -0.4), (0.3, -0.42), (0, -0.62), (0, -0.1)):
        dx, dy = rng.uniform(-0.06, 0.06, 2)
        pen.circle(x + dx, y + dy, 0.38, shade(color, -0.22 - 0.2 * y - 0.12 * x))
    for x, y in rng.uniform((-0.4, -0.7), (0.25, 0.0), (5, 2)):
        pen.circle(x, y, 0.1, shade(color, 0.2))


def flower(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.line(((0, -0.3), (0.05, 0.3), (0, 1)), LEAF, 0.1)
    pen.ellipse(0.26, 0.52, 0.28, 0.11, LEAF, -30)
    pen.ellipse(-0.25, 0.68, 0.28, 0.11, shade(LEAF, -0.15), 30)
    n, turn = int(rng.integers(5, 9)), rng.uniform(0, 360)
    for k in range(n):
        a = turn + 360 * k / n
        c, s = float(np.cos(np.deg2rad(a))), float(np.sin(np.deg2rad(a)))
        pen.ellipse(0.36 * c, -0.4 + 0.36 * s, 0.28, 1.0 / n + 0.05, shade(color, 0.12 if k % 2 else -0.06), a)
    middle = contrast(color, GOLD, (120, 74, 36))
    pen.circle(0, -0.4, 0.2, middle)
    pen.circle(-0.04, -0.44, 0.1, shade(middle, 0.3))


def mushroom(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.mirrored(((0.22, 0.05), (0.26, 0.6), (0.36, 0.9), (0, 0.97)), (238, 226, 200))
    pen.ellipse(0, 0.12, 0.62, 0.17, (214, 192, 160))
    pen.mirrored(((0.3, -0.86), (0.82, -0.46), (0.97, 0.06), (0.5, 0.14), (0, 0.04)), color)
    spots = contrast(color, PAPER, (150, 60, 50))
    for x, y, r in ((-0.5, -0.3, 0.15), (0.05, -0.55, 0.17), (0.5, -0.26, 0.14), (-0.05, -0.14, 0.1)):
        dx, dy = rng.uniform(-0.07, 0.07, 2)
        pen.ellipse(x + dx, y + dy, r, r * 0.85, spots)


def cactus(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    arm = rng.uniform(-0.15, 0.1)
    pen.line(((0, 0.2), (-0.62, 0.2 + arm), (-0.62, -0.3 + arm)), shade(color, -0.12), 0.26)
    pen.line(((0, 0.4), (0.62, 0.3 - arm), (0.62, -0.12 - arm)), shade(color, -0.12), 0.26)
    pen.pill(-0.25, -0.96, 0.25, 0.85, color, 0.24)
    for x in (-0.12, 0.0, 0.12):
        pen.line(((x, -0.8), (x, 0.7)), shade(color, -0.3), 0.03)
    if rng.random() < 0.5:
        pen.circle(0.06, -0.9, 0.11, (240, 110, 160))
    if rng.random() < 0.5:
        pen.poly(((-0.42, 0.62), (0.42, 0.62), (0.32, 1), (-0.32, 1)), (190, 98, 62))
    else:
        pen.ellipse(0, 0.88, 0.5, 0.12, (206, 174, 120))


def fish(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    fin = shade(color, -0.25)
    pen.blob(((-0.5, 0), (-0.98, -0.5), (-0.86, 0), (-0.98, 0.5)), fin)
    pen.blob(((-0.15, -0.36), (-0.1, -0.66), (0.3, -0.5), (0.36, -0.3)), fin)
    pen.blob(
        (
            (-0.66, 0),
            (-0.2, -0.4),
            (0.4, -0.42),
            (0.86, -0.16),
            (0.98, 0.04),
            (0.8, 0.24),
            (0.3, 0.42),
            (-0.2, 0.36),
        ),
        color,
    )
    pen.blob(((-0.5, 0.05), (0, 0.14), (0.6, 0.14), (0.8, 0.22), (0.3, 0.4), (-0.2, 0.34)), shade(color, 0.5))
    stripe = contrast(color)
    for x in (-0.2, 0.12) if rng.random() < 0.6 else ():
        pen.line(((x, -0.32), (x - 0.06, 0), (x, 0.3)), stripe, 0.1)
    pen.poly(((0.3, 0.06), (0.0, 0.28), (0.02, 0.0)), fin)
    _eye(pen, 0.6, -0.1, 0.13)
    pen.line(((0.8, 0.12), (0.93, 0.09)), INK, 0.04)


def bird(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.poly(((-0.4, 0.1), (-1, -0.08), (-0.96, 0.24), (-0.4, 0.34)), shade(color, -0.35))
    for x in (-0.02, 0.16):
        pen.line(((x, 0.5), (x + 0.03, 0.92), (x + 0.16, 0.92)), (214, 130, 40), 0.06)
    pen.blob(
        (
            (-0.62, 0.14),
            (-0.2, -0.2),
            (0.24, -0.6),
            (0.56, -0.72),
            (0.8, -0.48),
            (0.68, -0.08),
            (0.44, 0.4),
            (0, 0.58),
            (-0.42, 0.44),
        ),
        color,
    )
    pen.blob(((0.6, -0.2), (0.48, 0.3), (0.05, 0.52), (0.2, 0.1)), shade(color, 0.6))
    lift = rng.uniform(-0.55, 0.3)
    pen.blob(
        ((0.14, -0.04), (-0.2, -0.12 + lift * 0.4), (-0.72, 0.1 + lift), (-0.3, 0.3), (0.1, 0.24)),
        shade(color, -0.28),
    )
    pen.poly(((0.76, -0.56), (1, -0.42), (0.74, -0.36)), (240, 160, 40))
    pen.circle(0.57, -0.5, 0.09, PAPER)
    pen.circle(0.59, -0.5, 0.06, INK)


def cat(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    dark = shade(color, -0.3)
    tip = rng.uniform(-0.1, 0.3)
    pen.line(((0.4, 0.82), (0.78, 0.7), (0.86, 0.36), (0.94, tip)), dark, 0.17)
    pen.mirrored(((0.24, 0.0), (0.46, 0.4), (0.5, 0.95), (0, 1)), color)
    pen.ellipse(0, 0.56, 0.22, 0.34, shade(color, 0.55))
    for x in (-0.2, 0.2):
        pen.ellipse(x, 0.92, 0.16, 0.09, shade(color, 0.3))
    for s in (-1, 1):
        pen.poly(((s * 0.52, -0.98), (s * 0.56, -0.4), (s * 0.12, -0.66)), color)
        pen.poly(((s * 0.46, -0.82), (s * 0.48, -0.54), (s * 0.24, -0.64)), (232, 150, 150))
    pen.ellipse(0, -0.34, 0.56, 0.44, color)
    for x in (-0.12, 0.0, 0.12) if rng.random() < 0.6 else ():
        pen.line(((x, -0.74), (x, -0.56)), dark, 0.06)
    iris: Color = (150, 200, 70) if rng.random() < 0.6 else (240, 190, 60)
    for x in (-0.23, 0.23):
        pen.ellipse(x, -0.36, 0.12, 0.12, iris)
        pen.ellipse(x, -0.36, 0.045, 0.11, INK)
    pen.poly(((-0.07, -0.2), (0.07, -0.2), (0, -0.12)), (224, 120, 130))
    for s in (-1, 1):
        pen.line(((s * 0.2, -0.14), (s * 0.66, -0.2)), contrast(color), 0.025)
        pen.line(((s * 0.2, -0.1), (s * 0.64, -0.04)), contrast(color), 0.025)


def butterfly(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    dark, spots = shade(color, -0.45), contrast(color, GOLD, PAPER)
    span = rng.uniform(0.82, 1.0)
    for s in (-span, span):
        pen.blob(((s * 0.06, -0.1), (s * 0.4, -0.72), (s * 0.94, -0.8), (s * 0.98, -0.3), (s * 0.6, 0.04)), dark)
        pen.blob(((s * 0.06, 0.0), (s * 0.6, 0.04), (s * 0.82, 0.4), (s * 0.5, 0.82), (s * 0.16, 0.5)), dark)
        pen.blob(
            ((s * 0.12, -0.12), (s * 0.42, -0.6), (s * 0.84, -0.68), (s * 0.86, -0.32), (s * 0.54, -0.04)),
            color,
        )
        pen.blob(
            ((s * 0.12, 0.06), (s * 0.54, 0.1), (s * 0.7, 0.4), (s * 0.46, 0.68), (s * 0.18, 0.4)),
            shade(color, 0.25),
        )
        pen.circle(s * 0.66, -0.46, 0.11, spots)
        pen.circle(s * 0.48, 0.38, 0.09, spots)
        pen.line(((0, -0.44), (s * 0.12, -0.7), (s * 0.24, -0.86)), INK, 0.04)
    pen.ellipse(0, 0.08, 0.09, 0.54, INK)
    pen.circle(0, -0.46, 0.11, INK)


def snail(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    body: Color = (206, 176, 120) if rng.random() < 0.6 else (170, 150, 130)
    pen.line(((0.72, -0.05), (0.62, -0.55)), body, 0.07)
    pen.line(((0.82, -0.05), (0.94, -0.5)), body, 0.07)
    pen.circle(0.62, -0.56, 0.08, INK)
    pen.circle(0.93, -0.52, 0.08, INK)
    pen.blob(
        (
            (-1, 0.7),
            (-0.5, 0.5),
            (0.3, 0.46),
            (0.54, 0.0),
            (0.8, -0.14),
            (0.97, 0.06),
            (0.86, 0.5),
            (0.6, 0.72),
        ),
        body,
    )
    pen.circle(-0.18, 0.0, 0.64, color)
    swirl = np.linspace(0, rng.uniform(4.2, 5.2) * np.pi, 36)
    r = 0.54 * (1 - swirl / (swirl[-1] * 1.12))
    pen.line(np.stack([-0.18 + r * np.cos(swirl + 0.6), r * np.sin(swirl + 0.6)], axis=1), shade(color, -0.45), 0.1)
    pen.arc(-0.18, 0, 0.6, 0.6, 190, 280, shade(color, 0.4), 0.07)


def apple(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    lean = rng.uniform(-0.12, 0.16)
    pen.mirrored(((0, -0.44), (0.4, -0.58), (0.82, -0.3), (0.84, 0.26), (0.46, 0.88), (0, 0.82)), color)
    pen.ellipse(0, -0.44, 0.2, 0.08, shade(color, -0.4))
    pen.line(((0, -0.42), (lean, -0.92)), shade(WOOD, -0.35), 0.1)
    pen.blob(((lean * 0.6, -0.66), (0.3, -0.98), (0.64, -0.86), (0.36, -0.64)), LEAF)
    pen.ellipse(-0.44, -0.14, 0.13, 0.24, shade(color, 0.55), 20)


def turtle(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    skin = shade(color, 0.3)
    for x in (-0.5, 0.36):
        pen.ellipse(x, 0.46, 0.17, 0.24, shade(skin, -0.2))
    pen.poly(((-0.7, 0.2), (-1, 0.36), (-0.66, 0.38)), skin)
    pen.line(((0.5, 0.26), (0.72, -0.04)), skin, 0.24)
    pen.ellipse(0.8, -0.12, 0.2, 0.17, skin)
    pen.circle(0.86, -0.17, 0.04, INK)
    pen.segment(-0.1, 0.36, 0.74, 0.9, 180, 360, shade(color, -0.3))
    pen.line(((-0.86, 0.37), (0.66, 0.37)), shade(color, -0.5), 0.1)
    n = 3 if rng.random() < 0.5 else 4
    for k in range(n):
        x = -0.1 + (k - (n - 1) / 2) * 1.0 / n
        pen.ellipse(x, 0.1, 0.42 / n, 0.17, shade(color, 0.05))
        if k > 0:
            pen.ellipse(x - 0.5 / n, -0.24, 0.36 / n, 0.13, shade(color, 0.12))
