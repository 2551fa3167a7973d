"""export: an audit's findings for labelers and other tools, through the exporters of the registry."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.export.data import ExportData, Row
from pipeline.models import registry
from pipeline.records import SCHEMAS, places
from pipeline.store import AuditFolder, batches, whole
from pipeline.yaml_file import parse_yaml

VERSION = 1


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
        try:
            chosen[name] = parse_yaml(value)
        except ValueError:
            raise UserError(f"--set {name}: its value is not YAML; put it in quotation marks.") from None
    checked = registry.check_options("export", to, chosen)
    findings = folder.read("findings").to_pylist()
    images = Later(lambda: folder.read("images"))
    data = ExportData(folder.run(), findings, images, Later(lambda: presence_of(folder, findings)))
    return registry.factory("export", to)(data, out, **checked)


class Later(Sequence[Row]):
    """The rows of a table that is read when they are first looked at: a file of findings needs none of them."""

    def __init__(self, read: Callable[[], pa.Table]) -> None:
        self._read = read

    @functools.cached_property
    def _rows(self) -> list[Row]:
        return self._read().to_pylist()

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)


def presence_of(folder: AuditFolder, findings: list[Row]) -> pa.Table:
    """The rows of `presence` that are of a finding's cue and an image of its class."""
    folder.rows("presence")  # says so if it isn't there
    classes, cues = ({name: n for n, name in enumerate(dict.fromkeys(row[column] for row in findings))}
                     for column in ("class", "cue_id"))  # fmt: skip
    wanted = np.zeros((len(classes) + 1, len(cues) + 1), dtype=bool)  # the last of each, at -1, are none of them
    for row in findings:
        wanted[classes[row["class"]], cues[row["cue_id"]]] = True
    images = whole(folder.rows("images"), ["image_id", "label"])
    label = places(images["label"], classes)
    at = {image_id: number for number, image_id in enumerate(images["image_id"].to_pylist())}
    columns = SCHEMAS["presence"].names
    kept = [SCHEMAS["presence"].empty_table()]
    for part in batches(folder.rows("presence"), columns):
        mine = wanted[label[places(part["image_id"], at)], places(part["cue_id"], cues)]
        kept.append(part.filter(pa.array(mine)))
    return pa.concat_tables(kept)
