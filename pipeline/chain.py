"""The chain of an audit, written once:

    ingest -> predict -> caption -> propose -> detect -> embed -> cluster -> measure -> ablate -> rank -> report, export

`chain` says the order; how a step is carried out is the caller's affair: in this process (`run_audit`, for notebooks,
tests and --no-prefect) or as Prefect tasks (flows/discover.py), by the same `run_once`, `run_shard` and `gather`.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.metadata
import inspect
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipeline.config import Audit
from pipeline.context import Context, Progress
from pipeline.errors import UserError, nearest
from pipeline.models.ledger import Ledger, Spent
from pipeline.models.protocols import RecordedAnswers
from pipeline.records import SCHEMAS
from pipeline.stages import (
    ablate,
    caption,
    cluster,
    detect,
    embed,
    export,
    ingest,
    measure,
    predict,
    propose,
    rank,
    report,
)
from pipeline.store import AuditFolder, Shelf
from pipeline.verdicts import kept


def chain(once: Callable[[str], Any], each: Callable[[str], Any]) -> None:
    """Carry out an audit: `once` runs a stage on whole tables, `each` runs a per-image stage shard by shard."""
    once("ingest")
    each("predict")
    each("caption")
    once("propose")
    each("detect")
    each("embed")
    once("cluster")
    once("measure")
    once("ablate")
    once("rank")
    once("report")
    once("export")


@dataclass(frozen=True)
class Stage:
    """A stage: a function from tables to tables; per-image ones say by `computation` when a stored row still holds."""

    run: Callable[..., dict[str, pa.Table]]
    writes: tuple[str, ...]
    computation: Callable[..., tuple] | None = None


STAGES: dict[str, Stage] = {
    "ingest": Stage(ingest.ingest, ("images", "quarantine", "annotations")),
    "predict": Stage(predict.predict, ("predictions", "answers"), predict.computation),
    "caption": Stage(caption.caption, ("captions",), caption.computation),
    "propose": Stage(propose.propose, ("attributes",)),
    "detect": Stage(detect.detect, ("detections",), detect.computation),
    "embed": Stage(embed.embed, ("regions", "embeddings"), embed.computation),
    "cluster": Stage(cluster.cluster, ("clusters", "assignments")),
    "measure": Stage(measure.measure, ("cues", "presence", "measures", "variants")),
    "ablate": Stage(ablate.ablate, ("edits", "experiments", "untested")),
    "rank": Stage(rank.rank, ("findings",)),
    "report": Stage(report.report, ()),
    "export": Stage(export.export, ()),
}


@dataclass
class Tally:
    """What a step did: model forwards and calls by stage, and what it left out."""

    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for a task's result."""
        return {"counts": dict(self.counts), "skipped": self.skipped}


def _supply(function: Callable[..., Any], context: Context, tables: dict[str, pa.Table]) -> dict[str, Any]:
    """The arguments a stage asks for: tables by name from `tables` or the audit's folder, the rest from the context."""
    supplied: dict[str, Any] = {}
    for name in inspect.signature(function).parameters:
        if name in tables:
            supplied[name] = tables[name]
        elif name in SCHEMAS:
            supplied[name] = context.folder.read(name)
        elif name == "context":
            supplied[name] = context
        elif name.endswith("_computation"):
            before = STAGES[name.removesuffix("_computation")].computation
            assert before is not None
            supplied[name] = before(**_supply(before, context, tables))
        else:
            supplied[name] = getattr(context, name)
    return supplied


def run_once(name: str, context: Context) -> Tally:
    """Run a stage on whole tables and write what it returns."""
    stage = STAGES[name]
    context.stage = name
    before, skipped = Counter(context.counts), len(context.skipped)
    for table, rows in stage.run(**_supply(stage.run, context, {})).items():
        context.folder.write(table, rows)
    return Tally(context.counts - before, context.skipped[skipped:])


def _shelves(name: str, context: Context) -> list[Shelf]:
    stage = STAGES[name]
    assert stage.computation is not None
    computation = stage.computation(**_supply(stage.computation, context, {}))
    return [Shelf(context.cache, name, table, "image_id", computation) for table in stage.writes]


def shards(context: Context) -> list[range]:
    """The rows of `images` that each unit of work holds."""
    total = len(context.folder.read("images"))
    return [range(first, min(first + context.audit.shard, total)) for first in range(0, total, context.audit.shard)]


def run_shard(name: str, context: Context, number: int) -> Tally:
    """Run a per-image stage on the images of one shard whose results are not in the cache yet."""
    stage = STAGES[name]
    shelves = _shelves(name, context)
    rows = shards(context)[number]
    images = context.folder.read("images").slice(rows.start, len(rows))
    known = set.intersection(*(shelf.keys() for shelf in shelves))
    missing = [image_id not in known for image_id in images["image_id"].to_pylist()]
    todo = images.filter(pa.array(missing))
    if not len(todo):
        return Tally()
    tables = {"images": todo}
    for other in inspect.signature(stage.run).parameters:
        if other in SCHEMAS and other != "images":
            table = context.folder.read(other)
            if "image_id" in table.column_names:
                table = table.filter(pa.compute.is_in(table["image_id"], value_set=todo["image_id"].combine_chunks()))
            tables[other] = table
    before, skipped = Counter(context.counts), len(context.skipped)
    context.postponed.clear()
    results = stage.run(**_supply(stage.run, context, tables))
    done = [image_id for image_id in todo["image_id"].to_pylist() if image_id not in context.postponed]
    for shelf in shelves:
        shelf.add(done, results[shelf.table_name])
    counts = context.counts - before
    if any(len(table) for table in results.values()):
        counts[name] += len(done)
    return Tally(counts, context.skipped[skipped:])


def gather(name: str, context: Context) -> None:
    """Write a per-image stage's tables into the audit's folder, in the order of its images."""
    ids = context.folder.read("images")["image_id"].to_pylist()
    for shelf in _shelves(name, context):
        context.folder.write(shelf.table_name, shelf.read(ids))


def prepare(audit: Audit, out: Path) -> AuditFolder:
    """Check what can be checked before any work, then start the audit's folder.

    Raises:
        UserError: the data or a model isn't there, or `out` holds something else.
    """
    folder = AuditFolder(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder for the audit with --out.")
    if out.is_dir() and any(out.iterdir()) and not (out / "run.json").is_file():
        raise UserError(f"{out} holds files that are no audit. Give an empty or a new folder with --out.")
    context = Context(audit, folder)
    items = list(context.source)
    found = {label for item in items for label in item.labels}
    if not found:
        raise UserError(
            f"data: no image has a label. {items[0].path}: {items[0].fault}" if items else "data: no images."
        )
    for name in audit.classes:
        if name not in found:
            raise UserError(f"data: the class '{name}' has no images. {nearest(name, found)}")
    labels = audit.classes or sorted(found)
    audit_with_classes = audit.model_copy(update={"classes": list(labels)})
    checked = Context(audit_with_classes, folder)
    fingerprints = {
        section: back_end.fingerprint
        for section in ("model", "captioner", "proposer", "detector", "encoder")
        if (back_end := getattr(checked, section)) is not None
    }
    if len(labels) < 2:
        raise UserError(
            f"data: there is only one class, '{labels[0]}'. A cue of a class shows against other classes: give images "
            f"of another one{', and name it in classes' if audit.classes else ''}."
        )
    out.mkdir(parents=True, exist_ok=True)
    with locked(folder):  # before anything of an audit that another run is writing is touched
        # what people said of the data set, and what was imported into this very folder, wherever it lay then
        said = kept.read(checked.verdicts)
        if folder.has("verdicts"):
            said = kept.merge(kept.read(folder.file("verdicts")), said)
        for name in [*SCHEMAS]:
            folder.file(name).unlink(missing_ok=True)  # a rerun's tables are this run's own, or absent
        folder.write("verdicts", said)
        (out / "report.html").unlink(missing_ok=True)
        folder.write_run(
            {
                "cuescope": importlib.metadata.version("cuescope"),
                "audit": audit.to_dict(),
                "digest": audit.digest(),
                "classes": list(labels),
                "seed": audit.seed,
                "split": not audit.no_split,
                "observational": isinstance(checked.model, RecordedAnswers),
                "data": {"root": str(context.source.root)},
                "fingerprints": fingerprints,
                "versions": _versions(),
                "forwards": {
                    name: 0 for name, stage in STAGES.items() if stage.computation or name in ("cluster", "ablate")
                },
                "costs": {**asdict(Spent()), "dropped": 0},
                "seconds": {},
                "skipped": [],
                "started": _now(),
                "finished": None,
            }
        )
    return folder


def note(folder: AuditFolder, stage: str, tallies: list[Tally], seconds: float) -> None:
    """Add what a stage did to run.json."""
    run = folder.run()
    for tally in tallies:
        for what, number in tally.counts.items():
            place = run["costs"] if what == "dropped" else run["forwards"]
            place[what] = (place.get(what) or 0) + number
        run["skipped"] += [entry for entry in tally.skipped if entry not in run["skipped"]]
    run["costs"] |= asdict(Ledger(folder.path / "llm.jsonl", run["started"]).spent())
    run["seconds"][stage] = round(seconds, 3)
    if stage == "ingest":
        images = folder.read("images")
        run["data"] = {
            **run["data"],
            "images": len(images),
            "quarantined": len(folder.read("quarantine")),
            "per_class": dict(Counter(images["label"].to_pylist())),
        }
    if stage == "ablate":
        experiments = folder.read("experiments").to_pylist()
        run["ablation"] = {
            "mode": run["audit"]["ablate"]["mode"],
            "forwards": sum(row["forwards"] for row in experiments),
            "exhaustive_forwards": sum(row["exhaustive_forwards"] for row in experiments),
            "experiments": experiments,
        }
    if stage == list(STAGES)[-1]:
        run["finished"] = _now()
    folder.write_run(run)


def run_audit(audit: Audit, out: str | Path, progress: Progress | None = None) -> AuditFolder:
    """The whole chain in this process; returns the audit's folder.

    Raises:
        UserError: anything the user can mend; what was computed stays in the cache.
    """
    folder = prepare(audit, Path(out))
    context = Context(audit.model_copy(update={"classes": folder.run()["classes"]}), folder, progress)

    def once(name: str) -> None:
        began = time.perf_counter()
        note(folder, name, [run_once(name, context)], time.perf_counter() - began)

    def each(name: str) -> None:
        began = time.perf_counter()
        context.stage = name
        numbers = range(len(shards(context)))
        tallies = []
        for number in numbers:
            context.progress(number, len(numbers))
            tallies.append(run_shard(name, context, number))
        context.progress(len(numbers), len(numbers))
        gather(name, context)
        note(folder, name, tallies, time.perf_counter() - began)

    with locked(folder):
        chain(once, each)
    return folder


@contextlib.contextmanager
def locked(folder: AuditFolder) -> Iterator[None]:
    """Hold the audit's folder: two runs at once into one folder would mix their tables."""
    with open(folder.path / ".lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"Another run is writing to {folder.path}. Wait for it, or give another --out.") from None
        yield


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {}
    for package in (
        "torch",
        "transformers",
        "open-clip-torch",
        "ultralytics",
        "faiss-cpu",
        "openai",
        "prefect",
        "numpy",
    ):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
