"""What the data set itself says of its images, for the back ends that answer from that instead of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipeline.geometry import Boxes, as_boxes
from pipeline.store import Parts, batches


@dataclass(frozen=True)
class Annotation:
    """Of one image: its caption or "", and boxes (n, 4) with a phrase each."""

    caption: str
    phrases: Sequence[str]
    boxes: Boxes


def reads_annotations(back_end: Any) -> bool:
    """Whether a captioner or detector is handed an `Annotation` an image in the place of pictures: its `reads` names
    the columns of table `annotations` that it answers from.
    """
    return bool(getattr(back_end, "reads", ()))


def other_labels(annotations: Parts) -> dict[str, frozenset[str]]:
    """Image to the classes that it shows beside its label; images of one label alone aren't in it."""
    found: dict[str, frozenset[str]] = {}
    for part in batches(annotations, ["image_id", "other_labels"]):
        some = part.filter(pa.compute.greater(pa.compute.list_value_length(part["other_labels"]), 0))
        found |= dict(zip(some["image_id"].to_pylist(), map(frozenset, some["other_labels"].to_pylist()), strict=True))
    return found


def annotations_of(images: pa.Table, annotations: pa.Table) -> list[Annotation]:
    """One an image of `images`, in order; an empty one where the data set says nothing."""
    known = {row["image_id"]: row for row in annotations.to_pylist()}
    nothing = {"caption": "", "phrases": [], "boxes": []}
    rows = [known.get(image_id, nothing) for image_id in images["image_id"].to_pylist()]
    return [Annotation(row["caption"], row["phrases"], as_boxes(row["boxes"])) for row in rows]
