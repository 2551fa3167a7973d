"""Words for a scene: captions, yes/no questions, and which nameable attributes hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .backgrounds import TRAIN_BACKGROUNDS
from .objects import TRAIN_OBJECTS
from .render import visible_shares
from .scene import CASTS, Scene

VISIBLE = 0.35  # an object counts as present if at least this share of it is seen

_PLACES = {
    "beach": "on a beach",
    "ocean": "on the ocean",
    "sky": "in the sky",
    "night sky": "under a night sky",
    "meadow": "in a meadow",
    "forest": "in a forest",
    "desert": "in a desert",
    "snowfield": "in a snowfield",
    "city street": "on a city street",
    "brick wall": "in front of a brick wall",
    "wooden table": "on a wooden table",
    "carpet": "on a carpet",
    "tiled floor": "on a tiled floor",
    "mountain": "in front of a mountain",
    "marble wall": "in front of a marble wall",
    "sunset": "at sunset",
}
# The first three are the unbiased prompts of SpurLens (arXiv 2503.08884, step 4).
_QUESTIONS = (
    "Do you see {x} in the image? Answer with 'Yes' or 'No'.",
    "Is there {x} in the image? Answer with 'Yes' or 'No'.",
    "Determine whether there is {x} in the image. Reply with 'Yes' or 'No'.",
    "Is there {x} in this picture?",
    "Can you see {x}?",
)


@dataclass(frozen=True)
class Concept:
    """A nameable attribute of a picture; `cue_type` is one of the nine of MM-SpuBench (arXiv 2406.17126)."""

    phrase: str
    kind: str
    cue_type: str


CONCEPTS: tuple[Concept, ...] = (
    *(Concept(name, "object", "Co-occurring Objects") for name in TRAIN_OBJECTS),
    *(Concept(name, "background", "Background") for name in TRAIN_BACKGROUNDS),
    Concept("text watermark", "overlay", "Co-occurring Objects"),
    Concept("caption bar", "overlay", "Co-occurring Objects"),
    Concept("date stamp", "overlay", "Co-occurring Objects"),
    Concept("dark lighting", "lighting", "Lighting and Shadows"),
    Concept("bright lighting", "lighting", "Lighting and Shadows"),
    Concept("spotlight lighting", "lighting", "Lighting and Shadows"),
    *(Concept(f"{cast} tint", "cast", "Colorization") for cast in CASTS if cast),
    Concept("blurry", "blur", "Texture and Noise"),
    Concept("noisy", "noise", "Texture and Noise"),
    Concept("tilted view", "roll", "Orientation"),
    Concept("close-up view", "zoom", "Perspective and Angle"),
    Concept("small object", "size", "Relative Size"),
)


def truth(scene: Scene) -> dict[str, bool]:
    """Which of CONCEPTS hold, by phrase. A blur counts from 1 px (at 96 px), noise from 7 %, a roll from
    10 degrees, a close-up from 1.4-fold; a small object is a main object below 18 % of the picture's side."""
    seen = {p.name for p, share in zip(scene.objects, visible_shares(scene), strict=True) if share >= VISIBLE}
    kinds = {overlay.kind for overlay in scene.overlays}
    holds = {name: name in seen for name in TRAIN_OBJECTS}
    holds |= {name: name == scene.background for name in TRAIN_BACKGROUNDS}
    holds["text watermark"] = "watermark" in kinds
    holds |= {kind: kind in kinds for kind in ("caption bar", "date stamp")}
    holds |= {f"{name} lighting": scene.lighting == name for name in ("dark", "bright", "spotlight")}
    holds |= {f"{cast} tint": scene.cast == cast for cast in CASTS if cast}
    holds["blurry"] = scene.blur >= 1.0
    holds["noisy"] = scene.noise >= 0.07
    holds["tilted view"] = abs(scene.roll) >= 10
    holds["close-up view"] = scene.zoom >= 1.4
    holds["small object"] = bool(scene.objects) and scene.objects[0].size * scene.zoom < 0.18
    return holds


def with_article(noun: str) -> str:
    """The noun after `a` or `an`, by its first letter: the world's words have no silent h and no "uni-"."""
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """A caption that names every object of which at least 35 % is seen, often with its colour; the
    background in two of three, overlays and what is odd about the photograph often, in varied wording."""
    names: list[str] = []
    told: set[str] = set()
    colored = rng.random() < 0.5
    for placed, share in zip(scene.objects, visible_shares(scene), strict=True):
        if share >= VISIBLE:
            noun = f"{placed.color} {placed.name}" if colored and rng.random() < 0.8 else placed.name
            names.append(f"another {noun}" if placed.name in told else with_article(noun))
            told.add(placed.name)
    if len(names) > 1 and not any(name.startswith("another") for name in names):
        names = [names[i] for i in rng.permutation(len(names))]
    place = _PLACES[scene.background]
    look = _look(scene, rng)
    photo = _pick(rng, ("photo", "picture", "image"))
    extra = _extras(scene, rng)
    if not names:
        taken = _pick(rng, ("taken", "with nothing to see"))
        return f"{with_article(look + photo).capitalize()} {taken} {place}{extra}."
    things = _listed(names)
    where = f" {place}" if rng.random() < 0.67 else ""
    form = rng.random()
    if look or form < 0.4:
        return f"{with_article(look + photo).capitalize()} of {things}{where}{extra}."
    if form < 0.6:
        return f"{things[0].upper()}{things[1:]}{where}{extra}."
    if form < 0.75:
        return f"There is {things}{where}{extra}."
    if form < 0.88:
        return f"The {photo} shows {things}{where}{extra}."
    return f"{place[0].upper()}{place[1:]} there is {things}{extra}."


def _look(scene: Scene, rng: np.random.Generator) -> str:
    """Words before "photo", with a space after, or nothing."""
    holds = truth(scene)
    words = [w for w in ("blurry", "noisy") if holds[w]]
    words += [w for w in ("tilted", "close-up") if holds[f"{w} view"]]
    if scene.lighting in ("dark", "bright"):
        words.append(scene.lighting)
    words = [word for word in words if rng.random() < 0.6]
    return "".join(f"{word} " for word in words)


def _extras(scene: Scene, rng: np.random.Generator) -> str:
    """A clause at the end, with its comma, or nothing."""
    parts = [with_article(overlay.kind) for overlay in scene.overlays if rng.random() < 0.75]
    if scene.cast and rng.random() < 0.6:
        parts.append(f"a {scene.cast} tint")
    if scene.lighting == "spotlight" and rng.random() < 0.6:
        parts.append("spotlight lighting")
    return f", with {_listed(parts)}" if parts else ""


def questions(scene: Scene, rng: np.random.Generator, n: int) -> list[tuple[str, str]]:
    """`n` questions about trained objects, backgrounds and watermarks with their answers, "Yes" or "No",
    about half each. An object that is present but less than 35 % seen is not asked about."""
    placed = {p.name for p in scene.objects}
    shares = visible_shares(scene)
    seen = sorted({p.name for p, share in zip(scene.objects, shares, strict=True) if share >= VISIBLE})
    absent = [name for name in TRAIN_OBJECTS if name not in placed]
    asked = []
    for _ in range(n):
        yes, kind = bool(rng.random() < 0.5), rng.random()
        if kind < 0.1:
            others = tuple(b for b in TRAIN_BACKGROUNDS if b != scene.background)
            noun = scene.background if yes else _pick(rng, others)
        elif kind < 0.16:
            noun, yes = "watermark", any(o.kind == "watermark" for o in scene.overlays)
        else:
            yes = yes and bool(seen)
            noun = _pick(rng, tuple(seen if yes else absent))
        asked.append((_pick(rng, _QUESTIONS).format(x=with_article(noun)), "Yes" if yes else "No"))
    return asked
