"""CSV for spreadsheets: a row a finding, or a row an evidence image of a finding."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.export.data import ExportData, check_place
from pipeline.geometry import as_boxes
from pipeline.records import SCHEMAS
from pipeline.store import replacing

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""A text cell that begins so is run as a formula by spreadsheets (OWASP, CSV injection; the last are full-width)."""

FINDING_COLUMNS = tuple(name for name in SCHEMAS["findings"].names if not name.startswith("evidence_"))
IMAGE_COLUMNS = (
    "finding_id",
    "class",
    "cue",
    "verdict",
    "image_id",
    "path",
    "width",
    "height",
    "presence",
    "boxes",
)


def export_csv(audit: ExportData, out: Path, *, rows: Literal["findings", "images"] = "findings") -> list[Path]:
    """Write a CSV file in UTF-8 with a header; returns it.

    Args:
        audit: a finished audit.
        out: the file, or a folder for `findings.csv` or `images.csv`.
        rows: `findings` for a row a finding with its numbers; `images` for a row an evidence image,
            with the cue's boxes as JSON: normalised [x0, y0, x1, y1] each.

    Raises:
        UserError: `rows` is neither, or something that is no earlier export lies at `out`.
    """
    if out.is_dir():
        out = out / f"{rows}.csv"
    if rows == "findings":
        columns, table = FINDING_COLUMNS, audit.findings
    elif rows == "images":
        columns, table = IMAGE_COLUMNS, list(_images(audit))
    else:
        raise UserError(f"csv: 'rows' is '{rows}'; it can be findings or images.")
    check_place(out)
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        # text in quotation marks, or a spreadsheet that parts cells at ; finds a formula behind one
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(columns)
        writer.writerows([cell(row[name]) for name in columns] for row in table)
    return [out]


def cell(value: Any) -> Any:
    """A value as a cell: nothing for what was not measured, text that no spreadsheet takes for a formula."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str) and (value.startswith(FORMULA) or value.lstrip().startswith(FORMULA)):
        return "'" + value
    return value


def _images(audit: ExportData) -> Any:
    for finding in audit.findings:
        for image, boxes in audit.evidence(finding):
            yield {
                **{name: finding[name] for name in ("finding_id", "class", "cue", "verdict")},
                **{name: image[name] for name in ("image_id", "path", "width", "height")},
                "presence": audit.scores.get((image["image_id"], finding["cue_id"])),
                "boxes": json.dumps(as_boxes(boxes).round(6).tolist()),
            }
