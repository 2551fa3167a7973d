"""A zero-shot classifier under test: an open_clip model and a prompt for each class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from pipeline.images import RGB
from pipeline.models import fingerprints
from pipeline.models.batching import Batch, Batches
from pipeline.models.devices import Precision
from pipeline.models.open_clip_encoder import OpenClipEncoder
from pipeline.models.open_clip_loading import ClipSource, LoadedClip, check_templates
from pipeline.models.protocols import Floats

# five of the eighty prompts published with CLIP; one that names a style ("a origami {}") brings a cue
TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a good photo of a {}.",
    "a bad photo of a {}.",
    "a close-up photo of a {}.",
)


def open_clip_classifier(
    classes: tuple[str, ...],
    device: str,
    *,
    name: str,
    pretrained: str | None = None,
    templates: Sequence[str] = TEMPLATES,
    precision: Precision = "auto",
    batch: Batch = "auto",
    trust_pickle: bool = False,
) -> OpenClipClassifier:
    """Zero-shot classification by CLIP (Radford et al. 2021, section 3.1).

    Args:
        classes: the words of each class as they go into the prompts.
        device: auto, cpu, cuda, cuda:1, mps.
        name: "local-dir:FOLDER", "hf-hub:ORG/REPO", or a model name that open_clip knows.
        pretrained: for a plain name: a tag that open_clip knows, or the path of a checkpoint.
        templates: prompts, each with one `{}` for the class; their embeddings are averaged.
        precision: auto (bf16 or fp16 on cuda, else fp32), fp32, bf16, fp16.
        batch: most images in one forward, or auto: as many as fit; it doesn't change the answers.
        trust_pickle: a checkpoint that isn't safetensors is a pickle and can run code when it is opened.

    Raises:
        UserError: the model isn't there, open_clip doesn't know it, it is a pickle that isn't trusted, or a template
            has no place for the class.
    """
    check_templates(templates, "model")
    source = ClipSource(name, pretrained, precision, trust_pickle)
    return OpenClipClassifier(tuple(classes), source, tuple(templates), device, Batches(batch))


class OpenClipClassifier:
    """See :func:`open_clip_classifier`."""

    def __init__(
        self,
        classes: tuple[str, ...],
        source: ClipSource,
        templates: tuple[str, ...],
        device: str,
        batches: Batches,
    ) -> None:
        self._classes, self._source, self._templates = classes, source, templates
        self._device, self._batches = device, batches

    @cached_property
    def fingerprint(self) -> str:
        """By the weights, the prompts and the precision."""
        source = self._source.on(self._device).fingerprint
        options = {"source": source, "classes": self._classes, "templates": self._templates}
        return fingerprints.of_options("open_clip_classifier/1", options)

    @cached_property
    def _clip(self) -> LoadedClip:
        return self._source.load(self._device)

    @cached_property
    def _heads(self) -> tuple[Floats, np.float32, np.float32]:
        """(classes, d) class embeddings, the scale of the cosine, and a bias (SigLIP's; else 0)."""
        model = self._clip.model
        scale, bias = model.logit_scale.exp().item(), getattr(model, "logit_bias", None)
        embeddings = self._clip.prompts(self._classes, self._templates)
        return embeddings, np.float32(scale), np.float32(0.0 if bias is None else bias.item())

    def logits(self, images: Sequence[RGB]) -> Floats:
        """(n, classes): exp(logit_scale) times the cosine of image and class, plus a bias if any."""
        embeddings, scale, bias = self._heads
        return scale * (self._clip.images(images, self._batches) @ embeddings.T) + bias

    def region_encoder(self, regions: str, context: float, batches: Batches) -> OpenClipEncoder:
        """The model's own two towers as an encoder of regions and words."""
        return OpenClipEncoder(self._source, regions, context, self._device, batches)
