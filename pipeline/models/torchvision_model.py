"""A classifier under test: a model of torchvision, by its published weights or a file, with the weights' transforms."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, nearest
from pipeline.models import devices, fingerprints, hub
from pipeline.models.batching import Batch, Batches
from pipeline.models.devices import Precision
from pipeline.models.labels import Mapped, match, named
from pipeline.models.torch_classifier import Loaded, TorchClassifier

AS_PUBLISHED = {"aux_logits": False, "init_weights": False, "transform_input": True}
INCEPTION: dict[str, dict[str, bool]] = {"googlenet": AS_PUBLISHED, "inception_v3": AS_PUBLISHED}
"""How torchvision itself makes these for its weights; the auxiliary heads only help in training."""


def torchvision_classifier(
    classes: tuple[str, ...],
    device: str,
    *,
    name: str,
    weights: str = "DEFAULT",
    checkpoint: str | None = None,
    labels: list[str] = [],  # noqa: B006
    mapping: dict[str, Mapped] = {},  # noqa: B006
    precision: Precision = "auto",
    batch: Batch = "auto",
    trust_pickle: bool = False,
) -> TorchClassifier:
    """A classifier of torchvision, by its published weights or a file, with the weights' own transforms.

    Args:
        classes: the audit's, each to be found among the model's labels.
        device: auto, cpu, cuda, cuda:1, mps.
        name: a classification model that torchvision knows, such as "resnet50".
        weights: which of its published weights, such as "IMAGENET1K_V2"; images go through their own transforms.
        checkpoint: a file of weights (a state dict) instead of those; `weights` then names the transforms alone, and
            `labels` says how many outputs there are.
        labels: names of the model's outputs in order; needed with a checkpoint.
        mapping: for a class of another name, or of several of the model's labels: `{dog: [beagle, pug]}`.
        precision: auto (bf16 or fp16 on cuda, else fp32), fp32, bf16, fp16.
        batch: most images in one forward, or auto: as many as fit; it doesn't change the answers.
        trust_pickle: a checkpoint that isn't safetensors is a pickle and can run code when it is opened. (Published
            weights are checked against their hash, and nothing but tensors is read of them.)

    Raises:
        UserError: the file isn't there, is a pickle that isn't trusted, or `labels` or `mapping` don't fit.
    """
    if importlib.util.find_spec("torchvision") is None:
        raise UserError("model: the back end 'torchvision' needs the package: pip install torchvision")
    if checkpoint:
        if not Path(checkpoint).is_file():
            raise UserError(f"model: there is no checkpoint {checkpoint}. Give the path of a file of weights.")
        hub.refuse_pickle("model", Path(checkpoint), trust_pickle)
        match(classes, named(labels, None, None), mapping)

    def options() -> dict[str, Any]:
        return {
            "name": name,
            "weights": weights if weights != "DEFAULT" else ["DEFAULT", version("torchvision")],
            "checkpoint": checkpoint and fingerprints.of_path(checkpoint),
            "classes": classes,
            "labels": labels,
            "mapping": mapping,
        }

    load = partial(_load, classes, name, weights, checkpoint, labels, mapping, trust_pickle)
    return TorchClassifier("torchvision_classifier/1", options, load, len(classes), device, precision, Batches(batch))


def _load(
    classes: Sequence[str],
    name: str,
    weights: str,
    checkpoint: str | None,
    labels: list[str],
    mapping: dict[str, Mapped],
    trust_pickle: bool,
    device: str,
    precision: Precision,
) -> Loaded:
    import torch
    import torchvision.models
    from PIL import Image

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UserError(f"model: torchvision knows no classification model '{name}'. {nearest(name, known)}")
    published = torchvision.models.get_model_weights(name)
    if weights not in published.__members__:
        raise UserError(f"model: {name} has no weights '{weights}'. {nearest(weights, published.__members__)}")
    chosen: Any = published[weights]
    names = None if checkpoint else [(label,) for label in chosen.meta["categories"]]
    outputs = named(labels, names, None if names is None else len(names))
    module = torchvision.models.get_model(name, weights=None, num_classes=len(outputs), **INCEPTION.get(name, {}))
    try:
        state = _state(checkpoint, trust_pickle) if checkpoint else _published(chosen)
        auxiliary = [key for key in state if name in INCEPTION and key.lower().startswith("aux")]
        module.load_state_dict({key: value for key, value in state.items() if key not in auxiliary})
    except UserError:
        raise
    except Exception as error:  # pickle, zip, torch and safetensors raise many types
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"model: {checkpoint or chosen} can't be loaded into {name}: {reason} Its `labels`, or the file, may be "
            "those of another model, or the file is damaged."
        ) from error
    transform: Any = chosen.transforms()
    return Loaded(
        module.eval().to(device, devices.dtype(precision), memory_format=torch.channels_last),
        lambda images: torch.stack([transform(Image.fromarray(image)) for image in images]),
        match(classes, outputs, mapping),
    )


def _state(checkpoint: str, trust_pickle: bool) -> Any:
    from timm.models import load_state_dict  # knows how training scripts wrap a state dict

    return load_state_dict(checkpoint, weights_only=not trust_pickle)


def _published(weights: Any) -> Any:
    """The published state dict, from torch's own cache or the network."""
    import torch

    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    reason = "the network is switched off (HF_HUB_OFFLINE)"
    if target.is_file() or not hub.offline():
        try:
            return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except OSError as error:
            reason = str(error)
    raise UserError(
        f"model: the weights {weights} are not on this machine, and {reason}. Download {weights.url} where there is a "
        f"network, and put it at {target}"
    )
