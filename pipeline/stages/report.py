"""report: the audit as one self-contained HTML file."""

from __future__ import annotations

from typing import Any

from pipeline.context import Context
from pipeline.images import RGB
from pipeline.report.assemble import assemble
from pipeline.report.render import render_report
from pipeline.stages.ablate import Pictures, redo_edit
from pipeline.store import whole, write_text

VERSION = 1
TABLES = (
    "findings",
    "images",
    "edits",
    "untested",
    "quarantine",
    "attributes",
    "cues",
    "clusters",
    "variants",
    "checks",
    "changes",
)


def report(*, context: Context) -> dict[str, Any]:
    """Write report.html into the audit's folder."""
    folder = context.folder
    tables = {name: folder.read(name) for name in TABLES}
    tables["answers"] = whole(folder.rows("answers"), ["yes"])  # they are only counted
    pictures = Pictures(tables["images"], context.load)
    redo = redo_edit(context, tables["images"])
    placebos = {row["pair_id"]: row for row in tables["edits"].to_pylist() if row["arm"] == "placebo"}

    def both(edit: dict[str, Any]) -> tuple[RGB, RGB]:
        return redo(edit), redo(placebos[edit["pair_id"]])

    data = assemble(folder.run(), tables, lambda image_id: pictures.read([image_id])[image_id], both)
    write_text(folder.path / "report.html", render_report(data))
    return {}
