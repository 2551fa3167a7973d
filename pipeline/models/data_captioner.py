"""The captioner that gives the captions which the data set came with."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.models.annotations import Annotation
from pipeline.models.fingerprints import of_options


class DataCaptioner:
    """See `data_captioner`."""

    def __init__(self, from_boxes: bool) -> None:
        self._from_boxes = from_boxes
        self.reads = ("caption", "phrases") if from_boxes else ("caption",)
        self.fingerprint = of_options("data_captioner/1", {"from_boxes": from_boxes})

    def captions(self, images: Sequence[Annotation]) -> list[str | None]:
        """The caption of each image, or None."""
        return [image.caption or self._named(image) or None for image in images]

    def _named(self, image: Annotation) -> str:
        return ", ".join(f"a {phrase}" for phrase in dict.fromkeys(image.phrases)) if self._from_boxes else ""


def data_captioner(device: str, *, from_boxes: bool = False) -> DataCaptioner:
    """Captions of the data set; an image without one has none, and the audit says how many these are.

    Args:
        device: unused; every captioner is given it.
        from_boxes: an image without a caption gets one that names what its boxes hold ("a dog, a frisbee"), so that
            these things are proposed as cues.
    """
    return DataCaptioner(from_boxes)
