"""What an exporter is given: the rows of a finished audit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

Row = dict[str, Any]
MARKS = (b"finding_id", b'<RectangleLabels name="cue"')
"""One of them stands near the beginning of every file that an exporter writes."""


def check_place(out: Path) -> None:
    """An export takes the place of nothing but an earlier export: never of an image or a table that was audited.

    Raises:
        UserError: something else lies at `out`.
    """
    if not out.exists():
        return
    head = b""
    if out.is_file():
        with out.open("rb") as stream:
            head = stream.read(4096)
    if out.is_dir() or (head and not any(mark in head for mark in MARKS)):
        raise UserError(
            f"{out} is there already and is no earlier export: it is not replaced. Give another place with --out."
        )


@dataclass(frozen=True)
class ExportData:
    """`run` is run.json; the others hold rows of the tables of their names; presence may be empty."""

    run: dict[str, Any]
    findings: list[Row]
    images: Sequence[Row]
    presence: Sequence[Row] = field(default_factory=list)

    @cached_property
    def images_by_id(self) -> dict[str, Row]:
        """Each image's row."""
        return {row["image_id"]: row for row in self.images}

    @cached_property
    def scores(self) -> dict[tuple[str, str], float]:
        """(image id, cue id) to the cue's presence score."""
        return {(row["image_id"], row["cue_id"]): row["score"] for row in self.presence}

    @cached_property
    def _without(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for row in self.presence:
            if not row["present"]:
                found[row["cue_id"]].append(row["image_id"])
        return found

    def evidence(self, finding: Row) -> list[tuple[Row, list[list[float]]]]:
        """The finding's evidence images (those still known), each with the cue's boxes in it."""
        boxes = finding["evidence_boxes"] or []
        return [
            (self.images_by_id[image_id], list(boxes[i] or []) if i < len(boxes) else [])
            for i, image_id in enumerate(finding["evidence_ids"] or [])
            if image_id in self.images_by_id
        ]

    def without(self, finding: Row, most: int) -> list[Row]:
        """Images of the finding's class in which the cue was not seen, those of the lowest scores first."""
        mine = [
            self.images_by_id[image_id]
            for image_id in self._without[finding["cue_id"]]
            if image_id in self.images_by_id and self.images_by_id[image_id]["label"] == finding["class"]
        ]
        order = sorted(mine, key=lambda image: (self.scores[image["image_id"], finding["cue_id"]], image["image_id"]))
        return order[:most]
