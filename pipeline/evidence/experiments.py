"""The plan of the ablation: which edits, on which images, with which placebos, within the budget."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import Audit
from pipeline.evidence.boxes import BoxFinder
from pipeline.evidence.colors import color_map, color_statistics
from pipeline.evidence.manipulation import operator_of
from pipeline.evidence.places import arrangements, grow, other_patches, place_like, visible
from pipeline.evidence.presence import Presence
from pipeline.geometry import Boxes, area, inside
from pipeline.images import RGB
from pipeline.models.annotations import other_labels
from pipeline.properties import BY_COLOR, PROPERTY_CUES, contrary_to, property_score
from pipeline.records import PROPERTIES, of_half
from pipeline.store import Parts, in_order, key_of

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
MOST_LENDERS = 400
"""Pictures of a class, with a cue or without, whose background may be lent to others."""
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


class ByImage:
    """A number or a name of each image, by its id."""

    def __init__(self, at: Mapping[str, int], values: NDArray[Any]) -> None:
        self._at, self._values = at, values

    def __getitem__(self, image_id: str) -> Any:
        return self._values[self._at[image_id]]


class Planner:
    """What the plan of an audit looks up: images by half, presence, boxes."""

    def __init__(
        self,
        images: pa.Table,
        detections: Parts,
        regions: Parts,
        assignments: Parts,
        cues: pa.Table,
        presence: Parts,
        annotations: Parts,
        audit: Audit,
        read: Callable[[Sequence[str]], dict[str, RGB]],
        scored: Collection[str] | None = None,
    ) -> None:
        self.audit = audit
        self.looked_up: Collection[str] | None = None  # whose boxes may be asked for; None: of all images
        self.read = read
        self._others = other_labels(annotations)
        self.cues = {row["cue_id"]: row for row in cues.to_pylist()}
        self._tables = detections, regions, assignments
        self._colors: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.ids: list[str] = images["image_id"].to_pylist()
        at = {image_id: number for number, image_id in enumerate(self.ids)}
        columns = {name: images[name].to_numpy() for name in PROPERTIES}
        self._measured = {name: ByImage(at, property_score(name, columns)) for name in PROPERTY_CUES}
        labels, groups = (images[name].combine_chunks().dictionary_encode() for name in ("label", "group"))
        names = {label: number for number, label in enumerate(labels.dictionary.to_pylist())}
        self._label, self._names = labels.indices.to_numpy(), names
        self.label = ByImage(at, np.array([*names], dtype=object)[self._label])
        self.group = ByImage(at, groups.indices.to_numpy())
        halves = [np.flatnonzero(of_half(images, name) | audit.no_split) for name in ("selection", "estimation")]
        self._estimation = halves[1]
        self.selection = [self.ids[n] for n in halves[0].tolist()]
        self.estimation = [self.ids[n] for n in self._estimation.tolist()]
        self._scored = sorted(self.cues if scored is None else scored)
        asked = {*self._scored, *(other for cue_id in self._scored for other in contrary_to(cue_id))}
        self._known = known = Presence.of(presence, [*self.cues], asked, self._scored)
        self.score: Callable[[str, str], float] = lambda i, cue: float(known.scores[cue][at[i]])
        self.present: Callable[[str, str], bool] = lambda i, cue: bool(known.present[at[i], known.at[cue]])
        self._pools: dict[tuple[str, str, str], list[str]] = {}

    @functools.cached_property
    def boxes(self) -> BoxFinder:
        """The boxes of the cues and the images that may be asked for."""
        return BoxFinder([self.cues[cue_id] for cue_id in self._scored], *self._tables, self.looked_up)

    def subjects(self, label: str, cue_id: str, removal: bool) -> list[str]:
        """Pictures of the estimation half: of the class with the cue (removal), or of other classes without it."""
        rows = self._estimation
        of_class = self._label[rows] == self._names.get(label, -1)
        chosen = rows[(of_class == removal) & (self._known.present[rows, self._known.at[cue_id]] == removal)]
        found = [self.ids[n] for n in chosen.tolist()]
        return found if removal else [i for i in found if label not in self._others.get(i, ())]

    def having(self, cue_id: str) -> list[str]:
        """Pictures of the selection half with a cue, those that show it most first."""
        return sorted((i for i in self.selection if self.present(i, cue_id)), key=lambda i: -self.score(i, cue_id))

    def pool(self, label: str, cue_id: str, direction: str) -> list[str]:
        """The pictures that an experiment may use; asked for by what is looked up, and by the experiment."""
        names = label, cue_id, direction
        if names not in self._pools:
            # more than the experiment takes: some pictures have no place for the edit or its placebo
            most = 3 * self.audit.ablate.images
            self._pools[names] = self.sample(self.subjects(label, cue_id, direction == "removal"), most, *names)
        return self._pools[names]

    def sides(self, label: str, cue_id: str) -> dict[str, tuple[list[str], list[str]]]:
        """Label to pictures of the selection half with the cue and without, whose backgrounds may be lent.

        Of many on a side those that the seed and their ids choose.
        """
        found: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for image_id in self.selection:
            its = self.label[image_id]
            # of another label and of this class too: it is among the class's own
            if its == label or not self.shows(image_id, label):
                found[its][0 if self.present(image_id, cue_id) else 1].append(image_id)
        for both in found.values():
            for ids in both:
                if len(ids) > MOST_LENDERS:
                    kept = in_order(range(len(ids)), ids, self.audit.seed, "background")[:MOST_LENDERS]
                    ids[:] = [ids[number] for number in sorted(kept)]
        return found

    def needed(self, label: str, cue_id: str, direction: str) -> set[str]:
        """The images whose boxes an experiment may ask for."""
        cue = self.cues[cue_id]
        if why_untestable(cue, direction):
            return set()
        ids = set(self.pool(label, cue_id, direction))
        if cue["operator"] == "region" and direction == "insertion":
            ids.update(self.having(cue_id)[: 8 * DONORS])
        if cue["operator"] == "background":
            ids.update(i for both in self.sides(label, cue_id).values() for side in both for i in side)
        return ids

    def shows(self, image_id: str, label: str) -> bool:
        """Whether a picture is of a class, by its label or by another that the data give it."""
        return self.label[image_id] == label or label in self._others.get(image_id, ())

    def rng(self, *parts: str) -> np.random.Generator:
        """Random numbers that belong to these names under the audit's seed."""
        return np.random.default_rng([self.audit.seed, int(key_of(*parts)[:12], 16)])

    def measured(self, image_id: str, name: str) -> float:
        """How much of a cue of PROPERTY_CUES is measured in a picture."""
        return float(self._measured[name][image_id])

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
        return self.boxes.things(image_id)

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
    detections: Parts,
    regions: Parts,
    assignments: Parts,
    cues: pa.Table,
    presence: Parts,
    measures: pa.Table,
    annotations: Parts,
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
    chosen: dict[str, list[str]] = {label: [] for label in classes}
    for row in measures.filter(pa.compute.equal(measures["split"], "selection")).to_pylist():
        if row["selected"]:
            chosen[row["label"]].append(row["cue_id"])
    scored = {cue_id for cue_ids in chosen.values() for cue_id in cue_ids}
    planner = Planner(images, detections, regions, assignments, cues, presence, annotations, audit, read, scored)
    planner.looked_up = {
        image_id
        for label, cue_ids in chosen.items()
        for cue_id in cue_ids
        for direction in ("removal", "insertion")
        for image_id in planner.needed(label, cue_id, direction)
    }
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
    pool = planner.pool(label, cue_id, direction)
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
    patches = []
    for image_id in planner.having(cue_id)[: 8 * DONORS]:
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
    by_label = {
        name: tuple([i for i in ids if len(planner.object(i))] for ids in both)
        for name, both in planner.sides(label, cue_id).items()
    }
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
    contrary = contrary_to(cue_id)

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
