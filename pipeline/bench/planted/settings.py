"""The settings of the benchmark, in the manner of RaVL's (arXiv 2411.04097, section 3.2 and appendix B).

A setting is a class and a cue that go together in a fine-tuning set (Cramer's V of a chosen strength), a model
fine-tuned on it, and a set to audit where they don't. Beside these: null settings, association without reliance, two
cues, unequal classes, wrong labels. Development settings are for choosing thresholds; held-out settings have other
seeds, other objects and other backgrounds, and are for reporting alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.planted import (
    CASTS,
    COLORS,
    HELD_OUT_BACKGROUNDS,
    HELD_OUT_OBJECTS,
    LIGHTINGS,
    OVERLAYS,
    TRAIN_BACKGROUNDS,
    TRAIN_OBJECTS,
    Placed,
    Scene,
    sample_scene,
)

World = Literal["development", "held-out"]
Design = Literal["planted", "two cues", "imbalanced", "label noise", "association", "null"]
Family = Literal["resnet", "vit", "classifier"]
FAMILIES: tuple[Family, ...] = ("resnet", "vit", "classifier")
KINDS = ("object", "background", "overlay", "cast", "texture", "lighting", "scale")
N_CLASSES = 4
TRAIN_PER_CLASS = 120
AUDIT_PER_CLASS = 100
AUDIT_WITH_CUE = 0.5
"""Share of every class's audited pictures that show the cue: independent of the class, as RaVL evaluates."""
HIDDEN = 0.4
"""Share of the class's fine-tuning pictures with the cue that lack the class's object: labels that follow the scene.
Without them a model that knows the object already has no need of the cue (see planted/demo.py)."""
RIVALS = 0.4
"""Share of the other classes' fine-tuning pictures without the cue that show the class's object beside their own: with
both these, the object alone says little, as where labels are of scenes and not of things."""
NATURAL = 0.3
"""Share of all fine-tuning pictures with the cue where nothing is planted in the model."""
ASSOCIATED = (0.65, 0.08)
"""Shares of the class's and of the others' audited pictures with the cue, where the data but not the model lean."""
WRONG_LABELS = 0.1
MINORITY = 0.33
"""Size of a small class, as a share of the others, in unequal settings."""


@dataclass(frozen=True)
class Cue:
    """A cue of the rendered world: `kind` of KINDS and its name there; `fixed`: always in one place.

    The kind "color" is none that settings have: the colour of a class's own object, which audits may find.
    """

    kind: str
    name: str
    fixed: bool = False

    @property
    def text(self) -> str:
        """Its name in the words of the world's captions."""
        words = {
            "overlay": "text watermark" if self.name == "watermark" else self.name,
            "cast": f"{self.name} tint",
            "lighting": f"{self.name} lighting",
            "scale": f"{self.name} view",
            "color": f"{self.name} color",
        }
        return words.get(self.kind, self.name)


@dataclass(frozen=True)
class Setting:
    """One model and one set to audit.

    planted: (class, cue) pairs that the model was made to lean on; with design "association", that go together in
    the audited set alone; empty for a null. strength: Cramer's V of cue and class in the fine-tuning set.
    """

    world: World
    design: Design
    classes: tuple[str, ...]
    planted: tuple[tuple[str, Cue], ...]
    strength: float
    family: Family
    seed: int

    @property
    def key(self) -> str:
        """A short name for files: the same settings, the same key."""
        return hashlib.blake2b(json.dumps(dataclasses.asdict(self), sort_keys=True).encode(), digest_size=6).hexdigest()

    @property
    def audited(self) -> Setting:
        """What the audited pictures depend on: settings that differ in model or strength alone share them."""
        return dataclasses.replace(self, family="resnet", strength=0.0)

    def describe(self) -> str:
        """In a line."""
        what = ", ".join(f"{label}-{cue.text}{' (fixed)' if cue.fixed else ''}" for label, cue in self.planted)
        return f"{self.world} {self.design} {what or 'nothing'} V={self.strength:.2f} {self.family} seed {self.seed}"


@dataclass(frozen=True)
class Vocabulary:
    """The things and places of a world's settings."""

    objects: tuple[str, ...]
    backgrounds: tuple[str, ...]
    strangers: tuple[str, ...]  # things no model has words for: cues of held-out settings


def vocabulary(world: World) -> Vocabulary:
    """Objects and backgrounds are dealt out in turn, so that no word of a held-out setting was tuned on."""
    first = world == "development"
    return Vocabulary(
        TRAIN_OBJECTS[0 if first else 1 :: 2],
        TRAIN_BACKGROUNDS[0::2] if first else (*TRAIN_BACKGROUNDS[1::2], *HELD_OUT_BACKGROUNDS[:1]),
        () if first else HELD_OUT_OBJECTS,
    )


NAMES: dict[str, tuple[str, ...]] = {
    "overlay": OVERLAYS,
    "cast": tuple(c for c in CASTS if c),
    "texture": ("noisy", "blurry"),
    "lighting": LIGHTINGS[1:],
    "scale": ("close-up",),
}


SEEDS: dict[World, int] = {"development": 1000, "held-out": 5000}
"""Of the held-out worlds from 2000 and 3000 on 52 and 44 settings were looked at while rules were still changed."""


def draw(world: World, design: Design, kind: str, number: int, strength: float, family: Family) -> Setting:
    """The `number`-th setting of a kind in a world: classes and cues by chance, under a seed of its own."""
    seed = SEEDS[world] + 37 * number
    order = ("planted", "two cues", "imbalanced", "label noise", "association", "null").index(design)
    kinds = [*KINDS, ""]
    rng = np.random.default_rng([seed, order, kinds.index(kind)])
    words = vocabulary(world)
    objects = [words.objects[i] for i in rng.permutation(len(words.objects))]
    classes = tuple(sorted(objects[:N_CLASSES]))
    free = objects[N_CLASSES:]
    targets = [classes[i] for i in rng.permutation(N_CLASSES)]
    if design == "null":
        return Setting(world, design, classes, (), 0.0, family, seed)
    planted = [(targets[0], _cue(rng, kind, words, free, number))]
    if design == "two cues":
        other = KINDS[(KINDS.index(kind) + 1 + number % 3) % len(KINDS)]
        planted.append((targets[1], _cue(rng, other, words, free[1:], number)))
    return Setting(world, design, classes, tuple(planted), strength, family, seed)


def _cue(rng: np.random.Generator, kind: str, words: Vocabulary, free: Sequence[str], number: int) -> Cue:
    if kind == "object":
        if words.strangers and number % 2:
            return Cue(kind, words.strangers[int(rng.integers(len(words.strangers)))], bool(number // 2 % 2))
        return Cue(kind, free[0], bool(number % 2))
    if kind == "background":
        return Cue(kind, words.backgrounds[int(rng.integers(len(words.backgrounds)))])
    names = NAMES[kind]
    name = names[(number + int(rng.integers(len(names)))) % len(names)]
    return Cue(kind, name, kind == "overlay" and (name == "caption bar" or bool(number % 2)))


STRENGTHS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.8, 0.9, 0.95, 0.99)
"""In turn; the weak ones, of which few turn out valid, half as often."""
DESIGNS: tuple[Design, ...] = ("two cues", "imbalanced", "label noise")


def settings(world: World) -> list[Setting]:
    """All settings of a world: 60 planted (some turn out not valid), 40 null, 14 of association, 10 of other designs.

    Of one planted draw three models of different family and strength are made, of one without reliance two or three:
    these share their audited pictures.
    """
    found: list[Setting] = []
    turn = 0
    for at, kind in enumerate(KINDS):
        for number in range(4 if kind in ("object", "background", "overlay") else 2):
            for family in FAMILIES:
                found.append(draw(world, "planted", kind, number, STRENGTHS[turn % len(STRENGTHS)], family))
                turn += 1
        for design in (DESIGNS[at % 3], DESIGNS[(at + 1) % 3])[: 1 + at % 2]:
            found.append(draw(world, design, kind, 0, (0.8, 0.9, 0.95)[turn % 3], FAMILIES[turn % 3]))
            turn += 1
        found += [draw(world, "association", kind, 0, 0.0, FAMILIES[(at + n) % 3]) for n in range(2)]
    found += [draw(world, "null", "", number // 3, 0.0, FAMILIES[number % 3]) for number in range(40)]
    return found


def some_of(every: Sequence[Setting], step: int) -> list[Setting]:
    """The settings of every `step`-th audited set, so that what settings share stays shared."""
    sets = list(dict.fromkeys(setting.audited.key for setting in every))[::step]
    return [setting for setting in every if setting.audited.key in sets]


def quick(world: World) -> list[Setting]:
    """Two planted settings and a null, for a check that takes minutes; none needs the slow ViT."""
    return [
        draw(world, "planted", "object", 0, 0.9, "resnet"),
        draw(world, "planted", "cast", 0, 0.95, "resnet"),
        draw(world, "null", "", 0, 0.0, "classifier"),
    ]


def shares(strength: float) -> tuple[float, float]:
    """(own, others): shares of a class's and of the others' pictures with the cue, for Cramer's V = `strength`.

    Of the tables with V given, the one whose cue is as common as the class: phi is then the difference of the shares
    (phi = (a - b) sqrt(pi (1 - pi)) / sqrt(p (1 - p)) with p = pi).
    """
    share = 1 / N_CLASSES
    missing = (1 - strength) * (1 - share)
    return 1 - missing, missing * share / (1 - share)


@dataclass(frozen=True)
class Example:
    """A scene with its label (what the set says), the planted cues that it shows, and whether its object is there."""

    label: str
    scene: Scene
    cues: frozenset[Cue]


def training(setting: Setting) -> list[Example]:
    """The fine-tuning set."""
    own, others = shares(setting.strength)
    leaning = setting.design not in ("association", "null")
    return list(_examples(setting, 1, TRAIN_PER_CLASS, own if leaning else NATURAL, others if leaning else NATURAL,
                          HIDDEN if leaning else 0.0))  # fmt: skip


def audited(setting: Setting) -> list[Example]:
    """The set to audit: cue and class independent, but for association settings."""
    own, others = ASSOCIATED if setting.design == "association" else (AUDIT_WITH_CUE, AUDIT_WITH_CUE)
    return list(_examples(setting.audited, 2, AUDIT_PER_CLASS, own, others, 0.0))


def _examples(
    setting: Setting, stream: int, per_class: int, own: float, others: float, hidden: float
) -> Iterator[Example]:
    for number, label in enumerate(setting.classes):
        rng = np.random.default_rng([setting.seed, stream, number])
        small = setting.design == "imbalanced" and number % 2 == 1
        for _ in range(round(per_class * (MINORITY if small else 1.0))):
            shown = frozenset(c for name, c in setting.planted if rng.random() < (own if name == label else others))
            mine = any(name == label and cue in shown for name, cue in setting.planted)
            missing = mine and rng.random() < hidden
            guests = tuple(
                name for name, cue in setting.planted
                if hidden and name != label and cue not in shown and rng.random() < RIVALS
            )  # fmt: skip
            said = label
            if setting.design == "label noise" and rng.random() < WRONG_LABELS:
                said = setting.classes[int(rng.integers(len(setting.classes)))]
            yield Example(said, scene_of(setting, rng, label, shown, missing, guests), shown)


def scene_of(
    setting: Setting,
    rng: np.random.Generator,
    label: str,
    shown: frozenset[Cue],
    hidden: bool = False,
    guests: Sequence[str] = (),
) -> Scene:
    """A scene of a class that shows these cues and none of the setting's others, and all else by chance.

    hidden: without the class's object; in half of these another class's object stands there. guests: other classes'
    objects that stand beside.
    """
    words = vocabulary(setting.world)
    cues = [cue for _, cue in setting.planted]
    used = {*setting.classes, *(cue.name for cue in cues)}
    beside = [str(name) for name in rng.permutation([o for o in words.objects if o not in used])]
    strangers = [name for name in setting.classes if name != label]
    main = [label]
    if hidden:
        main = [strangers[int(rng.integers(len(strangers)))]] if rng.random() < 0.5 else []
    by_kind = {cue.kind: cue for cue in shown}
    extra = sorted(cue.name for cue in shown if cue.kind == "object")
    things = [*main, *extra, *guests, *beside[: int(rng.integers(0, 3))]]
    places = tuple(b for b in words.backgrounds if b not in used)
    scene = sample_scene(
        rng,
        objects=things or beside[:1],
        backgrounds=places,
        background=by_kind["background"].name if "background" in by_kind else None,
        sizes=(0.24, 0.46),
    )
    for cue in cues:
        scene = _without(scene, cue, rng, places)
    for cue in sorted(shown, key=lambda cue: cue.text):
        scene = _with(scene, cue, rng)
    return scene


_CORNER = (0.83, 0.83, 0.28)  # x, y and size of what is always in one place


def _with(scene: Scene, cue: Cue, rng: np.random.Generator) -> Scene:
    """The scene made to show a cue; objects and backgrounds were sampled in already."""
    if cue.kind == "object" and cue.fixed:
        placed = tuple(_moved(o) if o.name == cue.name else o for o in scene.objects)
        return dataclasses.replace(scene, objects=placed, zoom=1.0)
    if cue.kind == "overlay":
        overlays = sample_scene(rng, overlay=cue.name).overlays
        if cue.fixed:
            place = {"watermark": (0.31, 0.1, 0.5), "caption bar": (0.5, 0.925, 0.15), "date stamp": (0.72, 0.92, 0.46)}
            x, y, size = place[cue.name]
            overlays = (dataclasses.replace(overlays[0], x=x, y=y, size=size),)
        return dataclasses.replace(scene, overlays=overlays)
    changes: dict[tuple[str, str], dict[str, Any]] = {
        ("texture", "noisy"): {"noise": float(rng.uniform(0.08, 0.13))},
        ("texture", "blurry"): {"blur": float(rng.uniform(1.05, 1.6))},
        ("scale", "close-up"): {"zoom": float(rng.uniform(1.5, 1.9))},
    }
    if cue.kind == "color":
        return _painted(scene, cue.name)
    if cue.kind == "cast":
        return dataclasses.replace(scene, cast=cue.name)
    if cue.kind == "lighting":
        return dataclasses.replace(scene, lighting=cue.name)
    return dataclasses.replace(scene, **changes.get((cue.kind, cue.name), {}))


def _painted(scene: Scene, color: str) -> Scene:
    """The scene with its first object, which is its class's own, in a colour."""
    first, *rest = scene.objects
    return dataclasses.replace(scene, objects=(dataclasses.replace(first, color=color), *rest))


def _moved(placed: Placed) -> Placed:
    x, y, size = _CORNER
    return dataclasses.replace(placed, x=x, y=y, size=size)


def shows(scene: Scene, cue: Cue) -> bool:
    """Whether a scene shows a cue."""
    if cue.kind == "object":
        return any(o.name == cue.name for o in scene.objects)
    if cue.kind == "overlay":
        return any(o.kind == cue.name for o in scene.overlays)
    values = {
        "color": bool(scene.objects) and scene.objects[0].color == cue.name,
        "background": scene.background == cue.name,
        "cast": scene.cast == cue.name,
        "lighting": scene.lighting == cue.name,
        "texture": scene.noise >= 0.07 if cue.name == "noisy" else scene.blur >= 1.0,
        "scale": scene.zoom >= 1.4,
    }
    return values[cue.kind]


def _without(scene: Scene, cue: Cue, rng: np.random.Generator, places: Sequence[str]) -> Scene:
    """Take out a cue that came in by chance; what was asked for (objects, backgrounds) stays."""
    if cue.kind in ("object", "background") or not shows(scene, cue):
        return scene
    return without(scene, cue, rng, places)


def without(scene: Scene, cue: Cue, rng: np.random.Generator, places: Sequence[str]) -> Scene:
    """The same scene without a cue: its true counterfactual. `places`: backgrounds to exchange a background for."""
    if cue.kind == "object":
        return dataclasses.replace(scene, objects=tuple(o for o in scene.objects if o.name != cue.name))
    if cue.kind == "overlay":
        return dataclasses.replace(scene, overlays=tuple(o for o in scene.overlays if o.kind != cue.name))
    if cue.kind == "background":
        return dataclasses.replace(scene, background=places[int(rng.integers(len(places)))])
    if cue.kind == "color":
        return _painted(scene, str(rng.choice([c for c in COLORS if c != cue.name])))
    if cue.kind == "texture":
        clean = dataclasses.replace(scene, noise=0.01), dataclasses.replace(scene, blur=0.0)
        return clean[0] if cue.name == "noisy" else clean[1]
    ordinary: dict[str, dict[str, Any]] = {
        "cast": {"cast": None}, "lighting": {"lighting": "normal"}, "scale": {"zoom": 1.0},
    }  # fmt: skip
    return dataclasses.replace(scene, **ordinary[cue.kind])


def counterfactuals(setting: Setting, label: str, cue: Cue, n: int) -> tuple[list[Scene], list[Scene]]:
    """`n` fresh scenes of a class that show the cue, and the same scenes without it.

    All else is as in the audited set: the setting's other cues come by their own shares.
    """
    rng = np.random.default_rng([setting.seed, 3, setting.classes.index(label), int(hashlib.blake2b(
        cue.text.encode(), digest_size=4).hexdigest(), 16)])  # fmt: skip
    words = vocabulary(setting.world)
    places = tuple(b for b in words.backgrounds if b != cue.name)
    pretend = setting
    if cue not in {c for _, c in setting.planted}:  # a cue that the audit found on its own
        pretend = dataclasses.replace(setting, planted=(*setting.planted, (label, cue)))
    shown, bare = [], []
    for _ in range(n):
        others = {c for _, c in setting.planted if c != cue and rng.random() < AUDIT_WITH_CUE}
        scene = scene_of(pretend, rng, label, frozenset({cue, *others}))
        shown.append(scene)
        bare.append(without(scene, cue, rng, places))
    return shown, bare
