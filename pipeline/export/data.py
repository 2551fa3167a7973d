"""What an exporter is given: the rows of a finished audit, and which of its images people are asked about."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.places import Place

Row = dict[str, Any]
Verdict = Literal["confirmed", "inconclusive", "associated only", "core"]
Boxed = list[list[float]]
FindBoxes = Callable[[str, str], Boxed]
"""The boxes of a cue in an image, by their ids, normalised xyxy."""

STRENGTH: tuple[Verdict, ...] = ("confirmed", "inconclusive", "associated only", "core")
"""Verdicts, those that labelers should look at first coming first."""

MARK = re.compile(
    rb'finding_id|<RectangleLabels name="cue"|\A\{\s*"info": \{\s*"description": "Cues found by Cuescope"'
    rb'|\A"cue","(image_id|group)",|\A"class","cue_id","cue",|\A\{"class": .*"cue_id": '
)
"""It stands near the beginning of every file that an exporter writes."""


def check_place(out: Place) -> None:
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
    if not out.is_file() or (head and not MARK.search(head)):
        raise UserError(
            f"{out} is there already and is no earlier export: it is not replaced. Give another place with --out."
        )


class Asked(NamedTuple):
    """An image that people are asked about for a finding."""

    image: Row
    boxes: Boxed  # of the cue
    present: bool  # what the audit makes of it
    reason: str  # why this image


class Shown(Mapping[str, bool]):
    """Whether a cue is present, by image id, for the images where that is known; and its scores."""

    def __init__(self, at: Mapping[str, int]) -> None:
        """Of no image yet; `at` is image id to its number."""
        self._at = at
        self._present: NDArray[np.int8] = np.full(len(at), -1, np.int8)  # -1: not known
        self._scores: NDArray[np.float64] = np.full(len(at), np.nan)

    def add(self, image_id: str, present: bool, score: float) -> None:
        """One image more."""
        self._present[self._at[image_id]], self._scores[self._at[image_id]] = present, score

    def score(self, image_id: str) -> float:
        """The cue's score in an image; NaN where there is none."""
        return float(self._scores[self._at[image_id]]) if image_id in self._at else np.nan

    def __getitem__(self, image_id: str) -> bool:
        if (present := self._present[self._at[image_id]]) < 0:
            raise KeyError(image_id)
        return bool(present)

    def __iter__(self) -> Iterator[str]:
        return (image_id for image_id, number in self._at.items() if self._present[number] >= 0)

    def __len__(self) -> int:
        return int((self._present >= 0).sum())


def _unreadable(path: str) -> bytes:
    raise UserError(f"The picture {path} can't be read without the audit's data source.")


@dataclass(frozen=True)
class ExportData:
    """`run` is run.json; `findings`, `images`, `presence`, `verdicts` hold rows of the tables of their names.

    Args:
        presence: of the findings' cues at least; it is read once, so that it need not be held.
        said: image id to the classes that the model says of it.
        also: image id to the classes that it is of beside its label.
        cuts: cue id to the score from which the cue is present.
        marks: id of an unnamed cue to what its cluster is known by (verdicts.kept.mark_of).
        answered: cue id to image id to whether people see the cue there.
        boxes: reads the boxes of some images, by their ids; default: those of the evidence images alone.
        read: the bytes of a picture, by its path.
    """

    run: dict[str, Any]
    findings: list[Row]
    images: Sequence[Row]
    presence: Iterable[Row] = ()
    verdicts: list[Row] = field(default_factory=list)
    said: Mapping[str, frozenset[str]] = field(default_factory=dict)
    also: Mapping[str, frozenset[str]] = field(default_factory=dict)
    cuts: Mapping[str, float] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)
    answered: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    boxes: Callable[[Collection[str]], FindBoxes] | None = None
    read: Callable[[str], bytes] = _unreadable

    @cached_property
    def images_by_id(self) -> dict[str, Row]:
        """Each image's row."""
        return {row["image_id"]: row for row in self.images}

    @cached_property
    def showing(self) -> dict[str, Shown]:
        """Cue id to where the cue is present."""
        at = {image_id: number for number, image_id in enumerate(self.images_by_id)}
        found: dict[str, Shown] = {}
        for row in self.presence:
            if row["image_id"] in at:
                shown = found.get(row["cue_id"]) or found.setdefault(row["cue_id"], Shown(at))
                shown.add(row["image_id"], row["present"], row["score"])
        return found

    def shows(self, image_id: str, cue_id: str) -> bool:
        """Whether the cue is known to be in an image."""
        return cue_id in self.showing and self.showing[cue_id].get(image_id, False)

    def score(self, image_id: str, cue_id: str) -> float:
        """The cue's presence score in an image, NaN where there is none."""
        return self.showing[cue_id].score(image_id) if cue_id in self.showing else np.nan

    def evidence(self, finding: Row) -> list[tuple[Row, Boxed]]:
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
            if not present and self.images_by_id[image_id]["label"] == finding["class"]
        ]
        return sorted(mine, key=lambda image: (self.score(image["image_id"], cue_id), image["image_id"]))[:most]

    def boxes_of(self, ids: Collection[str]) -> FindBoxes:
        """Reads the boxes of these images; finds none where a cue is absent or a matter of the whole image."""
        find = self.boxes(ids) if self.boxes is not None and ids else None
        return lambda image_id, cue_id: find(image_id, cue_id) if find and self.shows(image_id, cue_id) else []

    def wanted(self, least: Verdict) -> list[Row]:
        """Findings down to this verdict, and all that people call spurious."""
        verdicts = STRENGTH[: STRENGTH.index(least) + 1]
        return [row for row in self.findings if row["verdict"] in verdicts or row["labelers"] == "spurious"]
