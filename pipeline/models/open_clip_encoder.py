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
from pipeline.models.batching import Batch, Batches
from pipeline.models.devices import Precision
from pipeline.models.open_clip_loading import ClipSource, LoadedClip, unit
from pipeline.models.protocols import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.roi import Stages

REGIONS, REGIONS_PER_IMAGE = 256, 4
"""Regions pooled at once, or in multiples of a larger batch of images: under 1 GB for a ResNet-50 and 64 images."""


def open_clip_encoder(
    device: str,
    *,
    name: str,
    pretrained: str | None = None,
    regions: Literal["roi_align", "crops"] = "roi_align",
    context: Annotated[float, Field(ge=0)] = 0.0,
    precision: Precision = "auto",
    batch: Batch = "auto",
    trust_pickle: bool = False,
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
        precision: auto (bf16 or fp16 on cuda, else fp32), fp32, bf16, fp16.
        batch: most images in one forward, or auto: as many as fit; it doesn't change the answers.
        trust_pickle: a checkpoint that isn't safetensors is a pickle and can run code when it is opened.

    Raises:
        UserError: the model isn't there, open_clip doesn't know it, or it is a pickle that isn't trusted.
    """
    source = ClipSource(name, pretrained, precision, trust_pickle)
    return OpenClipEncoder(source, regions, context, device, Batches(batch))


class OpenClipEncoder:
    """See :func:`open_clip_encoder`."""

    has_text = True

    def __init__(self, source: ClipSource, regions: str, context: float, device: str, batches: Batches) -> None:
        self._source, self._regions, self._context = source, regions, context
        self._device, self._batches = device, batches

    @cached_property
    def fingerprint(self) -> str:
        """By the weights, how regions are made, and the precision."""
        options = {"source": self._source.on(self._device).fingerprint, "regions": self._regions}
        if self._regions == "crops":
            options["context"] = repr(self._context)
        return fingerprints.of_options("open_clip_encoder/1", options)

    @cached_property
    def _clip(self) -> LoadedClip:
        return self._source.load(self._device)

    @cached_property
    def _stages(self) -> Stages:
        from pipeline.models.roi import stages_of

        return stages_of(self._clip.model.visual)

    def images(self, images: Sequence[RGB]) -> Floats:
        """(n, d) embeddings of whole images, rows of unit length."""
        return self._clip.images(images, self._batches)

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

        clip = self._clip

        def prepare(rows: slice) -> tuple[Tensor, list[Boxes]]:
            return clip.sized(images[rows], clip.squash), boxes[rows]

        def encode(batch: tuple[Tensor, list[Boxes]]) -> Floats:
            pixels, places = clip.normalised(batch[0]), [torch.from_numpy(of_image) for of_image in batch[1]]
            at_once = max(REGIONS, REGIONS_PER_IMAGE * len(places))
            return unit(region_features(self._stages, pixels, places, at_once))

        with torch.inference_mode():
            return self._batches.run(len(images), encode, clip.device, prepare)

    def _crops(self, images: list[RGB], boxes: list[Boxes]) -> list[Floats]:
        import torch

        clip = self._clip
        owners = [(index, box) for index, of_image in enumerate(boxes) for box in of_image]

        def prepare(rows: slice) -> Tensor:
            return clip.sized([_cut(images[index], box, self._context) for index, box in owners[rows]], clip.squash)

        def encode(sized: Tensor) -> Floats:
            return unit(clip.model.encode_image(clip.normalised(sized)))

        with torch.inference_mode():
            return self._batches.run(len(owners), encode, clip.device, prepare)


def _cut(image: RGB, box: Boxes, context: float) -> RGB:
    """The pixels of a box and of `context` times its size on each side, as far as the image goes."""
    margin = (box[2:] - box[:2]) * context
    wide = as_boxes([*(box[:2] - margin), *(box[2:] + margin)])
    x0, y0, x1, y1 = to_pixels(wide, image.shape[1], image.shape[0])[0]
    return np.ascontiguousarray(image[y0:y1, x0:x1])
