"""export: an audit's findings for labelers and other tools, through the exporters of the registry."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipeline.config import Audit
from pipeline.context import Context
from pipeline.errors import UserError, plain
from pipeline.evidence.answers import affirmed
from pipeline.evidence.boxes import BoxFinder
from pipeline.export.data import ExportData, FindBoxes, Row
from pipeline.models import registry
from pipeline.models.annotations import other_labels
from pipeline.places import Place
from pipeline.records import SCHEMAS
from pipeline.store import AuditFolder, batches, length
from pipeline.verdicts.kept import mark_of
from pipeline.verdicts.settled import known_again, name_of, presence_of
from pipeline.yaml_file import parse_yaml

VERSION = 1


def export(*, context: Context) -> dict[str, Any]:
    """Write `findings.csv` into the audit's folder; other formats are made on request by `export_audit`."""
    export_audit(context.folder, "csv", context.folder.path / "findings.csv", [])
    return {}


def export_audit(folder: AuditFolder, to: str, out: Place, options: list[str]) -> list[Place]:
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
    return registry.factory("export", to)(gathered(folder), out, **checked)


def gathered(folder: AuditFolder) -> ExportData:
    """What exporters are given of an audit. Large tables are read when, and as far as, an exporter looks at them.

    Raises:
        UserError: the audit didn't finish.
    """
    run = folder.run()
    findings, verdicts, cues, clusters = (folder.read(name) for name in ("findings", "verdicts", "cues", "clusters"))
    for name in ("images", "presence", "predictions", "answers", "annotations"):
        folder.rows(name)  # says so if it isn't there
    rows = cues.to_pylist()
    known, _ = known_again(verdicts, clusters, run["fingerprints"].get("encoder", ""))
    seen = presence_of(known)
    return ExportData(
        run=run,
        findings=findings.to_pylist(),
        images=Later(lambda: folder.read("images").to_pylist()),
        presence=InParts(lambda: presence_rows(folder, findings["cue_id"])),
        verdicts=verdicts.to_pylist(),
        said=LaterMap(lambda: said_of(folder, run["classes"])),
        also=LaterMap(lambda: other_labels(folder.rows("annotations"))),
        cuts={row["cue_id"]: row["threshold"] for row in rows},
        marks={f"cluster:{row['cluster']}": mark_of(row["centroid"]) for row in clusters.to_pylist()},
        answered={row["cue_id"]: seen[name_of(row)] for row in rows if name_of(row) in seen},
        boxes=lambda ids: boxes_of(folder, rows, ids),
        read=_reader(folder, run),
    )


class Later(Sequence[Row]):
    """Rows that are read when they are first looked at: a file of findings needs none of them."""

    def __init__(self, read: Callable[[], list[Row]]) -> None:
        self._read = read

    @functools.cached_property
    def _rows(self) -> list[Row]:
        return self._read()

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)


class LaterMap(Mapping[str, frozenset[str]]):
    """The same of a mapping."""

    def __init__(self, read: Callable[[], dict[str, frozenset[str]]]) -> None:
        self._read = read

    @functools.cached_property
    def _found(self) -> dict[str, frozenset[str]]:
        return self._read()

    def __getitem__(self, key: str) -> frozenset[str]:
        return self._found[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class InParts(Iterable[Row]):
    """Rows that are read anew, part by part, each time they are gone through."""

    def __init__(self, read: Callable[[], Iterator[pa.Table]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[Row]:
        for part in self._read():
            yield from part.to_pylist()


def presence_rows(folder: AuditFolder, cue_ids: pa.ChunkedArray) -> Iterator[pa.Table]:
    """The rows of `presence` that are of these cues, part by part."""
    wanted = pa.compute.unique(cue_ids)
    for part in batches(folder.rows("presence"), SCHEMAS["presence"].names):
        yield part.filter(pa.compute.is_in(part["cue_id"], value_set=wanted))


def said_of(folder: AuditFolder, classes: Sequence[str]) -> dict[str, frozenset[str]]:
    """Image id to the classes that the model says of it."""
    yes_no = length(folder.rows("answers")) > 0
    columns = ["image_id", "logits" if yes_no else "predicted"]
    same: dict[tuple[str, ...], frozenset[str]] = {}  # a set for all images of which the model says the same
    said: dict[str, frozenset[str]] = {}
    for part in batches(folder.rows("predictions"), columns):
        yes = affirmed(part, classes, yes_no) > 0
        for image_id, row in zip(part["image_id"].to_pylist(), yes, strict=True):
            names = tuple(label for label, one in zip(classes, row, strict=True) if one)
            said[image_id] = same.setdefault(names, frozenset(names))
    return said


def boxes_of(folder: AuditFolder, cues: list[Row], ids: Collection[str]) -> FindBoxes:
    """Reads the boxes of the cues in these images."""
    detections, regions, assignments = (folder.rows(name) for name in ("detections", "regions", "assignments"))
    finder = BoxFinder(cues, detections, regions, assignments, ids)
    return lambda image_id, cue_id: finder.cue(image_id, cue_id).tolist()


def _reader(folder: AuditFolder, run: dict[str, Any]) -> Callable[[str], bytes]:
    """Reads pictures from the audit's data source, made when the first is asked for."""

    @functools.cache
    def context() -> Context:
        return Context(Audit.from_dict({**run["audit"], "classes": run["classes"]}), folder)

    def read(path: str) -> bytes:
        try:
            return context().source.read(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"The picture {path} can't be read any more: {plain(str(reason))}.") from None

    return read
