"""The objects of the rendered world, by name: how each is drawn, its sensible colours, and where it rests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import objects_indoors as indoors
from . import objects_nature as nature
from . import objects_outdoors as outdoors
from .pen import Color, Pen

Draw = Callable[[Pen, np.random.Generator, Color], None]


@dataclass(frozen=True)
class Object:
    """One kind of thing.

    `tilt` is the largest angle in degrees at which it is seen; `grounded` things cast a contact shadow below
    themselves, others a faint one behind. `held_out` ones are never shown to models trained on this world.
    """

    name: str
    draw: Draw
    colors: tuple[str, ...]
    tilt: float = 8.0
    grounded: bool = True
    held_out: bool = False


_BRIGHT = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
_PAINT = (*_BRIGHT, "white", "black")
_FUR = ("orange", "brown", "gray", "white", "black")
_METAL = ("gray", "black", "yellow", "brown")

OBJECTS: dict[str, Object] = {
    o.name: o
    for o in (
        Object("sailboat", outdoors.sailboat, _PAINT),
        Object("buoy", outdoors.buoy, ("red", "orange", "yellow", "green"), tilt=14),
        Object("lighthouse", outdoors.lighthouse, ("red", "blue", "black", "green"), tilt=4),
        Object("car", outdoors.car, (*_PAINT, "gray")),
        Object("bicycle", outdoors.bicycle, _PAINT),
        Object("airplane", outdoors.airplane, (*_PAINT, "gray"), tilt=30, grounded=False),
        Object("house", outdoors.house, (*_BRIGHT, "white", "brown"), tilt=4),
        Object("traffic light", outdoors.traffic_light, ("yellow", "black", "gray"), tilt=5),
        Object("rocket", outdoors.rocket, _BRIGHT, tilt=40, grounded=False),
        Object("anchor", outdoors.anchor, ("gray", "black", "blue", "brown"), tilt=25),
        Object("balloon", outdoors.balloon, _BRIGHT, tilt=15, grounded=False),
        Object("kite", outdoors.kite, _BRIGHT, tilt=40, grounded=False),
        Object("umbrella", outdoors.umbrella, (*_BRIGHT, "black"), tilt=30),
        Object("ladder", outdoors.ladder, ("brown", "gray", "red", "orange", "blue"), tilt=20),
        Object("tree", nature.tree, ("green", "orange", "yellow", "red"), tilt=4),
        Object("flower", nature.flower, ("red", "orange", "yellow", "blue", "purple", "pink", "white"), tilt=15),
        Object("mushroom", nature.mushroom, ("red", "brown", "orange", "white", "purple"), tilt=10),
        Object("cactus", nature.cactus, ("green",), tilt=6),
        Object("fish", nature.fish, _BRIGHT, tilt=20, grounded=False),
        Object("bird", nature.bird, ("red", "yellow", "blue", "brown", "black", "white", "green"), tilt=12),
        Object("cat", nature.cat, _FUR),
        Object("butterfly", nature.butterfly, _BRIGHT, tilt=40, grounded=False),
        Object("snail", nature.snail, ("brown", "orange", "red", "purple", "green", "blue"), tilt=10),
        Object("apple", nature.apple, ("red", "green", "yellow"), tilt=15),
        Object("cup", indoors.cup, (*_PAINT, "brown")),
        Object("lamp", indoors.lamp, (*_BRIGHT, "white"), tilt=5),
        Object("chair", indoors.chair, (*_BRIGHT, "brown", "black"), tilt=5),
        Object("clock", indoors.clock, (*_BRIGHT, "brown", "black", "gray"), tilt=20),
        Object("key", indoors.key, _METAL, tilt=60),
        Object("hammer", indoors.hammer, ("red", "blue", "yellow", "green", "black", "orange"), tilt=50),
        Object("guitar", indoors.guitar, ("red", "orange", "brown", "black", "blue", "yellow"), tilt=40),
        Object("ball", indoors.ball, _BRIGHT, tilt=180),
        Object("hat", indoors.hat, (*_PAINT, "brown", "gray"), tilt=15),
        Object("book", indoors.book, (*_BRIGHT, "brown", "black"), tilt=20),
        Object("bottle", indoors.bottle, ("green", "blue", "brown", "red", "purple"), tilt=12),
        Object("drum", indoors.drum, _BRIGHT, tilt=10),
        Object("robot", indoors.robot, (*_BRIGHT, "gray"), held_out=True),
        Object("crown", indoors.crown, ("yellow", "gray", "orange"), tilt=12, held_out=True),
        Object("turtle", nature.turtle, ("green", "brown"), held_out=True),
        Object(
            "ice cream",
            indoors.ice_cream,
            ("pink", "brown", "white", "yellow", "green"),
            tilt=12,
            held_out=True,
        ),
        Object("tent", outdoors.tent, _BRIGHT, tilt=5, held_out=True),
        Object("bell", indoors.bell, ("yellow", "gray", "red"), tilt=20, held_out=True),
        Object("scissors", indoors.scissors, _BRIGHT, tilt=60, held_out=True),
        Object("windmill", outdoors.windmill, ("white", "brown", "gray", "red"), tilt=4, held_out=True),
    )
}
TRAIN_OBJECTS: tuple[str, ...] = tuple(name for name, o in OBJECTS.items() if not o.held_out)
HELD_OUT_OBJECTS: tuple[str, ...] = tuple(name for name, o in OBJECTS.items() if o.held_out)
