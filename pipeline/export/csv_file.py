"""CSV for spreadsheets: a row a finding, an evidence image, a labeler's task, or an answer."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.cells import cell
from pipeline.export.data import ExportData, Row, Verdict, check_place
from pipeline.export.rows import COLUMNS, Rows, check_tasks, rows_of
from pipeline.places import Place
from pipeline.store import replacing


def export_csv(
    audit: ExportData, out: Place, *, rows: Rows = "findings", least_verdict: Verdict = "inconclusive"
) -> list[Place]:
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
        UserError: `rows` is none of these, or what lies at `out` is no earlier export, or holds people's answers.
    """
    made = rows_of(audit, rows, least_verdict)
    if out.is_dir():
        out = out / f"{rows}.csv"
    check_place(out)
    if rows == "tasks":
        check_tasks(out)
    with replacing(out) as temporary:
        write_csv(temporary, COLUMNS[rows], made)
    return [out]


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write rows with a header, text in quotation marks: or a spreadsheet that parts cells at ; finds formulas."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(columns)
        writer.writerows([cell(row[name]) for name in columns] for row in rows)
