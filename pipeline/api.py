"""The Python interface: `from pipeline import Audit, discover`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.chain import run_audit
from pipeline.config import Audit
from pipeline.context import Context, Progress
from pipeline.errors import UserError
from pipeline.evidence.change import Comparison
from pipeline.evidence.change import compare as compare_audits
from pipeline.images import RGB
from pipeline.import_verdicts import Imported, import_verdicts
from pipeline.places import Place, place
from pipeline.stages.ablate import Pictures, redo_edit
from pipeline.stages.export import export_audit
from pipeline.store import AuditFolder


@dataclass(frozen=True)
class Findings:
    """The table of findings; iterates over rows as dictionaries and shows itself in a notebook."""

    table: pa.Table

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.table.to_pylist())

    def to_pandas(self) -> Any:
        """As a pandas DataFrame (where pandas is installed)."""
        return self.table.to_pandas()

    def _repr_html_(self) -> str:
        from pipeline.report.notebook import findings_html

        return findings_html(self.table.to_pylist())


@dataclass(frozen=True)
class Result:
    """A finished audit."""

    folder: AuditFolder

    @property
    def path(self) -> Place:
        """The audit's folder."""
        return self.folder.path

    @property
    def report(self) -> Place:
        """The report, one self-contained HTML file."""
        return self.folder.path / "report.html"

    @property
    def findings(self) -> Findings:
        """One row a (class, cue): see pipeline.records for the columns."""
        return Findings(self.folder.read("findings"))

    @property
    def run(self) -> dict[str, Any]:
        """What run.json says."""
        return self.folder.run()

    def table(self, name: str) -> pa.Table:
        """Any table of the audit."""
        return self.folder.read(name)

    def export(self, to: str, out: str | Place, **options: Any) -> list[Place]:
        """Write files for labelers and other tools, as `cuescope export --to` does; returns what was written.

        Raises:
            UserError: no such exporter or option, or something else is at `out`.
        """
        return export_audit(
            self.folder, to, place(out), [f"{name}={json.dumps(value)}" for name, value in options.items()]
        )

    def import_verdicts(self, file: str | Path) -> Imported:
        """Take in labelers' answers, as `cuescope import-verdicts` does: for this audit and later ones of its data set.

        Raises:
            UserError: no such file, or no answer in it that can be used.
        """
        return import_verdicts(self.folder, Path(file))

    def picture(self, image_id: str) -> RGB:
        """An audited picture, (height, width, 3) uint8.

        Raises:
            UserError: it isn't among those audited, or the data are no longer where they were.
        """
        try:
            return self._pictures.read([image_id])[image_id]
        except KeyError:
            raise UserError(f"{self.path} has audited no image '{image_id}'.") from None

    def edited(self, edit: dict[str, Any]) -> RGB:
        """What the model was shown: the picture of a row of the table `edits`, made again."""
        return self._redo(edit)

    @cached_property
    def _context(self) -> Context:
        return Context(Audit.from_dict(self.run["audit"]), self.folder)

    @cached_property
    def _pictures(self) -> Pictures:
        return Pictures(self.table("images"), self._context.load)

    @cached_property
    def _redo(self) -> Callable[[dict[str, Any]], RGB]:
        return redo_edit(self._pictures)

    def _repr_html_(self) -> str:
        return self.findings._repr_html_()


def discover(
    audit: Audit, out: str | Place | None = None, progress: Progress | None = None, previous: str | Place | None = None
) -> Result:
    """Run an audit in this process.

    Args:
        audit: what to audit; see `Audit.from_yaml` and `Audit.from_dict`.
        out: the audit's folder, a path or an address (s3://, gs://, memory://); default `audits/<digest of the
            configuration>` in the current folder.
        progress: called with (stage, done, total).
        previous: the folder of an earlier audit of the data set, to go on from and to be compared with.

    Raises:
        UserError: anything the user can mend.
    """
    return Result(
        run_audit(audit, out or Path("audits") / audit.digest(), progress, place(previous) if previous else None)
    )


def load(path: str | Place) -> Result:
    """An audit that was made before."""
    return Result(AuditFolder.open(path))


def compare(before: str | Place, after: str | Place) -> Comparison:
    """What changed between two finished audits of a data set."""
    return compare_audits(AuditFolder.open(before), AuditFolder.open(after))
