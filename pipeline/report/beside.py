"""What stands beside a finding: where its cue sits in the pictures, the regions of a cluster, and the captions that
name it. Each is found in the audit's tables part by part, and shows the estimation half, as the numbers do.
"""

from __future__ import annotations

import base64
import heapq
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from pipeline.evidence.boxes import BoxFinder, has_boxes
from pipeline.geometry import Boxes
from pipeline.records import box_array, of_half
from pipeline.store import Parts, batches

GRID = 12
"""Cells of a heat map's side."""
MOST_IMAGES = 60
"""Of a heat map: a mean over more looks the same."""
MOST_MAPS = 300
"""Findings that have a heat map, the first ones."""
REGIONS = 12
"""Of a montage."""
MOST_QUOTES = 3
QUOTED = 60
"""Characters of a caption that are shown before the phrase, and after it."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Heat:
    """Where a cue sits: a picture of the shares as a data URI, the largest share, and in words where that is."""

    picture: str
    most: float
    place: str
    images: int


@dataclass(frozen=True)
class Quotes:
    """Captions of a class that hold a phrase: a few, in three parts around it, and how many there are of how many."""

    shown: tuple[tuple[str, str, str], ...]
    found: int
    captions: int


Region = tuple[str, tuple[float, ...]]


@dataclass(frozen=True)
class Beside:
    """Heat maps and captions by finding_id, the regions of a cluster by cue_id."""

    heats: Mapping[str, Heat] = field(default_factory=dict)
    quotes: Mapping[str, Quotes] = field(default_factory=dict)
    regions: Mapping[str, Sequence[Region]] = field(default_factory=dict)


def showing(
    findings: Sequence[Row], images: pa.Table, presence: Parts, cue_ids: Sequence[str], no_split: bool
) -> dict[str, list[str]]:
    """finding_id to images of its class that show its cue, at most MOST_IMAGES: those with the smallest ids, which are
    hashes and so a sample.

    Args:
        presence: a row an image and cue, in the order of `images` and, within each, of `cue_ids`.
    """
    at = {cue_id: number for number, cue_id in enumerate(cue_ids)}
    wanted = [row for row in findings if row["cue_id"] in at]
    if not wanted:
        return {}
    columns = sorted({at[row["cue_id"]] for row in wanted})
    parts = [
        part["present"].combine_chunks().to_numpy(zero_copy_only=False).reshape(-1, len(cue_ids))[:, columns]
        for part in batches(presence, ["present"])
    ]
    present = np.concatenate(parts) if parts else np.zeros((0, len(columns)), bool)
    ids = np.array(images["image_id"].to_pylist(), dtype=object)
    labels = np.array(images["label"].to_pylist(), dtype=object)
    half = of_half(images, "estimation") | no_split
    place = {column: number for number, column in enumerate(columns)}
    found = {}
    for row in wanted:
        mine = half & (labels == row["class"]) & present[:, place[at[row["cue_id"]]]]
        found[row["finding_id"]] = sorted(ids[mine].tolist())[:MOST_IMAGES]
    return found


def heats(
    findings: Sequence[Row],
    cues: Sequence[dict[str, Any]],
    images: pa.Table,
    presence: Parts,
    detections: Parts,
    regions: Parts,
    assignments: Parts,
    no_split: bool,
) -> dict[str, Heat]:
    """finding_id to its heat map, of the first MOST_MAPS findings whose cue has boxes."""
    mine = [row for row in findings if has_boxes(row["cue_id"])][:MOST_MAPS]
    where = showing(mine, images, presence, [row["cue_id"] for row in cues], no_split)
    looked_at = {image_id for ids in where.values() for image_id in ids}
    boxes = BoxFinder(list(cues), detections, regions, assignments, looked_at)
    found = {}
    for row in mine:
        own = [boxes.cue(image_id, row["cue_id"]) for image_id in where.get(row["finding_id"], ())]
        own = [some for some in own if len(some)]
        if own:
            found[row["finding_id"]] = heat_of(shares(own), len(own))
    return found


def shares(pictures: Sequence[Boxes]) -> NDArray[np.float64]:
    """(GRID, GRID), top row first: the mean over pictures of how much of a cell their boxes (n, 4) cover, in [0, 1]."""
    edges = np.linspace(0, 1, GRID + 1)
    total = np.zeros((GRID, GRID))
    for boxes in pictures:
        low, high = boxes[:, None, :2], boxes[:, None, 2:]  # (n, 1, 2): x and y
        inside = np.minimum(high, edges[1:, None]) - np.maximum(low, edges[:-1, None])  # (n, GRID, 2)
        covered = np.clip(inside * GRID, 0, 1)
        total += (covered[:, :, None, 1] * covered[:, None, :, 0]).max(axis=0)
    return total / max(len(pictures), 1)


def heat_of(grid: NDArray[np.float64], images: int) -> Heat:
    """A grid of shares as a picture: the deeper the more often, see-through where never."""
    most = float(grid.max())
    depth = grid / most if most else grid
    pixels = np.zeros((*grid.shape, 4), np.uint8)
    pixels[..., :3] = (222, 92, 34)
    pixels[..., 3] = np.round(235 * depth)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Heat(uri, most, place_of(grid), images)


def place_of(grid: NDArray[np.float64]) -> str:
    """Where the weight of a grid lies, in words: `at the top left`, `in the middle`, or `all over`."""
    total = grid.sum()
    if total <= 0:
        return "nowhere"
    if grid.min() >= 0.6 * grid.max():
        return "all over"
    centers = (np.arange(len(grid)) + 0.5) / len(grid)
    y, x = float(grid.sum(axis=1) @ centers / total), float(grid.sum(axis=0) @ centers / total)
    rows = "top" if y < 0.4 else "bottom" if y > 0.6 else ""
    columns = "left" if x < 0.4 else "right" if x > 0.6 else ""
    words = " ".join(word for word in (rows, columns) if word)
    return f"at the {words}" if words else "around the middle"


def regions_of(findings: Sequence[Row], regions: Parts, assignments: Parts) -> dict[str, list[Region]]:
    """cue_id of each unnamed cue to the regions that are its cluster's most typical, one an image, best first."""
    wanted = {int(row["cue_id"].partition(":")[2]) for row in findings if row["cue_id"].startswith("cluster:")}
    best: dict[int, list[tuple[float, str, str, tuple[float, ...]]]] = defaultdict(list)
    # of equal parts: assignments are written as regions are read
    pairs = zip(
        batches(assignments, ["region_id", "image_id", "cluster", "similarity"]),
        batches(regions, ["region_id", "box"]),
        strict=True,
    )
    for part, places in pairs if wanted else ():
        clusters, likeness = part["cluster"].to_numpy(), part["similarity"].to_numpy()
        row = {name: number for number, name in enumerate(places["region_id"].to_pylist())}
        boxes = box_array(places["box"])
        for cluster in wanted & set(np.unique(clusters).tolist()):
            mine = np.flatnonzero(clusters == cluster)
            for number in mine[np.argsort(-likeness[mine], kind="stable")][: 4 * REGIONS].tolist():
                region, image_id = part["region_id"][number].as_py(), part["image_id"][number].as_py()
                box = tuple(boxes[row[region]].tolist())
                best[cluster].append((-float(likeness[number]), region, image_id, box))
            best[cluster] = heapq.nsmallest(4 * REGIONS, best[cluster])
    found: dict[str, list[Region]] = {}
    for cluster, some in best.items():
        one_each = {image_id: box for _, _, image_id, box in reversed(some)}
        order = dict.fromkeys(image_id for _, _, image_id, _ in some)
        found[f"cluster:{cluster}"] = [(image_id, one_each[image_id]) for image_id in order][:REGIONS]
    return found


def quotes(findings: Sequence[Row], attributes: Iterable[Row], images: pa.Table, captions: Parts) -> dict[str, Quotes]:
    """finding_id to the captions of its class that hold its cue's phrase, of cues that captions brought up."""
    by_captions = {(row["label"], row["phrase"]) for row in attributes if row["source"].startswith("captions")}
    patterns: dict[str, list[tuple[str, re.Pattern[str]]]] = defaultdict(list)
    for row in findings:
        if (row["class"], row["cue"]) in by_captions:
            patterns[row["class"]].append((row["finding_id"], phrase(row["cue"])))
    labels = dict(zip(images["image_id"].to_pylist(), images["label"].to_pylist(), strict=True)) if patterns else {}
    shown: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    found: dict[str, int] = defaultdict(int)
    captioned: dict[str, int] = defaultdict(int)
    for part in batches(captions, ["image_id", "caption"]) if patterns else ():
        for image_id, caption in zip(part["image_id"].to_pylist(), part["caption"].to_pylist(), strict=True):
            label = labels.get(image_id, "")
            captioned[label] += 1
            for finding_id, pattern in patterns.get(label, ()):
                hit = pattern.search(caption)
                if hit is None:
                    continue
                found[finding_id] += 1
                around = cut(caption, hit.start(), hit.end())
                if len(shown[finding_id]) < MOST_QUOTES and around not in shown[finding_id]:
                    shown[finding_id].append(around)
    return {
        finding_id: Quotes(tuple(shown[finding_id]), found[finding_id], captioned[label])
        for label, some in patterns.items()
        for finding_id, _ in some
        if found[finding_id]
    }


def phrase(cue: str) -> re.Pattern[str]:
    """A cue's words one after another, each also in the plural."""
    words = [re.escape(word) + r"(?:e?s)?" for word in cue.split()]
    return re.compile(r"\b" + r"\W+".join(words) + r"\b", re.IGNORECASE)


def cut(text: str, start: int, end: int) -> tuple[str, str, str]:
    """A text in three parts, those around [start, end) at most QUOTED characters long."""
    before, after = text[:start], text[end:]
    if len(before) > QUOTED:
        before = "… " + before[-QUOTED:].partition(" ")[2]
    if len(after) > QUOTED:
        after = after[:QUOTED].rpartition(" ")[0] + " …"
    return before, text[start:end], after
