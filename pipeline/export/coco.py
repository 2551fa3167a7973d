"""COCO: cues as categories and their boxes as annotations with attributes, for CVAT, FiftyOne and their like.

Format: https://cocodataset.org/#format-data; CVAT reads and writes `attributes` of annotations beside it. COCO knows no
label of a whole image, so a cue that is a matter of the whole image is a box over all of it with `whole_image`: true.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import Any

from pipeline.errors import UserError
from pipeline.evidence.boxes import has_boxes
from pipeline.export.data import Boxed, ExportData, Row, Verdict, check_place
from pipeline.export.sample import asked
from pipeline.geometry import as_boxes, to_pixel_xywh
from pipeline.places import Place
from pipeline.records import ANSWERS
from pipeline.store import write_text

ATTRIBUTES = ("cue_id", "classes", "finding_ids", "verdicts", "presence", "whole_image", "answer")


def export_coco(
    audit: ExportData,
    out: Place,
    *,
    least_verdict: Verdict = "inconclusive",
    all_images: bool = False,
    with_cue: int = 8,
    without_cue: int = 4,
    sample: int = 40,
) -> list[Place]:
    """Write instances as JSON and, beside them, the labels of a CVAT project with the same attributes; returns both.

    Args:
        audit: a finished audit.
        out: the file, or a folder for `instances.json`. File names in it are relative to the data's root.
        least_verdict: findings down to this verdict: confirmed, inconclusive, associated only, core.
        all_images: every image of the audit in the place of those that people are asked about.
        with_cue: most images of a finding that show the cue best.
        without_cue: most images of the class of a finding that don't show it.
        sample: most images beyond these that settle a finding soonest.

    Raises:
        UserError: no finding of such a verdict, or something that is no earlier export lies at either file's place.
    """
    findings = audit.wanted(least_verdict)
    if not findings:
        raise UserError(f"coco: no finding of the verdict '{least_verdict}' or before it. Try --set least_verdict=core")
    if out.is_dir() or not out.suffix:
        out = out / "instances.json"
    cues: dict[str, list[Row]] = defaultdict(list)
    for finding in findings:
        cues[finding["cue_id"]].append(finding)
    labels = out.with_name(f"{out.stem}-cvat-labels.json")
    check_place(labels)
    check_place(out)
    boxes: dict[tuple[str, str], Boxed] = {}
    chosen: dict[str, Row] = {row["image_id"]: row for row in audit.images} if all_images else {}
    for finding, shown, _ in asked(audit, findings, with_cue, without_cue, sample):
        for one in shown:
            chosen.setdefault(one.image["image_id"], one.image)
            if one.present:
                boxes[one.image["image_id"], finding["cue_id"]] = one.boxes
    find = audit.boxes_of(chosen)
    for image_id in chosen:
        for cue_id in cues:
            if audit.shows(image_id, cue_id):
                boxes.setdefault((image_id, cue_id), find(image_id, cue_id))
    categories = {cue_id: number for number, cue_id in enumerate(cues, 1)}
    numbers = {image_id: number for number, image_id in enumerate(chosen, 1)}
    annotations: list[dict[str, Any]] = []
    for image_id, cue_id in sorted(boxes, key=lambda pair: (numbers[pair[0]], categories[pair[1]])):
        image, whole = chosen[image_id], not has_boxes(cue_id)
        found = as_boxes([[0, 0, 1, 1]] if whole else boxes[image_id, cue_id])
        for box in to_pixel_xywh(found, image["width"], image["height"]).round(2).tolist():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": numbers[image_id],
                    "category_id": categories[cue_id],
                    "bbox": box,
                    "area": round(box[2] * box[3], 2),
                    "iscrowd": 0,
                    "segmentation": [],
                    "attributes": _attributes(cues[cue_id], audit.score(image_id, cue_id), whole),
                }
            )
    content = {
        "info": {"description": "Cues found by Cuescope", "version": str(audit.run.get("digest", ""))},
        "licenses": [],
        "images": [
            {
                "id": numbers[image_id],
                "file_name": row["path"],
                "width": row["width"],
                "height": row["height"],
                "image_id": image_id,
                "label": row["label"],
            }
            for image_id, row in chosen.items()
        ],
        "categories": [
            {"id": number, "name": cues[cue_id][0]["cue"], "supercategory": cues[cue_id][0]["cue_type"] or "cue"}
            for cue_id, number in categories.items()
        ],
        "annotations": annotations,
    }
    write_text(out, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    write_text(labels, json.dumps(_cvat_labels(cues), ensure_ascii=False, indent=1) + "\n")
    return [out, labels]


def _attributes(findings: list[Row], score: float, whole: bool) -> dict[str, Any]:
    """Attributes are single values: of several findings the ids are joined."""
    return {
        "cue_id": findings[0]["cue_id"],
        "classes": ", ".join(row["class"] for row in findings),
        "finding_ids": " ".join(row["finding_id"] for row in findings),
        "verdicts": ", ".join(row["verdict"] for row in findings),
        "presence": round(score, 4) if math.isfinite(score) else "",
        "whole_image": whole,
        "answer": "",
    }


def _cvat_labels(cues: dict[str, list[Row]]) -> list[dict[str, Any]]:
    """What the raw editor of a CVAT project takes: a label a cue, and a choice for the labeler's answer."""
    kinds = {"whole_image": ("checkbox", ["false"]), "answer": ("select", ["", *ANSWERS])}
    attributes = []
    for name in ATTRIBUTES:
        kind, values = kinds.get(name, ("text", [""]))
        attributes.append(
            {"name": name, "mutable": False, "input_type": kind, "default_value": values[0], "values": values}
        )
    return [{"name": mine[0]["cue"], "type": "rectangle", "attributes": attributes} for mine in cues.values()]
