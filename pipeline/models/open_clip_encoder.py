"""A region encoder: boxes, whole images and words in the space of an open_clip model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from pipeline.geometry import Boxes, as_boxes, to_pixels
from pipeline.images import RGB
from pipeline.models import fingerprints
from pipeline.models.devices import Batch
from pipeline.models.open_clip_loading import ClipSource, LoadedClip, Precision, chunks, unit
from pipeline.models.protocols import Floats

if TYPE_CHECKING:
    from pipeline.models.roi import Stages

REGIONS_PER_IMAGE = 4  # regions pooled at once, in multiples of the batch: under 1 GB for a ResNet-50


def open_clip_encoder(
    device: str,
    *,
    name: str,
    pretrained: str | None = None,
    regions: Literal["roi_align", "crops"] = "roi_align",
    context: Annotated[float, Field(ge=0)] = 0.0,
    precision: Precision = "fp32",
    batch: Batch = 64,
) -> OpenClipEncoder:
    """Embeddings by any open_clip model.

    Whole images go through the model's own preprocessing, which may cut the sides of an oblong image. For
    regions the image (or the crop) is instead squeezed into the model's input: nothing is cut off, a
    normalised box of the original image is the same box of the input, and no box is ever lost; an oblong
    image is seen distorted.

    Args:
        device: auto, cpu, cuda, cuda:1, mps.
        name: "local-dir:FOLDER", "hf-hub:ORG/REPO", or a model name that open_clip knows.
        pretrained: for a plain name: a tag that open_clip knows, or the path of a checkpoint.
        regions: "roi_align" makes one forward an image for all its boxes (see pipeline/models/roi.py);
            "crops" cuts each box out and encodes it alone: sharper for small boxes, a forward each.
        context: for crops: what is kept around the box, as a share of its width and height on each side.
        precision: fp32, bf16 or fp16 (the latter two for a GPU).
        batch: images in one forward; it doesn't change the answers.

    Raises:
        UserError: the model isn't there, or open_clip doesn't know it.
    """
    return OpenClipEncoder(ClipSource(name, pretrained, precision), regions, context, device, batch)


class OpenClipEncoder:
    """See :func:`open_clip_encoder`."""

    has_text = True

    def __init__(self, source: ClipSource, regions: str, context: float, device: str, batch: int) -> None:
        self._source, self._regions, self._context = source, regions, context
        self._device, self._batch = device, batch
        options = {"source": source.fingerprint, "regions": regions}
        if regions == "crops":
            options["context"] = repr(self._context)
        self.fingerprint = fingerprints.of_options("open_clip_encoder/1", options)

    @cached_property
    def _clip(self) -> LoadedClip:
        return self._source.load(self._device)

    @cached_property
    def _stages(self) -> Stages:
        from pipeline.models.roi import stages_of

        return stages_of(self._clip.model.visual)

    def images(self, images: Sequence[RGB]) -> Floats:
        """(n, d) embeddings of whole images, rows of unit length."""
        return self._clip.images(images, self._batch)

    def texts(self, texts: Sequence[str]) -> Floats:
        """(n, d) embeddings of texts as they are given (no template), rows of unit length."""
        return self._clip.texts(texts)

    def regions(self, images: Sequence[RGB], boxes: Sequence[Boxes]) -> list[Floats]:
        """For each image an array (boxes, d), rows of unit length; (0, d) for an image without boxes."""
        asked = [as_boxes(of_image) for of_image in boxes]
        counts = [len(of_image) for of_image in asked]
        if len(images) != len(asked):
            raise ValueError(f"{len(images)} images but boxes for {len(asked)}")
        busy = [index for index, count in enumerate(counts) if count]
        encode = self._crops if self._regions == "crops" else self._aligned
        parts = encode([images[index] for index in busy], [asked[index] for index in busy])
        rows = np.concatenate(parts) if parts else np.zeros((0, self._clip.width), np.float32)
        return np.split(rows, np.cumsum(counts)[:-1]) if counts else []

    def _aligned(self, images: list[RGB], boxes: list[Boxes]) -> list[Floats]:
        import torch

        from pipeline.models.roi import region_features

        clip, parts = self._clip, []
        with torch.inference_mode():
            for rows in chunks(len(images), self._batch):
                pixels = clip.pixels(images[rows], clip.squash)
                places = [torch.from_numpy(of_image) for of_image in boxes[rows]]
                at_once = REGIONS_PER_IMAGE * self._batch
                parts.append(unit(region_features(self._stages, pixels, places, at_once)))
        return parts

    def _crops(self, images: list[RGB], boxes: list[Boxes]) -> list[Floats]:
        import torch

        clip, parts = self._clip, []
        owners = [(index, box) for index, of_image in enumerate(boxes) for box in of_image]
        with torch.inference_mode():
            for rows in chunks(len(owners), self._batch):
                cuts = [_cut(images[index], box, self._context) for index, box in owners[rows]]
                parts.append(unit(clip.model.encode_image(clip.pixels(cuts, clip.squash))))
        return parts


def _cut(image: RGB, box: Boxes, context: float) -> RGB:
    """The pixels of a box and of `context` times its size on each side, as far as the image goes."""
    margin = (box[2:] - box[:2]) * context
    wide = as_boxes([*(box[:2] - margin), *(box[2:] + margin)])
    x0, y0, x1, y1 = to_pixels(wide, image.shape[1], image.shape[0])[0]
    return np.ascontiguousarray(image[y0:y1, x0:x1])
