"""export: an audit's findings for labelers and other tools, through the exporters of the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.export.data import ExportData
from pipeline.models import registry
from pipeline.store import AuditFolder
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
    data = ExportData(
        run=folder.run(),
        findings=folder.read("findings").to_pylist(),
        images=folder.read("images").to_pylist(),
        presence=folder.read("presence").to_pylist(),
    )
    return registry.factory("export", to)(data, out, **checked)
