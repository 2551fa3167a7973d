"""Which images settle a finding soonest, and how many of them.

Two things about presence are uncertain, and people settle both:

1. the cue's threshold. It is calibrated (evidence/answered.py) by LEAST_OF_EACH answered images of the selection half
   with the cue and as many without it: the nearest to the threshold on either side that nobody has answered for yet.
2. the observed gap of the finding, an estimate on the other half. With e_i the probability that the presence of image
   i is wrong, and d_i the change of the gap if it is, the variance that presence adds to the gap is
   V = sum of e_i (1 - e_i) d_i^2. An answered image adds nothing. Labelling is done when what is left would widen
   the gap's 95 % interval, of half-width a, by less than WIDENED: 1.96 sqrt(V) <= a sqrt((1 + WIDENED)^2 - 1).
   More labels would then be lost in the error of the sample of images itself. Images are taken by
   e_i (1 - e_i) d_i^2, the largest first, those that seem to show the cue and those that don't in turn.

e_i is the posterior of the other side of the threshold t in a linear discriminant of the scores s (Hastie, Tibshirani,
Friedman 2009, section 4.3): 1 / (1 + exp(k |s_i - t|)) with k = (m1 - m0) / v, the means of either side and their
pooled variance. d_i is large where an image's outcome is not that of its side (the model misses the class with the cue
there, or finds it without), and where a side has few images: disagreeing evidence comes first, and both kinds do.
Choosing by expected change of the estimate is Settles' (2009, section 3.3). A gap of accuracy, on the class's images,
and one of hallucinations, on others', are settled both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from pipeline.evidence.answered import LEAST_OF_EACH
from pipeline.export.data import Asked, ExportData, Row
from pipeline.metrics.intervals import normal_quantile
from pipeline.store import key_of

WIDENED = 0.1
Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Plan:
    """The images that settle a finding, most telling first, and what labelling them comes to.

    Args:
        images: ids, those that set the threshold, then those that settle the gaps.
        for_threshold: how many of them are asked for the threshold.
        widened: by which share the uncertainty of presence widens the gap's interval now (of two gaps the larger).
        after: the same when all `images` are labelled.
    """

    images: tuple[str, ...]
    for_threshold: int
    widened: float
    after: float


@dataclass(frozen=True)
class Side:
    """One gap of a finding: its images, outcomes and what is uncertain."""

    ids: list[str]
    shown: Flags
    variance: Reals  # e (1 - e) d^2, an image
    half_width: float

    def left(self, labelled: Iterable[str] = ()) -> float:
        """The variance of the gap that images which aren't labelled leave."""
        done = set(labelled)
        return math.fsum(v for i, v in zip(self.ids, self.variance.tolist(), strict=True) if i not in done)

    def widened(self, left: float) -> float:
        """By which share this variance widens the interval."""
        return math.sqrt(1 + normal_quantile(0.95) ** 2 * max(left, 0.0) / self.half_width**2) - 1


def plan(audit: ExportData, finding: Row) -> Plan:
    """What to label for a finding; nothing where its scores or predictions aren't at hand."""
    cue_id = finding["cue_id"]
    if cue_id not in audit.cuts or cue_id not in audit.showing:
        return Plan((), 0, 0.0, 0.0)
    known = audit.showing[cue_id]
    rows = [row for row in audit.images if row["image_id"] in known]
    ids = [row["image_id"] for row in rows]
    shown = np.array([known[i] for i in ids])
    scores = np.array([known.score(i) for i in ids], dtype=np.float64)
    doubt = wrong(scores, shown, audit.cuts[cue_id])
    answered = audit.answered.get(cue_id, {})
    doubt[[i in answered for i in ids]] = 0.0
    split = bool(audit.run.get("split", True))
    halves = np.array([row["split"] for row in rows])
    first = _for_threshold(ids, shown, doubt, answered, (halves == "selection") | (not split))
    estimation = (halves == "estimation") | (not split)
    sides = [
        side
        for gap, whose in (("pa_gap", True), ("hr_gap", False))
        if (side := _side(audit, finding, gap, whose, rows, shown, doubt, estimation)) is not None
    ]
    more = _for_gaps(sides, first, [audit.run.get("seed", 0), finding["finding_id"]])
    return Plan(
        (*first, *more),
        len(first),
        max((side.widened(side.left()) for side in sides), default=0.0),
        max((side.widened(side.left((*first, *more))) for side in sides), default=0.0),
    )


def wrong(scores: Reals, shown: Flags, cut: float) -> Reals:
    """(n,) the probability that an image lies on the wrong side of the threshold, in [0, 1/2]; 0 for no score."""
    usable = np.isfinite(scores)
    above, below = scores[usable & (scores >= cut)], scores[usable & (scores < cut)]
    doubt = np.zeros(len(scores))
    if len(above) < 2 or len(below) < 2:
        return doubt
    spread = float((((above - above.mean()) ** 2).sum() + ((below - below.mean()) ** 2).sum()) / (usable.sum() - 2))
    if spread > 0:
        doubt[usable] = expit(-(above.mean() - below.mean()) / spread * np.abs(scores[usable] - cut))
    return doubt


def change_of_gap(outcome: Reals, shown: Flags) -> Reals:
    """(n,) how much the gap (share of outcomes with the cue less without) changes if an image's presence is wrong.

    Shares have half an outcome of either kind added, so that a side of one image, or none, has one too.
    """

    def share(k: ArrayLike, n: ArrayLike) -> Reals:
        return (np.asarray(k, float) + 0.5) / (np.asarray(n, float) + 1)

    k1, n1 = outcome[shown].sum(), shown.sum()
    k0, n0 = outcome[~shown].sum(), (~shown).sum()
    moved = np.where(shown, -1.0, 1.0)
    after = share(k1 + moved * outcome, n1 + moved) - share(k0 - moved * outcome, n0 - moved)
    return after - (share(k1, n1) - share(k0, n0))


def _side(
    audit: ExportData, finding: Row, gap: str, whose: bool, rows: Sequence[Row], shown: Flags, doubt: Reals, half: Flags
) -> Side | None:
    label = finding["class"]
    at = [
        i
        for i, row in enumerate(rows)
        if half[i]
        and row["image_id"] in audit.said
        and (row["label"] == label) == whose
        and (whose or label not in audit.also.get(row["image_id"], ()))
    ]
    half_width = (finding[f"{gap}_upper"] - finding[f"{gap}_lower"]) / 2
    if not at or not half_width > 0:  # not measured: NaN
        return None
    ids = [rows[i]["image_id"] for i in at]
    outcome = np.array([float(label in audit.said[i]) for i in ids])
    e = doubt[at]
    return Side(ids, shown[at], e * (1 - e) * change_of_gap(outcome, shown[at]) ** 2, half_width)


def _for_threshold(ids: Sequence[str], shown: Flags, doubt: Reals, told: Mapping[str, bool], half: Flags) -> list[str]:
    """The nearest images on either side of the threshold, in turn, as many as it still lacks answers of."""
    queues: list[list[str]] = []
    for side in (True, False):
        have = sum(told[i] == side for i, here in zip(ids, half, strict=True) if here and i in told)
        mine = [n for n in range(len(ids)) if half[n] and shown[n] == side and ids[n] not in told and doubt[n] > 0]
        mine.sort(key=lambda n: (-doubt[n], ids[n]))
        queues.append([ids[n] for n in mine[: max(LEAST_OF_EACH - have, 0)]])
    return _in_turn(*queues)


def _for_gaps(sides: Sequence[Side], first: Sequence[str], seed: Sequence[object]) -> list[str]:
    """The fewest images, by their share of what the gaps allow, after which no gap is widened too much."""
    allowed = (1 + WIDENED) ** 2 - 1
    worth: list[tuple[float, str, str, bool]] = []
    for side in sides:
        scale = normal_quantile(0.95) ** 2 / (allowed * side.half_width**2)
        worth += [
            (-v * scale, key_of(*seed, i), i, bool(s))
            for i, v, s in zip(side.ids, side.variance.tolist(), side.shown.tolist(), strict=True)
            if v > 0 and i not in first
        ]
    worth.sort()
    order = _in_turn(*([i for _, _, i, shown in worth if shown == side] for side in (True, False)))
    own = [dict(zip(side.ids, side.variance.tolist(), strict=True)) for side in sides]
    left = [side.left(first) for side in sides]
    taken: list[str] = []
    for image_id in order:
        if all(side.widened(variance) <= WIDENED for side, variance in zip(sides, left, strict=True)):
            break
        taken.append(image_id)
        left = [variance - mine.get(image_id, 0.0) for variance, mine in zip(left, own, strict=True)]
    return taken


def _in_turn(*queues: list[str]) -> list[str]:
    return [one for turn in itertools.zip_longest(*queues) for one in turn if one is not None]


def asked(
    audit: ExportData, findings: Sequence[Row], with_cue: int, without_cue: int, sample: int
) -> list[tuple[Row, list[Asked], Plan]]:
    """Each finding with the images that people are asked about for it, and the plan that some of them come from.

    Boxes of all of them are read at once.

    Args:
        with_cue: most evidence images, which show the cue best: they are what a verdict is given on.
        without_cue: most images of the class that show it least.
        sample: most images of the plan.
    """
    plans = [plan(audit, finding) for finding in findings]
    shown = [_shown(audit, finding, with_cue, without_cue) for finding in findings]
    planned = [
        [pair for pair in _with_reasons(settling)[: max(sample, 0)] if pair[0] not in known]
        for settling, known in zip(plans, ({one.image["image_id"] for one in mine} for mine in shown), strict=True)
    ]
    boxes = audit.boxes_of({image_id for pairs in planned for image_id, _ in pairs})
    for finding, mine, pairs in zip(findings, shown, planned, strict=True):
        for image_id, reason in pairs:
            image, present = audit.images_by_id[image_id], audit.shows(image_id, finding["cue_id"])
            mine.append(Asked(image, boxes(image_id, finding["cue_id"]), present, reason))
    return list(zip(findings, shown, plans, strict=True))


def _shown(audit: ExportData, finding: Row, with_cue: int, without_cue: int) -> list[Asked]:
    shown = [Asked(image, boxes, True, "shows the cue") for image, boxes in audit.evidence(finding)[:with_cue]]
    known = {one.image["image_id"] for one in shown}
    others = [row for row in audit.without(finding, without_cue + len(known)) if row["image_id"] not in known]
    return shown + [Asked(image, [], False, "shows no cue") for image in others[:without_cue]]


def _with_reasons(settling: Plan) -> list[tuple[str, str]]:
    number = settling.for_threshold
    reasons = ["sets the threshold"] * number + ["settles the gap"] * (len(settling.images) - number)
    return list(zip(settling.images, reasons, strict=True))
