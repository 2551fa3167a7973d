"""What every detector does with its (box, phrase, score) candidates: suppression within a phrase, and a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from pipeline.geometry import Boxes, as_boxes
from pipeline.models.calibration import Table, calibrated
from pipeline.models.protocols import Detections, Floats

if TYPE_CHECKING:
    from torch import Tensor

Most = Annotated[int, Field(ge=1)]
CANDIDATES = 30_000  # most (place, phrase) pairs of an image that enter suppression; ultralytics' number


@dataclass(frozen=True)
class Choice:
    """Which candidates of an image are reported, and on which scale.

    `floor`: lowest raw score. `iou`: overlap above which the weaker of two boxes of one phrase is dropped. `most`: most
    boxes; the best box of each phrase is always kept. `calibration`: raw scores to the common scale.
    """

    floor: float
    iou: float
    most: int
    calibration: Table

    @property
    def options(self) -> dict[str, Any]:
        """For a fingerprint."""
        known = {"floor": repr(float(self.floor)), "iou": repr(float(self.iou)), "max_per_image": self.most}
        return known | ({"calibration": self.calibration} if len(self.calibration) > 2 else {})


def nothing() -> Detections:
    """No box."""
    return Detections(np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros(0, np.int64))


def select(boxes: Tensor, scores: Tensor, choice: Choice, normalise: Callable[[Tensor], Boxes]) -> Detections:
    """The boxes of an image that count, best score first. Phrases don't compete.

    Args:
        boxes: (places, 4) xyxy in any unit.
        scores: (places, phrases) raw, in [0, 1], on the same device.
        normalise: what turns boxes of that unit into normalised ones of the image.
    """
    import torch
    from torchvision.ops import batched_nms

    places, phrases = torch.nonzero(scores >= choice.floor, as_tuple=True)
    values = scores[places, phrases]
    if len(values) > CANDIDATES:
        values, best = values.topk(CANDIDATES)
        places, phrases = places[best], phrases[best]
    candidates = boxes[places].to(values)
    kept = batched_nms(candidates, values, phrases, choice.iou)
    # the best box of each phrase comes first, so that no phrase is crowded out of an image
    seen: set[int] = set()
    leaders: list[int] = []
    others: list[int] = []
    for index in kept.tolist():
        phrase = int(phrases[index])
        (others if phrase in seen else leaders).append(index)
        seen.add(phrase)
    chosen = leaders + others[: max(choice.most - len(leaders), 0)]
    order = sorted(chosen, key=lambda index: (-float(values[index]), int(phrases[index]), index))
    return Detections(
        as_boxes(normalise(candidates[order].clone())),
        calibrated(values[order].cpu().numpy(), choice.calibration).astype(np.float32),
        phrases[order].cpu().numpy().astype(np.int64),
    )


def remembered(vectors: dict[str, Floats], phrases: Sequence[str], encode: Callable[[list[str]], Floats]) -> Floats:
    """(phrases, d): the vectors of phrases, of which only those not in `vectors` yet are encoded, and put there."""
    new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in vectors]
    if new:
        vectors.update(zip(new, encode(new), strict=True))
    return np.stack([vectors[phrase] for phrase in phrases])
