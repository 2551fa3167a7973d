"""The chain of an audit, written once:

    ingest -> predict -> caption -> propose -> detect -> embed -> check -> cluster -> measure -> ablate -> rank
        -> compare -> report, export

`chain` says the order; how a step is carried out is the caller's affair: in this process (`run_audit`, for notebooks,
tests and --no-prefect) or as Prefect tasks (flows/discover.py), by the same `run_once`, `run_shard` and `gather`.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import hashlib
import importlib.metadata
import inspect
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipeline.config import Audit
from pipeline.context import Context, Progress
from pipeline.errors import Busy, UserError, nearest
from pipeline.locks import alone, is_held
from pipeline.models.ledger import Ledger, Spent
from pipeline.models.protocols import RecordedAnswers
from pipeline.places import Place, place
from pipeline.records import SCHEMAS
from pipeline.sources.items import stamp_of
from pipeline.stages import (
    ablate,
    caption,
    check,
    cluster,
    compare,
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
from pipeline.store import GROUP, AuditFolder, Shelf, explained, give_back, key_of, length, read_keys, sweep, whole
from pipeline.verdicts import kept


def chain(once: Callable[[str], Any], each: Callable[[tuple[str, ...], tuple[str, ...]], Any]) -> None:
    """Carry out an audit: `once` runs a stage on whole tables, `each` runs per-image stages shard by shard, in one pass
    over the pictures (see `run_pass`)."""
    try:
        once("ingest")
        each(("predict", "caption"), ("embed",))
        once("propose")
        each(("detect", "embed"), ())
        once("check")
        once("cluster")
        once("measure")
        once("ablate")
        once("rank")
        once("compare")
        once("report")
        once("export")
    finally:
        gc.unfreeze()  # see `let_go`
        _looked_through.clear()


@dataclass(frozen=True)
class Stage:
    """A stage: a function from tables to tables; per-image ones say by `computation` when a stored row still holds.

    A large table may be returned as an iterator of its parts, which are made as they are written.

    ahead: puts into the cache what of a per-image stage needs nothing of the stages before it, so that it can share
    their pass over the pictures.
    """

    run: Callable[..., dict[str, Any]]
    writes: tuple[str, ...]
    computation: Callable[..., tuple] | None = None
    ahead: Callable[..., None] | None = None


STAGES: dict[str, Stage] = {
    "ingest": Stage(ingest.ingest, ("images", "quarantine", "annotations")),
    "predict": Stage(predict.predict, ("predictions", "answers"), predict.computation),
    "caption": Stage(caption.caption, ("captions",), caption.computation),
    "propose": Stage(propose.propose, ("attributes",)),
    "detect": Stage(detect.detect, ("detections",), detect.computation),
    "embed": Stage(embed.embed, ("regions", "embeddings"), embed.computation, embed.ahead),
    "check": Stage(check.check, ("checks",)),
    "cluster": Stage(cluster.cluster, ("clusters", "assignments")),
    "measure": Stage(measure.measure, ("cues", "presence", "measures", "variants")),
    "ablate": Stage(ablate.ablate, ("edits", "experiments", "untested", "moves")),
    "rank": Stage(rank.rank, ("findings",)),
    "compare": Stage(compare.compare, ("changes",)),
    "report": Stage(report.report, ()),
    "export": Stage(export.export, ()),
}


@dataclass
class Tally:
    """What a step did: model forwards and calls by stage, what it left out, how many images the cache knows now, and
    how long it took."""

    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[dict[str, str]] = field(default_factory=list)
    known: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for a task's result."""
        return {"counts": dict(self.counts), "skipped": self.skipped, "known": self.known, "seconds": self.seconds}

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> Tally:
        """The same again."""
        return cls(Counter(said["counts"]), said["skipped"], said["known"], said["seconds"])


def _supply(function: Callable[..., Any], context: Context, tables: dict[str, pa.Table]) -> dict[str, Any]:
    """The arguments a stage asks for: tables by name from `tables` or the audit's folder, the rest from the context.

    A table that a stage declares as `Parts` is not read: it comes as the file, for `store.batches`.
    """
    supplied: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in tables:
            supplied[name] = tables[name]
        elif name in SCHEMAS:
            supplied[name] = context.folder.rows(name) if parameter.annotation == "Parts" else context.folder.read(name)
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
    let_go()
    return Tally(context.counts - before, context.skipped[skipped:])


def let_go() -> None:
    """Free what a stage left in cycles, and hand all of it back.

    What the packages made as they were imported stays anyway: the collector, which takes a quarter of a second to look
    through that of torch and transformers, is told to pass over it until the chain ends.
    """
    gc.collect()
    if len(sys.modules) > 1.1 * _looked_through.get("modules", 0):
        _looked_through["modules"] = len(sys.modules)
        gc.freeze()
    give_back()


_looked_through: dict[str, int] = {}
"""How many modules were there when the collector was last told to pass over what there is."""


def _shelves(name: str, context: Context) -> dict[str, Shelf]:
    """The shelf of each table that a per-image stage writes."""
    stage = STAGES[name]
    assert stage.computation is not None
    computation = stage.computation(**_supply(stage.computation, context, {}))
    return {table: Shelf(context.cache, name, table, "image_id", computation) for table in stage.writes}


def _of_images(table: str, ids: pa.Array, rows: range, context: Context) -> pa.Table:
    """The rows of a table that are of these images, which are among these rows of `images`; of a table without images
    all rows."""
    for name, stage in STAGES.items():
        if table in stage.writes and stage.computation is not None:
            return _shelves(name, context)[table].read(ids.to_pylist())
    if "image_id" not in SCHEMAS[table].names:
        return context.folder.read(table)
    # in the order of the images, at most a row each: not all of it need be read for a shard
    there = length(context.folder.rows(table))
    lacking = length(context.folder.rows("images")) - there
    found = context.folder.slice(table, range(max(rows.start - lacking, 0), min(rows.stop, there)))
    return found.filter(pa.compute.is_in(found["image_id"], value_set=ids))


def shards(context: Context) -> list[range]:
    """The rows of `images` that each unit of work holds."""
    total = length(context.folder.rows("images"))
    return [range(first, min(first + context.audit.shard, total)) for first in range(0, total, context.audit.shard)]


def run_shard(name: str, context: Context, number: int) -> Tally:
    """Run a per-image stage on the images of one shard whose results are not in the cache yet."""
    stage = STAGES[name]
    shelves = _shelves(name, context)
    rows = shards(context)[number]
    images = context.folder.slice("images", rows)
    ids = images["image_id"].to_pylist()
    known = set.intersection(*(shelf.known(ids) for shelf in shelves.values()))
    todo = images.filter(pa.array([image_id not in known for image_id in ids]))
    if not len(todo):
        return Tally(known=len(ids))
    wanted = todo["image_id"].combine_chunks()
    others = [other for other in inspect.signature(stage.run).parameters if other in SCHEMAS and other != "images"]
    tables = {"images": todo, **{other: _of_images(other, wanted, rows, context) for other in others}}
    before, skipped = Counter(context.counts), len(context.skipped)
    context.postponed.clear()
    results = stage.run(**_supply(stage.run, context, tables))
    done = [image_id for image_id in wanted.to_pylist() if image_id not in context.postponed]
    for table, shelf in shelves.items():
        shelf.add(done, results[table])
    counts = context.counts - before
    if any(len(table) for table in results.values()):
        counts[name] += len(done)
    return Tally(counts, context.skipped[skipped:], len(known) + len(done))


def run_pass(names: tuple[str, ...], ahead: tuple[str, ...], context: Context, number: int) -> dict[str, Tally]:
    """Run per-image stages on one shard, with each picture read and decoded once for all of them; of the stages in
    `ahead` what can be done already. Returns what each did."""
    tallies: dict[str, Tally] = {}
    with context.one_pass():
        for name in names:
            began = time.perf_counter()
            tallies[name] = run_shard(name, context, number)
            tallies[name].seconds = time.perf_counter() - began
        for name in ahead:
            began, prepare_shard = time.perf_counter(), STAGES[name].ahead
            assert prepare_shard is not None
            images = context.folder.slice("images", shards(context)[number])
            prepare_shard(**_supply(prepare_shard, context, {"images": images}))
            tallies[name] = Tally(seconds=time.perf_counter() - began)
    give_back()
    return tallies


def by_stage(passed: list[dict[str, Tally]], seconds: float) -> dict[str, tuple[list[Tally], float]]:
    """What each stage of a pass did, and its share of the time that the pass took."""
    own = {name: sum(tallies[name].seconds for tallies in passed) for name in (passed[0] if passed else ())}
    total = sum(own.values()) or 1.0
    return {name: ([tallies[name] for tallies in passed], seconds * own[name] / total) for name in own}


def gather(name: str, context: Context, tallies: list[Tally]) -> None:
    """Write a per-image stage's tables into the audit's folder, in the order of its images.

    Raises:
        UserError: what its shards stored isn't all here: workers have a cache of their own.
    """
    ids = whole(context.folder.rows("images"), ["image_id"])["image_id"].to_pylist()
    stored = sum(tally.known for tally in tallies)
    for table, shelf in _shelves(name, context).items():
        here = sum(len(shelf.known(ids[first : first + GROUP])) for first in range(0, len(ids), GROUP))
        if here < stored:
            raise UserError(
                f"{name}: the workers stored the results of {stored} images, and {context.cache} on this machine has "
                f"those of {here}. Give a cache that all of them share: a folder of a shared disk, or an address such "
                "as s3://BUCKET/FOLDER."
            )
        context.folder.write(table, shelf.read_in_parts(ids))
    read_keys.cache_clear()  # they are asked for again by none of the stages to come, or hardly
    let_go()


def preflight(audit: Audit, out: Place) -> tuple[Context, dict[str, Any]]:
    """Check what can be checked before any work: the context with the classes found, and the models' fingerprints.

    Raises:
        UserError: the data or a model isn't there, or `out` holds something else.
    """
    folder = AuditFolder(out)
    if out == out.parent:
        raise UserError(f"{out} is a whole bucket or disk; give a folder in it for the audit with --out.")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder for the audit with --out.")
    own = (".lock", ".run.json.*.part")  # all there is of a run that was killed as it began
    others = (file for file in (out.iterdir() if out.is_dir() else ()) if not any(map(file.match, own)))
    if any(others) and not (out / "run.json").is_file():
        raise UserError(f"{out} holds files that are no audit. Give an empty or a new folder with --out.")
    context = Context(audit, folder)
    for store in (context.cache, context.verdicts):
        store.exists()  # says so now if it can't be reached
    read_keys.cache_clear()  # the cache may have been deleted since an audit in this process, as in a notebook
    found, first = set[str](), None
    for item in context.source:
        first = first or item
        found.update(item.labels)
    if not found:
        raise UserError(f"data: no image has a label. {first.path}: {first.fault}" if first else "data: no images.")
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
    return checked, fingerprints


def prepare(audit: Audit, out: Place, previous: Place | None = None) -> AuditFolder:
    """Check the audit, then start its folder.

    Args:
        previous: the audit of the same data set that this one goes on from, and is compared with.

    Raises:
        UserError: as `preflight`.
    """
    checked, fingerprints = preflight(audit, out)
    folder, labels = checked.folder, checked.audit.classes
    folder.begun = uuid.uuid4().hex
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
    with _alone(folder), explained(out):  # before anything of an audit that another run is writing is touched
        said = _said(checked)
        for name in SCHEMAS.keys() - {"verdicts"}:
            folder.file(name).unlink(missing_ok=True)  # a rerun's tables are this run's own, or absent
        (out / "report.html").unlink(missing_ok=True)
        sweep(out)
        sweep(checked.cache)
        folder.write_run(
            {
                "run": folder.begun,
                **_rests_on(checked, audit, fingerprints, said, previous),
                "audit": audit.to_dict(),
                "classes": list(labels),
                "seed": audit.seed,
                "split": not audit.no_split,
                "observational": isinstance(checked.model, RecordedAnswers),
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
        folder.write("verdicts", said)  # after run.json: without one, a folder with files in it is no audit
    return folder


def _said(checked: Context) -> pa.Table:
    """What people said of the data set, and what was imported into this very folder, wherever it lay then."""
    said = kept.read(checked.verdicts)
    if checked.folder.has("verdicts"):
        said = kept.merge(kept.read(checked.folder.file("verdicts")), said)
    return said


def _rests_on(
    checked: Context, audit: Audit, fingerprints: dict[str, str], said: pa.Table, previous: Place | None
) -> dict[str, Any]:
    """All that an audit's findings depend on, for run.json."""
    return {
        "cuescope": importlib.metadata.version("cuescope"),
        "code": code_version(),
        "digest": audit.digest(),
        "verdicts": f"{len(said)} answers, {key_of(said.to_pylist())[:8]}" if len(said) else None,
        "previous": str(previous.resolve()) if previous else None,
        "fingerprints": fingerprints,
        "versions": _versions(),
        "data": {"root": str(checked.source.root), "stamp": None if audit.reread else _stamp(checked.source)},
    }


def _stamp(source: Any) -> str | None:
    """A digest of every item of a source and of its file's size and time of change; None where that can't be told."""
    digest = hashlib.blake2b(digest_size=16)
    for item in source:
        stamp = "" if item.fault else stamp_of(source, item.path)
        if not (stamp or item.fault):
            return None
        digest.update(repr((item, stamp)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def recognised(audit: Audit, out: Place) -> AuditFolder | None:
    """The audit in `out`, if it is finished and to run this one there would give the same again.

    That is: the same configuration, code, packages, models and verdicts, and a data set whose files' names, sizes and
    times of change are as they were. Where the audit asked a paid service it is run again, for what a budget left.

    Raises:
        UserError: as `preflight`.
    """
    folder = AuditFolder(out)
    if audit.reread or not (out / "run.json").is_file():
        return None
    try:
        run = folder.run()
    except UserError:  # a damaged run.json: the audit is made again, which writes it anew
        return None
    whole_there = (out / "report.html").is_file() and all(map(folder.has, SCHEMAS))
    if not (run.get("finished") and whole_there and "stamp" in run.get("data", {})) or run["costs"]["calls"]:
        return None
    checked, fingerprints = preflight(audit, out)
    now = _rests_on(checked, audit, fingerprints, _said(checked), None)
    data = now.pop("data")
    same = data["stamp"] and data.items() <= run["data"].items() and now.items() <= run.items()
    return folder if same else None


def note(folder: AuditFolder, stage: str, tallies: list[Tally], seconds: float) -> None:
    """Add what a stage did to run.json.

    Raises:
        Busy: another run has taken the folder over, which happens to one that slept for minutes on an object store.
    """
    run = folder.run()
    if folder.begun and run["run"] != folder.begun:
        raise Busy(_ANOTHER.format(folder.path))
    for tally in tallies:
        for what, number in tally.counts.items():
            place = run["data"] if stage == "ingest" else run["costs"] if what == "dropped" else run["forwards"]
            place[what] = (place.get(what) or 0) + number
        run["skipped"] += [entry for entry in tally.skipped if entry not in run["skipped"]]
    run["costs"] |= asdict(Ledger(folder.path / "llm.jsonl", run["run"]).spent())
    run["seconds"][stage] = round(run["seconds"].get(stage, 0.0) + seconds, 3)
    if stage == "ingest":
        images = folder.read("images")
        run["data"] = {  # given = pictures + quarantined + other_classes
            **dict.fromkeys(("given", "pictures", "other_classes"), 0),
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


def run_audit(
    audit: Audit, out: str | Place, progress: Progress | None = None, previous: Place | None = None
) -> AuditFolder:
    """The whole chain in this process; returns the audit's folder. `previous` as for `prepare`.

    Raises:
        UserError: anything the user can mend; what was computed stays in the cache.
    """
    folder = prepare(audit, place(out), previous)
    context = Context(audit.model_copy(update={"classes": folder.run()["classes"]}), folder, progress)

    def once(name: str) -> None:
        began = time.perf_counter()
        note(folder, name, [run_once(name, context)], time.perf_counter() - began)

    def each(names: tuple[str, ...], ahead: tuple[str, ...]) -> None:
        began = time.perf_counter()
        context.stage = ", ".join(names)
        numbers = range(len(shards(context)))
        passed = []
        for number in numbers:
            context.progress(number, len(numbers))
            passed.append(run_pass(names, ahead, context, number))
        context.progress(len(numbers), len(numbers))
        for name in names:
            gather(name, context, [tallies[name] for tallies in passed])
        for name, (tallies, seconds) in by_stage(passed, time.perf_counter() - began).items():
            note(folder, name, tallies, seconds)

    with locked(folder):
        chain(once, each)
    return folder


@contextlib.contextmanager
def locked(folder: AuditFolder) -> Iterator[None]:
    """Hold the audit's folder: two runs at once into one folder would mix their tables.

    Raises:
        UserError: another run holds it, or has begun there since `prepare` began this one.
    """
    with _alone(folder):
        if folder.begun and folder.run().get("run") != folder.begun:
            raise Busy(_ANOTHER.format(folder.path))
        yield


_ANOTHER = "Another run is writing to {}. Wait for it, or give another folder."


def _alone(folder: AuditFolder) -> contextlib.AbstractContextManager[None]:
    return alone(folder.path / ".lock", _ANOTHER.format(folder.path))


def is_locked(folder: AuditFolder) -> bool:
    """Whether a run holds the folder now; see pipeline/locks.py for how long a lock outlives its process."""
    return is_held(folder.path / ".lock")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def code_version() -> str:
    """A hash of this package's source: two audits by different code can't be told apart by a version number alone."""
    root = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


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
