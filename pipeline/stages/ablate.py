"""ablate: what happens to the model's answer when a cue is taken out or put in, less what a placebo does.

Experiments use the estimation half; donors of pixels come from the selection half. Every edit has a placebo: the
same operation with the same fill on an equal area away from cue and object, alike in contrast and place (removal); a
patch of the same outline from elsewhere in the donor, alike in contrast (insertion); a background of the same donor
class without the cue; an equally large change of an unrelated property, or another edit of the whole picture that
leaves the cue alone. The object's own pixels are never edited where a detector can tell them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import Audit
from pipeline.context import Context
from pipeline.evidence.edits import apply_edit
from pipeline.evidence.experiments import Experiment, plan
from pipeline.images import RGB
from pipeline.models.protocols import Classifier
from pipeline.records import SCHEMAS, table
from pipeline.stages.predict import softmax
from pipeline.store import Shelf

VERSION = 1
CHUNK = 512
"""Edits between two writes of the cache: what a crash may cost."""


def ablate(
    images: pa.Table,
    predictions: pa.Table,
    detections: pa.Table,
    regions: pa.Table,
    assignments: pa.Table,
    cues: pa.Table,
    presence: pa.Table,
    measures: pa.Table,
    *,
    audit: Audit,
    classes: Sequence[str],
    model: Classifier,
    load: Callable[[pa.Table], list[RGB]],
    cache: Path,
    count: Callable[[str, int], None],
    progress: Callable[[int, int], None],
) -> dict[str, pa.Table]:
    """`edits` (one row an edited image) and `untested` (every selected cue that had no experiment, with the reason)."""
    if not audit.ablate.enabled:
        return {"edits": table("edits", []), "untested": table("untested", [])}
    experiments, untested = plan(
        images, detections, regions, assignments, cues, presence, measures, audit=audit, classes=classes
    )
    specs = {edit.edit_id: (edit.image_id, edit.spec) for e in experiments for pair in e.pairs for edit in pair.edits}
    shelf = Shelf(cache, "edits", "predictions", "image_id", (VERSION, list(classes), model.fingerprint))
    known = shelf.keys()
    missing = [(edit_id, *specs[edit_id]) for edit_id in sorted(specs) if edit_id not in known]
    pictures = Pictures(images, load)
    for first in range(0, len(missing), CHUNK):
        chunk = missing[first : first + CHUNK]
        progress(first, len(missing))
        edited = [
            apply_edit(spec, image, donor)
            for (_, _, spec), image, donor in zip(
                chunk, *pictures.pairs([(i, s.get("donor")) for _, i, s in chunk]), strict=True
            )
        ]
        logits = np.asarray(model.logits(edited), dtype=np.float32)
        count("ablate", len(edited))
        rows = {
            "image_id": [edit_id for edit_id, _, _ in chunk],
            "predicted": [classes[i] for i in logits.argmax(axis=1)],
            "logits": list(logits),
            "scores": list(softmax(logits)),
        }
        shelf.add(rows["image_id"], pa.table(rows, schema=SCHEMAS["predictions"]))
    progress(len(missing), len(missing))
    after = _answers(shelf.read(sorted(specs)))
    before = _answers(predictions)
    return {
        "edits": _rows(experiments, classes, before, after, images),
        "untested": table("untested", untested),
    }


class Pictures:
    """Pictures by id, each chunk's read once."""

    def __init__(self, images: pa.Table, load: Callable[[pa.Table], list[RGB]]) -> None:
        self._images = images
        self._row = {image_id: number for number, image_id in enumerate(images["image_id"].to_pylist())}
        self._load = load

    def read(self, ids: Sequence[str]) -> dict[str, RGB]:
        """The pictures of these ids."""
        wanted = sorted(set(ids))
        return dict(zip(wanted, self._load(self._images.take([self._row[i] for i in wanted])), strict=True))

    def pairs(self, ids: list[tuple[str, str | None]]) -> tuple[list[RGB], list[RGB | None]]:
        """Pictures and donors of these edits, in order."""
        known = self.read([i for pair in ids for i in pair if i is not None])
        return [known[i] for i, _ in ids], [known[d] if d is not None else None for _, d in ids]


def _answers(predictions: pa.Table) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scores and logits by id."""
    columns = (predictions[name].to_pylist() for name in ("image_id", "scores", "logits"))
    return {i: (np.array(scores), np.array(logits)) for i, scores, logits in zip(*columns, strict=True)}


def _rows(
    experiments: list[Experiment],
    classes: Sequence[str],
    before: dict[str, tuple[np.ndarray, np.ndarray]],
    after: dict[str, tuple[np.ndarray, np.ndarray]],
    images: pa.Table,
) -> pa.Table:
    groups = dict(zip(images["image_id"].to_pylist(), images["group"].to_pylist(), strict=True))
    rows: list[dict[str, Any]] = []
    for experiment in experiments:
        target = list(classes).index(experiment.label)
        for pair in experiment.pairs:
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
                    "group": groups[edit.image_id],
                    "spec": json.dumps(edit.spec, sort_keys=True),
                }
                for when, (scores, logits) in (
                    ("before", before[edit.image_id]),
                    ("after", after[edit.edit_id]),
                ):
                    others = np.delete(logits, target)
                    row[f"score_{when}"] = float(scores[target])
                    row[f"margin_{when}"] = float(logits[target] - others.max())
                    row[f"hit_{when}"] = bool(logits.argmax() == target)
                rows.append(row)
    return table("edits", rows)


def redo_edit(context: Context, images: pa.Table) -> Callable[[dict[str, Any]], RGB]:
    """A function that makes the picture of a row of `edits` again, for the report."""
    pictures = Pictures(images, context.load)

    def redo(row: dict[str, Any]) -> RGB:
        spec = json.loads(row["spec"])
        (image,), (donor,) = pictures.pairs([(row["image_id"], spec.get("donor"))])
        return apply_edit(spec, image, donor)

    return redo
