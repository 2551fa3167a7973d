"""Labelers' answers into an audit: kept for later audits of the data set, and heard in the order of its own findings.

Verdicts change the findings at once. What people say of presence changes thresholds and presence in the next run, as
everything that is measured rests on it.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.chain import locked, run_once
from pipeline.config import Audit
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.places import Place
from pipeline.records import DISAGREED, table
from pipeline.store import AuditFolder, key_of, whole
from pipeline.verdicts import kept
from pipeline.verdicts.answers import Answer, Found
from pipeline.verdicts.label_studio import read_label_studio
from pipeline.verdicts.settled import Agreement, Opinion, agreement, conflicts, known_again, opinions, presence_of
from pipeline.verdicts.table_file import read_table

Row = dict[str, Any]
SAID = ("verdict", "present", "boxes", "annotator", "given", "note", "called")
READERS = {
    ".json": (read_label_studio, "label-studio"),
    ".csv": (read_table, "csv"),
    ".tsv": (read_table, "csv"),
    ".jsonl": (read_table, "jsonl"),
    ".ndjson": (read_table, "jsonl"),
}


@dataclass
class Imported:
    """What an import did, and what people now say of the audit's findings."""

    answers: int
    unusable: Counter[str]
    file: Place
    opinions: dict[tuple[str, str], Opinion]
    agreement: dict[str, Agreement]
    conflicts: list[str]
    pictures: int  # whose presence people have said
    stale: list[str] = field(default_factory=list)  # what couldn't be written anew, and why

    def lines(self) -> list[str]:
        """The same for the terminal."""
        said = [f"{self.answers} {'answer' if self.answers == 1 else 'answers'} kept in {self.file}"]
        said += [f"  left out, {number}: {why}" for why, number in self.unusable.most_common()]
        for (label, name), one in sorted(self.opinions.items()):
            verdict = "no majority" if one.verdict == DISAGREED else one.verdict
            said.append(f"{label}, {name}: {verdict} ({one})")
        for what, found in self.agreement.items():
            if found.units:
                alpha = "not defined (all say the same)" if found.alpha != found.alpha else f"{found.alpha:.2f}"
                said.append(f"Agreement on {what}: Krippendorff's alpha {alpha}, {found.units} judged by two or more")
        if self.conflicts:
            said += ["Conflicts:", *(f"  {line}" for line in self.conflicts)]
        if self.pictures:
            said.append(f"The cue's presence in {self.pictures} pictures counts from the next run of the audit on.")
        return said + self.stale


def import_verdicts(folder: AuditFolder, path: Path) -> Imported:
    """Read a labelers' file into an audit; importing it again changes nothing.

    Raises:
        UserError: no such file, a format that isn't known, no usable answer, or a run that is writing the audit.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    if path.suffix.lower() not in READERS:
        raise UserError(f"{path}: expected Label Studio's .json, or .csv, .tsv, .jsonl; not '{path.suffix}'.")
    reader, source = READERS[path.suffix.lower()]
    modified = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).isoformat(timespec="seconds")
    found = reader(path, modified)
    rows = placed(folder, found, source)
    if not rows:
        why = Counter(found.unusable).most_common(3)
        reasons = "; ".join(f"{reason} ({number})" for reason, number in why) or "nothing was answered yet"
        raise UserError(f"{path} holds no answer that can be used: {reasons}.")
    return add(folder, rows, Counter(found.unusable))


def add(folder: AuditFolder, rows: Sequence[Row], unusable: Counter[str] | None = None) -> Imported:
    """Keep rows of `verdicts`, and let the audit's findings heed them.

    Raises:
        UserError: another run is writing the audit.
    """
    context = context_of(folder)
    new = table("verdicts", list(rows))
    with locked(folder):
        known = keep(context, new)
        folder.write("verdicts", known)
        stale = heed(context)
    mine, _ = known_again(known, folder.read("clusters"), context.fingerprints.get("encoder", ""))
    pictures = sum(len(images) for images in presence_of(mine).values())
    return Imported(
        len(rows), unusable or Counter(), context.verdicts, opinions(mine), agreement(mine), conflicts(mine),
        pictures, stale,
    )  # fmt: skip


def context_of(folder: AuditFolder) -> Context:
    """What stages need of an audit that was made."""
    run = folder.run()
    return Context(Audit.from_dict({**run["audit"], "classes": run["classes"]}), folder)


def keep(context: Context, new: pa.Table) -> pa.Table:
    """Keep rows of `verdicts` for the data set, and return all that are known of it.

    What was imported into a folder that has been moved since is in its own table alone: it comes along.
    """
    return kept.add(context.verdicts, kept.merge(_own(context.folder), new))


def heed(context: Context) -> list[str]:
    """Let the findings of an audit, whose folder is locked, and all that is made from them heed its table of verdicts.

    Returns:
        What couldn't be written anew, and why, a line each.
    """
    stale: list[str] = []
    run_once("rank", context)
    for stage, what in (("compare", "the comparison"), ("report", "report.html"), ("export", "findings.csv")):
        try:
            run_once(stage, context)
        except UserError as error:
            stale.append(f"{what} is as it was before: {error}")
    return stale


def _own(folder: AuditFolder) -> pa.Table:
    return kept.read(folder.file("verdicts"))


def placed(folder: AuditFolder, found: Found, source: str) -> list[Row]:
    """The answers as rows of `verdicts`; those on what the audit doesn't hold go to `found.unusable`."""
    run = folder.run()
    cues = {row["cue_id"]: row for row in folder.read("cues").to_pylist()}
    by_name = {row["name"]: row for row in cues.values()}
    by_finding = {key_of(label, cue_id)[:12]: (label, cue_id) for label in run["classes"] for cue_id in cues}
    centers = {f"cluster:{row['cluster']}": row["centroid"] for row in folder.read("clusters").to_pylist()}
    encoder = run["fingerprints"].get("encoder", "")
    images = whole(folder.rows("images"), ["image_id", "path"])
    ids = images["image_id"].to_pylist()
    at = {**dict(zip(images["path"].to_pylist(), ids, strict=True)), **{i: i for i in ids}}

    def row_of(answer: Answer) -> Row | str:
        label, cue_id = by_finding.get(answer.finding_id, (answer.label, answer.cue))
        cue = cues.get(cue_id) or by_name.get(cue_id)
        if label not in run["classes"] or cue is None:
            return "a finding that this audit doesn't hold"
        center = centers.get(cue["cue_id"], [])
        if answer.mark and len(center) and answer.mark != kept.mark_of(center):
            return "a cluster that this audit doesn't hold: import into the audit that was exported"
        if answer.image and answer.image not in at:
            return "a picture that this audit doesn't hold"
        return {
            "class": label,
            **{name: cue[name] for name in ("cue_id", "cue_type", "kind")},
            "cue": cue["name"],
            "image_id": at[answer.image] if answer.image else "",
            **{name: getattr(answer, name) for name in SAID},
            "source": source,
            "center": center,
            "encoder": encoder if len(center) else "",
        }

    made = [row_of(answer) for answer in found.answers]
    found.unusable += [row for row in made if isinstance(row, str)]
    return [row for row in made if not isinstance(row, str)]
