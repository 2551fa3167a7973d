"""ablate: what happens to the model's answer when a cue is taken out or put in, less what a placebo does.

Experiments use the estimation half; donors of pixels come from the selection half. Every edit has a placebo: the
same operation with the same fill on an equal area away from cue and object, alike in contrast and place (removal); a
patch of the same outline from elsewhere in the donor, alike in contrast (insertion); a background of the same donor
class without the cue; an equally large change of an unrelated property, or another edit of the whole picture that
leaves the cue alone. The object's own pixels are never edited where a detector can tell them.

On some pictures of each experiment the region encoder measures the dose, how much of the cue an edit moved, and, of
edits of the whole picture, how much of every other cue: more light is less darkness (evidence/dose.py).

`ablate.mode: exhaustive` makes every edit with every fill; `racing` spends them in rounds, where the ranking is
undecided (evidence/race.py).
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import cachetools
import numpy as np
import pyarrow as pa

from pipeline.config import Audit
from pipeline.errors import BudgetReached
from pipeline.evidence import race
from pipeline.evidence.answers import margin, says_yes_or_no, scores_of, surest
from pipeline.evidence.boxes import of_images
from pipeline.evidence.dose import Scale, natural_scale
from pipeline.evidence.edits import Finder, apply_edit
from pipeline.evidence.experiments import Edit, Experiment, Pair, plan
from pipeline.evidence.making import Coming, Masks, made
from pipeline.evidence.presence import Presence, phi
from pipeline.images import RGB
from pipeline.models.protocols import Classifier, Floats, RecordedAnswers, RegionEncoder, YesNoModel
from pipeline.models.questions import log_odds
from pipeline.places import Place
from pipeline.properties import contrary_to
from pipeline.records import SCHEMAS, matrix, of_half, table
from pipeline.store import Parts, Shelf, in_order, key_of, length

VERSION = 5
SCALE_IMAGES = 10_000
"""Of no more images than this the natural dose of a cue is measured."""
DOSE_IMAGES = 20
"""Pictures of an experiment on which the dose is measured."""
CHUNK = 512
"""Edits between two writes of the cache: what a crash may cost."""
HELD_BYTES = 64 * 2**20
"""What pictures that were read may take, for the experiments to come."""
TOGETHER = 128
"""Edits that the model and the region encoder look at before the next ones."""
RECORDED = "the model under test is a file of its answers, which can't be shown an edited picture"

Answer = tuple[np.ndarray, np.ndarray]
"""Scores and logits, over the classes; NaN for those that weren't asked about."""
Asked = tuple[str, Edit]
"""A picture to show, and the class whose effect it is for."""


@dataclass(frozen=True)
class Scales:
    """The natural dose of each tested cue, None where the encoder can't tell it; and the cues of the whole picture."""

    of_cue: dict[str, Scale | None]
    of_whole: set[str]


def ablate(
    images: pa.Table,
    predictions: Parts,
    detections: Parts,
    regions: Parts,
    assignments: Parts,
    cues: pa.Table,
    presence: Parts,
    measures: pa.Table,
    embeddings: Parts,
    annotations: Parts,
    *,
    audit: Audit,
    classes: Sequence[str],
    model: Classifier | RecordedAnswers,
    encoder: RegionEncoder | None,
    load: Callable[[pa.Table], list[RGB]],
    cache: Place,
    count: Callable[[str, int], None],
    skip: Callable[[str, str], None],
    progress: Callable[[int, int], None],
) -> dict[str, pa.Table]:
    """`edits` (a row an edited image), `experiments` (what each spent, why it stopped), `untested` (what had none) and
    `moves` (what edits of the whole picture do to other cues)."""
    if not audit.ablate.enabled:
        return {name: table(name, []) for name in ("edits", "experiments", "untested", "moves")}
    if isinstance(model, RecordedAnswers):
        skip("ablation", RECORDED)
        nothing = {name: table(name, []) for name in ("edits", "experiments", "moves")}
        return {**nothing, "untested": _all(measures)}
    pictures = Pictures(images, load)
    experiments, untested = plan(
        images, detections, regions, assignments, cues, presence, measures, annotations,
        audit=audit, classes=classes, read=pictures.read,
    )  # fmt: skip
    shelf = Shelf(cache, "edits", "predictions", "image_id", (VERSION, list(classes), model.fingerprint))
    witness: Witness | None = None
    if encoder is not None and length(embeddings):
        scales = natural_scales(experiments, images, cues, presence, embeddings, audit, skip)
        turns = [_turns(e, audit.seed)[0] if audit.ablate.mode == "racing" else e.pairs for e in experiments]
        wanted = {edit.edit_id for _, edit in with_dose(experiments, turns, scales)}
        witness = Witness(
            encoder,
            scales,
            wanted,
            Shelf(cache, "doses", "embeddings", "image_id", (VERSION, encoder.fingerprint)),
            count,
        )
    bench = Bench(pictures, model, classes, shelf, witness, count, progress)
    edited = {edit.image_id for experiment in experiments for pair in experiment.pairs for edit in pair.edits}
    before = pa.concat_tables([*of_images(predictions, ("image_id", "scores", "logits"), edited)])
    some = pa.concat_tables([*of_images(images, ("image_id", "group"), edited)])
    rows = Rows(some, classes, _answers(before), bench.after, says_yes_or_no(model))
    used: list[list[Pair]]
    tested = {experiment.cue_id for experiment in experiments}
    if audit.ablate.mode == "exhaustive":
        used, stopped = show_all(experiments, bench)
    else:
        used, stopped = run_race(experiments, audit, measures, one_cue(cues, presence, tested), bench.show, rows.of)
    spent: list[dict[str, Any]] = []
    for experiment, pairs, why in zip(experiments, used, stopped, strict=True):
        names = {"label": experiment.label, "cue_id": experiment.cue_id, "direction": experiment.direction}
        if not pairs:
            reason = bench.stopped or (
                f"the budget of {audit.ablate.budget} edited images was spent on more promising cues"
            )
            untested.append({**names, "reason": reason})
            continue
        spent.append(
            {
                **names,
                "images": len({pair.edits[0].image_id for pair in pairs}),
                "images_at_hand": len(experiment.by_image),
                "forwards": 2 * len(pairs),
                "exhaustive_forwards": 2 * sum(len(mine) for mine in experiment.by_image[: audit.ablate.images]),
                "stopped": race.STOPPED[why],
                "unmoved": unmoved(experiment, audit, bench.knows, rows.of),
            }
        )
    doses, moves = measure_doses(experiments, used, embeddings, witness, pictures) if witness else ({}, [])
    made = [
        row | {"dose": doses.get((experiment.cue_id, row["edit_id"]), float("nan"))}
        for experiment, pairs in zip(experiments, used, strict=True)
        for row in rows.of(experiment, pairs)
    ]
    return {
        "edits": table("edits", made),
        "experiments": table("experiments", spent),
        "untested": table("untested", untested),
        "moves": table("moves", moves),
    }


def _all(measures: pa.Table) -> pa.Table:
    """`untested` where the model can't be asked: every experiment that was worth making."""
    rows = [row for row in measures.to_pylist() if row["split"] == "selection" and row["selected"]]
    return table(
        "untested",
        [
            {"label": row["label"], "cue_id": row["cue_id"], "direction": direction, "reason": RECORDED}
            for row in rows
            for direction in ("removal", "insertion")
        ],
    )


def natural_scales(
    experiments: list[Experiment],
    images: pa.Table,
    cues: pa.Table,
    presence: Parts,
    embeddings: Parts,
    audit: Audit,
    skip: Callable[[str, str], None],
) -> Scales:
    """Of each cue that is tested its natural dose, on SCALE_IMAGES images at most."""
    rows = np.arange(len(images))
    if len(images) > SCALE_IMAGES:
        rows = np.sort(in_order(rows.tolist(), images["image_id"].to_pylist(), audit.seed, "dose")[:SCALE_IMAGES])
        skip(
            f"{len(images) - SCALE_IMAGES} images when the natural doses of cues are measured",
            f"they are measured on a sample of {SCALE_IMAGES} images",
        )
    sample = images.select(["image_id", "label", "split"]).take(rows)
    ids = sample["image_id"].to_pylist()
    labels = np.array(sample["label"].to_pylist())
    selection = of_half(sample, "selection") if not audit.no_split else rows >= 0
    by_id = _by_id(pa.concat_tables([*of_images(embeddings, ("image_id", "embedding"), {*ids})]))
    natural = np.stack([by_id[image_id] for image_id in ids])
    tested = {experiment.cue_id for experiment in experiments}
    asked_of = tested.union(*map(contrary_to, tested))
    shown_in = Presence.of(presence, cues["cue_id"].to_pylist(), asked_of, images=rows)
    present, column = shown_in.present, shown_in.at
    of_whole = {row["cue_id"] for row in cues.to_pylist() if row["operator"] != "region"}
    scales: dict[str, Scale | None] = {}
    for cue_id in dict.fromkeys(experiment.cue_id for experiment in experiments):
        contrary = [column[other] for other in contrary_to(cue_id)]
        fit = ~present[:, contrary].any(axis=1) | present[:, column[cue_id]]
        scales[cue_id] = natural_scale(natural[fit], present[fit, column[cue_id]], labels[fit], selection[fit])
    return Scales(scales, of_whole)


def with_dose(
    experiments: list[Experiment], used: list[list[Pair]], scales: Scales
) -> Iterator[tuple[Experiment, Edit]]:
    """The edits whose dose is measured: of DOSE_IMAGES pictures of each experiment, one fill each."""
    for experiment, pairs in zip(experiments, used, strict=True):
        if scales.of_cue[experiment.cue_id] is not None or experiment.cue_id in scales.of_whole:
            shown = replace(experiment, pairs=pairs).by_image[:DOSE_IMAGES]
            for number, mine in enumerate(shown):
                yield from ((experiment, edit) for edit in mine[number % len(mine)].edits)


class Witness:
    """Shows edited pictures to the region encoder, each once, for their doses.

    It looks at a picture when the model does, for making it takes as long as looking at it.
    """

    def __init__(
        self, encoder: RegionEncoder, scales: Scales, wanted: set[str], shelf: Shelf, count: Callable[[str, int], None]
    ) -> None:
        self.encoder, self.scales, self.wanted, self.shelf, self.count = encoder, scales, wanted, shelf, count
        self.known = shelf.keys()

    def look(self, edits: Sequence[Edit], pictures: Sequence[RGB]) -> None:
        """At those of these edited pictures whose dose is wanted and not known."""
        new = {
            edit.edit_id: number
            for number, edit in enumerate(edits)
            if edit.edit_id in self.wanted and edit.edit_id not in self.known
        }
        if new:
            vectors = self.encoder.images([pictures[number] for number in new.values()])
            seen = {"image_id": [*new], "embedding": list(vectors)}
            self.shelf.add(seen["image_id"], pa.table(seen, schema=SCHEMAS["embeddings"]))
            self.known |= new.keys()
            self.count("dose", len(new))


def measure_doses(
    experiments: list[Experiment], used: list[list[Pair]], embeddings: Parts, witness: Witness, pictures: Pictures
) -> tuple[dict[tuple[str, str], float], list[dict[str, Any]]]:
    """(cue, edit) to the edit's dose, for those of :func:`with_dose`, and rows of `moves`.

    A removal's dose is what it took out: positive doses are effects as meant.
    """
    scales = witness.scales
    asked = [*with_dose(experiments, used, scales)]
    if not asked:  # a budget may end before any edit was shown
        return {}, []
    edits = {edit.edit_id: edit for _, edit in asked}
    missing = [edits[edit_id] for edit_id in sorted(edits) if edit_id not in witness.known]
    witness.wanted |= edits.keys()
    for first in range(0, len(missing), CHUNK):  # what the model saw in an earlier run, and the encoder didn't
        chunk = missing[first : first + CHUNK]
        with pictures.edited(chunk) as coming:
            witness.look(chunk, coming)
    after = _by_id(witness.shelf.read(sorted(edits)))
    edited = {edit.image_id for edit in edits.values()}
    before = _by_id(pa.concat_tables([*of_images(embeddings, ("image_id", "embedding"), edited)]))
    doses: dict[tuple[str, str], float] = {}
    shifts: dict[tuple[str, str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for experiment, edit in asked:
        pair = np.stack([before[edit.image_id], after[edit.edit_id]])
        for other, scale in scales.of_cue.items():
            mine = other == experiment.cue_id
            if scale is None or not (mine or experiment.cue_id in scales.of_whole):
                continue
            was, now = scale.of(pair)
            if mine:
                doses[other, edit.edit_id] = float(now - was) * (1 if experiment.direction == "insertion" else -1)
            else:
                names = (experiment.label, experiment.cue_id, experiment.direction, other)
                shifts[names][edit.arm].append(float(now - was))
    moves = [
        dict(zip(("label", "cue_id", "direction", "other"), names, strict=True))
        | {"dose": float(np.mean(arms["edit"]) - np.mean(arms["placebo"]))}
        for names, arms in shifts.items()
    ]
    return doses, moves


def _by_id(embeddings: pa.Table) -> dict[str, Floats]:
    return dict(zip(embeddings["image_id"].to_pylist(), matrix(embeddings["embedding"]), strict=True))


def run_race(
    experiments: list[Experiment],
    audit: Audit,
    measures: pa.Table,
    alike: Callable[[str, str], bool],
    show: Callable[[list[Asked]], None],
    rows_of: Callable[[Experiment, list[Pair]], list[dict[str, Any]]],
) -> tuple[list[list[Pair]], list[str]]:
    """The pairs that a race over these experiments uses, and why each stopped (a key of race.STOPPED).

    Every picture gets one fill; the fills take turns, from a start that belongs to the experiment. What was shown to
    the model in an earlier run comes from the cache, so a run that was killed goes through the same rounds again.
    """
    turns = [_turns(experiment, audit.seed) for experiment in experiments]
    weights = _weights(measures)
    lanes = [
        race.Lane(e.label, e.cue_id, e.direction, block, len(pairs), weights[e.label, e.cue_id, e.direction])
        for e, (pairs, block) in zip(experiments, turns, strict=True)
    ]
    spent: set[str] = set()
    broke: set[int] = set()
    while wanted := race.next_round(lanes, audit, alike):
        given: dict[int, list[Pair]] = {}
        for number, more in wanted.items():
            lane = lanes[number]
            pairs = turns[number][0][lane.taken : lane.taken + more]
            new = {edit.edit_id for pair in pairs for edit in pair.edits} - spent
            if len(spent) + len(new) > audit.ablate.budget:
                lane.limit = lane.taken
                broke.add(number)
            else:
                spent |= new
                given[number] = pairs
        if not given:
            break
        try:
            show([(lanes[n].label, edit) for n, pairs in given.items() for pair in pairs for edit in pair.edits])
        except BudgetReached:
            broke |= {number for number, lane in enumerate(lanes) if lane.left}
            break
        for number, pairs in given.items():
            _record(lanes[number], rows_of(experiments[number], pairs))
    stopped = ["budget" if number in broke else lane.stopped for number, lane in enumerate(lanes)]
    return [pairs[: lane.taken] for (pairs, _), lane in zip(turns, lanes, strict=True)], stopped


def show_all(experiments: list[Experiment], bench: Bench) -> tuple[list[list[Pair]], list[str]]:
    """Every pair, or those that the model's own budget reached for, and why each experiment stopped."""
    with contextlib.suppress(BudgetReached):
        bench.show([(e.label, edit) for e in experiments for pair in e.pairs for edit in pair.edits])
    used = [[p for p in e.pairs if all(bench.knows(e.label, edit) for edit in p.edits)] for e in experiments]
    complete = [len(pairs) == len(e.pairs) for e, pairs in zip(experiments, used, strict=True)]
    return used, ["exhaustive" if whole else "budget" for whole in complete]


def unmoved(
    experiment: Experiment,
    audit: Audit,
    knows: Callable[[str, Edit], bool],
    rows_of: Callable[[Experiment, list[Pair]], list[dict[str, Any]]],
) -> bool:
    """Whether the edits of the first images hardly move the model: what a race looks at first, in either mode.

    The order of findings leans on this, and so must not depend on how far an experiment went.
    """
    pairs, block = _turns(experiment, audit.seed)
    lane = race.Lane(experiment.label, experiment.cue_id, experiment.direction, block, len(pairs), 0.0)
    first = pairs[: lane.turns(race.FIRST)]
    if not all(knows(lane.label, edit) for pair in first for edit in pair.edits):
        return False
    _record(lane, rows_of(experiment, first))
    return race.futile(lane, audit)


def _turns(experiment: Experiment, seed: int) -> tuple[list[Pair], int]:
    """One pair a picture, the fills taking turns, in whole turns; and how many pictures a turn has.

    Which fill is a picture's own is a hash of its id, so that a new picture leaves the others theirs; only the last
    pictures, of which one fill has too many, take what is left.
    """
    pictures = experiment.by_image
    block = max(len(pairs) for pairs in pictures)
    names = (seed, experiment.label, experiment.cue_id, experiment.direction)
    queues: list[list[int]] = [[] for _ in range(block)]
    for number, pairs in enumerate(pictures):
        queues[int(key_of(*names, pairs[0].edits[0].image_id)[:12], 16) % block].append(number)
    whole = min(len(queue) for queue in queues)
    turned = [pictures[queue[turn]][fill] for turn in range(whole) for fill, queue in enumerate(queues)]
    rest = sorted(number for queue in queues for number in queue[whole:])
    turned += [pictures[number][place % block] for place, number in enumerate(rest[: len(rest) // block * block])]
    return turned, block


def _weights(measures: pa.Table) -> dict[tuple[str, str, str], float]:
    """What an effect counts in its finding's harm (see stages/rank.py), by class, cue and direction."""
    weights: dict[tuple[str, str, str], float] = {}
    for row in measures.filter(pa.compute.equal(measures["split"], "estimation")).to_pylist():
        for direction, (with_cue, without) in (
            ("removal", (row["n_class_with"], row["n_class_without"])),
            ("insertion", (row["n_other_without"], row["n_other_with"])),
        ):
            total = with_cue + without
            weights[row["label"], row["cue_id"], direction] = with_cue / total / 2 if total else 0.0
    return weights


def _record(lane: race.Lane, rows: list[dict[str, Any]]) -> None:
    """Add the results of new pairs (rows of `edits`, edit and placebo in turn) to a lane."""
    sign = 1 if lane.direction == "removal" else -1
    for edit, placebo in zip(rows[::2], rows[1::2], strict=True):
        assert (edit["arm"], placebo["arm"]) == ("edit", "placebo")
        lane.score.append(sign * (placebo["score_after"] - edit["score_after"]))
        lane.flip.append(sign * (float(placebo["hit_after"]) - float(edit["hit_after"])))
        lane.shift.append(sign * (placebo["margin_after"] - edit["margin_after"]))
        lane.safety.append(sign * placebo["margin_after"])


def one_cue(cues: pa.Table, presence: Parts, tested: Collection[str]) -> Callable[[str, str], bool]:
    """Whether two of these cues (by id) are in the same images, and so one cue by two names."""
    known = Presence.of(presence, cues["cue_id"].to_pylist(), tested)
    correlation, at = phi(known.present), known.at
    return lambda a, b: bool(correlation[at[a], at[b]] >= race.SAME_CUE)


class Bench:
    """Shows edited pictures to the model, each once: what an earlier run has seen comes from the cache.

    A model that says Yes or No is asked about the experiment's own class alone: its score, margin and hit are of that
    answer (see `Rows.of` and evidence/answers.py), while a classifier's margin and hit are against all other classes.
    """

    def __init__(
        self,
        pictures: Pictures,
        model: Classifier,
        classes: Sequence[str],
        shelf: Shelf,
        witness: Witness | None,
        count: Callable[[str, int], None],
        progress: Callable[[int, int], None],
    ) -> None:
        self.pictures, self.model, self.classes, self.shelf = pictures, model, classes, shelf
        self.witness, self.count, self.progress = witness, count, progress
        self.answers: dict[str, Answer] = {}
        self.cached = shelf.keys()
        self.total = 0
        self.stopped = ""  # why the model answered no more

    def key(self, label: str, edit: Edit) -> str:
        """What an answer is kept under."""
        return key_of(edit.edit_id, label) if says_yes_or_no(self.model) else edit.edit_id

    def knows(self, label: str, edit: Edit) -> bool:
        """Whether there is an answer about this class."""
        return self.key(label, edit) in self.answers

    def after(self, label: str, edit: Edit) -> Answer:
        """The answer about this class."""
        return self.answers[self.key(label, edit)]

    def show(self, asked: list[Asked]) -> None:
        """Have the answers to these edits.

        Raises:
            BudgetReached: the model's own budget is spent; `answers` has those that it gave.
        """
        specs = {key: one for one in asked if (key := self.key(*one)) not in self.answers}
        missing = [(key, *specs[key]) for key in specs if key not in self.cached]
        missing.sort(key=lambda one: (one[2].image_id, one[0]))  # edits of a picture have masks in common
        done, self.total = self.total, self.total + len(missing)
        try:
            for first in range(0, len(missing), CHUNK):
                self.progress(done + first, self.total)
                self._show_chunk(missing[first : first + CHUNK])
        except BudgetReached as reached:
            self.stopped = str(reached)
            raise
        finally:
            self.answers |= _answers(self.shelf.read(sorted(specs)))
        self.progress(self.total, self.total)

    def _show_chunk(self, chunk: list[tuple[str, str, Edit]]) -> None:
        edits = [edit for _, _, edit in chunk]
        labels = [label for _, label, _ in chunk]
        with self.pictures.edited(edits) as coming:
            if self.witness is None:
                logits = self._logits(coming, labels)
            else:  # in turns: while one looks, pictures for the other are made
                parts = []
                for first in range(0, len(chunk), TOGETHER):
                    some = slice(first, first + TOGETHER)
                    parts.append(self._logits(coming.part(some), labels[some]))
                    self.witness.look(edits[some], coming.part(some))
                logits = np.concatenate(parts)
        self.count("ablate", len(chunk))
        rows = {
            "image_id": [key for key, _, _ in chunk],
            "predicted": surest(logits, self.classes),
            "logits": list(logits),
            "scores": list(scores_of(logits, says_yes_or_no(self.model))),
        }
        self.shelf.add(rows["image_id"], pa.table(rows, schema=SCHEMAS["predictions"]))

    def _logits(self, pictures: Sequence[RGB], labels: list[str]) -> Floats:
        if isinstance(self.model, YesNoModel):
            about = [[self.classes.index(label)] for label in labels]
            return log_odds(self.model.answers(pictures, every=False, about=about), self.model.counts)
        return np.asarray(self.model.logits(pictures), dtype=np.float32)


class Rows:
    """Rows of `edits`, from the model's answers before and after."""

    def __init__(
        self,
        images: pa.Table,
        classes: Sequence[str],
        before: dict[str, Answer],
        after: Callable[[str, Edit], Answer],
        yes_no: bool = False,
    ) -> None:
        self.group = dict(zip(images["image_id"].to_pylist(), images["group"].to_pylist(), strict=True))
        self.classes, self.before, self.after, self.yes_no = list(classes), before, after, yes_no

    def of(self, experiment: Experiment, pairs: list[Pair]) -> list[dict[str, Any]]:
        """The rows of these pairs of an experiment: edit, placebo, edit, placebo, ..."""
        target = self.classes.index(experiment.label)
        rows: list[dict[str, Any]] = []
        for pair in pairs:
            for edit in pair.edits:
                row: dict[str, Any] = {
                    "edit_id": edit.edit_id,
                    "pair_id": pair.pair_id,
                    "label": experiment.label,
                    "cue_id": experiment.cue_id,
                    "direction": experiment.direction,
                    "fill": pair.fill,
                    "arm": edit.arm,
                    "image_id": edit.image_id,
                    "group": self.group[edit.image_id],
                    "spec": json.dumps(edit.spec, sort_keys=True),
                }
                for when, (scores, logits) in (
                    ("before", self.before[edit.image_id]),
                    ("after", self.after(experiment.label, edit)),
                ):
                    distance = margin(logits, target, self.yes_no)
                    row[f"score_{when}"] = float(scores[target])
                    row[f"margin_{when}"] = distance
                    row[f"hit_{when}"] = distance > 0 if self.yes_no else bool(logits.argmax() == target)
                rows.append(row)
        return rows


class Pictures:
    """Pictures by id, for several threads: those asked for last, and what was found in them, are held."""

    def __init__(self, images: pa.Table, load: Callable[[pa.Table], list[RGB]]) -> None:
        self._images, self._load = images, load
        self._held: cachetools.LRUCache = cachetools.LRUCache(HELD_BYTES, getsizeof=lambda picture: picture.nbytes)
        self._lock = threading.Lock()
        self._masks = Masks()

    def read(self, ids: Collection[str]) -> dict[str, RGB]:
        """The pictures of these ids; of an id that isn't among the images none."""
        with self._lock:
            known = {image_id: self._held[image_id] for image_id in dict.fromkeys(ids) if image_id in self._held}
        if missing := {*ids} - known.keys():
            (found,) = of_images(self._images, self._images.column_names, missing)
            fresh = dict(zip(found["image_id"].to_pylist(), self._load(found), strict=True))
            known |= fresh
            with self._lock:
                self._held.update({i: picture for i, picture in fresh.items() if picture.nbytes <= HELD_BYTES})
        return known

    def edited(self, edits: Sequence[Edit]) -> AbstractContextManager[Coming]:
        """The pictures that these edits make."""
        specs = [edit.spec for edit in edits]
        images, donors, find = self._of([edit.image_id for edit in edits], specs)
        return made(specs, images, donors, find)

    def edit(self, image_id: str, spec: dict[str, Any]) -> RGB:
        """The picture that one edit makes of this one."""
        (image,), (donor,), find = self._of([image_id], [spec])
        return apply_edit(spec, image, donor, find)

    def _of(self, image_ids: list[str], specs: Sequence[dict[str, Any]]) -> tuple[list[RGB], list[RGB | None], Finder]:
        """Pictures and donors of these edits, in order, and what finds things in them."""
        donor_ids = [spec.get("donor") for spec in specs]
        known = self.read([i for i in (*image_ids, *donor_ids) if i is not None])
        find = self._masks.finder({id(picture): image_id for image_id, picture in known.items()})
        return [known[i] for i in image_ids], [None if i is None else known[i] for i in donor_ids], find


def _answers(predictions: pa.Table) -> dict[str, Answer]:
    """Scores and logits by id."""
    columns = (predictions[name].to_pylist() for name in ("image_id", "scores", "logits"))
    return {i: (np.array(scores), np.array(logits)) for i, scores, logits in zip(*columns, strict=True)}


def redo_edit(pictures: Pictures) -> Callable[[dict[str, Any]], RGB]:
    """A function that makes the picture of a row of `edits` again."""
    return lambda row: pictures.edit(row["image_id"], json.loads(row["spec"]))
