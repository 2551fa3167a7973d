"""The rendered world: scenes as data, drawn by vector shapes, with words and boxes true by construction."""

from .backgrounds import BACKGROUNDS, HELD_OUT_BACKGROUNDS, TRAIN_BACKGROUNDS
from .captions import CONCEPTS, VISIBLE, Concept, describe, questions, truth
from .objects import HELD_OUT_OBJECTS, OBJECTS, TRAIN_OBJECTS, Object
from .pen import COLORS
from .render import Picture, render, visible_shares
from .scene import CASTS, LIGHTINGS, OVERLAYS, Overlay, Placed, Scene, sample_scene

__all__ = [
    "BACKGROUNDS",
    "CASTS",
    "COLORS",
    "CONCEPTS",
    "HELD_OUT_BACKGROUNDS",
    "HELD_OUT_OBJECTS",
    "LIGHTINGS",
    "OBJECTS",
    "OVERLAYS",
    "TRAIN_BACKGROUNDS",
    "TRAIN_OBJECTS",
    "VISIBLE",
    "Concept",
    "Object",
    "Overlay",
    "Picture",
    "Placed",
    "Scene",
    "describe",
    "questions",
    "render",
    "sample_scene",
    "truth",
    "visible_shares",
]
