"""Hold an audit of planted pictures against their truth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.errors import UserError
from pipeline.geometry import as_boxes, inside
from pipeline.json_text import json_text
from pipeline.planted import Scene, render
from pipeline.store import AuditFolder

SHARE = 0.7
"""An unnamed finding is the planted cue if this share of its evidence shows the cue, in its place if it has one."""


@dataclass(frozen=True)
class ClassScore:
    """What an audit says of one class: the planted cue's rank among the confirmed findings (0: not confirmed)."""

    label: str
    cue: str
    rank: int
    verdict: str
    found_as: str
    confirmed: int
    good: bool


def score(folder: AuditFolder, truth_file: Path | None = None) -> list[ClassScore]:
    """One row a class, in the order of the truth.

    Raises:
        UserError: no truth beside the audited pictures.
    """
    root = Path(folder.run()["audit"]["data"]["path"])
    truth_file = truth_file or root.parent / "truth.yaml"
    if not truth_file.is_file():
        raise UserError(
            f"There is no {truth_file}: only audits of planted pictures can be scored. Name one with --truth."
        )
    truth = yaml.safe_load(truth_file.read_text(encoding="utf-8"))["classes"]
    scenes = _scenes(truth_file.parent / "scenes.jsonl")
    paths = {row["image_id"]: row["path"] for row in folder.read("images").to_pylist()}
    findings = folder.read("findings").to_pylist()
    result = []
    for label, planted in truth.items():
        mine = sorted((row for row in findings if row["class"] == label), key=lambda row: row["rank"])
        confirmed = [row for row in mine if row["verdict"] == "confirmed"]
        if planted is None:
            names = ", ".join(row["cue"] for row in confirmed)
            result.append(ClassScore(label, "", 0, "", names, len(confirmed), not confirmed))
            continue
        right = [row for row in mine if is_cue(row, planted, scenes, paths)]
        sure = [row for row in right if row["verdict"] == "confirmed"]
        best = (sure or right or [None])[0]
        place = confirmed.index(best) + 1 if best in confirmed else 0
        result.append(
            ClassScore(
                label,
                planted["cue"],
                place,
                best["verdict"] if best else "not found",
                best["cue"] if best else "",
                len(confirmed),
                place == 1,
            )
        )
    return result


def _scenes(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["path"]: row for row in rows}


def is_cue(
    finding: dict[str, Any], planted: dict[str, str], scenes: dict[str, dict[str, Any]], paths: dict[str, str]
) -> bool:
    """Whether a finding is the planted cue: by its words if it is named, by its evidence if it isn't."""
    if finding["kind"] == "named":
        return planted["cue"] in finding["cue"]
    hits = []
    for image_id, boxes in zip(finding["evidence_ids"], finding["evidence_boxes"], strict=True):
        row = scenes.get(paths.get(image_id, ""))
        hits.append(
            row is not None and planted["cue"] in row["cues"] and _in_place(as_boxes(boxes), row["scene"], planted)
        )
    return bool(hits) and float(np.mean(hits)) >= SHARE


def _in_place(boxes: Any, scene_data: dict[str, Any], planted: dict[str, str]) -> bool:
    """Whether any of the boxes lies on the planted object or overlay; always so for a cue of the whole picture."""
    scene = Scene.from_dict(scene_data)
    picture = render(scene)
    if planted["kind"] == "object":
        own = as_boxes([box for o, box in zip(scene.objects, picture.boxes, strict=True) if o.name == planted["cue"]])
    elif planted["kind"] == "overlay":
        own = as_boxes(picture.overlay_boxes)
    else:
        return True
    return bool(len(boxes) and len(own) and max(inside(own, boxes).max(), inside(boxes, own).max()) >= 0.5)


def print_score(audit: Path, truth: Path | None, *, as_json: bool = False) -> bool:
    """Print the rows; whether every class is as the truth says."""
    rows = score(AuditFolder.open(audit), truth)
    if as_json:
        print(json_text([asdict(row) for row in rows]))
        return all(row.good for row in rows)
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Against the planted truth", title_justify="left")
    for column in ("class", "planted cue", "rank", "verdict", "found as", "confirmed in all", ""):
        table.add_column(column)
    for row in rows:
        cue = row.cue or "none (clean)"
        verdict = row.verdict or ("clean" if row.good else "false finding")
        table.add_row(
            row.label,
            cue,
            str(row.rank or "-"),
            verdict,
            row.found_as,
            str(row.confirmed),
            "ok" if row.good else "WRONG",
        )
    Console().print(table)
    good = sum(row.good for row in rows)
    print(f"{good} of {len(rows)} classes as the truth says")
    return good == len(rows)
