"""What every detector does with its (box, phrase, score) candidates: suppression within a phrase, and a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.geometry import Boxes, as_boxes
from pipeline.models.calibration import Table, calibrated
from pipeline.models.protocols import Detections, Floats

if TYPE_CHECKING:
    from torch import Tensor

Most = Annotated[int, Field(ge=1)]
LOOKED_AT = 1000
"""(place, phrase) pairs of an image, the best of all, that enter suppression first; more, if too few of them stay."""


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
        scores: (places, phrases) raw, in [0, 1].
        normalise: what turns boxes of that unit into normalised ones of the image.
    """
    import torch

    at = torch.nonzero(scores >= choice.floor, as_tuple=True)
    values, (places, phrases) = scores[at].float().cpu().numpy(), (index.cpu().numpy() for index in at)
    rank = np.lexsort((phrases, -values))  # of equals the first phrase, and of these the first place
    values, places, phrases = values[rank], places[rank], phrases[rank]
    candidates = boxes.float().cpu()[torch.from_numpy(places)]
    # the best box of each phrase comes first, so that no phrase is crowded out of an image
    leads = np.zeros(len(values), dtype=bool)
    leads[np.unique(phrases, return_index=True)[1]] = True
    room = max(choice.most - int(leads.sum()), 0)
    looked_at = min(LOOKED_AT, len(values))
    while True:  # only what is better can suppress a box, so that the first of them tell their own
        first = slice(looked_at)
        others = np.flatnonzero(_apart(candidates[first], phrases[first], choice.iou) & ~leads[first])
        if len(others) >= room or looked_at == len(values):
            break
        looked_at = min(4 * looked_at, len(values))
    chosen = np.sort(np.concatenate([np.flatnonzero(leads), others[:room]]))
    return Detections(
        as_boxes(normalise(candidates[torch.from_numpy(chosen)])),
        calibrated(values[chosen], choice.calibration).astype(np.float32),
        phrases[chosen].astype(np.int64),
    )


def _apart(boxes: Tensor, phrases: NDArray[np.int64], iou: float) -> NDArray[np.bool_]:
    """Which of these boxes, best first, no better one of the same phrase overlaps by more than `iou`."""
    import torch
    from torchvision.ops import nms

    kept = np.zeros(len(phrases), dtype=bool)
    falling = torch.arange(len(phrases), 0, -1, dtype=torch.float32)
    order = np.argsort(phrases, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(phrases[order])) + 1) if len(order) else ():
        kept[mine[nms(boxes[torch.from_numpy(mine)], falling[torch.from_numpy(mine)], iou).numpy()]] = True
    return kept


def remembered(vectors: dict[str, Floats], phrases: Sequence[str], encode: Callable[[list[str]], Floats]) -> Floats:
    """(phrases, d): the vectors of phrases, of which only those not in `vectors` yet are encoded, and put there."""
    new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in vectors]
    if new:
        vectors.update(zip(new, encode(new), strict=True))
    return np.stack([vectors[phrase] for phrase in phrases])
