"""The rows of the flat formats, CSV and JSONL: findings, their images, tasks for labelers, and what was answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.export.data import ExportData, Row, Verdict
from pipeline.export.sample import asked, plan
from pipeline.geometry import as_boxes
from pipeline.places import Place, Remote
from pipeline.records import SCHEMAS
from pipeline.verdicts.table_file import read_table

Rows = Literal["findings", "images", "tasks", "plan", "verdicts"]

COLUMNS: dict[str, tuple[str, ...]] = {
    "findings": tuple(name for name in SCHEMAS["findings"].names if not name.startswith("evidence_")),
    "images": (
        "finding_id", "class", "cue", "verdict", "image_id", "path", "width", "height", "presence", "boxes",
    ),
    "tasks": (
        "finding_id", "class", "cue", "cluster_mark", "image_id", "path", "boxes", "reason",
        "present", "verdict", "annotator", "note",
    ),
    "plan": (
        "finding_id", "class", "cue", "verdict", "labelers", "to_label", "for_threshold", "widened", "widened_after",
    ),
    "verdicts": tuple(name for name in SCHEMAS["verdicts"].names if name not in ("center", "encoder")),
}  # fmt: skip
"""Columns by kind of rows. In `tasks` people fill in the last four."""


def rows_of(audit: ExportData, rows: str, least: Verdict) -> Iterator[Row]:
    """The rows of a kind, with its COLUMNS; boxes are normalised [x0, y0, x1, y1].

    Args:
        rows: a key of COLUMNS.
        least: for tasks and the plan, findings down to this verdict.

    Raises:
        UserError: there are no such rows.
    """
    if rows not in COLUMNS:
        raise UserError(f"'rows' is '{rows}'; it can be {', '.join(COLUMNS)}.")
    made = {"findings": _findings, "images": _images, "verdicts": _verdicts}
    if rows in made:
        return made[rows](audit)
    return (_tasks if rows == "tasks" else _plans)(audit, least)


def check_tasks(out: Place) -> None:
    """Tasks take the place of none that people have answered in.

    Raises:
        UserError: they have at `out`, or that is on an object store.
    """
    if isinstance(out, Remote):
        raise UserError(f"{out}: people fill in the file of tasks. Write it to a folder of this machine.")
    if not out.is_file():
        return
    with out.open("rb") as stream:
        first = stream.readline(4096)
    if not all(name in first for name in (b"cluster_mark", b"annotator")):  # without the quotes, once it was edited
        return
    found = read_table(out, "")
    if found.answers or found.unusable:
        raise UserError(
            f"{out} holds answers: it is not replaced. Import them (cuescope import-verdicts), and give another place "
            "with --out."
        )


def _findings(audit: ExportData) -> Iterator[Row]:
    for finding in audit.findings:
        yield {name: finding[name] for name in COLUMNS["findings"]}


def _images(audit: ExportData) -> Iterator[Row]:
    for finding in audit.findings:
        for image, boxes in audit.evidence(finding):
            yield {
                **{name: finding[name] for name in ("finding_id", "class", "cue", "verdict")},
                **{name: image[name] for name in ("image_id", "path", "width", "height")},
                "presence": audit.score(image["image_id"], finding["cue_id"]),
                "boxes": _rounded(boxes),
            }


def _tasks(audit: ExportData, least: Verdict) -> Iterator[Row]:
    for finding, shown, _ in asked(audit, audit.wanted(least), with_cue=8, without_cue=4, sample=40):
        for image, boxes, _, reason in shown:
            yield {
                **{name: finding[name] for name in ("finding_id", "class", "cue")},
                "cluster_mark": audit.marks.get(finding["cue_id"], ""),
                **{name: image[name] for name in ("image_id", "path")},
                "boxes": _rounded(boxes),
                "reason": reason,
                **dict.fromkeys(("present", "verdict", "annotator", "note"), ""),
            }


def _plans(audit: ExportData, least: Verdict) -> Iterator[Row]:
    for finding in audit.wanted(least):
        settling = plan(audit, finding)
        yield {
            **{name: finding[name] for name in ("finding_id", "class", "cue", "verdict", "labelers")},
            "to_label": len(settling.images),
            "for_threshold": settling.for_threshold,
            "widened": round(settling.widened, 4),
            "widened_after": round(settling.after, 4),
        }


def _verdicts(audit: ExportData) -> Iterator[Row]:
    for row in audit.verdicts:
        yield {**{name: row[name] for name in COLUMNS["verdicts"]}, "boxes": _rounded(row["boxes"] or [])}


def _rounded(boxes: Any) -> list[list[float]]:
    return as_boxes(boxes).round(6).tolist()
