"""report: the audit as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pipeline.context import Context
from pipeline.images import RGB
from pipeline.records import worst_first
from pipeline.report import beside
from pipeline.report.assemble import Edit, Embedded, assemble
from pipeline.report.render import render_report
from pipeline.stages.ablate import Pictures, redo_edit
from pipeline.store import AuditFolder, whole, write_text

VERSION = 2
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
    tables = tables_of(folder)
    load, redo = pictures_of(context, tables)
    data = assemble(folder.run(), tables, Embedded(load, redo), beside_of(folder, tables))
    write_text(folder.path / "report.html", render_report(data))
    return {}


def tables_of(folder: AuditFolder) -> dict[str, pa.Table]:
    """The tables that a report is made of."""
    tables = {name: folder.read(name) for name in TABLES}
    return tables | {"answers": whole(folder.rows("answers"), ["yes"])}  # they are only counted


def pictures_of(
    context: Context, tables: dict[str, pa.Table]
) -> tuple[Callable[[str], RGB], Callable[[Edit], tuple[RGB, RGB]]]:
    """What reads a picture by its id, and what makes an edit and its placebo again."""
    pictures = Pictures(tables["images"], context.load)
    redo = redo_edit(pictures)
    placebos = {row["pair_id"]: row for row in tables["edits"].to_pylist() if row["arm"] == "placebo"}
    return (
        lambda image_id: pictures.read([image_id])[image_id],
        lambda edit: (redo(edit), redo(placebos[edit["pair_id"]])),
    )


def beside_of(folder: AuditFolder, tables: dict[str, pa.Table]) -> beside.Beside:
    """What stands beside the findings of an audit."""
    findings = sorted(tables["findings"].to_pylist(), key=worst_first)
    images, cues = tables["images"], tables["cues"].to_pylist()
    presence, detections, regions, assignments, captions = (
        folder.rows(name) for name in ("presence", "detections", "regions", "assignments", "captions")
    )
    no_split = not folder.run().get("split", True)
    return beside.Beside(
        beside.heats(findings, cues, images, presence, detections, regions, assignments, no_split),
        beside.quotes(findings, tables["attributes"].to_pylist(), images, captions),
        beside.regions_of(findings, regions, assignments),
    )
