"""JSONL for programs: the rows of the CSV export, an object a line, with lists as lists and null for "not measured"."""

from __future__ import annotations

import json
import math
from typing import Any

from pipeline.export.data import ExportData, Verdict, check_place
from pipeline.export.rows import Rows, check_tasks, rows_of
from pipeline.places import Place
from pipeline.store import replacing


def export_jsonl(
    audit: ExportData, out: Place, *, rows: Rows = "findings", least_verdict: Verdict = "inconclusive"
) -> list[Place]:
    """Write a JSONL file in UTF-8; returns it.

    Args:
        audit: a finished audit.
        out: the file, or a folder for `findings.jsonl`, `images.jsonl` and so on.
        rows: findings, images, tasks, plan or verdicts, as in the CSV export.
        least_verdict: of tasks and the plan, findings down to this verdict: confirmed, inconclusive, associated only,
            core.

    Raises:
        UserError: `rows` is none of these, or what lies at `out` is no earlier export, or holds people's answers.
    """
    made = rows_of(audit, rows, least_verdict)
    if out.is_dir():
        out = out / f"{rows}.jsonl"
    check_place(out)
    if rows == "tasks":
        check_tasks(out)
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in made:
            measured = {name: _or_null(value) for name, value in row.items()}
            file.write(json.dumps(measured, ensure_ascii=False, allow_nan=False) + "\n")
    return [out]


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
