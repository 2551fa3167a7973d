"""OWLv2, an open-set detector, through transformers: an image is embedded once, whatever it is asked for."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from pipeline.errors import UserError
from pipeline.geometry import Boxes, from_pixels
from pipeline.images import RGB
from pipeline.models import calibration as scales
from pipeline.models import devices, fingerprints
from pipeline.models.detections import Choice, Most, nothing, remembered, select
from pipeline.models.devices import Batch
from pipeline.models.open_clip_loading import check_templates, chunks
from pipeline.models.protocols import Detections, Floats
from pipeline.models.transformers_loading import Precision, check_name, content, from_pretrained, load_model
from pipeline.store import replacing

if TYPE_CHECKING:
    from torch import Tensor

TEMPLATES = ("a photo of a {}",)
PUBLISHED = ((0.1, 0.25),)  # the threshold of its own post-processing, on the common scale


def owlv2(
    device: str,
    cache: Path,
    *,
    name: str,
    templates: Sequence[str] = TEMPLATES,
    floor: scales.Share = 0.02,
    iou: scales.Share = 0.5,
    max_per_image: Most = 100,
    places: Annotated[int, Field(ge=0)] = 0,
    remember: bool = False,
    precision: Precision = "fp32",
    batch: Batch = 4,
    calibration: scales.Points = PUBLISHED,
) -> Owlv2:
    """OWLv2 (Minderer et al. 2023). Labels don't compete: a score is a sigmoid of its own for each phrase and place.

    A phrase is only a product with the image's embedding, so a phrase's scores are the same in every list, and any
    number of phrases costs one forward an image.

    Args:
        device: auto, cpu, cuda, cuda:1, mps.
        cache: the feature cache, for `remember`.
        name: a folder that holds the model, or its name on the hub, such as google/owlv2-base-patch16-ensemble.
        templates: prompts, each with one `{}` for the phrase; their embeddings are averaged. The text tower reads 16
            tokens.
        floor: lowest raw score that is reported, in [0, 1].
        iou: overlap above which the weaker of two boxes of one phrase is dropped.
        max_per_image: most boxes of an image; the best box of each phrase is always kept.
        places: the places of an image that look most like some object, which alone are kept; 0: all (3600 in the base
            model).
        remember: keep each image's embedding on disk, so that phrases added later need no forward of it. In
            half precision about 1 kB a place: 3.7 MB an image of the base model, 0.3 MB with places: 300.
        precision: fp32, bf16 or fp16 (the latter two for a GPU).
        batch: images in one forward; it doesn't change the answers.
        calibration: [raw, calibrated] points of the scores' common scale (see pipeline/models/calibration.py);
            the default puts the published threshold 0.1 at 0.25.

    Raises:
        UserError: transformers isn't installed, or the folder isn't there or holds no model.
    """
    check_name("detect", "owlv2", name)
    check_templates(templates, "detect")
    choice = Choice(floor, iou, max_per_image, scales.check(calibration))
    return Owlv2(name, tuple(templates), choice, places, cache if remember else None, precision, device, batch)


@dataclass(frozen=True)
class Embedded:
    """What is kept of an image: `vectors` (places, d) of unit length, `shift` and `scale` (places,) of the logits, and
    `boxes` (places, 4) cxcywh, as shares of the image padded to a square."""

    vectors: Floats
    shift: Floats
    scale: Floats
    boxes: Floats


class Owlv2:
    """See :func:`owlv2`."""

    def __init__(
        self,
        name: str,
        templates: tuple[str, ...],
        choice: Choice,
        places: int,
        cache: Path | None,
        precision: Precision,
        device: str,
        batch: int,
    ) -> None:
        self._name, self._templates, self._choice, self._places = name, templates, choice, places
        self._precision, self._device, self._batch = precision, device, batch
        self._vectors: dict[str, Floats] = {}
        seen = {"weights": content(name), "places": places, "precision": precision}
        self._folder = cache / "owlv2" / fingerprints.of_options("owlv2_images/1", seen) if cache else None
        options = {**seen, "templates": templates, "rounded": cache is not None, **choice.options}
        self.fingerprint = fingerprints.of_options("owlv2/1", options)

    def detect(self, images: Sequence[RGB], phrases: Sequence[str]) -> list[Detections]:
        """One Detections an image, best score first: boxes normalised, raw scores from `floor` to 1."""
        if not phrases:
            return [nothing() for _ in images]
        found: list[Detections] = []
        for rows in chunks(len(images), self._batch):
            queries = remembered(self._vectors, phrases, self._encode)
            for image, embedded in zip(images[rows], self._embedded(images[rows]), strict=True):
                found.append(self._find(image, embedded, queries))
        return found

    def _find(self, image: RGB, embedded: Embedded, queries: Floats) -> Detections:
        import torch
        from torchvision.ops import box_convert

        logits = (embedded.vectors @ queries.T + embedded.shift[:, None]) * embedded.scale[:, None]
        height, width = image.shape[:2]
        side = max(height, width)  # the image was padded to a square at its right or bottom

        def normalise(boxes: Tensor) -> Boxes:
            return from_pixels(boxes.numpy() * side, width, height)

        boxes = box_convert(torch.from_numpy(embedded.boxes), "cxcywh", "xyxy")
        return select(boxes, torch.from_numpy(logits).sigmoid(), self._choice, normalise)

    def _embedded(self, images: Sequence[RGB]) -> list[Embedded]:
        """The images' embeddings: those on disk, and the others by one forward."""
        if self._folder is None:
            return self._embed(images)
        files = [self._folder / f"{_digest(image)}.npz" for image in images]
        known = [_read(file) for file in files]
        new = [index for index, found in enumerate(known) if found is None]
        for index, fresh in zip(new, self._embed([images[index] for index in new]), strict=True):
            # what is used now is what will be read later: an answer doesn't depend on which it was
            known[index] = _rounded(fresh)
            _write(files[index], fresh)
        return [found for found in known if found is not None]

    def _embed(self, images: Sequence[RGB]) -> list[Embedded]:
        import torch
        from PIL import Image

        if not images:
            return []
        model, head = self._model, self._model.class_head
        with torch.inference_mode():
            pixels = self._processor.image_processor(
                images=[Image.fromarray(image) for image in images], return_tensors="pt"
            )["pixel_values"].to(self._on, model.dtype)
            feature_map, _ = model.image_embedder(pixels)
            features = feature_map.flatten(1, 2)
            boxes = model.box_predictor(features, feature_map)
            # the class head of transformers (Owlv2ClassPredictionHead), up to where the queries come in
            vectors = head.dense0(features)
            vectors = vectors / (torch.linalg.norm(vectors, dim=-1, keepdim=True) + 1e-6)
            shift, scale = head.logit_shift(features)[..., 0], head.elu(head.logit_scale(features))[..., 0] + 1
            parts = [vectors, shift, scale, boxes]
            if 0 < self._places < features.shape[1]:
                best = model.objectness_predictor(features).topk(self._places, dim=1).indices.sort(dim=1).values
                rows = torch.arange(len(images), device=best.device)[:, None]
                parts = [part[rows, best] for part in parts]
            arrays = [part.float().cpu().numpy() for part in parts]
        return [Embedded(*of_image) for of_image in zip(*arrays, strict=True)]

    def _encode(self, phrases: list[str]) -> Floats:
        """(phrases, d) of unit length: the mean over the templates of each one's text embedding."""
        import torch

        tokenizer, limit = self._processor.tokenizer, self._model.config.text_config.max_position_embeddings
        texts = [template.format(phrase) for phrase in phrases for template in self._templates]
        parts = []
        with torch.inference_mode():
            for rows in chunks(len(texts), 256):
                tokens = tokenizer(
                    texts[rows], padding="max_length", truncation=True, max_length=limit, return_tensors="pt"
                )
                ids, mask = tokens["input_ids"].to(self._on), tokens["attention_mask"].to(self._on)
                encoded = self._model.owlv2.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
                parts.append(torch.nn.functional.normalize(encoded.float(), dim=-1).cpu().numpy())
        mean = np.concatenate(parts).reshape(len(phrases), len(self._templates), -1).mean(axis=1)
        return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)

    @cached_property
    def _on(self) -> str:
        return devices.pick(self._device)

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        return from_pretrained("detect", self._name, AutoProcessor)

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoConfig, Owlv2ForObjectDetection

        kind = from_pretrained("detect", self._name, AutoConfig).model_type
        if kind != "owlv2":
            raise UserError(f"detect: {self._name} is a model of the type '{kind}', not 'owlv2'.")
        return load_model("detect", self._name, Owlv2ForObjectDetection, self._precision, self._on)


def _digest(image: RGB) -> str:
    return hashlib.blake2b(
        f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes(), digest_size=16
    ).hexdigest()


def _rounded(embedded: Embedded) -> Embedded:
    return Embedded(*(part.astype(np.float16).astype(np.float32) for part in vars(embedded).values()))


def _write(file: Path, embedded: Embedded) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as part, open(part, "wb") as stream:
        np.savez(stream, **{name: array.astype(np.float16) for name, array in vars(embedded).items()})


def _read(file: Path) -> Embedded | None:
    try:
        with np.load(file, allow_pickle=False) as stored:
            return Embedded(*(stored[name].astype(np.float32) for name in Embedded.__dataclass_fields__))
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # damaged: it is made again
