"""What an exporter is given: the rows of a finished audit, and which of its images people are asked about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pipeline.errors import UserError

Row = dict[str, Any]
Verdict = Literal["confirmed", "inconclusive", "associated only", "core"]

STRENGTH: tuple[Verdict, ...] = ("confirmed", "inconclusive", "associated only", "core")
"""Verdicts, those that labelers should look at first coming first."""


class Asked(NamedTuple):
    """An image that people are asked about for a finding."""

    image: Row
    boxes: list[list[float]]  # normalised xyxy, of the cue
    present: bool  # what the audit makes of it
    reason: str  # why this image


def _unreadable(path: str) -> bytes:
    raise UserError(f"The picture {path} can't be read without the audit's data source.")


@dataclass(frozen=True)
class ExportData:
    """`run` is run.json; `findings`, `images`, `presence`, `verdicts` hold rows of the tables of their names.

    Args:
        said: image id to the classes that the model says of it.
        also: image id to the classes that it is of beside its label.
        cuts: cue id to the score from which the cue is present.
        marks: id of an unnamed cue to what its cluster is known by (verdicts.kept.mark_of).
        answered: cue id to image id to whether people see the cue there.
        boxes: the cue's boxes in an image, by their ids; default: those of the evidence images.
        read: the bytes of a picture, by its path.
    """

    run: dict[str, Any]
    findings: list[Row]
    images: list[Row]
    presence: list[Row] = field(default_factory=list)
    verdicts: list[Row] = field(default_factory=list)
    said: Mapping[str, frozenset[str]] = field(default_factory=dict)
    also: Mapping[str, frozenset[str]] = field(default_factory=dict)
    cuts: Mapping[str, float] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)
    answered: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    boxes: Callable[[str, str], list[list[float]]] | None = None
    read: Callable[[str], bytes] = _unreadable

    @cached_property
    def images_by_id(self) -> dict[str, Row]:
        """Each image's row."""
        return {row["image_id"]: row for row in self.images}

    @cached_property
    def scores(self) -> dict[tuple[str, str], float]:
        """(image id, cue id) to the cue's presence score."""
        return {(row["image_id"], row["cue_id"]): row["score"] for row in self.presence}

    @cached_property
    def showing(self) -> dict[str, dict[str, bool]]:
        """Cue id to image id to whether the cue is present."""
        found: dict[str, dict[str, bool]] = defaultdict(dict)
        for row in self.presence:
            found[row["cue_id"]][row["image_id"]] = row["present"]
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
        cue_id = finding["cue_id"]
        mine = [
            self.images_by_id[image_id]
            for image_id, present in self.showing.get(cue_id, {}).items()
            if not present and self.images_by_id.get(image_id, {}).get("label") == finding["class"]
        ]
        order = sorted(mine, key=lambda image: (self.scores[image["image_id"], cue_id], image["image_id"]))
        return order[:most]

    def boxes_in(self, image_id: str, cue_id: str) -> list[list[float]]:
        """The cue's boxes in an image; none where it is absent or a matter of the whole image."""
        if not self.showing.get(cue_id, {}).get(image_id, False) or self.boxes is None:
            return []
        return self.boxes(image_id, cue_id)

    def wanted(self, least: Verdict) -> list[Row]:
        """Findings down to this verdict, and all that people call spurious."""
        verdicts = STRENGTH[: STRENGTH.index(least) + 1]
        return [row for row in self.findings if row["verdict"] in verdicts or row["labelers"] == "spurious"]
