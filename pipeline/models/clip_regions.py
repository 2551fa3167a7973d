"""Detection without a detector: the audit's region encoder compares windows of an image with the phrases."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from pipeline.errors import UserError
from pipeline.geometry import Boxes, as_boxes
from pipeline.images import RGB
from pipeline.models import calibration as scales
from pipeline.models import fingerprints
from pipeline.models.detections import Choice, Most, nothing, remembered, select
from pipeline.models.open_clip_loading import check_templates
from pipeline.models.protocols import Detections, Floats, RegionEncoder

if TYPE_CHECKING:
    from torch import Tensor

TEMPLATES = ("a photo of a {}",)
NEUTRAL = ("a photo", "a photo of a background", "a photo of a texture", "a blurry photo of nothing")
SHAPES = (1.0, 0.5, 2.0)  # width by height, at equal area


def clip_regions(
    device: str,
    encoder: RegionEncoder | None,
    *,
    templates: Sequence[str] = TEMPLATES,
    neutral: Sequence[str] = NEUTRAL,
    scale: Annotated[float, Field(gt=0)] = 100.0,
    sides: Sequence[Annotated[float, Field(gt=0, le=1)]] = (0.25, 0.4, 0.65),
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    floor: scales.Share = 0.02,
    iou: scales.Share = 0.3,
    max_per_image: Most = 100,
    calibration: scales.Points = (),
) -> ClipRegions:
    """Windows of several sizes and shapes, scored by the encoder of the section `embed`. No weights of its own.

    A window's score for a phrase is CLIP's probability of the phrase against the likeliest of some neutral texts
    (Radford et al. 2021, section 3.1): phrases don't compete with each other, and a phrase's scores are the same in
    every list. Boxes are as coarse as the windows, and a word for a whole scene scores everywhere in it: for things
    that are small or many a detector is better.

    Args:
        device: not used: the encoder has its own.
        encoder: the audit's region encoder; it must embed words.
        templates: prompts, each with one `{}` for the phrase; their embeddings are averaged.
        neutral: what a window is if it is nothing that was asked for.
        scale: what a difference of cosines is multiplied by; CLIP's training ends at 100.
        sides: lengths of the square windows, as shares of the image's sides; others have their area. The image itself
            is a window too.
        overlap: of neighbouring windows, as a share of their sides.
        floor: lowest raw score that is reported, in [0, 1].
        iou: overlap above which the weaker of two boxes of one phrase is dropped.
        max_per_image: most boxes of an image; the best box of each phrase is always kept.
        calibration: [raw, calibrated] points of the scores' common scale (see pipeline/models/calibration.py);
            none: scores as they are.

    Raises:
        UserError: no encoder is configured, or it knows no words.
    """
    if encoder is None:
        raise UserError(
            "detect: the back end 'clip_regions' needs the section 'embed', such as {kind: open_clip, ...}."
        )
    if not encoder.has_text:
        raise UserError("detect: the back end 'clip_regions' needs an encoder that embeds words too: embed: open_clip.")
    check_templates(templates, "detect")
    if not neutral:
        raise UserError("detect: the option 'neutral' is empty. Give at least one text, such as: a photo.")
    choice = Choice(floor, iou, max_per_image, scales.check(calibration))
    return ClipRegions(encoder, tuple(templates), tuple(neutral), scale, windows(sides, overlap), choice)


class ClipRegions:
    """See :func:`clip_regions`."""

    def __init__(
        self,
        encoder: RegionEncoder,
        templates: tuple[str, ...],
        neutral: tuple[str, ...],
        scale: float,
        boxes: Boxes,
        choice: Choice,
    ) -> None:
        self._encoder, self._templates, self._neutral = encoder, templates, neutral
        self._scale, self._boxes, self._choice = scale, boxes, choice
        self._vectors: dict[str, Floats] = {}

    @cached_property
    def fingerprint(self) -> str:
        """By the encoder, the prompts and the windows."""
        options = {
            "encoder": self._encoder.fingerprint,
            "templates": self._templates,
            "neutral": self._neutral,
            "scale": repr(float(self._scale)),
            "boxes": self._boxes.round(6).tolist(),
            **self._choice.options,
        }
        return fingerprints.of_options("clip_regions/1", options)

    def detect(self, images: Sequence[RGB], phrases: Sequence[str]) -> list[Detections]:
        """One Detections an image, best score first: boxes normalised, raw scores from `floor` to 1."""
        import torch

        if not phrases or not images:
            return [nothing() for _ in images]
        queries = remembered(self._vectors, phrases, self._encode)
        boxes = torch.from_numpy(self._boxes)
        found = []
        for vectors in self._encoder.regions(images, [self._boxes] * len(images)):
            margin = vectors @ queries.T - (vectors @ self._nothing.T).max(axis=1, keepdims=True)
            found.append(select(boxes, torch.from_numpy(self._scale * margin).sigmoid(), self._choice, _as_boxes))
        return found

    @cached_property
    def _nothing(self) -> Floats:
        return self._encoder.texts(self._neutral)

    def _encode(self, phrases: list[str]) -> Floats:
        rows = self._encoder.texts([template.format(phrase) for phrase in phrases for template in self._templates])
        mean = rows.reshape(len(phrases), len(self._templates), -1).mean(axis=1)
        return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


def windows(sides: Sequence[float], overlap: float) -> Boxes:
    """The whole image, and windows of each side and each shape that cover it evenly (n, 4)."""
    boxes = [(0.0, 0.0, 1.0, 1.0)]
    for side in sides:
        for shape in SHAPES:
            width, height = min(side * shape**0.5, 1.0), min(side / shape**0.5, 1.0)
            for top in _starts(height, overlap):
                boxes += [(left, top, left + width, top + height) for left in _starts(width, overlap)]
    return np.unique(as_boxes(boxes).round(6), axis=0)


def _starts(length: float, overlap: float) -> list[float]:
    steps = int(np.ceil((1 - length) / (length * (1 - overlap)) - 1e-9))
    return np.linspace(0, 1 - length, steps + 1).tolist()


def _as_boxes(boxes: Tensor) -> Boxes:
    return as_boxes(boxes.numpy())
