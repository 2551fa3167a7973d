"""A classifier under test: any model of timm, from a folder, a checkpoint or its hub, with its own data config."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, nearest
from pipeline.models import devices, fingerprints, hub
from pipeline.models.batching import Batch, Batches
from pipeline.models.devices import Precision
from pipeline.models.labels import Mapped, match, named
from pipeline.models.torch_classifier import Loaded, TorchClassifier

LOCAL, HUB = "local-dir:", "hf-hub:"
MODEL_FILES = (".safetensors", ".bin", ".pth", ".json")
IMAGENET = re.compile(r"in(1|12|21|22)k")
"""In the tag of weights: they were trained on ImageNet, whose labels timm knows."""


def timm_classifier(
    classes: tuple[str, ...],
    device: str,
    *,
    name: str,
    checkpoint: str | None = None,
    labels: list[str] = [],  # noqa: B006
    mapping: dict[str, Mapped] = {},  # noqa: B006
    precision: Precision = "auto",
    batch: Batch = "auto",
    trust_pickle: bool = False,
) -> TorchClassifier:
    """A classifier of timm; images go through the evaluation transform of its resolved data config.

    Args:
        classes: the audit's, each to be found among the model's labels.
        device: auto, cpu, cuda, cuda:1, mps.
        name: "local-dir:FOLDER" (config.json and weights, as timm saves them), "hf-hub:ORG/REPO", or a model that
            timm knows, such as "resnet50.a1_in1k".
        checkpoint: a file of weights for the last; `labels` then says how many outputs there are.
        labels: names of the model's outputs in order, where its config doesn't name them and it isn't ImageNet's.
        mapping: for a class of another name, or of several of the model's labels: `{dog: [beagle, pug]}`.
        precision: auto (bf16 or fp16 on cuda, else fp32), fp32, bf16, fp16.
        batch: most images in one forward, or auto: as many as fit; it doesn't change the answers.
        trust_pickle: weights that aren't safetensors are a pickle and can run code when they are opened.

    Raises:
        UserError: the model isn't there or timm doesn't know it, it is a pickle that isn't trusted, or `labels` or
            `mapping` don't fit.
    """
    if importlib.util.find_spec("timm") is None:
        raise UserError("model: the back end 'timm' needs the package: pip install timm")
    if Path(name).is_dir():
        name = f"{LOCAL}{name}"
    local = Path(name[len(LOCAL) :]) if name.startswith(LOCAL) else None
    if local:
        _check_folder(local, trust_pickle)
    if checkpoint:
        if local or name.startswith(HUB):
            raise UserError("model: a checkpoint is for the plain name of an architecture, such as resnet50.")
        if not Path(checkpoint).is_file():
            raise UserError(f"model: there is no checkpoint {checkpoint}. Give the path of a file of weights.")
        hub.refuse_pickle("model", Path(checkpoint), trust_pickle)
        match(classes, named(labels, None, None), mapping)

    def load(device: str, precision: Precision) -> Loaded:
        return _load(classes, name, checkpoint, labels, mapping, trust_pickle, device, precision)

    content = local or checkpoint

    def options() -> dict[str, Any]:
        return {
            "name": LOCAL if local else name,
            # the data config, and weights without a tag, are timm's to choose
            "timm": None if ":" in name or "." in name else version("timm"),
            "weights": fingerprints.of_path(content, MODEL_FILES) if content else None,
            "classes": classes,
            "labels": labels,
            "mapping": mapping,
        }

    return TorchClassifier("timm_classifier/1", options, load, len(classes), device, precision, Batches(batch))


def _check_folder(folder: Path, trust_pickle: bool) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(f"model: {folder} holds no config.json, so it is no timm model. Give another folder.")
    weights = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".pth"))
    if not weights:
        raise UserError(f"model: {folder} holds no weights (such as model.safetensors). Save the model again.")
    if not any(file.suffix == ".safetensors" for file in weights):
        hub.refuse_pickle("model", weights[0], trust_pickle)


def _load(
    classes: Sequence[str],
    name: str,
    checkpoint: str | None,
    labels: list[str],
    mapping: dict[str, Mapped],
    trust_pickle: bool,
    device: str,
    precision: Precision,
) -> Loaded:
    import timm
    import timm.data
    import timm.models
    import torch
    from PIL import Image

    if not name.startswith((LOCAL, HUB)) and not timm.is_model(name):
        raise UserError(f"model: timm knows no model '{name}'. {nearest(name.partition('.')[0], timm.list_models())}")
    try:
        if checkpoint:
            model: Any = timm.create_model(name, pretrained=False, num_classes=len(labels))
            timm.models.load_checkpoint(model, checkpoint, weights_only=not trust_pickle)
        else:
            model = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm, torch, safetensors and the hub raise many types
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"model: {name} can't be loaded by timm: {reason} {_hint(name, checkpoint)}") from error
    model = model.eval().to(device, devices.dtype(precision), memory_format=torch.channels_last)
    transform: Any = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    known = None if checkpoint else _known(model)
    return Loaded(
        model,
        lambda images: torch.stack([transform(Image.fromarray(image)) for image in images]),
        match(classes, named(labels, known, model.num_classes), mapping),
    )


def _known(model: Any) -> list[tuple[str, ...]] | None:
    """The names of a model's outputs: its config's, or ImageNet's synsets and words."""
    import timm.data

    config = model.pretrained_cfg
    names, words = config.get("label_names"), config.get("label_descriptions") or {}
    if names:
        described = words if isinstance(words, dict) else dict(zip(names, words, strict=True))
        return [(str(label), *([described[label]] if label in described else [])) for label in names]
    subset = timm.data.infer_imagenet_subset(model)
    if not subset or not IMAGENET.search(config.get("tag") or ""):
        return None
    info = timm.data.ImageNetInfo(subset)
    return list(zip(info.label_names(), info.label_descriptions(), strict=True))


def _hint(name: str, checkpoint: str | None) -> str:
    """What to do about weights that don't load."""
    import timm.models

    if checkpoint or name.startswith(LOCAL):
        return "Its files don't belong together or are damaged."
    if name.startswith(HUB):
        return hub.how_to_fetch(name[len(HUB) :], f"{LOCAL}FOLDER")
    known = timm.models.get_pretrained_cfg(name)
    if known and known.hf_hub_id:
        repository = (
            known.hf_hub_id
            if not known.hf_hub_id.endswith("/")
            else f"{known.hf_hub_id}{known.architecture}.{known.tag}"
        )
        return hub.how_to_fetch(repository, f"{LOCAL}FOLDER")
    return "timm has no weights by that name; give a checkpoint."
