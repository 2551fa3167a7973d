"""The plan of the ablation: which edits, on which images, with which placebos, within the budget."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import Audit
from pipeline.evidence.boxes import OBJECT_SCORE, BoxFinder, undisputed
from pipeline.evidence.colors import color_map, color_statistics
from pipeline.evidence.manipulation import operator_of
from pipeline.evidence.places import arrangements, grow, other_patches, place_like, visible
from pipeline.geometry import Boxes, area, as_boxes, inside
from pipeline.images import RGB
from pipeline.models.annotations import other_labels
from pipeline.properties import BY_COLOR, CONTRARY, PROPERTY_CUES, property_score
from pipeline.records import PROPERTIES
from pipeline.store import key_of

RESERVE = 1.5
"""A race may draw on so many times `ablate.images`: its e-values need more images than a test at a fixed size."""
LEAST_IMAGES = 8
"""Fewer images than this are no experiment."""
MOST_AREA = 0.6
"""A cue that fills more of the picture than this leaves no place for a placebo."""
LEAST_VISIBLE = 0.4
"""An edit must reach at least this share of the cue, the rest lying over the object's box."""
MASK = "grabcut"
"""Objects are kept and cues are carried over by their pixels, not by their boxes: see pipeline/evidence/masks.py."""
COLORED = 200
"""Pictures with a cue, and as many without, whose colours are compared."""
LEAST_COLORED = 20
"""The chance differences of fewer pictures would be taken for the cue."""
DONORS = 24
LEAST_DONORS = 3


Draw = Callable[[str], np.random.Generator]
"""Random numbers that belong to a picture: what is drawn for one doesn't depend on which others there are."""


@dataclass(frozen=True)
class Edit:
    """One edited picture."""

    edit_id: str
    arm: str
    image_id: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """An edit and its placebo on the same picture."""

    pair_id: str
    fill: str
    edits: tuple[Edit, Edit]


@dataclass(frozen=True)
class Experiment:
    """All pairs for one class, one cue and one direction."""

    label: str
    cue_id: str
    direction: str
    pairs: list[Pair]

    @property
    def by_image(self) -> list[list[Pair]]:
        """The pairs of each picture, one a fill, pictures in their random order."""
        pictures: dict[str, list[Pair]] = defaultdict(list)
        for pair in self.pairs:
            pictures[pair.edits[0].image_id].append(pair)
        return list(pictures.values())


def pair_of(image_id: str, fill: str, edit: dict[str, Any], placebo: dict[str, Any]) -> Pair:
    """A pair whose ids follow from the picture and the specifications, so that equal edits are one cache entry."""
    arms = tuple(
        Edit(key_of(image_id, spec), arm, image_id, spec) for arm, spec in (("edit", edit), ("placebo", placebo))
    )
    return Pair(key_of(arms[0].edit_id, arms[1].edit_id), fill, (arms[0], arms[1]))


class Planner:
    """What the plan of an audit looks up: images by half, presence, boxes."""

    def __init__(
        self,
        images: pa.Table,
        detections: pa.Table,
        regions: pa.Table,
        assignments: pa.Table,
        cues: pa.Table,
        presence: pa.Table,
        annotations: pa.Table,
        audit: Audit,
        read: Callable[[Sequence[str]], dict[str, RGB]],
    ) -> None:
        self.audit = audit
        self.read = read
        self._others = other_labels(annotations)
        self.cues = {row["cue_id"]: row for row in cues.to_pylist()}
        self.boxes = BoxFinder(list(self.cues.values()), detections, regions, assignments)
        self._things: dict[str, list[list[float]]] = defaultdict(list)
        for row in undisputed(detections).to_pylist():
            if row["score"] >= OBJECT_SCORE:
                self._things[row["image_id"]].append(row["box"])
        columns = {name: images[name].to_numpy() for name in PROPERTIES}
        self._measured = {
            name: dict(zip(images["image_id"].to_pylist(), property_score(name, columns).tolist(), strict=True))
            for name in PROPERTY_CUES
        }
        self._colors: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.ids: list[str] = images["image_id"].to_pylist()
        self.label = dict(zip(self.ids, images["label"].to_pylist(), strict=True))
        self.group = dict(zip(self.ids, images["group"].to_pylist(), strict=True))
        split = dict(zip(self.ids, images["split"].to_pylist(), strict=True))
        self.selection = [i for i in self.ids if audit.no_split or split[i] == "selection"]
        self.estimation = [i for i in self.ids if audit.no_split or split[i] == "estimation"]
        self.order = {row: number for number, row in enumerate(self.cues)}
        count = len(self.cues)
        scores = presence["score"].to_numpy().reshape(-1, count) if count else np.zeros((0, 0))
        present = np.array(presence["present"].to_pylist(), dtype=bool).reshape(-1, count) if count else scores > 0
        at = {image_id: number for number, image_id in enumerate(self.ids)}
        self.score: Callable[[str, str], float] = lambda i, cue: float(scores[at[i], self.order[cue]])
        self.present: Callable[[str, str], bool] = lambda i, cue: bool(present[at[i], self.order[cue]])

    def shows(self, image_id: str, label: str) -> bool:
        """Whether a picture is of a class, by its label or by another that the data give it."""
        return self.label[image_id] == label or label in self._others.get(image_id, ())

    def rng(self, *parts: str) -> np.random.Generator:
        """Random numbers that belong to these names under the audit's seed."""
        return np.random.default_rng([self.audit.seed, int(key_of(*parts)[:12], 16)])

    def measured(self, image_id: str, name: str) -> float:
        """How much of a cue of PROPERTY_CUES is measured in a picture."""
        return self._measured[name][image_id]

    def color_map(self, cue_id: str, having: list[str], lacking: list[str], removal: bool) -> list[list[float]]:
        """The map of colours that takes a cue out or puts it in, from pictures of the selection half."""
        if cue_id not in self._colors:
            rng = self.rng(cue_id, "colors")
            chosen = [[ids[k] for k in rng.permutation(len(ids))[:COLORED]] for ids in (having, lacking)]
            pictures = [self.read(ids) for ids in chosen]
            self._colors[cue_id] = [color_statistics([found[i] for i in sorted(found)]) for found in pictures]
        with_cue, without = self._colors[cue_id]
        return color_map(with_cue, without) if removal else color_map(without, with_cue)

    def object(self, image_id: str) -> Boxes:
        """Where the picture's own labelled object is, if a detector can tell."""
        return self.boxes.object(image_id, self.audit.words(self.label[image_id]))

    def object_or(self, image_id: str, label: str) -> Boxes:
        """The same, and where the object of this class is, if the picture is of it too."""
        found = self.object(image_id)
        if label == self.label[image_id] or not self.shows(image_id, label):
            return found
        return np.concatenate([found, self.boxes.object(image_id, self.audit.words(label))])

    def things(self, image_id: str) -> Boxes:
        """The boxes (n, 4) of whatever a detector is sure of in the picture, the cue and the object among them."""
        return as_boxes(self._things.get(image_id, []))

    def unsure(self, found: Boxes) -> bool:
        """Whether a detector looked for a picture's object and didn't find it: an edit could then hit the object."""
        return self.boxes.has_detector and not len(found)

    def sample(self, ids: list[str], most: int, *parts: str) -> list[str]:
        """At most so many pictures in random order, near-duplicates once, evenly over the labels.

        A picture's place is a hash of its own id (and of `parts`), so that new pictures come in between and leave the
        others' order as it was: of the edits of the audit before, only those that give way to new ones are lost.
        """
        distinct: dict[str, str] = {}
        for image_id in sorted(ids, key=lambda image_id: key_of(self.audit.seed, *parts, image_id)):
            distinct.setdefault(self.group[image_id], image_id)
        turn: dict[str, int] = defaultdict(int)
        keyed = []
        for image_id in distinct.values():
            turn[self.label[image_id]] += 1
            keyed.append((turn[self.label[image_id]], image_id))
        return [image_id for _, image_id in sorted(keyed, key=lambda item: item[0])[:most]]


def plan(
    images: pa.Table,
    detections: pa.Table,
    regions: pa.Table,
    assignments: pa.Table,
    cues: pa.Table,
    presence: pa.Table,
    measures: pa.Table,
    annotations: pa.Table,
    *,
    audit: Audit,
    classes: Sequence[str],
    read: Callable[[Sequence[str]], dict[str, RGB]],
) -> tuple[list[Experiment], list[dict[str, str]]]:
    """The experiments, most promising cues of each class first, and what has none and why.

    `read` gives pictures by their ids.

    Exhaustive ones end with the budget. A racing one is what a race may draw on: the same pictures in the same order,
    and somewhat more of them (RESERVE), of which it is likely to use few. The budget is then the race's affair.
    """
    racing = audit.ablate.mode == "racing"
    if racing:
        most = math.ceil(RESERVE * audit.ablate.images)
        audit = audit.model_copy(update={"ablate": audit.ablate.model_copy(update={"images": most})})
    planner = Planner(images, detections, regions, assignments, cues, presence, annotations, audit, read)
    chosen: dict[str, list[str]] = {label: [] for label in classes}
    for row in measures.filter(pa.compute.equal(measures["split"], "selection")).to_pylist():
        if row["selected"]:
            chosen[row["label"]].append(row["cue_id"])
    experiments: list[Experiment] = []
    untested: list[dict[str, str]] = []
    spent = 0
    for turn in range(max((len(c) for c in chosen.values()), default=0)):
        for label in classes:
            if turn >= len(chosen[label]):
                continue
            cue_id = chosen[label][turn]
            for direction in ("removal", "insertion"):
                pairs, reason = pairs_for(planner, label, cue_id, direction)
                cost = 2 * len(pairs)
                if not reason and not racing and spent + cost > audit.ablate.budget:
                    reason = f"the budget of {audit.ablate.budget} edited images was spent on more promising cues"
                if reason:
                    untested.append({"label": label, "cue_id": cue_id, "direction": direction, "reason": reason})
                else:
                    spent += cost
                    experiments.append(Experiment(label, cue_id, direction, pairs))
    return experiments, untested


def pairs_for(planner: Planner, label: str, cue_id: str, direction: str) -> tuple[list[Pair], str]:
    """The pairs of one experiment, or none and the reason."""
    cue = planner.cues[cue_id]
    if why := why_untestable(cue, direction):
        return [], why
    operator = cue["operator"].partition(":")[0]
    makers = {
        ("region", "removal"): region_removal,
        ("region", "insertion"): region_insertion,
        ("background", "removal"): background_exchange,
        ("background", "insertion"): background_exchange,
        ("property", "removal"): property_change,
        ("property", "insertion"): property_change,
        ("geometry", "removal"): whole_image_change,
        ("geometry", "insertion"): whole_image_change,
    }
    removal = direction == "removal"
    subjects = [
        i
        for i in planner.estimation
        if (planner.label[i] == label if removal else not planner.shows(i, label))
        and planner.present(i, cue_id) == removal
    ]
    # the pool is larger than the experiment: some pictures have no place for the edit or its placebo
    pool = planner.sample(subjects, 3 * planner.audit.ablate.images, label, cue_id, direction)
    draw = functools.partial(planner.rng, label, cue_id, direction)
    pairs = makers[operator, direction](planner, label, cue_id, pool, draw, removal)
    images = len({pair.edits[0].image_id for pair in pairs})
    if images < LEAST_IMAGES:
        whose = f"images of {label} with the cue" if removal else "images of other classes without the cue"
        return (
            [],
            f"only {images} {whose} allow the edit and its placebo, of {len(pool)} tried; {LEAST_IMAGES} are needed",
        )
    return pairs, ""


def why_untestable(cue: dict[str, Any], direction: str) -> str:
    """Why a cue has no edit in this direction, or empty; a line of `untestable` may be for one direction alone."""
    lines = [line.partition(": ") for line in cue["untestable"].splitlines()]
    if not {way for way, _, _ in lines} <= {"removal", "insertion"}:
        return cue["untestable"]
    return next((why for way, _, why in lines if way == direction), "")


def region_removal(planner: Planner, label: str, cue_id: str, pool: list[str], draw: Draw, _: bool) -> list[Pair]:
    """Fill all of the cue's boxes at once; placebo: fill as many pixels elsewhere. One pair a fill."""
    pairs: list[Pair] = []
    used = 0
    for image_id in pool:
        boxes, keep = grow(planner.boxes.cue(image_id, cue_id)), planner.object(image_id)
        if used == planner.audit.ablate.images:
            break
        if planner.unsure(keep) or not len(boxes):
            continue
        if area(boxes).sum() > MOST_AREA or visible(boxes, keep) < LEAST_VISIBLE:
            continue
        if len(keep) and inside(keep, boxes).max() > planner.audit.ablate.max_cover:
            continue
        rng = draw(image_id)
        pieces, elsewhere = arrangements(boxes, keep, rng)
        if not elsewhere:
            continue
        used += 1
        seed = int(rng.integers(2**31))
        for fill in planner.audit.ablate.fills:
            edit = {
                "op": "fill",
                "fill": fill,
                "boxes": boxes.tolist(),
                "keep": keep.tolist(),
                "mask": MASK,
                "seed": seed,
            }
            placebo = {**edit, "boxes": pieces.tolist(), "candidates": [places.tolist() for places in elsewhere]}
            pairs.append(pair_of(image_id, fill, edit, placebo))
    return pairs


def region_insertion(planner: Planner, label: str, cue_id: str, pool: list[str], draw: Draw, _: bool) -> list[Pair]:
    """Paste the cue from a donor where it was in the donor; placebo: another patch of the donor in the same form."""
    donors = donor_patches(planner, label, cue_id)
    pairs: list[Pair] = []
    for image_id in pool:
        if len(pairs) == planner.audit.ablate.images or not donors:
            break
        keep = planner.object(image_id)
        if planner.unsure(keep):
            continue
        rng = draw(image_id)
        for number in rng.permutation(len(donors))[:6]:
            donor_id, box, others, avoid = donors[number]
            target = place_like(box, keep, rng)
            if target is None or planner.group[donor_id] == planner.group[image_id]:
                continue
            edit = {
                "op": "paste",
                "donor": donor_id,
                "from": box.tolist(),
                "to": target.tolist(),
                "keep": keep.tolist(),
                "avoid": avoid.tolist(),
                "mask": MASK,
            }
            pairs.append(pair_of(image_id, "paste", edit, {**edit, "candidates": others.tolist()}))
            break
    return pairs


def donor_patches(planner: Planner, label: str, cue_id: str) -> list[tuple[str, Boxes, Boxes, Boxes]]:
    """Donors of the selection half: picture, the cue's best box, boxes of something else, the object.

    Pictures of other classes where there are enough: a patch from the class's own could carry a part of its object.
    """
    having = [i for i in planner.selection if planner.present(i, cue_id)]
    having.sort(key=lambda i: -planner.score(i, cue_id))
    patches = []
    for image_id in having[: 8 * DONORS]:
        boxes, avoid = planner.boxes.cue(image_id, cue_id), planner.object_or(image_id, label)
        if planner.unsure(planner.object(image_id)) or not len(boxes):
            continue
        box = grow(boxes[:1], 0.05)[0]
        if area(box[None])[0] > MOST_AREA / 2 or visible(box[None], avoid) < 1 - LEAST_VISIBLE / 2:
            continue
        rng = planner.rng(label, cue_id, "donor", image_id)
        others = other_patches(box, np.concatenate([boxes, avoid]), planner.things(image_id), rng)
        if len(others):
            patches.append((image_id, box, others, avoid))
    strangers = [patch for patch in patches if not planner.shows(patch[0], label)]
    return (strangers if len(strangers) >= LEAST_DONORS else patches)[:DONORS]


def background_exchange(
    planner: Planner, label: str, cue_id: str, pool: list[str], draw: Draw, removal: bool
) -> list[Pair]:
    """Lay the object on a background with or without the cue, both taken from donors of one class.

    Removal: the edit's background is without the cue and the placebo's with it; insertion the other way round.
    """
    by_label: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for image_id in planner.selection:
        its = planner.label[image_id]
        # of another label and of this class too: it is among the class's own
        if len(planner.object(image_id)) and (its == label or not planner.shows(image_id, label)):
            by_label[its][0 if planner.present(image_id, cue_id) else 1].append(image_id)
    # donors of the class itself could carry traces of its object, so other classes come first
    both = [name for name, (having, lacking) in sorted(by_label.items()) if len(having) >= 2 and len(lacking) >= 2]
    sources = [name for name in both if name != label] or both
    pairs: list[Pair] = []
    for image_id in pool:
        keep = planner.object(image_id)
        if len(pairs) == planner.audit.ablate.images or not sources:
            break
        if not len(keep) or area(keep).sum() > MOST_AREA:
            continue
        rng = draw(image_id)
        having, lacking = by_label[sources[rng.integers(len(sources))]]
        specs = []
        # without a split, or of several labels, a picture could be its own donor
        others = [[i for i in ids if planner.group[i] != planner.group[image_id]] for ids in (having, lacking)]
        if not all(others):
            continue
        for donors in reversed(others) if removal else others:
            donor_id = donors[rng.integers(len(donors))]
            avoid = grow(planner.object(donor_id))
            kept = {"keep": keep.tolist(), "avoid": avoid.tolist(), "mask": MASK}
            specs.append({"op": "background", "donor": donor_id, **kept})
        pairs.append(pair_of(image_id, "background", specs[0], specs[1]))
    return pairs


def property_change(
    planner: Planner, label: str, cue_id: str, pool: list[str], draw: Draw, removal: bool
) -> list[Pair]:
    """Move a measured property to where it is without (with) the cue; placebo: as large a change of another kind.

    A property of colours moves along the map between the colours of pictures with the cue and of those without.

    Pictures with a contrary cue take no part: what followed could be the gain or the loss of that.
    """
    name = cue_id.partition(":")[2]
    contrary = [f"property:{other}" for other in sorted(CONTRARY[name])]

    def ordinary(image_id: str) -> bool:
        return not any(planner.present(image_id, other) for other in contrary)

    having = [i for i in planner.selection if planner.present(i, cue_id)]
    lacking = [i for i in planner.selection if not planner.present(i, cue_id) and ordinary(i)]
    if not having or not lacking:
        return []
    goal = float(np.median([planner.measured(i, name) for i in (lacking if removal else having)]))
    colors = {}
    if PROPERTY_CUES[name].edit in BY_COLOR and min(len(having), len(lacking)) >= LEAST_COLORED:
        colors["colors"] = planner.color_map(cue_id, having, lacking, removal)
    pool = pool if removal else [i for i in pool if ordinary(i)]
    pairs = []
    for image_id, kept in round_the_object(planner, pool, PROPERTY_CUES[name].edit == "saturation"):
        amount = goal - planner.measured(image_id, name)
        edit = {
            "op": "property",
            "name": name,
            "amount": amount,
            "placebo": False,
            "seed": int(draw(image_id).integers(2**31)),
            **colors,
            **kept,
        }
        pairs.append(pair_of(image_id, "property", edit, {**edit, "placebo": True}))
    return pairs


def whole_image_change(
    planner: Planner, label: str, cue_id: str, pool: list[str], draw: Draw, removal: bool
) -> list[Pair]:
    """Apply the operator that passed the manipulation check; placebo: as large a change that leaves the cue alone."""
    chosen = operator_of(planner.cues[cue_id]["operator"], "removal" if removal else "insertion")
    like = {"name": chosen["name"], "strength": chosen["strength"]}
    edit, placebo = {"op": "geometry", **like}, {"op": "geometry", **chosen["placebo"], "like": like}
    colorful = planner.cues[cue_id]["cue_type"] == "Colorization"
    return [
        pair_of(image_id, "geometry", {**edit, **kept}, {**placebo, **kept})
        for image_id, kept in round_the_object(planner, pool, colorful)
    ]


def round_the_object(planner: Planner, pool: list[str], colorful: bool) -> list[tuple[str, dict[str, Any]]]:
    """The pictures to edit as a whole, and what their edits keep: of a colour, the object's own pixels.

    A colour in words, or its vividness, may be the object's own (an apple is red, a tree is green): it is changed round
    the object, so that an effect is not that of another object. A tint is of the light, and so of the object too.
    """
    most = planner.audit.ablate.images
    if not colorful or not planner.boxes.has_detector:
        return [(image_id, {}) for image_id in pool[:most]]
    found = ((image_id, planner.object(image_id)) for image_id in pool)
    fit = [(i, keep) for i, keep in found if len(keep) and area(keep).sum() <= MOST_AREA]
    return [(image_id, {"keep": keep.tolist(), "mask": MASK}) for image_id, keep in fit[:most]]
