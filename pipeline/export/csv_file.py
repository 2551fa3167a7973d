"""CSV for spreadsheets: a row a finding, an evidence image, a labeler's task, or an answer."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from pipeline.export.data import ExportData, Verdict
from pipeline.export.rows import COLUMNS, Rows, rows_of
from pipeline.store import replacing

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A text cell that begins so is run as a formula by spreadsheets (OWASP, CSV injection)."""


def export_csv(
    audit: ExportData, out: Path, *, rows: Rows = "findings", least_verdict: Verdict = "inconclusive"
) -> list[Path]:
    """Write a CSV file in UTF-8 with a header; returns it.

    Args:
        audit: a finished audit.
        out: the file, or a folder for `findings.csv`, `images.csv` and so on.
        rows: `findings` for a row a finding with its numbers; `images` for a row an evidence image; `tasks` for a row
            a picture that people are asked about, with empty columns for their answers, which
            `cuescope import-verdicts` reads back; `plan` for a row a finding with how many images settle it;
            `verdicts` for a row an answer that was imported. Boxes are JSON: normalised [x0, y0, x1, y1] each.
        least_verdict: of tasks and the plan, findings down to this verdict: confirmed, inconclusive, associated only,
            core.

    Raises:
        UserError: `rows` is none of these.
    """
    made = rows_of(audit, rows, least_verdict)
    if out.is_dir():
        out = out / f"{rows}.csv"
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS[rows])
        writer.writerows([cell(row[name]) for name in COLUMNS[rows]] for row in made)
    return [out]


def cell(value: Any) -> Any:
    """A value as a cell: nothing for what was not measured, text that no spreadsheet takes for a formula."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list):
        return json.dumps(value)
    if isinstance(value, str) and value.lstrip(" ").startswith(FORMULA):
        return "'" + value
    return value
