"""Label Studio's JSON export: annotations of the tasks that `cuescope export --to label-studio` wrote.

The export gives predictions as bare numbers, so what was asked stands in each task's `data` alone. Annotations that
were skipped or cancelled are left out and counted.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.geometry import from_percent_xywh
from pipeline.sources.items import as_text
from pipeline.verdicts.answers import Answer, Found, Unusable, seen, text_in, utc, verdict_of


def read_label_studio(path: Path, otherwise: str) -> Found:
    """The answers of a file.

    Args:
        path: the export in the format JSON (not JSON-MIN).
        otherwise: the time of answers that have none.

    Raises:
        UserError: no JSON, another format, or tasks that Cuescope didn't write.
    """
    try:
        tasks = json.loads(text_in(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}. Export from Label Studio in the format JSON.") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{path} holds no list of tasks. Export from Label Studio in the format JSON.")
    if tasks and not any("annotations" in task for task in tasks):
        hint = "a list of tasks without annotations"
        if any("data" not in task for task in tasks):
            hint = "JSON-MIN, which leaves the annotators' boxes and our ids out, or another tool's file"
        raise UserError(f"{path} is {hint}. Export from Label Studio in the format JSON, with its annotations.")
    found = Found()
    for task in tasks:
        data = task.get("data")
        annotations = task.get("annotations")
        if not isinstance(data, dict) or not data.get("finding_id") or not isinstance(annotations, list):
            found.unusable.append("a task without Cuescope's ids in its data")
            continue
        for annotation in annotations:
            try:
                found.answers.append(_answer(data, annotation, otherwise))
            except Unusable as why:
                found.unusable.append(str(why))
    return found


def _answer(data: dict[str, Any], annotation: Any, otherwise: str) -> Answer:
    if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
        raise Unusable("an annotation that can't be read")
    if annotation.get("was_cancelled"):
        raise Unusable("skipped by the labeler")
    parts = [part for part in annotation["result"] if isinstance(part, dict) and isinstance(part.get("value"), dict)]
    verdict, note, boxes = "", "", []
    for part in parts:
        value = part["value"]
        if part.get("from_name") == "verdict" and value.get("choices"):
            verdict = verdict_of(_first(value["choices"]))
        elif part.get("from_name") == "note" and value.get("text"):
            note = as_text(str(_first(value["text"])))
        elif part.get("from_name") == "cue" and _first(value.get("rectanglelabels")) == data.get("box_label"):
            boxes.append([_percent(value.get(name)) for name in ("x", "y", "width", "height")])
    present = seen(verdict, True if boxes and not verdict else None)
    if not verdict and present is None:
        raise Unusable("an annotation without a verdict or a box")
    return Answer(
        finding_id=str(data["finding_id"]),
        label=str(data.get("class", "")),
        cue=str(data.get("cue", "")),
        image=str(data.get("image_id", "")),
        verdict=verdict,
        present=present,
        boxes=[] if present is False else from_percent_xywh(boxes).tolist(),
        annotator=as_text(_annotator(annotation.get("completed_by"))),
        given=utc(annotation.get("updated_at") or annotation.get("created_at"), otherwise),
        note=note[:2000],
        mark=str(data.get("cluster_mark", "")),
    )


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _percent(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unusable("a box whose place isn't a number")
    return float(value)


def _annotator(completed_by: Any) -> str:
    """A user of Label Studio by mail address, or by number."""
    if isinstance(completed_by, dict):
        return str(completed_by.get("email") or f"user {completed_by.get('id', '?')}")
    return f"user {completed_by}" if completed_by is not None else "unnamed"
