"""OWLv2, an open-set detector, through transformers: an image is embedded once, whatever it is asked for."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from pipeline.errors import UserError
from pipeline.geometry import Boxes, from_pixels
from pipeline.images import RGB
from pipeline.models import calibration as scales
from pipeline.models import devices, fingerprints, hub
from pipeline.models.batching import Batch, Batches
from pipeline.models.detections import Choice, Most, nothing, remembered, select
from pipeline.models.devices import Precision
from pipeline.models.open_clip_loading import check_templates
from pipeline.models.protocols import Detections, Floats
from pipeline.places import Place
from pipeline.store import opened, replacing

if TYPE_CHECKING:
    from torch import Tensor

TEMPLATES = ("a photo of a {}",)
START = 4  # images in the first forward
PUBLISHED = ((0.1, 0.25),)  # the threshold of its own post-processing, on the common scale


def owlv2(
    device: str,
    cache: Place,
    *,
    name: str,
    templates: Sequence[str] = TEMPLATES,
    floor: scales.Share = 0.02,
    iou: scales.Share = 0.5,
    max_per_image: Most = 100,
    places: Annotated[int, Field(ge=0)] = 0,
    remember: bool = False,
    precision: Precision = "fp32",
    batch: Batch = "auto",
    trust_pickle: bool = False,
    calibration: scales.Points = PUBLISHED,
) -> Owlv2:
    """OWLv2 (Minderer et al. 2023), an image embedded once for any number of phrases.

    Labels don't compete: a score is a sigmoid of its own for each phrase and place. A phrase is only a product with the
    image's embedding, so a phrase's scores are the same in every list, and any number of phrases costs one forward an
    image.

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
        precision: fp32, bf16, fp16, or auto: bf16 or fp16 on cuda, else fp32.
        batch: most images in one forward, or auto: as many as fit; it doesn't change the answers.
        trust_pickle: weights that aren't safetensors are a pickle and can run code when they are opened.
        calibration: [raw, calibrated] points of the scores' common scale (see pipeline/models/calibration.py);
            the default puts the published threshold 0.1 at 0.25.

    Raises:
        UserError: transformers isn't installed, or the folder isn't there, holds no model or a pickle that isn't
            trusted.
    """
    hub.check_transformers("detect", name, trust_pickle)
    check_templates(templates, "detect")
    choice = Choice(floor, iou, max_per_image, scales.check(calibration))
    batches = Batches(batch, START)
    kept = cache if remember else None
    return Owlv2(name, tuple(templates), choice, places, kept, precision, device, batches, trust_pickle)


@dataclass(frozen=True)
class Embedded:
    """What is kept of an image: `vectors` (places, d) of unit length, `shift` and `scale` (places,) of the logits, and
    `boxes` (places, 4) cxcywh, as shares of the image padded to a square."""

    vectors: Floats
    shift: Floats
    scale: Floats
    boxes: Floats


@dataclass(frozen=True)
class _Batch:
    """Images of one forward: where each one's embedding is kept (nowhere: empty), those that are, and the pixels of the
    others; None if there are none."""

    images: Sequence[RGB]
    files: list[Place]
    known: Sequence[Embedded | None]
    pixels: Tensor | None


class Owlv2:
    """See :func:`owlv2`."""

    def __init__(
        self,
        name: str,
        templates: tuple[str, ...],
        choice: Choice,
        places: int,
        cache: Place | None,
        precision: Precision,
        device: str,
        batches: Batches,
        trust_pickle: bool,
    ) -> None:
        self._name, self._templates, self._choice, self._places = name, templates, choice, places
        self._wanted, self._device, self._batches, self._trust = precision, device, batches, trust_pickle
        self._cache = cache
        self._vectors: dict[str, Floats] = {}

    @cached_property
    def fingerprint(self) -> str:
        """By the weights, the prompts, what is kept of an image, and the precision."""
        options = {"templates": self._templates, "rounded": self._cache is not None, **self._choice.options}
        return fingerprints.of_options("owlv2/1", {**self._seen, **options})

    @cached_property
    def _seen(self) -> dict[str, Any]:
        """What an image's embedding depends on."""
        return {"weights": hub.content(self._name), "places": self._places, "precision": self._precision}

    @cached_property
    def _folder(self) -> Place | None:
        """Where images' embeddings are kept."""
        return self._cache / "owlv2" / fingerprints.of_options("owlv2_images/1", self._seen) if self._cache else None

    def detect(self, images: Sequence[RGB], phrases: Sequence[str]) -> list[Detections]:
        """One Detections an image, best score first: boxes normalised, raw scores from `floor` to 1."""
        if not phrases or not images:
            return [nothing() for _ in images]
        queries = remembered(self._vectors, phrases, self._encode)

        def prepare(rows: slice) -> _Batch:
            return self._prepared(images[rows])

        def find(batch: _Batch) -> list[Detections]:
            pairs = zip(batch.images, self._embedded(batch), strict=True)
            return [self._find(*of_image, queries) for of_image in pairs]

        return [found for part in self._batches.run(len(images), find, self._on, prepare) for found in part]

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

    def _prepared(self, images: Sequence[RGB]) -> _Batch:
        """The images' embeddings on disk, and the pixels of the others."""
        from PIL import Image

        files = [self._folder / f"{_digest(image)}.npz" for image in images] if self._folder else []
        known = [_read(file) for file in files] if files else [None] * len(images)
        new = [Image.fromarray(image) for image, found in zip(images, known, strict=True) if found is None]
        pixels = None
        if new:
            made = self._processor.image_processor(images=new, return_tensors="pt")
            pixels = devices.pinned(made["pixel_values"], self._on)
        return _Batch(images, files, known, pixels)

    def _embedded(self, batch: _Batch) -> list[Embedded]:
        """The images' embeddings: those on disk, and the others by one forward."""
        if batch.pixels is None:
            return [found for found in batch.known if found is not None]
        fresh = self._embed(batch.pixels)
        if not batch.files:
            return fresh
        known, new = list(batch.known), [index for index, found in enumerate(batch.known) if found is None]
        for index, embedded in zip(new, fresh, strict=True):
            # what is used now is what will be read later: an answer doesn't depend on which it was
            known[index] = _rounded(embedded)
            _write(batch.files[index], embedded)
        return [found for found in known if found is not None]

    def _embed(self, pixels: Tensor) -> list[Embedded]:
        import torch

        model, head = self._model, self._model.class_head
        with torch.inference_mode():
            pixels = pixels.to(self._on, model.dtype, True)
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
                rows = torch.arange(len(pixels), device=best.device)[:, None]
                parts = [part[rows, best] for part in parts]
            arrays = [part.float().cpu().numpy() for part in parts]
        return [Embedded(*of_image) for of_image in zip(*arrays, strict=True)]

    def _encode(self, phrases: list[str]) -> Floats:
        """(phrases, d) of unit length: the mean over the templates of each one's text embedding."""
        import torch

        limit = self._model.config.text_config.max_position_embeddings  # first: it tells a model of another kind
        tokenizer = self._processor.tokenizer
        texts = [template.format(phrase) for phrase in phrases for template in self._templates]

        def encode(rows: slice) -> Floats:
            tokens = tokenizer(
                texts[rows], padding="max_length", truncation=True, max_length=limit, return_tensors="pt"
            )
            ids, mask = tokens["input_ids"].to(self._on), tokens["attention_mask"].to(self._on)
            encoded = self._model.owlv2.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
            return torch.nn.functional.normalize(encoded.float(), dim=-1).cpu().numpy()

        with torch.inference_mode():
            parts = Batches(256).run(len(texts), encode, self._on)
        mean = np.concatenate(parts).reshape(len(phrases), len(self._templates), -1).mean(axis=1)
        return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)

    @cached_property
    def _on(self) -> str:
        return devices.pick(self._device)

    @cached_property
    def _precision(self) -> Precision:
        return devices.precision(self._wanted, self._device)

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        return hub.load_transformers("detect", AutoProcessor, self._name)

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoConfig, Owlv2ForObjectDetection

        kind = hub.load_transformers("detect", AutoConfig, self._name).model_type
        if kind != "owlv2":
            raise UserError(f"detect: {self._name} is a model of the type '{kind}', not 'owlv2'.")
        dtype = devices.dtype(self._precision)
        model = hub.load_transformers_model("detect", Owlv2ForObjectDetection, self._name, self._trust, dtype=dtype)
        return model.to(self._on)


def _digest(image: RGB) -> str:
    return hashlib.blake2b(
        f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes(), digest_size=16
    ).hexdigest()


def _rounded(embedded: Embedded) -> Embedded:
    return Embedded(*(part.astype(np.float16).astype(np.float32) for part in vars(embedded).values()))


def _write(file: Place, embedded: Embedded) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as part, open(part, "wb") as stream:
        np.savez(stream, **{name: array.astype(np.float16) for name, array in vars(embedded).items()})


def _read(file: Place) -> Embedded | None:
    try:
        with np.load(opened(file), allow_pickle=False) as stored:
            return Embedded(*(stored[name].astype(np.float32) for name in Embedded.__dataclass_fields__))
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # damaged: it is made again
