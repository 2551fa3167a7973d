"""A classifier under test: any image classification model of transformers, its labels mapped to the audit's classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.models import devices, fingerprints, hub
from pipeline.models.batching import Batch, Batches
from pipeline.models.devices import Precision
from pipeline.models.labels import Mapped, match, named
from pipeline.models.torch_classifier import Loaded, TorchClassifier


def transformers_classifier(
    classes: tuple[str, ...],
    device: str,
    *,
    name: str,
    labels: list[str] = [],  # noqa: B006
    mapping: dict[str, Mapped] = {},  # noqa: B006
    precision: Precision = "auto",
    batch: Batch = "auto",
    trust_pickle: bool = False,
) -> TorchClassifier:
    """An image classification model of transformers with its own image processor.

    Args:
        classes: the audit's, each to be found among the model's labels.
        device: auto, cpu, cuda, cuda:1, mps.
        name: a folder that holds the model, or its name on the hub (ORG/REPO).
        labels: names of the model's outputs in order, where its id2label doesn't name them.
        mapping: for a class of another name, or of several of the model's labels: `{dog: [beagle, pug]}`.
        precision: auto (bf16 or fp16 on cuda, else fp32), fp32, bf16, fp16.
        batch: most images in one forward, or auto: as many as fit; it doesn't change the answers.
        trust_pickle: weights that aren't safetensors are a pickle and can run code when they are opened.

    Raises:
        UserError: the folder isn't there, holds no model or a pickle that isn't trusted, or its labels don't fit.
    """
    hub.check_transformers("model", name, trust_pickle)
    local = Path(name).is_dir()
    if local:  # a class that the model doesn't know is said before any work
        _match(classes, json.loads((Path(name) / "config.json").read_text(encoding="utf-8")), labels, mapping)

    def load(device: str, precision: Precision) -> Loaded:
        from PIL import Image
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        processor = hub.load_transformers("model", AutoImageProcessor, name)
        model = hub.load_transformers_model(
            "model", AutoModelForImageClassification, name, trust_pickle, dtype=devices.dtype(precision)
        )

        def pixels(images: Sequence[Any]) -> Any:
            return processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]

        module = model.to(device)
        chosen = _match(classes, model.config.to_dict(), labels, mapping)
        return Loaded(lambda inputs: module(pixel_values=inputs).logits, pixels, chosen)

    def options() -> dict[str, Any]:
        return {
            "weights": fingerprints.of_path(name, hub.MODEL_FILES) if local else name,
            "classes": classes,
            "labels": labels,
            "mapping": mapping,
        }

    return TorchClassifier("transformers_classifier/1", options, load, len(classes), device, precision, Batches(batch))


def _match(classes: Sequence[str], config: dict[str, Any], labels: list[str], mapping: dict[str, Mapped]) -> Any:
    """The outputs of each class, by a model's config."""
    names = {int(number): str(label) for number, label in (config.get("id2label") or {}).items()}
    if any(label != f"LABEL_{number}" for number, label in names.items()):
        if sorted(names) != list(range(len(names))):
            raise UserError("model: the id2label in its config.json doesn't number its labels from 0 without a gap.")
        known: list[tuple[str, ...]] | None = [(names[number],) for number in sorted(names)]
    else:  # what transformers fills in
        known = None
    return match(classes, named(labels, known, len(names) or config.get("num_labels")), mapping)
