"""export: an audit's findings for labelers and other tools, through the exporters of the registry."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import Audit
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.evidence.answers import affirmed
from pipeline.evidence.boxes import BoxFinder
from pipeline.export.data import ExportData
from pipeline.models import registry
from pipeline.models.annotations import other_labels
from pipeline.store import AuditFolder
from pipeline.verdicts.kept import mark_of
from pipeline.verdicts.settled import known_again, name_of, presence_of

VERSION = 1
TABLES = (
    "findings", "images", "presence", "verdicts", "cues", "clusters", "predictions", "answers", "annotations",
)  # fmt: skip


def export(*, context: Context) -> dict[str, Any]:
    """Write `findings.csv` into the audit's folder; other formats are made on request by `export_audit`."""
    export_audit(context.folder, "csv", context.folder.path / "findings.csv", [])
    return {}


def export_audit(folder: AuditFolder, to: str, out: Path, options: list[str]) -> list[Path]:
    """Write an audit in a format of the registry; returns the files.

    Raises:
        UserError: no such format or option, or the audit didn't finish.
    """
    chosen: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"--set {option}: expected option=value, for example --set preset_verdict=true")
        chosen[name] = yaml.safe_load(value)
    checked = registry.check_options("export", to, chosen)
    return registry.factory("export", to)(gathered(folder), out, **checked)


def gathered(folder: AuditFolder) -> ExportData:
    """What exporters are given of an audit.

    Raises:
        UserError: the audit didn't finish.
    """
    run = folder.run()
    tables = {name: folder.read(name) for name in TABLES}
    cues = tables["cues"].to_pylist()
    known, _ = known_again(tables["verdicts"], tables["clusters"], run["fingerprints"].get("encoder", ""))
    seen = presence_of(known)
    predictions = tables["predictions"]
    yes = affirmed(predictions, run["classes"], yes_no=len(tables["answers"]) > 0) > 0
    said = {
        image_id: frozenset(label for label, one in zip(run["classes"], row, strict=True) if one)
        for image_id, row in zip(predictions["image_id"].to_pylist(), yes, strict=True)
    }
    return ExportData(
        run=run,
        **{name: tables[name].to_pylist() for name in ("findings", "images", "presence", "verdicts")},
        said=said,
        also=other_labels(tables["annotations"]),
        cuts={row["cue_id"]: row["threshold"] for row in cues},
        marks={f"cluster:{row['cluster']}": mark_of(row["centroid"]) for row in tables["clusters"].to_pylist()},
        answered={row["cue_id"]: seen[name_of(row)] for row in cues if name_of(row) in seen},
        boxes=_boxes(folder, cues),
        read=_reader(folder, run),
    )


def _boxes(folder: AuditFolder, cues: list[dict[str, Any]]) -> Callable[[str, str], list[list[float]]]:
    """Finds boxes, from tables that are read when the first is asked for: they are large, and CSV needs none."""

    @functools.cache
    def finder() -> BoxFinder:
        return BoxFinder(cues, *(folder.read(name) for name in ("detections", "regions", "assignments")))

    return lambda image_id, cue_id: finder().cue(image_id, cue_id).tolist()


def _reader(folder: AuditFolder, run: dict[str, Any]) -> Callable[[str], bytes]:
    """Reads pictures from the audit's data source, made when the first is asked for."""

    @functools.cache
    def context() -> Context:
        return Context(Audit.from_dict({**run["audit"], "classes": run["classes"]}), folder)

    def read(path: str) -> bytes:
        try:
            return context().source.read(path)
        except OSError as error:
            raise UserError(f"The picture {path} can't be read any more: {error.strerror or error}.") from None

    return read
