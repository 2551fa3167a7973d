"""Label Studio: tasks with boxes drawn beforehand, and the labelling configuration of the same findings.

Format: https://labelstud.io/guide/tasks and https://labelstud.io/guide/predictions. A box is x, y, width and
height in percent of the image; a task has one prediction with every box; our own ids travel in its data.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from pipeline.errors import UserError
from pipeline.export.data import Asked, ExportData, Row, Verdict, check_place
from pipeline.export.sample import Plan, asked
from pipeline.geometry import as_boxes, to_percent_xywh
from pipeline.places import Place
from pipeline.records import ANSWERS
from pipeline.sources.items import parse_json
from pipeline.store import replacing, write_text

HINTS = {
    "spurious": "you see it, and it is no part of the object",
    "core": "you see it, and it is a part of the object itself",
    "not present": "you don't see it in this picture",
    "unsure": "you can't tell",
}
SUGGESTED = {"confirmed": "spurious", "core": "core"}


def export_label_studio(
    audit: ExportData,
    out: Place,
    *,
    image_prefix: str = "",
    local_root: str | None = None,
    preset_verdict: bool = False,
    batch: int = 5000,
    least_verdict: Verdict = "inconclusive",
    with_cue: int = 8,
    without_cue: int = 4,
    sample: int = 40,
) -> list[Place]:
    """Write tasks as JSON and, beside them, the labelling configuration as XML; returns the files.

    Args:
        audit: a finished audit.
        out: the tasks' file, or a folder for `tasks.json`. The configuration has the same name with `.xml`.
        image_prefix: what to put before each image's path: an http(s)://, s3:// or gs:// address.
            Without one, tasks name local files that Label Studio serves itself.
        local_root: Label Studio's LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT; default: the folder that holds the
            image folder. In the project, add a Local Files storage whose path is the image folder.
        preset_verdict: choose our verdict beforehand. Off by default: it leads the labeler.
        batch: most tasks of a file; further files are numbered.
        least_verdict: findings down to this verdict: confirmed, inconclusive, associated only, core.
        with_cue: most images of a finding that show the cue best.
        without_cue: most images of the class of a finding that don't show it.
        sample: most images beyond these that settle a finding soonest; `to_label` in a task's data says how many
            would settle its finding (0: nothing about presence is uncertain, or the audit has no predictions).

    Raises:
        UserError: no finding to label, an option out of range, images outside `local_root`, or something that is no
            earlier export lies at `out`.
    """
    if batch < 1 or with_cue < 0 or without_cue < 0 or sample < 0:
        raise UserError("label-studio: 'batch' must be at least 1, 'with_cue', 'without_cue' and 'sample' at least 0.")
    findings = audit.wanted(least_verdict)
    address = _addresses(audit.run, image_prefix, local_root)
    tasks = [
        task
        for finding, shown, settling in asked(audit, findings, with_cue, without_cue, sample)
        for task in _tasks(audit, finding, shown, settling, address, preset_verdict)
    ]
    if not tasks:
        raise UserError(
            f"label-studio: no finding of the verdict '{least_verdict}' or before it has an image to label. "
            "Try --set least_verdict=core"
        )
    if out.is_dir() or not out.suffix:
        out = out / "tasks.json"
    config = out.with_suffix(".xml")
    check_place(config)
    written = _write_batches(out, tasks, batch)
    write_text(config, labeling_config(findings))
    return [*written, config]


def labeling_config(findings: Iterable[Row]) -> str:
    """The XML of a project that can label these findings: a box for each cue, a verdict, a note."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Header", value="$question")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    boxes = ElementTree.SubElement(view, "RectangleLabels", name="cue", toName="image")
    for cue in dict.fromkeys(label_of(finding["cue"]) for finding in findings):
        ElementTree.SubElement(boxes, "Label", value=cue)
    verdict = ElementTree.SubElement(
        view, "Choices", name="verdict", toName="image", choice="single", required="true", showInline="true"
    )
    for choice in ANSWERS:
        ElementTree.SubElement(verdict, "Choice", value=choice, hint=HINTS[choice])
    ElementTree.SubElement(view, "TextArea", name="note", toName="image", rows="2", placeholder="Note")
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def label_of(cue: str) -> str:
    """A cue's name as a label: one printable line, in which no `$` makes a reference to a task's data."""
    name = " ".join("".join(c if c.isprintable() else " " for c in cue).split())
    return name.replace("$", "＄") or "(no name)"


def _tasks(
    audit: ExportData, finding: Row, shown: list[Asked], settling: Plan, address: _Address, preset_verdict: bool
) -> Iterable[dict[str, Any]]:
    for image, boxes, present, reason in shown:
        yield {
            "data": {
                "image": address(image["path"]),
                "question": _question(finding),
                "run_id": str(audit.run.get("digest", "")),
                "finding_id": finding["finding_id"],
                "image_id": image["image_id"],
                "cue_id": finding["cue_id"],
                "cluster_mark": audit.marks.get(finding["cue_id"], ""),
                "class": finding["class"],
                "cue": finding["cue"],
                "box_label": label_of(finding["cue"]),
                "expected": "present" if present else "absent",
                "reason": reason,
                "to_label": len(settling.images),
            },
            "predictions": [_prediction(audit, finding, image, boxes, preset_verdict)],
        }


def _question(finding: Row) -> str:
    cue, label = label_of(finding["cue"]), label_of(finding["class"])
    return f"Is “{cue}” a shortcut for “{label}”? Mark it where you see it."


def _prediction(
    audit: ExportData, finding: Row, image: Row, boxes: list[list[float]], preset_verdict: bool
) -> dict[str, Any]:
    score = audit.score(image["image_id"], finding["cue_id"])
    result: list[dict[str, Any]] = [
        {
            "id": f"box{i}",
            "type": "rectanglelabels",
            "from_name": "cue",
            "to_name": "image",
            "original_width": image["width"],
            "original_height": image["height"],
            "image_rotation": 0,
            "value": {
                "x": x,
                "y": y,
                "width": width,
                "height": height,
                "rotation": 0,
                "rectanglelabels": [label_of(finding["cue"])],
            },
        }
        for i, (x, y, width, height) in enumerate(to_percent_xywh(as_boxes(boxes)).tolist())
    ]
    if preset_verdict and finding["verdict"] in SUGGESTED:
        choice = {"choices": [SUGGESTED[finding["verdict"]]]}
        result.append({"id": "verdict", "type": "choices", "from_name": "verdict", "to_name": "image", "value": choice})
    prediction: dict[str, Any] = {
        "model_version": f"cuescope-{audit.run.get('digest', '')}",
        "result": result,
    }
    # scores outside [0, 1] are refused; those of measured properties and similarities are no probabilities
    return prediction | ({"score": score} if 0 <= score <= 1 else {})


class _Address:
    """An image's path, relative to the data's root, as the address that Label Studio loads it from."""

    def __init__(self, prefix: str, quoted: bool) -> None:
        self.prefix = prefix
        self.quoted = quoted

    def __call__(self, path: str) -> str:
        path = path.replace("\\", "/") if os.sep == "\\" else path
        return self.prefix + (quote(path, safe="/") if self.quoted else path)


def _addresses(run: dict[str, Any], image_prefix: str, local_root: str | None) -> _Address:
    if image_prefix:
        # an object's key in a bucket is taken as it stands; a web address is quoted
        return _Address(image_prefix.rstrip("/") + "/", image_prefix.startswith(("http://", "https://", "/")))
    data_root = str((run.get("data") or {}).get("root") or "")
    if not data_root or "://" in data_root:
        where = data_root or "nowhere known"
        raise UserError(f"label-studio: the images lie {where}, not in a folder. Say where: --set image_prefix=...")
    images = Path(data_root).resolve()
    root = Path(local_root).expanduser().resolve() if local_root else images.parent
    if not images.is_relative_to(root):
        raise UserError(
            f"label-studio: the images in {images} lie outside local_root {root}. "
            "Give the folder that Label Studio serves (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT)."
        )
    below = images.relative_to(root).as_posix()
    folder = "" if below == "." else quote(below, safe="/") + "/"
    return _Address(f"/data/local-files/?d={folder}", True)


def _write_batches(out: Place, tasks: list[dict[str, Any]], batch: int) -> list[Place]:
    """One file, or `name-001.json`, `name-002.json` ... where the tasks are more than `batch`; an earlier export's
    further files go."""
    parts = range(0, len(tasks), batch)
    paths = [out.with_name(f"{out.stem}-{number:03d}{out.suffix}") for number in range(1, len(parts) + 1)]
    if len(parts) == 1:
        paths = [out]
    for path in paths:
        check_place(path)
        if _is_answered(path):
            raise UserError(
                f"{path} holds people's annotations: it is not replaced. Import them with 'cuescope import-verdicts "
                f"DIR {path.name}', then move the file away or give another place with --out."
            )
    for start, path in zip(parts, paths, strict=True):
        with replacing(path) as temporary:
            text = json.dumps(tasks[start : start + batch], ensure_ascii=False, indent=1, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")
    own = re.compile(re.escape(out.stem) + r"(-\d{3,})?" + re.escape(out.suffix))
    for path in [other for other in out.parent.iterdir() if own.fullmatch(other.name) and other not in paths]:
        with contextlib.suppress(UserError):  # no export of ours
            check_place(path)
            if not _is_answered(path):
                path.unlink()
    return paths


def _is_answered(path: Place) -> bool:
    """Whether a file has the annotations of people: Label Studio's own exports have the form of our tasks."""
    try:
        tasks = parse_json(path.read_text(encoding="utf-8")) if path.is_file() else []
    except ValueError:
        return False  # cut off: nothing that could be imported
    return isinstance(tasks, list) and any(isinstance(task, dict) and task.get("annotations") for task in tasks)
