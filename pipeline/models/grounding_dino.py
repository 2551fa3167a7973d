"""Grounding DINO, an open-set detector, through transformers: a few phrases at a time, as one caption."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from pipeline.errors import UserError
from pipeline.geometry import Boxes, as_boxes
from pipeline.images import RGB
from pipeline.models import calibration as scales
from pipeline.models import devices, fingerprints, hub
from pipeline.models.batching import Batch, Batches
from pipeline.models.detections import Choice, Most, nothing, select
from pipeline.models.devices import Precision
from pipeline.models.protocols import Detections

if TYPE_CHECKING:
    from torch import Tensor

START = 4  # images in the first forward
TYPES = frozenset({"grounding-dino", "mm-grounding-dino"})


def grounding_dino(
    device: str,
    *,
    name: str,
    together: Annotated[int, Field(ge=1)] = 8,
    floor: scales.Share = 0.05,
    iou: scales.Share = 0.6,
    max_per_image: Most = 100,
    precision: Precision = "fp32",
    batch: Batch = "auto",
    trust_pickle: bool = False,
    calibration: scales.Points = (),
) -> GroundingDino:
    """Grounding DINO (Liu et al. 2023) or MM-Grounding-DINO (Zhao et al. 2024), a few phrases in a caption.

    The phrases that are asked together are one caption, "buoy. sea gull. pier.", and compete: the image's features are
    mixed with all of them, and they share the object queries. So a phrase's scores depend on its neighbours in the
    list: compare scores only within one list of phrases, and key caches by the whole list. A phrase's score at a box
    is the mean of the sigmoids of its own tokens (as for GLIP, Li et al. 2022): "snow" alone isn't "snow field".

    Args:
        device: auto, cpu, cuda, cuda:1, mps.
        name: a folder that holds the model, or its name on the hub, such as IDEA-Research/grounding-dino-tiny.
        together: most phrases of one caption; a forward an image for each caption. 1: nothing competes.
        floor: lowest raw score that is reported, in [0, 1].
        iou: overlap above which the weaker of two boxes of one phrase is dropped.
        max_per_image: most boxes of an image; the best box of each phrase is always kept.
        precision: fp32, bf16, fp16, or auto: bf16 or fp16 on cuda, else fp32.
        batch: most images in one forward, or auto: as many as fit; it doesn't change the answers.
        trust_pickle: weights that aren't safetensors are a pickle and can run code when they are opened.
        calibration: [raw, calibrated] points of the scores' common scale (see pipeline/models/calibration.py);
            none: scores as they are; the published threshold is 0.25.

    Raises:
        UserError: transformers isn't installed, or the folder isn't there, holds no model or a pickle that isn't
            trusted.
    """
    hub.check_transformers("detect", name, trust_pickle)
    choice = Choice(floor, iou, max_per_image, scales.check(calibration))
    return GroundingDino(name, together, choice, precision, device, Batches(batch, START), trust_pickle)


class GroundingDino:
    """See :func:`grounding_dino`."""

    def __init__(
        self,
        name: str,
        together: int,
        choice: Choice,
        precision: Precision,
        device: str,
        batches: Batches,
        trust_pickle: bool,
    ) -> None:
        self._name, self._together, self._choice = name, together, choice
        self._wanted, self._device, self._batches, self._trust = precision, device, batches, trust_pickle

    @cached_property
    def fingerprint(self) -> str:
        """By the weights, how many phrases are asked together, and the precision."""
        asked = {"weights": hub.content(self._name), "together": self._together, "precision": self._precision}
        return fingerprints.of_options("grounding_dino/1", {**asked, **self._choice.options})

    def detect(self, images: Sequence[RGB], phrases: Sequence[str]) -> list[Detections]:
        """One Detections an image, best score first: boxes normalised, raw scores from `floor` to 1."""
        import torch

        found = [nothing() for _ in images]
        captions = list(self._captions(phrases))
        # images of one size share a forward: padding would make an answer depend on its neighbours
        sizes: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            sizes[image.shape].append(index)
        for indices in sizes.values() if captions else ():

            def forward(rows: slice, indices: list[int] = indices) -> None:
                some = indices[rows]
                answers = [self._ask([images[index] for index in some], *caption) for caption in captions]
                for place, index in enumerate(some):
                    parts = [(boxes[place], scores[place]) for boxes, scores in answers]
                    found[index] = self._merge(parts, captions, len(phrases))

            with torch.inference_mode():
                self._batches.run(len(indices), forward, self._on)
        return found

    def _merge(
        self, parts: list[tuple[Tensor, Tensor]], captions: list[tuple[str, list[int], Tensor]], count: int
    ) -> Detections:
        """The boxes of an image from all captions: each caption's queries are places of their own."""
        import torch

        boxes = torch.cat([of_caption for of_caption, _ in parts])
        scores = torch.zeros((len(boxes), count))
        start = 0
        for (of_caption, values), (_, asked, _) in zip(parts, captions, strict=True):
            scores[start : start + len(of_caption), asked] = values
            start += len(of_caption)
        return select(boxes, scores, self._choice, _as_boxes)

    def _captions(self, phrases: Sequence[str]) -> Iterator[tuple[str, list[int], Tensor]]:
        """Captions of at most `together` phrases that fit the text tower: the caption, the phrases' numbers, and
        (phrases, tokens) the share of each token in its phrase's mean. A phrase without a word is never found."""
        cleaned = [(index, _clean(phrase)) for index, phrase in enumerate(phrases)]
        waiting = [(index, words) for index, words in cleaned if words]
        longest = self._limit["max_length"]
        while waiting:
            size = self._together
            while True:
                some = waiting[:size]
                caption = " ".join(f"{words}." for _, words in some)
                if len(some) == 1 or len(self._processor.tokenizer(caption)["input_ids"]) <= longest:
                    break
                size = len(some) // 2
            # a single phrase that is too long is cut, here as when the model is asked
            encoded = self._processor.tokenizer(caption, return_offsets_mapping=True, **self._limit)
            shares = _shares([words for _, words in some], encoded["offset_mapping"])
            yield caption, [index for index, _ in some], shares
            waiting = waiting[len(some) :]

    def _ask(self, images: list[RGB], caption: str, asked: list[int], shares: Tensor) -> tuple[Tensor, Tensor]:
        """(images, queries, 4) normalised xyxy boxes and (images, queries, phrases) scores of one caption."""
        from PIL import Image
        from torchvision.ops import box_convert

        inputs = self._processor(
            images=[Image.fromarray(image) for image in images],
            text=[caption] * len(images),
            return_tensors="pt",
            **self._limit,
        ).to(self._on, self._model.dtype)
        output = self._model(**inputs)
        tokens = output.logits.float().sigmoid()[..., : shares.shape[1]].cpu()
        return box_convert(output.pred_boxes.float().cpu(), "cxcywh", "xyxy"), tokens @ shares.T

    @property
    def _limit(self) -> dict[str, Any]:
        """How the tokenizer keeps a caption to what the text tower reads."""
        return {"truncation": True, "max_length": self._model.config.max_text_len}

    @cached_property
    def _on(self) -> str:
        return devices.pick(self._device)

    @cached_property
    def _precision(self) -> Precision:
        return devices.precision(self._wanted, self._device)

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        processor = hub.load_transformers("detect", AutoProcessor, self._name)
        if not processor.tokenizer.is_fast:
            raise UserError(
                f"detect: {self._name} has no fast tokenizer (tokenizer.json), which tells where words are."
            )
        return processor

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoConfig, AutoModelForZeroShotObjectDetection

        kind = hub.load_transformers("detect", AutoConfig, self._name).model_type
        if kind not in TYPES:
            raise UserError(
                f"detect: {self._name} is a model of the type '{kind}', not one of {', '.join(sorted(TYPES))}."
            )
        dtype = devices.dtype(self._precision)
        model = hub.load_transformers_model(
            "detect", AutoModelForZeroShotObjectDetection, self._name, self._trust, dtype=dtype
        )
        return model.to(self._on)


def _as_boxes(boxes: Tensor) -> Boxes:
    return as_boxes(boxes.numpy())


def _clean(phrase: str) -> str:
    """A phrase that can't end its place in the caption: full stops and question marks divide phrases."""
    return " ".join(re.sub(r"[.?]", " ", phrase.lower()).split())


def _shares(phrases: list[str], offsets: Sequence[tuple[int, int]]) -> Tensor:
    """(phrases, tokens): 1 / k at the k tokens of each phrase of the caption "first. second.", else 0."""
    import torch

    shares = np.zeros((len(phrases), len(offsets)), dtype=np.float32)
    start = 0
    for row, phrase in enumerate(phrases):
        end = start + len(phrase)
        shares[row] = [first < last and start <= first and last <= end for first, last in offsets]
        start = end + 2
    return torch.from_numpy(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1))
