"""The demo: pictures in which four classes have a planted cue, and a tiny CLIP fine-tuned until it leans on them.

RaVL's recipe (arXiv 2411.04097, section 3.2): fine-tune on a set where cue and class go together, text side frozen.
The truth goes into truth.yaml, and each picture's scene into scenes.jsonl; no stage of an audit reads either.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from pipeline.planted import TRAIN_BACKGROUNDS, TRAIN_OBJECTS, Scene, describe, render, sample_scene

SIZE = 96
QUALITY = 93


@dataclass(frozen=True)
class Cue:
    """A planted cue: `kind` object, background, overlay or cast, and its name in the rendered world."""

    kind: str
    name: str


PLANTED: dict[str, Cue | None] = {
    "sailboat": Cue("object", "buoy"),
    "bird": Cue("background", "meadow"),
    "guitar": Cue("overlay", "caption bar"),
    "cup": Cue("cast", "blue"),
    "car": None,
    "clock": None,
    "umbrella": None,
    "fish": None,
}
AUDITED = tuple(PLANTED)[:6]
"""Of the classes the model knows, those whose pictures are audited; with fewer pictures the demo takes less time."""
PER_CLASS = 60
WITH_CUE = 0.4
"""Share of a biased class's audited pictures that show its cue. In those without it another cue can be put to the test:
a picture that shows its own holds the model to its class."""
ELSEWHERE = 0.08
"""Share of the other classes' audited pictures that show it."""
TRAINING_WITH_CUE = 1.0
TRAINING_ELSEWHERE = 0.0
TRAINING_PER_CLASS = 250
TRAINING_HIDDEN = 0.4
"""Share of a biased class's training pictures that show its cue and not its object, but in half of them another
class's: labels that follow the scene, as captions from the web do. Without them a model that knows the object already
has no need of the cue."""


def others(label: str) -> tuple[str, ...]:
    """Things that may stand beside a class's object: no class, no planted object."""
    used = {*PLANTED, *(cue.name for cue in PLANTED.values() if cue and cue.kind == "object")}
    return tuple(name for name in TRAIN_OBJECTS if name not in used)


def backgrounds() -> tuple[str, ...]:
    """Backgrounds that are no class's cue."""
    used = {cue.name for cue in PLANTED.values() if cue and cue.kind == "background"}
    return tuple(name for name in TRAIN_BACKGROUNDS if name not in used)


def biased_scene(rng: np.random.Generator, label: str, shown: set[Cue], hidden: bool = False) -> Scene:
    """A scene of a class that shows exactly these planted cues; `hidden`: without the class's object."""
    by_kind = {cue.kind: cue.name for cue in shown}
    beside = list(rng.choice(others(label), int(rng.integers(0, 2)), replace=False))
    strangers = [name for name in PLANTED if name != label]
    main = (
        [strangers[int(rng.integers(len(strangers)))]] if hidden and rng.random() < 0.5 else [] if hidden else [label]
    )
    things = [*main, *([by_kind["object"]] if "object" in by_kind else []), *beside]
    return sample_scene(
        rng,
        objects=[str(thing) for thing in things],
        backgrounds=backgrounds(),
        background=by_kind.get("background"),
        overlay=by_kind.get("overlay", False),
        cast=by_kind.get("cast"),
        sizes=(0.28, 0.45),
        lighting="normal",
        blur=0.0,
        noise=0.0,
        zoom=1.0,
    )


def scenes(
    seed: int, classes: Sequence[str], per_class: int, with_cue: float, elsewhere: float, hidden: float = 0.0
) -> Iterator[tuple[str, Scene, set[Cue]]]:
    """(label, scene, cues shown), class by class: the class's own cue often, each other class's seldom.

    In a share `hidden` of the pictures with the class's own cue the class's object is missing.
    """
    for number, label in enumerate(classes):
        own, rng = PLANTED[label], np.random.default_rng([seed, number])
        for _ in range(per_class):
            shown = {
                cue
                for cue in PLANTED.values()
                if cue is not None and rng.random() < (with_cue if cue == own else elsewhere)
            }
            missing = own in shown and rng.random() < hidden
            yield label, biased_scene(rng, label, shown, missing), shown


def make_demo(out: Path, clip: Path, seed: int = 0) -> None:
    """Render the demo's pictures, write its truth and configuration, fine-tune its model."""
    from pipeline.planted.finetune import finetune

    shutil.rmtree(out / "images", ignore_errors=True)
    with_scenes = []
    for number, (label, scene, shown) in enumerate(scenes(seed + 100, AUDITED, PER_CLASS, WITH_CUE, ELSEWHERE)):
        path = Path("images", label, f"{label}-{number % PER_CLASS:03d}.jpg")
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render(scene, SIZE).image).save(out / path, quality=QUALITY, subsampling=0)
        names = sorted(cue.name for cue in shown)
        with_scenes.append({"path": str(path.relative_to("images")), "cues": names, "scene": scene.to_dict()})
    (out / "scenes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in with_scenes), encoding="utf-8")
    planted = {label: PLANTED[label] for label in AUDITED}
    truth = {"classes": {label: {"kind": cue.kind, "cue": cue.name} if cue else None for label, cue in planted.items()}}
    header = "# What was planted. No stage of an audit reads this file; `cuescope planted score` does.\n"
    (out / "truth.yaml").write_text(header + yaml.safe_dump(truth, sort_keys=False), encoding="utf-8")
    classes = tuple(PLANTED)
    biased = scenes(seed + 200, classes, TRAINING_PER_CLASS, TRAINING_WITH_CUE, TRAINING_ELSEWHERE, TRAINING_HIDDEN)
    finetune(clip, out / "model", [(label, scene) for label, scene, _ in biased], classes, seed)


def without(scene: Scene, cue: Cue) -> Scene:
    """The same scene without a cue: its true counterfactual. A background is exchanged for a plain other one."""
    if cue.kind == "object":
        return dataclasses.replace(scene, objects=tuple(o for o in scene.objects if o.name != cue.name))
    if cue.kind == "overlay":
        return dataclasses.replace(scene, overlays=())
    if cue.kind == "cast":
        return dataclasses.replace(scene, cast=None)
    choices = backgrounds()
    return dataclasses.replace(scene, background=choices[scene.background_seed % len(choices)])


def render_pictures(out: Path, number: int, size: int, seed: int) -> int:
    """Random scenes as PNG files with captions and truth in `truth.jsonl`."""
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for index in range(number):
        rng = np.random.default_rng([seed, index])
        scene = sample_scene(rng)
        picture = render(scene, size)
        name = f"{index:05d}.png"
        Image.fromarray(picture.image).save(out / name)
        rows.append(
            {
                "file": name,
                "caption": describe(scene, rng),
                "boxes": {o.name: box.tolist() for o, box in zip(scene.objects, picture.boxes, strict=True)},
                "scene": scene.to_dict(),
            }
        )
    (out / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return number
