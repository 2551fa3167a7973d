"""From the tables of an audit to what its report shows: effects by fill, thumbnails, ablations to see."""

from __future__ import annotations

import base64
import io
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute
from PIL import Image

from pipeline.images import DECODERS, RGB, UnreadableImage
from pipeline.records import worst_first
from pipeline.report import checks
from pipeline.report.beside import Beside, Region
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


class Gallery(Protocol):
    """Gives a picture's address: as a data URI, or where a server has it. An empty one: it can't be read. Several
    threads may ask."""

    @property
    def full(self) -> bool:
        """Whether no more findings are to have pictures."""

    def thumb(self, image_id: str) -> str:
        """Of a picture of the data."""

    def edit(self, edit: Edit) -> tuple[str, str]:
        """Of an edited picture and of its placebo's, for a row of `edits` with arm `edit`."""

    def montage(self, cue_id: str, regions: Sequence[Region]) -> str:
        """Of one picture of all these regions."""


def assemble(
    run: dict[str, Any], tables: Mapping[str, pa.Table], gallery: Gallery, beside: Beside | None = None
) -> ReportData:
    """What the report of an audit shows.

    Args:
        run: run.json.
        tables: `findings`, `images`; where they exist `edits`, `untested`, `quarantine`, `attributes`,
            `cues`, `variants`, `answers`, `changes`, `checks`.
        gallery: where pictures come from.
        beside: what else stands beside findings.
    """
    beside = beside or Beside()
    rows = {name: tables[name].to_pylist() for name in LISTED if name in tables}
    findings = sorted(rows["findings"], key=worst_first)
    experiments = _experiments(findings, tables["edits"].to_pylist() if "edits" in tables else [])
    thumbs: dict[str, str] = {}
    triples: list[Triple] = []
    montages: dict[str, str] = {}
    left_out = 0
    with ThreadPoolExecutor(DECODERS) as pool:

        def show(image_ids: Iterable[str]) -> None:
            new = [image_id for image_id in dict.fromkeys(image_ids) if image_id not in thumbs]
            thumbs.update(zip(new, pool.map(gallery.thumb, new), strict=True))

        for finding in findings:
            if gallery.full:
                left_out += 1
                continue
            cue_id = finding["cue_id"]
            if cue_id in beside.regions and cue_id not in montages:
                montages[cue_id] = ""
                sheet = pool.submit(gallery.montage, cue_id, beside.regions[cue_id])
            else:
                sheet = None
            chosen = [
                pair
                for direction in ("removal", "insertion")
                for pair in _chosen(finding, direction, experiments.get((finding["finding_id"], direction), []))
            ]
            made = pool.map(gallery.edit, [edit for _, edit, _ in chosen])
            show((finding["evidence_ids"] or [])[: EVIDENCE.get(finding["verdict"], 4)])
            show(edit["image_id"] for _, edit, _ in chosen)
            triples += _triples(finding, chosen, made, thumbs)
            if sheet is not None:
                montages[cue_id] = sheet.result()
        for image_id in checks.pictured(rows.get("checks", [])):
            if not gallery.full:
                show([image_id])
    thumbs = {image_id: uri for image_id, uri in thumbs.items() if uri}
    shown = set(thumbs) | {triple.image_id for triple in triples}
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
        thumbs=thumbs,
        triples=triples,
        montages={cue_id: uri for cue_id, uri in montages.items() if uri},
        beside=beside,
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


def _chosen(finding: Edit, direction: str, pairs: list[tuple[Edit, Edit]]) -> list[tuple[str, Edit, Edit]]:
    """Which edits of an experiment are shown, each with its place and its placebo; of a picture one."""
    sign = -1.0 if direction == "removal" else 1.0
    order = sorted(
        pairs,
        key=lambda pair: (
            -sign * (number(pair[0]["score_after"]) - number(pair[1]["score_after"])),
            pair[0]["image_id"],
            pair[0]["fill"],
        ),
    )
    chosen: dict[str, tuple[str, Edit, Edit]] = {}
    for place, quantile in PLACES.get(finding["verdict"], ()) if order else ():
        edit, placebo = order[round(quantile * (len(order) - 1))]
        chosen.setdefault(edit["image_id"], (place, edit, placebo))
    return list(chosen.values())


def _triples(
    finding: Edit,
    chosen: list[tuple[str, Edit, Edit]],
    made: Iterable[tuple[str, str]],
    thumbs: Mapping[str, str],
) -> list[Triple]:
    """Those whose pictures can be read."""
    return [
        Triple(
            finding["finding_id"],
            edit["direction"],
            edit["fill"],
            place,
            edit["image_id"],
            thumbs[edit["image_id"]],
            after,
            control,
            number(edit["score_before"]),
            number(edit["score_after"]),
            number(placebo["score_after"]),
        )
        for (place, edit, placebo), (after, control) in zip(chosen, made, strict=True)
        if thumbs[edit["image_id"]] and after and control
    ]


class Embedded:
    """Pictures as data URIs, until together they take MAX_PICTURE_BYTES."""

    def __init__(self, load_image: Callable[[str], RGB], redo_edit: Callable[[Edit], tuple[RGB, RGB]]) -> None:
        """
        Args:
            load_image: the picture of an image id.
            redo_edit: for a row of `edits` with arm `edit`, the edited picture and that of its placebo.
        """
        self._load, self._redo = load_image, redo_edit
        self._sizes: list[int] = []

    @property
    def full(self) -> bool:
        """Whether the file is as large as it may get."""
        return sum(self._sizes) > MAX_PICTURE_BYTES

    def _add(self, picture: RGB, side: int = THUMB_SIDE) -> str:
        uri = data_uri(picture, side)
        self._sizes.append(len(uri))
        return uri

    def thumb(self, image_id: str) -> str:
        """See Gallery."""
        try:
            return self._add(self._load(image_id))
        except UnreadableImage:
            return ""

    def edit(self, edit: Edit) -> tuple[str, str]:
        """See Gallery."""
        try:
            after, control = self._redo(edit)
        except UnreadableImage:
            return "", ""
        return self._add(after), self._add(control)

    def montage(self, cue_id: str, regions: Sequence[Region]) -> str:
        """See Gallery."""
        picture = montage(regions, self._load)
        return "" if picture is None else self._add(picture, picture.shape[1])


TILE, GAP, COLUMNS = 80, 4, 6
"""Pixels of a montage's tile and between tiles; tiles a line."""


def montage(regions: Sequence[Region], load_image: Callable[[str], RGB]) -> RGB | None:
    """Cut-outs of regions on a grey ground, COLUMNS a line, squares around their boxes; None where none can be read."""
    tiles = []
    for image_id, box in regions:
        try:
            tiles.append(tile(load_image(image_id), box))
        except UnreadableImage:
            continue
    if not tiles:
        return None
    lines = -(-len(tiles) // COLUMNS)
    step = TILE + GAP
    sheet = np.full((lines * step - GAP, min(len(tiles), COLUMNS) * step - GAP, 3), 128, np.uint8)
    for place, one in enumerate(tiles):
        y, x = place // COLUMNS * step, place % COLUMNS * step
        sheet[y : y + TILE, x : x + TILE] = one
    return sheet


def tile(picture: RGB, box: Sequence[float], margin: float = 0.15) -> RGB:
    """(TILE, TILE, 3): the square around a box (normalised xyxy), moved into the picture where it would stand out."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    side = min(max(max(x1 - x0, y1 - y0) * (1 + 2 * margin), 2.0), float(min(width, height)))
    left = min(max((x0 + x1 - side) / 2, 0.0), width - side)
    top = min(max((y0 + y1 - side) / 2, 0.0), height - side)
    cut = Image.fromarray(picture).resize(
        (TILE, TILE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    return np.asarray(cut)


def data_uri(picture: RGB, side: int = THUMB_SIDE) -> str:
    """A picture, reduced to at most `side` pixels, as a WebP data URI."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
