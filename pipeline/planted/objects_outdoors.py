"""Vehicles, buildings and other outdoor things, each drawn in [-1, 1] x [-1, 1], upright, facing right."""

from __future__ import annotations

import numpy as np

from .pen import COLORS, GLASS, GOLD, INK, PAPER, STEEL, WOOD, Color, Pen, contrast, shade


def _wheel(pen: Pen, x: float, y: float, r: float) -> None:
    pen.circle(x, y, r, INK)
    pen.circle(x, y, r * 0.55, STEEL)
    pen.circle(x, y, r * 0.2, INK)


def sailboat(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    belly = rng.uniform(0.0, 0.14)
    hull = WOOD if rng.random() < 0.5 else shade(color, -0.4)
    pen.poly(((-0.95, 0.5), (0.95, 0.45), (0.62, 0.95), (-0.68, 0.95)), hull)
    pen.line(((-0.88, 0.6), (0.88, 0.56)), PAPER, 0.08)
    pen.line(((0, 0.5), (0, -0.98)), shade(WOOD, -0.3), 0.07)
    pen.poly(((0.07, -0.92), (0.5 + belly, -0.3), (0.85, 0.34), (0.07, 0.36)), color)
    pen.poly(((-0.07, -0.75), (-0.07, 0.36), (-0.72, 0.36), (-0.34 - belly, -0.2)), shade(color, 0.45))
    if rng.random() < 0.5:
        pen.line(((0.1, -0.2), (0.54, -0.2)), contrast(color), 0.06)


def buoy(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.mirrored(((0.84, 0.42), (0.62, 0.86), (0, 0.98)), shade(color, -0.15))
    pen.ellipse(0, 0.42, 0.85, 0.2, shade(color, 0.25))
    for x in (-1, 1):  # an open tower on a drum
        pen.line(((x * 0.5, 0.42), (x * 0.2, -0.55)), color, 0.13)
        pen.line(((x * 0.46, 0.3), (-x * 0.26, -0.2)), color, 0.07)
    pen.poly(((-0.3, -0.02), (0.3, -0.02), (0.2, -0.5), (-0.2, -0.5)), contrast(color))
    pen.line(((-0.26, -0.26), (0.26, -0.26)), color, 0.1)
    pen.rect(-0.32, -0.6, 0.32, -0.48, INK)
    pen.pill(-0.14, -0.97, 0.14, -0.6, (255, 226, 110) if rng.random() < 0.6 else (120, 220, 170), 0.1)


def lighthouse(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.blob(((-0.62, 0.95), (-0.5, 0.72), (0, 0.66), (0.46, 0.74), (0.62, 0.95), (0, 1)), (112, 106, 104))
    pen.poly(((-0.32, 0.82), (0.32, 0.82), (0.19, -0.48), (-0.19, -0.48)), PAPER)
    bands = int(rng.integers(2, 4))
    for i in range(bands):
        low = 0.82 - 1.3 * i / bands
        high = low - 0.65 / bands
        a, b = (0.19 + 0.1 * (low + 0.48), 0.19 + 0.1 * (high + 0.48))
        pen.poly(((-a, low), (a, low), (b, high), (-b, high)), color)
    pen.rect(-0.3, -0.54, 0.3, -0.46, INK)
    pen.rect(-0.17, -0.8, 0.17, -0.54, (255, 232, 130))
    pen.line(((0, -0.8), (0, -0.54)), INK, 0.04)
    pen.segment(0, -0.78, 0.24, 0.22, 180, 360, shade(color, -0.25))
    pen.rect(-0.07, 0.55, 0.07, 0.82, INK)


def car(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    roof = rng.uniform(-0.52, -0.42)
    pen.blob(((-0.62, -0.02), (-0.42, roof), (0.1, roof - 0.03), (0.5, -0.02), (0, 0.12)), shade(color, -0.12))
    pen.poly(((-0.5, -0.02), (-0.36, roof + 0.1), (-0.08, roof + 0.08), (-0.08, -0.02)), GLASS)
    pen.poly(((0, -0.02), (0, roof + 0.08), (0.12, roof + 0.1), (0.38, -0.02)), GLASS)
    pen.blob(
        (
            (-0.96, 0.08),
            (-0.9, -0.04),
            (-0.5, -0.06),
            (0.5, -0.06),
            (0.9, 0.04),
            (0.99, 0.24),
            (0.9, 0.4),
            (-0.92, 0.4),
        ),
        color,
    )
    pen.line(((-0.9, 0.26), (0.92, 0.26)), shade(color, -0.35), 0.05)
    pen.line(((-0.16, 0.06), (-0.04, 0.06)), INK, 0.04)
    pen.ellipse(0.9, 0.13, 0.08, 0.07, (255, 240, 170))
    pen.ellipse(-0.93, 0.13, 0.05, 0.07, (220, 40, 40))
    _wheel(pen, -0.54, 0.38, 0.22)
    _wheel(pen, 0.54, 0.38, 0.22)


def bicycle(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    for x in (-0.57, 0.57):
        pen.ring(x, 0.3, 0.4, 0.4, INK, 0.09)
        for a in np.deg2rad((20, 80, 140)):
            c, s = 0.38 * np.cos(a), 0.38 * np.sin(a)
            pen.line(((x - c, 0.3 - s), (x + c, 0.3 + s)), STEEL, 0.02)
    pen.line(((-0.57, 0.3), (-0.05, 0.3), (0.38, -0.25), (-0.24, -0.2), (-0.57, 0.3)), color, 0.1)
    pen.line(((-0.05, 0.3), (-0.28, -0.36)), color, 0.1)
    pen.line(((0.57, 0.3), (0.34, -0.45)), color, 0.1)
    pen.line(((-0.44, -0.38), (-0.14, -0.38)), INK, 0.12)
    pen.line(((0.34, -0.47), (0.5, -0.55), (0.56, -0.44)), INK, 0.08)
    pen.circle(-0.05, 0.3, 0.1, INK)
    if rng.random() < 0.4:
        pen.poly(((0.48, -0.36), (0.84, -0.36), (0.78, -0.12), (0.52, -0.12)), WOOD)


def airplane(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    wing = shade(color, -0.25)
    pen.poly(((0.2, -0.08), (-0.2, -0.72), (-0.4, -0.72), (-0.14, -0.08)), wing)
    pen.blob(
        (
            (-1, -0.12),
            (-0.6, -0.15),
            (0.5, -0.17),
            (0.88, -0.1),
            (1, 0.03),
            (0.8, 0.14),
            (0.3, 0.18),
            (-0.6, 0.1),
        ),
        color,
    )
    pen.poly(((-0.62, -0.1), (-0.98, -0.52), (-0.8, -0.52), (-0.4, -0.12)), wing)
    pen.poly(((-0.7, 0.0), (-1, 0.24), (-0.84, 0.24), (-0.46, 0.04)), wing)
    pen.poly(((0.24, 0.06), (-0.32, 0.78), (-0.54, 0.78), (-0.16, 0.06)), shade(color, -0.1))
    pen.poly(((0.72, -0.12), (0.86, -0.1), (0.93, -0.02), (0.74, -0.01)), GLASS)
    for x in np.arange(-0.5, 0.6, 0.2 if rng.random() < 0.5 else 0.27):
        pen.circle(float(x), -0.06, 0.05, INK)
    pen.ellipse(0.0, 0.44, 0.16, 0.08, STEEL)


def house(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    roof = (112, 60, 48) if rng.random() < 0.6 else (84, 88, 98)
    pen.rect(0.38, -0.9, 0.6, -0.3, shade(roof, -0.2))
    pen.rect(-0.76, -0.2, 0.76, 0.95, color)
    pen.rect(-0.76, 0.8, 0.76, 0.95, shade(color, -0.3))
    pen.poly(((-1, -0.14), (0, -0.95), (1, -0.14)), roof)
    pen.line(((-1, -0.14), (1, -0.14)), shade(roof, -0.35), 0.06)
    door = float(rng.choice((-0.34, 0.0, 0.34)))
    pen.rect(door - 0.16, 0.34, door + 0.16, 0.95, WOOD)
    pen.circle(door + 0.09, 0.66, 0.03, GOLD)
    for x in (-0.46, 0.46) if door == 0 else (-np.sign(door) * 0.36,):
        pen.rect(x - 0.2, 0.08, x + 0.2, 0.46, PAPER)
        pen.rect(x - 0.15, 0.13, x + 0.15, 0.41, GLASS)
        pen.line(((x, 0.13), (x, 0.41)), PAPER, 0.04)
    pen.circle(0, -0.42, 0.13, GLASS)


def traffic_light(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.rect(-0.07, 0.5, 0.07, 1, (90, 92, 98))
    pen.pill(-0.36, -0.98, 0.36, 0.6, color, 0.12)
    pen.pill(-0.28, -0.9, 0.28, 0.52, (30, 30, 34), 0.1)
    lit = int(rng.integers(0, 3))
    lamps: tuple[Color, ...] = ((255, 60, 48), (255, 200, 40), (70, 230, 110))
    for i, lamp in enumerate(lamps):
        pen.circle(0, -0.64 + 0.45 * i, 0.19, lamp if i == lit else shade(lamp, -0.45))
        if i == lit:
            pen.circle(-0.04, -0.68 + 0.45 * i, 0.08, shade(lamp, 0.6))


def rocket(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    flame = rng.uniform(0.84, 1.0)
    pen.blob(((-0.2, 0.55), (0.2, 0.55), (0.12, 0.8), (0, flame), (-0.12, 0.8)), (250, 150, 40))
    pen.blob(((-0.1, 0.55), (0.1, 0.55), (0, 0.8)), (255, 236, 120))
    fin = shade(color, -0.25)
    pen.poly(((-0.26, 0.05), (-0.66, 0.5), (-0.62, 0.78), (-0.22, 0.52)), fin)
    pen.poly(((0.26, 0.05), (0.66, 0.5), (0.62, 0.78), (0.22, 0.52)), fin)
    body = PAPER if contrast(color) == PAPER else (96, 100, 112)
    pen.mirrored(((0, -1), (0.26, -0.5), (0.31, 0), (0.24, 0.58)), body)
    pen.mirrored(((0, -1), (0.2, -0.64), (0.25, -0.46)), color)
    pen.poly(((-0.28, 0.32), (0.28, 0.32), (0.24, 0.56), (-0.24, 0.56)), color)
    pen.circle(0, -0.14, 0.17, INK)
    pen.circle(0, -0.14, 0.12, GLASS)


def anchor(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.ring(0, -0.8, 0.15, 0.15, color, 0.1)
    pen.line(((0, -0.64), (0, 0.86)), color, 0.17)
    pen.line(((-0.38, -0.42), (0.38, -0.42)), color, 0.14)
    pen.arc(0, 0.16, 0.7, 0.72, 5, 175, color, 0.17)
    for s in (-1, 1):
        pen.poly(((s * 0.98, 0.34), (s * 0.76, -0.12), (s * 0.42, 0.24)), color)
    pen.line(((-0.03, -0.6), (-0.03, 0.75)), shade(color, 0.35), 0.04)
    if rng.random() < 0.4:
        pen.line(((0.1, -0.8), (0.3, -0.6), (0.12, -0.2), (0.3, 0.2)), (206, 178, 120), 0.06)


def balloon(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    sway = rng.uniform(-0.2, 0.2)
    pen.line(((0, 0.3), (sway * 0.6, 0.5), (-sway * 0.5, 0.75), (sway, 1)), (224, 220, 210), 0.05)
    pen.poly(((0, 0.2), (0.1, 0.38), (-0.1, 0.38)), shade(color, -0.25))
    pen.mirrored(((0, -1), (0.5, -0.78), (0.62, -0.36), (0.36, 0.08), (0, 0.28)), color)
    pen.ellipse(-0.24, -0.58, 0.1, 0.2, shade(color, 0.6), 25)


def kite(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    other = contrast(color, GOLD, (190, 60, 60))
    sway = rng.uniform(-0.25, 0.25)
    tail = ((0, 0.3), (sway * 0.5, 0.52), (-sway, 0.72), (sway, 0.98))
    pen.line(tail, PAPER, 0.05)
    for x, y in tail[1:]:
        pen.poly(((x - 0.15, y - 0.07), (x, y), (x - 0.15, y + 0.07)), other)
        pen.poly(((x + 0.15, y - 0.07), (x, y), (x + 0.15, y + 0.07)), other)
    pen.poly(((0, -1), (0.66, -0.42), (0, 0.34), (-0.66, -0.42)), color)
    pen.poly(((0, -1), (0.66, -0.42), (0, -0.42)), shade(color, 0.35))
    pen.poly(((0, 0.34), (-0.66, -0.42), (0, -0.42)), shade(color, -0.3))
    pen.line(((0, -1), (0, 0.34)), INK, 0.04)
    pen.line(((-0.66, -0.42), (0.66, -0.42)), INK, 0.04)


def umbrella(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.line(((0, -0.95), (0, 0.74)), shade(WOOD, -0.35), 0.08)
    pen.arc(0.16, 0.74, 0.16, 0.2, 0, 180, shade(WOOD, -0.35), 0.1)
    rim = [(x, 0.02 - 0.1 * abs(np.sin(np.pi * x / 0.485))) for x in np.linspace(0.87, -0.83, 18)]
    dome = [(0.97 * np.cos(a), 0.02 - 0.88 * np.sin(a)) for a in np.linspace(np.pi, 0, 15)]
    pen.poly(dome + rim, color)
    striped = rng.random() < 0.6
    left, right = (shade(color, 0.5),) * 2 if striped else (shade(color, -0.14), shade(color, -0.25))
    pen.poly(((0, -0.86), (-0.42, -0.5), (-0.485, 0.02), (-0.24, -0.09), (0, 0.02)), left)
    pen.poly(((0, -0.86), (0.72, -0.6), (0.97, 0.02), (0.73, -0.09), (0.485, 0.02), (0.42, -0.5)), right)


def ladder(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    spread = rng.uniform(0.0, 0.1)
    for i in range(n := int(rng.integers(5, 8))):
        y = 0.78 - 1.56 * i / (n - 1)
        pen.line(((-0.32, y), (0.32, y)), shade(color, -0.22), 0.11)
    pen.line(((-0.36 - spread, 0.95), (-0.32, -0.95)), color, 0.14)
    pen.line(((0.36 + spread, 0.95), (0.32, -0.95)), color, 0.14)


def tent(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.line(((-0.08, -0.78), (0.08, -0.6)), INK, 0.07)
    pen.poly(((0.05, -0.68), (0.55, -0.56), (1, 0.6), (0.55, 0.72)), shade(color, -0.3))
    pen.poly(((0, -0.72), (0.6, 0.75), (-1, 0.75)), color)
    pen.poly(((-0.02, -0.5), (0.2, 0.75), (-0.42, 0.75)), (48, 40, 42))
    pen.poly(((-0.02, -0.5), (-0.42, 0.75), (-0.6, 0.68)), shade(color, 0.4))
    if rng.random() < 0.5:
        pen.line(((-0.9, 0.62), (-0.48, 0.62)), shade(color, 0.4), 0.06)


def windmill(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    pen.poly(((-0.42, 1), (0.42, 1), (0.22, -0.2), (-0.22, -0.2)), color)
    pen.segment(0, -0.18, 0.27, 0.28, 180, 360, shade(COLORS["brown"], -0.2))
    pen.rect(-0.1, 0.66, 0.1, 1, shade(WOOD, -0.3))
    pen.circle(0, 0.3, 0.09, GLASS)
    turn = rng.uniform(10, 80)
    for k in range(4):
        a = np.deg2rad(turn + 90 * k)
        c, s = float(np.cos(a)), float(np.sin(a))
        pts = [(0.1, 0.03), (0.8, 0.03), (0.8, 0.24), (0.2, 0.24)]
        pen.poly([(x * c - y * s, -0.2 + x * s + y * c) for x, y in pts], PAPER)
        pen.line(((0, -0.2), (0.8 * c, -0.2 + 0.8 * s)), shade(WOOD, -0.3), 0.06)
    pen.circle(0, -0.2, 0.09, INK)
