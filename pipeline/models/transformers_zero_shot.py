"""A zero-shot classifier under test: a two-tower model of transformers (CLIP, SigLIP, SigLIP 2 and their like)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError
from pipeline.images import RGB
from pipeline.models import devices, fingerprints, hub
from pipeline.models.batching import Batch, Batches
from pipeline.models.devices import Precision
from pipeline.models.open_clip_loading import check_templates
from pipeline.models.open_clip_model import TEMPLATES
from pipeline.models.protocols import Floats

if TYPE_CHECKING:
    from torch import Tensor


def transformers_zero_shot(
    classes: tuple[str, ...],
    device: str,
    *,
    name: str,
    templates: Sequence[str] = TEMPLATES,
    precision: Precision = "auto",
    batch: Batch = "auto",
    trust_pickle: bool = False,
) -> TransformersZeroShot:
    """Zero-shot classification by prompts, with the model's own image processor and tokenizer.

    Args:
        classes: the words of each class as they go into the prompts.
        device: auto, cpu, cuda, cuda:1, mps.
        name: a folder that holds the model, or its name on the hub (ORG/REPO).
        templates: prompts, each with one `{}` for the class; their embeddings are averaged.
        precision: auto (bf16 or fp16 on cuda, else fp32), fp32, bf16, fp16.
        batch: most images in one forward, or auto: as many as fit; it doesn't change the answers.
        trust_pickle: weights that aren't safetensors are a pickle and can run code when they are opened.

    Raises:
        UserError: the folder isn't there, holds no model or a pickle that isn't trusted; a template is at fault.
    """
    check_templates(templates, "model")
    hub.check_transformers("model", name, trust_pickle)
    return TransformersZeroShot(tuple(classes), name, tuple(templates), precision, device, Batches(batch), trust_pickle)


class TransformersZeroShot:
    """See :func:`transformers_zero_shot`."""

    def __init__(
        self,
        classes: tuple[str, ...],
        name: str,
        templates: tuple[str, ...],
        precision: Precision,
        device: str,
        batches: Batches,
        trust_pickle: bool,
    ) -> None:
        self._classes, self._name, self._templates = classes, name, templates
        self._wanted, self._device = precision, device
        self._batches, self._trust = batches, trust_pickle

    @cached_property
    def fingerprint(self) -> str:
        """By the weights, the prompts and the precision."""
        options = {
            "weights": hub.content(self._name),
            "classes": self._classes,
            "templates": self._templates,
            "precision": self._precision,
        }
        return fingerprints.of_options("transformers_zero_shot/1", options)

    def logits(self, images: Sequence[RGB]) -> Floats:
        """(n, classes): the model's scale times the cosine of image and class, plus its bias if it has one.

        A SigLIP's logits are meant for a sigmoid, class by class. As the audit asks which class is the likeliest, they
        are compared by softmax like any others; the bias, one number for all classes, then cancels out.
        """
        import torch

        embeddings, scale, bias = self._heads

        def encode(batch: Any) -> Floats:
            seen = batch.to(self._on, devices.dtype(self._precision))
            with torch.inference_mode():
                return _unit(self._model.get_image_features(**seen))

        parts = self._batches.run(len(images), encode, self._on, lambda rows: self._pixels(images[rows]))
        if not parts:
            return np.zeros((0, len(self._classes)), np.float32)
        return scale * (np.concatenate(parts) @ embeddings.T) + bias

    @cached_property
    def _precision(self) -> Precision:
        return devices.precision(self._wanted, self._device)

    @cached_property
    def _on(self) -> str:
        return devices.pick(self._device)

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModelForZeroShotImageClassification as Kind

        dtype = devices.dtype(self._precision)
        model = hub.load_transformers_model("model", Kind, self._name, self._trust, dtype=dtype)
        if not (
            hasattr(model, "get_text_features") and (hasattr(model, "logit_scale") or hasattr(model, "temperature"))
        ):
            raise UserError(
                f"model: {self._name} is a {type(model).__name__}, which doesn't compare an image's embedding with a "
                "text's. Give a model such as CLIP or SigLIP."
            )
        return model.to(self._on)

    @cached_property
    def _pixels(self) -> Any:
        """Images to the model's input, by its own image processor."""
        from PIL import Image
        from transformers import AutoImageProcessor

        processor = hub.load_transformers("model", AutoImageProcessor, self._name)
        return lambda images: processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")

    @cached_property
    def _heads(self) -> tuple[Floats, np.float32, np.float32]:
        """(classes, d) class embeddings, the scale of the cosine, and a bias (SigLIP's; else 0)."""
        model = self._model
        prompts = [template.format(word) for word in self._classes for template in self._templates]
        rows = self._texts(prompts).reshape(len(self._classes), len(self._templates), -1).mean(axis=1)
        scale = model.logit_scale.float().exp() if hasattr(model, "logit_scale") else 1 / model.temperature.float()
        bias = getattr(model, "logit_bias", None)
        embeddings = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return embeddings, np.float32(scale.item()), np.float32(0.0 if bias is None else bias.item())

    def _texts(self, texts: list[str]) -> Floats:
        """(n, d) unit-length embeddings of texts, which are cut at the model's context length."""
        import torch
        from transformers import AutoTokenizer

        model = self._model
        tokenizer = hub.load_transformers("model", AutoTokenizer, self._name)
        longest = model.config.text_config.max_position_embeddings
        # a SigLIP has learnt from texts that were all padded to its context length
        padding = "max_length" if "siglip" in model.config.model_type else True

        def encode(rows: slice) -> Floats:
            words = tokenizer(texts[rows], padding=padding, truncation=True, max_length=longest, return_tensors="pt")
            with torch.inference_mode():
                return _unit(model.get_text_features(**words.to(self._on)))

        return np.concatenate(Batches(256).run(len(texts), encode, self._on))


def _unit(features: Any) -> Floats:
    """Rows at unit length as a float32 array in memory."""
    import torch.nn.functional as F

    rows: Tensor = getattr(features, "pooler_output", features)
    return F.normalize(rows.float(), dim=-1).cpu().numpy()
