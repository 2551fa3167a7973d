"""Make the gallery's pictures from an audit of the demo: `python docs/pictures.py AUDIT`. Nothing is touched up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline import Result, load
from pipeline.records import worst_first

HERE = Path(__file__).parent / "pictures"
COLORS = {"confirmed": "#c2410c", "associated only": "#a16207", "core": "#2563a8", "inconclusive": "#7a8288"}
DIRECTIONS = {"removal": "without the cue, missed", "insertion": "with the cue, taken for the class"}

Row = dict[str, Any]


def boxed(axis: Axes, picture: Any, boxes: list[list[float]], color: str = "#00d5ff") -> None:
    """Draw a picture with boxes, which are shares of its width and height."""
    axis.imshow(picture)
    axis.set_axis_off()
    height, width = picture.shape[:2]
    for left, top, right, bottom in boxes:
        corner, sides = (left * width, top * height), ((right - left) * width, (bottom - top) * height)
        axis.add_patch(plt.Rectangle(corner, *sides, fill=False, edgecolor=color, linewidth=1.5))


def span(axis: Axes, row: Row, direction: str, y: float, **how: Any) -> None:
    """Draw an effect, of 100, with its interval."""
    middle, low, high = (100 * row[f"{direction}_effect{end}"] for end in ("", "_lower", "_upper"))
    axis.plot([low, high], [y, y], linewidth=3, alpha=0.4, solid_capstyle="butt", **how)
    axis.plot([middle], [y], "o", markersize=5, **how)


def shown(result: Result) -> Row:
    """The worst finding whose cue is boxed in all its pictures."""
    return next(row for row in sorted(result.findings, key=worst_first) if all(row["evidence_boxes"]))


def finding(result: Result) -> Figure:
    """That finding: its pictures, boxed, and its two effects."""
    row = shown(result)
    figure = plt.figure(figsize=(9, 3.1), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.1, 1])
    for axis, image_id, boxes in zip(above.subplots(1, 8), row["evidence_ids"], row["evidence_boxes"], strict=False):
        boxed(axis, result.picture(image_id), boxes)
    above.suptitle(f"{row['class']}: {row['cue']} ({row['verdict']})", x=0.01, ha="left", fontsize=11)
    axis = below.subplots()
    for y, direction in enumerate(DIRECTIONS):
        span(axis, row, direction, y, color=COLORS[row["verdict"]])
    axis.set_yticks([0, 1], list(DIRECTIONS.values()))
    axis.set(xlim=(-105, 105), ylim=(1.6, -0.6), xlabel="predictions of 100, beyond the placebo; 95 % interval")
    axis.spines[["top", "right", "left"]].set_visible(False)
    return figure


def edits(result: Result) -> Figure:
    """Three edits of the same finding beside the picture as it was and the placebo, with the class's score."""
    row = shown(result)
    mine = [e for e in result.table("edits").to_pylist() if (e["label"], e["cue_id"]) == (row["class"], row["cue_id"])]
    placebos = {e["pair_id"]: e for e in mine if e["arm"] == "placebo"}

    def by_change(direction: str) -> list[Row]:
        pairs = [e for e in mine if e["arm"] == "edit" and e["direction"] == direction and e["pair_id"] in placebos]
        return sorted(pairs, key=lambda e: (e["score_after"] - e["score_before"], e["edit_id"]))

    removals, insertions = by_change("removal"), by_change("insertion")
    chosen = [removals[0], removals[len(removals) // 2], insertions[-1]]
    figure, axes = plt.subplots(3, 3, figsize=(6, 6.4), layout="constrained")
    for line, edit in zip(axes, chosen, strict=True):
        placebo = placebos[edit["pair_id"]]
        three = [(result.picture(edit["image_id"]), edit["score_before"], "as it was")]
        three += [(result.edited(one), one["score_after"], one["arm"]) for one in (edit, placebo)]
        for axis, (picture, score, what) in zip(line, three, strict=True):
            boxed(axis, picture, [])
            name = f"{edit['direction']} ({edit['fill']})" if what == "edit" else what
            axis.set_title(f"{name}\n{row['class']} {score:.2f}", fontsize=8)
    return figure


def overview(result: Result) -> Figure:
    """Every finding that was tested: both effects with their intervals."""
    rows = [row for row in result.findings if row["removal_n"] or row["insertion_n"]]
    figure, axes = plt.subplots(1, 2, figsize=(9, 0.2 * len(rows) + 1.2), sharey=True, layout="constrained")
    for axis, direction in zip(axes, DIRECTIONS, strict=True):
        for y, row in enumerate(rows):
            if row[f"{direction}_n"]:
                span(axis, row, direction, y, color=COLORS[row["verdict"]])
        axis.axvline(0, color="0.7", linewidth=0.8)
        axis.set_title(f"{direction}: of 100", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(rows)), [f"{row['class']}: {row['cue']}" for row in rows], fontsize=7)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    handles = [plt.Line2D([], [], color=color, marker="o", label=name) for name, color in COLORS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def cluster(result: Result) -> Figure:
    """Regions of the worst finding that is a cluster, those nearest its centroid."""
    row = next(row for row in sorted(result.findings, key=worst_first) if row["kind"] == "unnamed")
    number = int(row["cue_id"].partition(":")[2])
    boxes = dict(zip(*(result.table("regions")[name].to_pylist() for name in ("region_id", "box")), strict=True))
    members = [row for row in result.table("assignments").to_pylist() if row["cluster"] == number]
    nearest = {row["image_id"]: row for row in sorted(members, key=lambda row: row["similarity"])}
    chosen = sorted(nearest.values(), key=lambda row: -row["similarity"])[:10]
    figure, axes = plt.subplots(1, 10, figsize=(9, 1.4), layout="constrained")
    for axis, region in zip(axes, chosen, strict=True):
        boxed(axis, result.picture(region["image_id"]), [boxes[region["region_id"]]], "#c2410c")
    figure.suptitle(f"{row['class']}: {row['cue']} ({row['verdict']})", x=0.01, ha="left", fontsize=9)
    return figure


PICTURES: dict[str, Callable[[Result], Figure]] = {
    "finding": finding,
    "edits": edits,
    "overview": overview,
    "cluster": cluster,
}


def main(audit: str, out: Path = HERE) -> None:
    """Write all of them."""
    result = load(audit)
    out.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        figure = draw(result)
        figure.savefig(out / f"{name}.png", dpi=90, metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
