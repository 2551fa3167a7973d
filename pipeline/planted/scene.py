"""A scene of the rendered world as plain data: everything that a picture shows is in it.

Taking an object, an overlay or the cast out of a scene (`dataclasses.replace`) changes nothing else of its
picture, so the two pictures are true counterfactuals of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import UserError, nearest
from .backgrounds import BACKGROUNDS, TRAIN_BACKGROUNDS
from .objects import OBJECTS, TRAIN_OBJECTS
from .pen import COLORS

LIGHTINGS = ("normal", "dark", "bright", "spotlight")
CASTS = (None, "red", "green", "blue", "yellow", "purple")
OVERLAYS = ("watermark", "caption bar", "date stamp")

_WATERMARKS = ("SAMPLE", "PREVIEW", "STOCK", "PHOTO", "PICTURA", "DRAFT", "COPY", "SHUTTER")
_BARS = ("BREAKING NEWS", "LIVE TODAY", "WEATHER", "GOOD MORNING", "PHOTO OF THE DAY", "CHANNEL 7")


@dataclass(frozen=True)
class Placed:
    """One object in a scene.

    `x`, `y`: its centre, shares of the picture from the top left; `size`: its longest side, a share of the
    picture; `angle`: degrees clockwise; `flip`: mirrored left to right; `seed`: its details and exact shade.
    """

    name: str
    x: float
    y: float
    size: float
    angle: float = 0.0
    flip: bool = False
    color: str = "red"
    seed: int = 0


@dataclass(frozen=True)
class Overlay:
    """Text over the finished picture; `x`, `y`: its centre; `size`: its width (a bar's height), shares."""

    kind: str
    text: str
    x: float
    y: float
    size: float
    seed: int = 0


@dataclass(frozen=True)
class Scene:
    """A picture's whole specification.

    `objects` are drawn back to front; `blur`: sigma in pixels of a 96 px picture; `noise`: standard
    deviation, share of full brightness; `roll`: camera roll in degrees (the content turns clockwise); `zoom`:
    magnification about the middle; `horizon`: its height, share of the picture from the top.

    Raises:
        UserError: an unknown name of an object, colour, background, lighting, cast or overlay.
    """

    background: str
    background_seed: int = 0
    objects: tuple[Placed, ...] = ()
    overlays: tuple[Overlay, ...] = ()
    lighting: str = "normal"
    cast: str | None = None
    blur: float = 0.0
    noise: float = 0.0
    roll: float = 0.0
    zoom: float = 1.0
    horizon: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _known("background", self.background, BACKGROUNDS)
        _known("lighting", self.lighting, LIGHTINGS)
        if self.cast is not None:
            _known("cast", self.cast, CASTS[1:])
        for placed in self.objects:
            _known("object", placed.name, OBJECTS)
            _known("colour", placed.color, COLORS)
        for overlay in self.overlays:
            _known("overlay", overlay.kind, OVERLAYS)

    def to_dict(self) -> dict[str, Any]:
        """The scene as plain JSON values; :meth:`from_dict` gives it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scene:
        """The inverse of :meth:`to_dict`.

        Raises:
            UserError: a field is missing or unknown.
        """
        try:
            objects = tuple(Placed(**placed) for placed in values.get("objects", ()))
            overlays = tuple(Overlay(**overlay) for overlay in values.get("overlays", ()))
            return cls(**{**values, "objects": objects, "overlays": overlays})
        except TypeError as error:
            raise UserError(f"A scene's record doesn't fit: {error}. Write it again with Scene.to_dict.") from error


def _known(what: str, name: str, names: Any) -> None:
    if name not in names:
        raise UserError(f"No {what} is called {name!r} in the rendered world. {nearest(str(name), names)}")


def sample_scene(
    rng: np.random.Generator,
    *,
    objects: Sequence[str] | None = None,
    n_objects: tuple[int, int] = (1, 4),
    vocabulary: Sequence[str] = TRAIN_OBJECTS,
    backgrounds: Sequence[str] = TRAIN_BACKGROUNDS,
    background: str | None = None,
    overlay: str | bool | None = None,
    lighting: str | None = None,
    cast: str | None = "random",
    sizes: tuple[float, float] = (0.2, 0.5),
    blur: float | None = None,
    noise: float | None = None,
    roll: float | None = None,
    zoom: float | None = None,
    plain: bool = False,
) -> Scene:
    """A random scene.

    Args:
        rng: the only source of chance.
        objects: exactly these things, the first being the main one; None: as many as `n_objects` says (both
            ends included), all different, from `vocabulary`.
        background: this one; None: one of `backgrounds`.
        overlay: a kind, True for any, False for none, None for any in 15 % of the scenes.
        lighting, cast, blur, noise, roll, zoom: this value; None (for the cast: "random") at random, mostly
            ordinary. A cast of None is none.
        sizes: the objects' longest sides lie between these shares of the picture. With `zoom` open, one scene
            in twelve is a close-up, and with the default sizes one in twelve has a small main object.
        plain: everything left open but objects and background is ordinary: no overlay, cast, blur, noise,
            roll or zoom, and normal lighting.
    """
    if objects is None:
        count = int(rng.integers(n_objects[0], n_objects[1] + 1))
        names = [vocabulary[i] for i in rng.choice(len(vocabulary), min(count, len(vocabulary)), replace=False)]
    else:
        names = list(objects)
    if plain:
        overlay = False if overlay is None else overlay
        lighting = lighting or "normal"
        cast = None if cast == "random" else cast
        blur, noise, roll, zoom = blur or 0.0, noise or 0.0, roll or 0.0, zoom or 1.0
    odd = rng.random(6)
    if zoom is None:
        zoom = float(rng.uniform(1.5, 1.9)) if odd[0] < 1 / 12 else 1.0
    small = not plain and sizes == (0.2, 0.5) and 1 / 12 <= odd[0] < 2 / 12
    if roll is None:
        roll = float(rng.uniform(12, 28) * rng.choice((-1, 1))) if odd[1] < 0.1 else float(rng.uniform(-2.5, 2.5))
    if blur is None:
        blur = float(rng.uniform(1.05, 1.6)) if odd[2] < 0.08 else float(rng.uniform(0, 0.3))
    if noise is None:
        noise = float(rng.uniform(0.08, 0.13)) if odd[3] < 0.08 else float(rng.uniform(0, 0.02))
    if lighting is None:
        lighting = "normal" if odd[4] < 0.7 else str(rng.choice(LIGHTINGS[1:]))
    if cast == "random":
        cast = CASTS[int(rng.integers(1, len(CASTS)))] if odd[5] < 0.12 else None
    return Scene(
        background=background or backgrounds[int(rng.integers(len(backgrounds)))],
        background_seed=int(rng.integers(2**31)),
        objects=_place(rng, names, sizes, zoom, small),
        overlays=_overlays(rng, overlay),
        lighting=lighting,
        cast=cast,
        blur=blur,
        noise=noise,
        roll=roll,
        zoom=zoom,
        horizon=float(rng.uniform(0.36, 0.6)),
        seed=int(rng.integers(2**31)),
    )


def _place(
    rng: np.random.Generator, names: Sequence[str], sizes: tuple[float, float], zoom: float, small: bool
) -> tuple[Placed, ...]:
    """Objects apart from each other where there is room, else where they overlap least of many tries."""
    placed: list[Placed] = []
    top = min(sizes[1], 0.95 / max(1.0, len(names) ** 0.5))
    reach = 0.5 / zoom
    for k, name in enumerate(names):
        kind = OBJECTS[name]
        size = float(rng.uniform(min(sizes[0], top), top))
        if k == 0 and zoom > 1:
            size = max(size, 0.9 * sizes[1])  # a close-up is of something
        if k == 0 and small:
            size = float(rng.uniform(0.12, 0.17))
        best, least = (0.5, 0.5), np.inf
        half = min(size / 2, reach * 0.95)
        low, high = (0.5 - reach + half, 0.5 + reach - half)
        floor = low + (0.3 if kind.grounded else 0.0) * (high - low)  # what stands is seldom in the sky
        for x, y in rng.uniform((low, floor), (max(high, low), max(high, floor)), (24, 2)):
            cost = 0.0
            for other in placed:
                gap = max(abs(x - other.x), abs(y - other.y)) / (0.44 * (size + other.size))
                cost += max(0.0, 1.0 - gap)
            if k == 0 and zoom > 1:
                cost = max(abs(x - 0.5), abs(y - 0.5))
            if cost < least:
                best, least = (float(x), float(y)), cost
            if cost == 0:
                break
        angle = float(rng.normal(0, kind.tilt / 2.5))
        placed.append(
            Placed(
                name=name,
                x=best[0],
                y=best[1],
                size=size,
                angle=max(-kind.tilt, min(kind.tilt, angle)),
                flip=bool(rng.random() < 0.5),
                color=kind.colors[int(rng.integers(len(kind.colors)))],
                seed=int(rng.integers(2**31)),
            )
        )
    return tuple(placed)


def _overlays(rng: np.random.Generator, overlay: str | bool | None) -> tuple[Overlay, ...]:
    if overlay is False or (overlay is None and rng.random() >= 0.15):
        return ()
    kind = overlay if isinstance(overlay, str) else OVERLAYS[int(rng.integers(len(OVERLAYS)))]
    seed = int(rng.integers(2**31))
    if kind == "watermark":
        text = str(rng.choice(_WATERMARKS))
        if rng.random() < 0.5:
            y, size = rng.uniform((0.4, 0.7), (0.6, 0.95))
            return (Overlay(kind, text, 0.5, float(y), float(size), seed),)
        x, y = rng.choice((0.31, 0.69)), rng.choice((0.1, 0.9))
        return (Overlay(kind, text, float(x), float(y), float(rng.uniform(0.45, 0.56)), seed),)
    if kind == "caption bar":
        size = float(rng.uniform(0.12, 0.18))
        y = 1 - size / 2 if rng.random() < 0.75 else size / 2
        return (Overlay(kind, str(rng.choice(_BARS)), 0.5, y, size, seed),)
    day = f"{rng.integers(1, 13):02d} {rng.integers(1, 29):02d} '{rng.integers(90, 100)}"
    return (Overlay(kind, day, float(rng.choice((0.72, 0.28))), 0.92, float(rng.uniform(0.42, 0.5)), seed),)
