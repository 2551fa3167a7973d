"""From the tables of an audit to what its report shows: effects by fill, thumbnails, ablations to see."""

from __future__ import annotations

import base64
import io
import math
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute
from PIL import Image

from pipeline.images import RGB, UnreadableImage
from pipeline.records import worst_first
from pipeline.report import checks
from pipeline.report.data import ReportData, Rows, Triple
from pipeline.report.sentences import number

THUMB_SIDE = 192  # pixels of the longer side
MAX_PICTURE_BYTES = 26_000_000  # of all data URIs together: keeps the file well under 40 MB
EVIDENCE = {"confirmed": 8}  # evidence images shown a finding; 4 for the other verdicts
PLACES = {
    "confirmed": (("strongest", 0.0), ("typical", 0.5), ("weakest", 1.0)),
    "associated only": (("typical", 0.5),),
    "inconclusive": (("typical", 0.5),),
    "core": (("typical", 0.5),),
}
"""Which images of an experiment are shown, as quantiles of its effects from the top: never only the best."""

LISTED = ("findings", "untested", "quarantine", "attributes", "cues", "variants", "changes", "checks")

Edit = dict[str, Any]


def assemble(
    run: dict[str, Any],
    tables: dict[str, pa.Table],
    load_image: Callable[[str], RGB],
    redo_edit: Callable[[Edit], tuple[RGB, RGB]],
) -> ReportData:
    """What the report of an audit shows.

    Args:
        run: run.json.
        tables: `findings`, `images`; where they exist `edits`, `untested`, `quarantine`, `attributes`,
            `cues`, `variants`, `answers`, `changes`, `checks`.
        load_image: the picture of an image id; an UnreadableImage leaves the picture out.
        redo_edit: for a row of `edits` with arm `edit`, the edited picture and that of its placebo.
    """
    rows = {name: tables[name].to_pylist() for name in LISTED if name in tables}
    findings = sorted(rows["findings"], key=worst_first)
    experiments = _experiments(findings, tables["edits"].to_pylist() if "edits" in tables else [])
    gallery = _Gallery(load_image)
    triples: list[Triple] = []
    left_out = 0
    for finding in findings:
        if gallery.bytes > MAX_PICTURE_BYTES:
            left_out += 1
            continue
        for image_id in (finding["evidence_ids"] or [])[: EVIDENCE.get(finding["verdict"], 4)]:
            gallery.thumb(image_id)
        for direction in ("removal", "insertion"):
            triples += _triples(
                finding,
                direction,
                experiments.get((finding["finding_id"], direction), []),
                gallery,
                redo_edit,
            )
    for image_id in checks.pictured(rows.get("checks", [])):
        if gallery.bytes <= MAX_PICTURE_BYTES:
            gallery.thumb(image_id)
    shown = set(gallery.thumbs) | {triple.image_id for triple in triples}
    return ReportData(
        run=run,
        findings=findings,
        effects=effects_by_fill(experiments),
        untested=rows.get("untested", []),
        quarantine=rows.get("quarantine", []),
        attributes=rows.get("attributes", []),
        cues=rows.get("cues", []),
        variants=rows.get("variants", []),
        changes=rows.get("changes", []),
        checks=rows.get("checks", []),
        answers=counted(tables["answers"]) if "answers" in tables else (0, 0),
        images={row["image_id"]: row for row in of_ids(tables["images"], shown).to_pylist()},
        thumbs=gallery.thumbs,
        triples=triples,
        pictures_left_out=left_out,
    )


def of_ids(images: pa.Table, ids: Collection[str]) -> pa.Table:
    """The rows of these images."""
    return images.filter(pa.compute.is_in(images["image_id"], value_set=pa.array(sorted(ids), pa.string())))


def counted(answers: pa.Table) -> tuple[int, int]:
    """How many answers there are, and how many say neither Yes nor No."""
    return len(answers), int(pa.compute.sum(pa.compute.is_nan(answers["yes"])).as_py() or 0)


Experiments = dict[tuple[str, str], list[tuple[Edit, Edit]]]


def _experiments(findings: Rows, edits: Rows) -> Experiments:
    """(finding_id, direction) to pairs of rows (edit, placebo)."""
    ids = {(finding["class"], finding["cue_id"]): finding["finding_id"] for finding in findings}
    arms: dict[str, dict[str, Edit]] = defaultdict(dict)
    for row in edits:
        if (row["label"], row["cue_id"]) in ids and math.isfinite(number(row["score_after"])):
            arms[row["pair_id"]][row["arm"]] = row
    found: Experiments = defaultdict(list)
    for pair in arms.values():
        if {"edit", "placebo"} <= set(pair):
            edit = pair["edit"]
            found[ids[edit["label"], edit["cue_id"]], edit["direction"]].append((edit, pair["placebo"]))
    return found


def effects_by_fill(experiments: Experiments) -> Rows:
    """The flips of each fill beyond its placebo's: groups of near-duplicates count once."""
    rows: Rows = []
    for (finding_id, direction), pairs in experiments.items():
        sign = -1.0 if direction == "removal" else 1.0
        by_fill: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for edit, placebo in pairs:
            by_fill[edit["fill"]][edit["group"]].append(sign * (bool(edit["hit_after"]) - bool(placebo["hit_after"])))
        for fill, groups in sorted(by_fill.items()):
            means = [sum(values) / len(values) for values in groups.values()]
            estimate = sum(means) / len(means)
            rows.append(
                {
                    "finding_id": finding_id,
                    "fill": fill,
                    "direction": direction,
                    "estimate": estimate,
                    "n": len(means),
                }
            )
    return rows


def _triples(
    finding: Edit,
    direction: str,
    pairs: list[tuple[Edit, Edit]],
    gallery: _Gallery,
    redo_edit: Callable[[Edit], tuple[RGB, RGB]],
) -> list[Triple]:
    sign = -1.0 if direction == "removal" else 1.0
    order = sorted(
        pairs,
        key=lambda pair: (
            -sign * (number(pair[0]["score_after"]) - number(pair[1]["score_after"])),
            pair[0]["image_id"],
            pair[0]["fill"],
        ),
    )
    shown: list[Triple] = []
    for place, quantile in PLACES.get(finding["verdict"], ()):
        if not order:
            break
        edit, placebo = order[round(quantile * (len(order) - 1))]
        if any(triple.image_id == edit["image_id"] for triple in shown) or not gallery.thumb(edit["image_id"]):
            continue
        try:
            after, control = redo_edit(edit)
        except UnreadableImage:
            continue
        shown.append(
            Triple(
                finding["finding_id"],
                direction,
                edit["fill"],
                place,
                edit["image_id"],
                gallery.thumbs[edit["image_id"]],
                gallery.add(after),
                gallery.add(control),
                number(edit["score_before"]),
                number(edit["score_after"]),
                number(placebo["score_after"]),
            )
        )
    return shown


class _Gallery:
    """Thumbnails by image id, and the bytes that all pictures take so far."""

    def __init__(self, load_image: Callable[[str], RGB]) -> None:
        self.load_image = load_image
        self.thumbs: dict[str, str] = {}
        self.missing: set[str] = set()
        self.bytes = 0

    def add(self, picture: RGB) -> str:
        uri = data_uri(picture)
        self.bytes += len(uri)
        return uri

    def thumb(self, image_id: str) -> str:
        """The picture's data URI, made once; empty where it can't be read."""
        if image_id not in self.thumbs and image_id not in self.missing:
            try:
                self.thumbs[image_id] = self.add(self.load_image(image_id))
            except UnreadableImage:
                self.missing.add(image_id)
        return self.thumbs.get(image_id, "")


def data_uri(picture: RGB, side: int = THUMB_SIDE) -> str:
    """A picture, reduced to at most `side` pixels, as a WebP data URI."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
