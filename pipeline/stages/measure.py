"""measure: for every (class, cue), association in the data and gaps in the model's predictions, in each half.

The selection half decides which cues of a class are worth an experiment; what is reported comes from the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import Audit
from pipeline.evidence.absent import in_turn, without_object
from pipeline.evidence.answers import affirmed, by_prompt
from pipeline.evidence.asking import Asker
from pipeline.evidence.boxes import BoxFinder, of_images
from pipeline.evidence.columns import blocks, release
from pipeline.evidence.perception import (
    answered_top_k_gaps,
    compare_absent,
    compare_prompts,
    of_other_class,
    without_evidence,
)
from pipeline.evidence.presence import Cues, find_cues, phi
from pipeline.evidence.texts import text_embeddings
from pipeline.geometry import Boxes, area, as_boxes, intersection
from pipeline.images import RGB
from pipeline.metrics import association, ravl, spurlens
from pipeline.metrics.intervals import Interval
from pipeline.models.annotations import other_labels
from pipeline.models.protocols import Classifier, Detector, RecordedAnswers, RegionEncoder, YesNoModel
from pipeline.places import Place
from pipeline.records import box_array, conform, matrix, of_half, places, table
from pipeline.store import Parts, batches, in_order, length
from pipeline.verdicts.settled import Opinion, known_again, name_of, opinions, presence_of

VERSION = 2
LEAST_EVIDENCE = 1.64
"""A cue is worth an experiment if, in the selection half, a sign of it lies this many standard errors above zero."""
LEAST_PRESENT = 4
"""A cue that fewer images of the selection half show is not measured."""
DUPLICATE = 0.8
"""Of two cues whose presence correlates this much (phi) only one has an experiment: a named one if there is."""
PROMPT = "a photo of a {}"
NOBODY: Mapping[tuple[str, str], Opinion] = {}
COLORED_REGIONS = 3
"""Regions of an image that are taken for where a colour is."""

OVERLAP_IMAGES = 1000
"""Of so many images of a class in a half it is looked up whether its cues lie in its object; more are sampled."""

Reals = NDArray[np.float64]


def measure(
    images: pa.Table,
    predictions: pa.Table,
    answers: pa.Table,
    annotations: Parts,
    attributes: pa.Table,
    detections: Parts,
    regions: Parts,
    embeddings: Parts,
    clusters: pa.Table,
    assignments: Parts,
    verdicts: pa.Table,
    *,
    audit: Audit,
    classes: Sequence[str],
    fingerprints: Mapping[str, str],
    model: Classifier | RecordedAnswers,
    detector: Detector | None,
    encoder: RegionEncoder | None,
    load: Callable[[pa.Table], list[RGB]],
    cache: Place,
    count: Callable[[str, int], None],
    skip: Callable[[str, str], None],
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """`cues`, `presence` (image x cue), `measures` (class x cue x half) and, for a multimodal LLM, `variants`."""
    halves = {name: of_half(images, name) | audit.no_split for name in ("selection", "estimation")}
    said, unknown = known_again(verdicts, clusters, fingerprints.get("encoder", ""))
    if unknown:
        skip(f"{unknown} verdicts on unnamed cues", "no cluster of this audit looks like theirs")
    people = opinions(said)
    cues = find_cues(
        images, attributes, detections, embeddings, clusters, assignments,
        selection=halves["selection"], has_detector=detector is not None, encoder=encoder, cache=cache, count=count,
        load=load, seed=audit.seed, answered=presence_of(said),
    )  # fmt: skip
    place = {name: number for number, name in enumerate(classes)}
    labels = np.array([place[label] for label in images["label"].to_pylist()])
    # a model that wasn't asked about an image predicts nothing
    predicted = np.array([place.get(label, -1) for label in predictions["predicted"].to_pylist()])
    also = of_other_classes(images, annotations, place)
    yes = None
    if isinstance(model, YesNoModel):
        yes = by_prompt(answers, images["image_id"].to_pylist(), classes, list(model.prompts))
        affirmations = affirmed(predictions, classes, yes_no=True)
    groups = images["group"].combine_chunks().dictionary_encode().indices.to_numpy()
    ids = cues.image_ids
    sampled = {name: to_look_up(ids, half, labels, audit, len(classes), skip, name) for name, half in halves.items()}
    looked_up = {ids[n] for numbers in sampled.values() for n in numbers.tolist()}
    tried = in_turn(images, halves["estimation"], audit, classes) if isinstance(model, YesNoModel) else []
    boxes = BoxFinder(cues.rows, detections, regions, assignments, looked_up | {ids[n] for n in tried})
    colored = colored_regions(cues, regions, encoder, cache, count, looked_up)
    region_gaps = ravl_columns(
        cues, halves, regions, assignments, labels, predicted, also, classes, audit, encoder, cache, count
    )
    rows: list[pa.Table] = []
    chosen: dict[tuple[int, int], int] = {}
    for done, (split, half) in enumerate(halves.items()):
        weights = association.group_weights(groups[half])
        shown, y, too = cues.present[half], labels[half], None if also is None else also[half]
        if yes is None:
            gaps = association.observed_gaps(shown, y, predicted[half], len(classes), weights, also=too)
        else:
            gaps = association.answered_gaps(shown, y, affirmations[half], weights, also=too)
        odds = association.association(gaps.counts)
        v = association.cramers_v(gaps.counts.table)
        overlap = object_overlap(ids, sampled[split], cues, boxes, colored, audit, labels, classes)
        if isinstance(model, YesNoModel) and yes is not None:
            top_k = answered_top_k_gaps(cues, half, labels, yes[0][np.array(model.counts)], audit, also)
        else:
            top_k = top_k_gaps(cues, half, labels, predicted, len(classes), audit, also)
        if split == "selection":
            chosen = select(cues, half, odds, gaps, overlap, attributes, audit, classes, people)
        numbers = {
            "n_class_with": gaps.counts.class_with.round(),
            "n_class_without": gaps.counts.class_without.round(),
            "n_other_with": gaps.counts.other_with.round(),
            "n_other_without": gaps.counts.other_without.round(),
            **_interval("log_odds_ratio", odds),
            "cramers_v": v,
            **_interval("pa_gap", gaps.presence_accuracy),
            **_interval("hr_gap", gaps.hallucination),
            **top_k,
            "n_nonzero": np.broadcast_to(nonzero(cues.scores, half), odds.estimate.shape),
            **region_gaps[split],
            "object_overlap": overlap,
        }
        rows.append(measured(numbers, cues, chosen, classes, split))
        progress(done + 1, len(halves))
    variants: list[dict[str, Any]] = []
    if isinstance(model, YesNoModel) and yes is not None:
        worth: dict[int, list[int]] = {}
        for c, number in sorted(chosen, key=lambda pair: chosen[pair]):
            worth.setdefault(c, []).append(number)
        leading = {c: numbers[0] for c, numbers in worth.items()}
        asker = Asker(model, classes, cache, count)
        habits = without_evidence(asker, skip)
        variants = compare_prompts(
            model, yes, affirmations, halves["estimation"], labels, also, leading, habits, cues, classes, audit
        )
        if audit.measure.absent and not isinstance(model, RecordedAnswers):
            made = without_object(images, halves["estimation"], boxes, audit, classes)
            lacking = [label for c, label in enumerate(classes) if not any(one.label == c for one in made)]
            if detector is None:
                skip("pictures with their object masked or removed", "no detector is configured to find the object")
            elif lacking:
                skip(
                    f"pictures of {', '.join(lacking)} with the object masked or removed",
                    "in none of them a detector found all of the object, and enough beside it",
                )
            variants += compare_absent(asker, made, images, load, worth, habits, cues, audit, skip)
    return {
        "cues": table("cues", cues.rows),
        "presence": cues.presence_table(),
        "measures": pa.concat_tables(rows),
        "variants": table("variants", variants),
    }


def of_other_classes(images: pa.Table, annotations: Parts, place: dict[str, int]) -> NDArray[np.bool_] | None:
    """(n, classes): of which classes beside its label the data say that an image is too; None where they say of none.

    Args:
        place: class to its number.
    """
    others = other_labels(annotations)
    if not others:
        return None
    also = np.zeros((len(images), len(place)), dtype=bool)
    for at, image_id in enumerate(images["image_id"].to_pylist()):
        also[at, [place[label] for label in others.get(image_id, ())]] = True
    return also


def measured(
    numbers: Mapping[str, NDArray[Any]],
    cues: Cues,
    chosen: dict[tuple[int, int], int],
    classes: Sequence[str],
    split: str,
) -> pa.Table:
    """Rows of `measures` of one half, from arrays (classes, cues), class by class.

    Selected cues come first, most promising first: the ablation spends its budget in this order.
    """
    shape = (len(classes), len(cues.rows))
    turn = np.full(shape, shape[1])
    for pair, place in chosen.items():
        turn[pair] = place
    order = np.argsort(turn, axis=1, kind="stable")
    number = order.ravel()
    cue_ids = pa.array([row["cue_id"] for row in cues.rows], pa.string())
    columns: dict[str, Any] = {
        "label": pa.array(classes, pa.string()).take(np.repeat(np.arange(shape[0]), shape[1])),
        "cue_id": cue_ids.take(number),
        "split": pa.repeat(pa.scalar(split, pa.string()), len(number)),
        "selected": np.take_along_axis(turn < shape[1], order, axis=1).ravel(),
        **{name: np.take_along_axis(values, order, axis=1).ravel() for name, values in numbers.items()},
    }
    return conform("measures", pa.table(columns))


def _interval(name: str, interval: Interval) -> dict[str, Reals]:
    return {name: interval.estimate, f"{name}_lower": interval.lower, f"{name}_upper": interval.upper}


def nonzero(scores: Reals, half: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(cues,): images of a half with a score above zero."""
    found = np.zeros(scores.shape[1], dtype=np.int64)
    for number, column in enumerate(scores.T):
        found[number] = np.count_nonzero(column[half] > 0)
        release(scores)
    return found


def to_look_up(
    ids: list[str],
    half: NDArray[np.bool_],
    labels: NDArray[np.int64],
    audit: Audit,
    n_classes: int,
    skip: Callable[[str, str], None],
    name: str,
) -> NDArray[np.int64]:
    """The images of a half whose boxes are held against their object's: all of a class, or a sample of them."""
    kept: list[int] = []
    for c in range(n_classes):
        mine = np.flatnonzero(half & (labels == c)).tolist()
        kept += mine if len(mine) <= OVERLAP_IMAGES else in_order(mine, ids, audit.seed, "overlap")[:OVERLAP_IMAGES]
    if len(kept) < half.sum():
        skip(
            f"the boxes of {int(half.sum()) - len(kept)} images of the {name} half",
            f"how much of a cue lies in the object is measured on {OVERLAP_IMAGES} images of each class",
        )
    return np.array(sorted(kept), dtype=np.int64)


def select(
    cues: Cues,
    half: NDArray[np.bool_],
    odds: Interval,
    gaps: association.Gaps,
    overlap: Reals,
    attributes: pa.Table,
    audit: Audit,
    classes: Sequence[str],
    people: Mapping[tuple[str, str], Opinion] = NOBODY,
) -> dict[tuple[int, int], int]:
    """(class, cue) pairs worth an experiment, with their turn within the class, from the selection half alone.

    The evidence is the strongest of three signs, each in standard errors: association, a lower accuracy without the
    cue, a higher hallucination rate with it. A cue that lies in the object itself is core and needs no experiment.

    What people call spurious has its experiments first, whatever the signs; what they call core, or don't see in its
    pictures, has none, and neither has another cue that is in the same images as a core one.
    """
    signs = [_standard_errors(interval) for interval in (odds, gaps.presence_accuracy, gaps.hallucination)]
    evidence = np.nan_to_num(np.maximum.reduce([np.nan_to_num(sign, nan=-np.inf) for sign in signs]), neginf=-1e9)
    seen = cues.present[half].sum(axis=0)
    alike = phi(cues.present[half])
    chosen: dict[tuple[int, int], int] = {}
    for c, label in enumerate(classes):
        strength = evidence[c]
        verdicts = [people[at].verdict if (at := (label, name_of(row))) in people else "" for row in cues.rows]
        followed = [number for number, verdict in enumerate(verdicts) if verdict == "spurious"]
        core = [number for number, verdict in enumerate(verdicts) if verdict == "core"]
        worth = [
            number
            for number in range(len(cues.rows))
            if evidence[c, number] > LEAST_EVIDENCE
            and seen[number] >= LEAST_PRESENT
            and not overlap[c, number] > audit.rank.core_overlap
            and verdicts[number] not in ("spurious", "core", "not present")
            and not (alike[number, [*core, *followed]] >= DUPLICATE).any()
        ]
        worth.sort(key=lambda number: -strength[number])  # a stable sort: equals stay in the cues' order
        named = [number for number in worth if cues.rows[number]["kind"] == "named"]
        unnamed = [number for number in worth if number not in named and not (alike[number, named] >= DUPLICATE).any()]
        left = max(audit.measure.max_per_class - len(followed), 0)
        followed.sort(key=lambda number: -strength[number])
        for turn, number in enumerate([*followed, *_fair(_distinct(named, alike), _distinct(unnamed, alike), left)]):
            chosen[c, number] = turn
    return chosen


def _distinct(numbers: list[int], alike: Reals) -> list[int]:
    """Of cues whose presence is nearly the same only the first."""
    kept: list[int] = []
    for number in numbers:
        if not (alike[number, kept] >= DUPLICATE).any():
            kept.append(number)
    return kept


def _fair(named: list[int], unnamed: list[int], most: int) -> list[int]:
    """At most so many of both, turn by turn, so that neither kind crowds out the other."""
    turns = itertools.zip_longest(named, unnamed)
    return [number for pair in turns for number in pair if number is not None][:most]


def _standard_errors(interval: Interval) -> Reals:
    """How far the estimate lies above zero, in standard errors read off its 95 % interval."""
    spread = (interval.upper - interval.lower) / (2 * 1.96)
    with np.errstate(divide="ignore", invalid="ignore"):
        return interval.estimate / spread


@dataclass(frozen=True)
class ColoredRegions:
    """Of each image the regions that fit a cue's words best: `boxes` (cues, images, COLORED_REGIONS, 4); where an
    image has fewer, the others are empty."""

    cues: list[int]
    row: dict[str, int]
    boxes: NDArray[np.float32]

    def of(self, cue: int, image_id: str) -> Boxes:
        """The boxes (n, 4) of a cue's number in an image."""
        row = self.row.get(image_id)
        boxes = as_boxes([] if row is None else self.boxes[self.cues.index(cue), row])
        return boxes[area(boxes) > 0]


def colored_regions(
    cues: Cues,
    regions: Parts,
    encoder: RegionEncoder | None,
    cache: Place,
    count: Callable[[str, int], None],
    ids: Collection[str],
) -> ColoredRegions:
    """Where the colours lie that are known in words only, in these images.

    A cactus is green: where a colour is the object's own, these lie in the object, and the guard against core cues
    sees it. A tint of the whole picture shows everywhere.
    """
    numbers = [
        number
        for number, row in enumerate(cues.rows)
        if row["cue_type"] == "Colorization" and row["operator"].startswith("geometry")
    ]
    if not numbers or encoder is None or not length(regions):
        return ColoredRegions([], {}, np.zeros((0, 0, COLORED_REGIONS, 4), np.float32))
    words = text_embeddings(encoder, [cues.rows[number]["name"] for number in numbers], cache, count)
    row = {image_id: number for number, image_id in enumerate(sorted(ids))}
    found = np.zeros((len(numbers), len(row), COLORED_REGIONS, 4), np.float32)
    for part in of_images(regions, ("image_id", "box", "embedding"), ids):
        if not len(part):
            continue
        fits, boxes = matrix(part["embedding"]) @ words.T, box_array(part["box"])
        at = places(part["image_id"], row)
        for image in np.unique(at):
            mine = np.flatnonzero(at == image)
            for column in range(len(numbers)):
                best = mine[np.argsort(-fits[mine, column], kind="stable")[:COLORED_REGIONS]]
                found[column, image, : len(best)] = boxes[best]
    return ColoredRegions(numbers, row, found)


def object_overlap(
    ids: list[str],
    looked_up: NDArray[np.int64],
    cues: Cues,
    boxes: BoxFinder,
    colored: ColoredRegions,
    audit: Audit,
    labels: NDArray,
    classes: Sequence[str],
) -> Reals:
    """(classes, cues): mean share of a cue in the object, over those of these images that are of a class; or NaN."""
    total = np.zeros((len(classes), len(cues.rows)))
    n = np.zeros_like(total)
    boxed = [number for number, row in enumerate(cues.rows) if row["operator"] == "region"]
    for at in looked_up.tolist():
        image_id = ids[at]
        own = boxes.object(image_id, audit.words(classes[labels[at]]))
        if not len(own):
            continue
        for number in (*boxed, *colored.cues):
            if not cues.present[at, number]:
                continue
            if number in colored.cues:
                found = colored.of(number, image_id)
            else:
                found = boxes.cue(image_id, cues.rows[number]["cue_id"])
            if len(found):
                covered = np.minimum(intersection(found, own).sum(axis=1), area(found)).sum() / max(
                    area(found).sum(), 1e-12
                )
                total[labels[at], number] += covered
                n[labels[at], number] += 1
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 0, total / n, np.nan)


def top_k_gaps(
    cues: Cues,
    half: NDArray[np.bool_],
    labels: NDArray,
    predicted: NDArray,
    n_classes: int,
    audit: Audit,
    also: NDArray[np.bool_] | None = None,
) -> dict[str, Reals]:
    """SpurLens' gaps with the K highest and lowest presence scores, and the best of as many random orderings.

    `also`: see `of_other_classes`.
    """
    y, p = labels[half], predicted[half]
    too = None if also is None else also[half]
    k, n_cues = audit.measure.top_k, len(cues.rows)
    pa, hr = np.zeros((n_classes, n_cues)), np.zeros((n_classes, n_cues))
    rng = np.random.default_rng([audit.seed, 23])  # of all cues, one after the other
    for some in blocks(len(half), n_cues):
        finite = np.nan_to_num(cues.scores[:, some][half], neginf=-1.0, nan=-1.0)
        pa[:, some], hr[:, some] = spurlens.top_k_gaps(finite, y, p, n_classes, rng, k, too)
        release(cues.scores)
    null = {name: np.full((n_classes, n_cues), np.nan) for name in ("null_pa_gap_top_k", "null_hr_gap_top_k")}
    for c in range(n_classes):
        for name, members in (("null_pa_gap_top_k", y == c), ("null_hr_gap_top_k", of_other_class(y, c, too))):
            taken = int((p[members] == c).sum())
            null[name][c] = spurlens.expected_by_luck(taken, int(members.sum()), n_cues, k)
    return {"pa_gap_top_k": pa, "hr_gap_top_k": hr, **null}


def ravl_columns(
    cues: Cues,
    halves: Mapping[str, NDArray[np.bool_]],
    regions: Parts,
    assignments: Parts,
    labels: NDArray,
    predicted: NDArray,
    also: NDArray[np.bool_] | None,
    classes: Sequence[str],
    audit: Audit,
    encoder: RegionEncoder | None,
    cache: Place,
    count: Callable[[str, int], None],
) -> dict[str, dict[str, Reals]]:
    """RaVL's weighted gap of each class, its total and the cluster's influence, for the cues that are clusters."""
    shape = (len(classes), len(cues.rows))
    names = ("ravl_gap", "ravl_total_gap", "ravl_influence")
    result = {split: {name: np.full(shape, np.nan) for name in names} for split in halves}
    numbered = [
        (n, int(row["cue_id"].partition(":")[2])) for n, row in enumerate(cues.rows) if row["kind"] == "unnamed"
    ]
    if not numbered or encoder is None or (predicted < 0).any():
        return result
    at = {image_id: number for number, image_id in enumerate(cues.image_ids)}
    n_clusters = 1 + max(pa.compute.max(part["cluster"]).as_py() or 0 for part in batches(assignments, ["cluster"]))
    words = None
    if encoder.has_text:
        words = text_embeddings(encoder, [PROMPT.format(audit.words(name)) for name in classes], cache, count)
    nothing = np.zeros((n_clusters, len(classes)))
    sums = dict.fromkeys(result, ravl.Tally(nothing, nothing, nothing, nothing))
    columns = ["image_id", "embedding"] if encoder.has_text else ["image_id"]
    # of equal parts: assignments are written as regions are read
    for part, assigned in zip(batches(regions, columns), batches(assignments, ["cluster"]), strict=True):
        image, cluster = places(part["image_id"], at), assigned["cluster"].to_numpy()
        scores = None if words is None else matrix(part["embedding"]) @ words.T
        for split, half in halves.items():
            mine = half[image]
            here, place = np.unique(image[mine], return_inverse=True)
            speaks = None if scores is None else scores[mine, predicted[here][place]]
            too = None if also is None else also[here]
            sums[split] += ravl.tally(
                cluster[mine], place, speaks, labels[here], predicted[here], n_clusters, len(classes), too
            )
    for split, found in result.items():
        half, too = halves[split], None if also is None else also[halves[split]]
        gap = sums[split].performance_gap(labels[half], predicted[half], too)
        influence = np.full(n_clusters, np.nan) if words is None else sums[split].influence(gap.by_label)
        for number, cluster in numbered:
            found["ravl_gap"][:, number] = gap.by_label[cluster]
            found["ravl_total_gap"][:, number] = gap.total[cluster]
            found["ravl_influence"][:, number] = influence[cluster]
    return result
