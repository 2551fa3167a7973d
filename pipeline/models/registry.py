"""Every back end by seam and name. Adding one is a line here, or an entry point `cuescope.<seam>` in any package.

A line names a factory as "module:function"; nothing is imported until the back end is used. The factory's
keyword-only parameters are the options that its section of a configuration may hold; parameters without a
default are required. What the chain itself supplies (classes, device, seed) comes by position; after that a factory may
name what else it needs of the audit: `cache` (the folder of the feature cache), `ledger` (the log of paid calls),
`model`, `encoder`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

from pipeline.errors import UserError, nearest

BUILT_IN: dict[str, dict[str, str]] = {
    "source": {
        "folder": "pipeline.sources.folder:folder",
        "manifest": "pipeline.sources.manifest:manifest",
        "coco": "pipeline.sources.coco:coco",
        "huggingface": "pipeline.sources.huggingface:huggingface",
        "webdataset": "pipeline.sources.webdataset:webdataset",
    },
    "model": {
        "open_clip": "pipeline.models.open_clip_model:open_clip_classifier",
        "transformers_zero_shot": "pipeline.models.transformers_zero_shot:transformers_zero_shot",
        "transformers": "pipeline.models.transformers_classifier:transformers_classifier",
        "timm": "pipeline.models.timm_model:timm_classifier",
        "torchvision": "pipeline.models.torchvision_model:torchvision_classifier",
        "onnx": "pipeline.models.onnx_model:onnx_classifier",
        "predictions": "pipeline.models.predictions_file:predictions_file",
        "python": "pipeline.models.python_model:python_classifier",
        "openai_vision": "pipeline.models.openai_vision:openai_vision",
        "transformers_vision": "pipeline.models.transformers_vision:transformers_vision",
        "answers_file": "pipeline.models.answers_file:answers_file",
    },
    "caption": {
        "openai": "pipeline.models.openai_captioner:openai_captioner",
        "transformers": "pipeline.models.transformers_captioner:transformers_captioner",
        "data": "pipeline.models.data_captioner:data_captioner",
    },
    "propose": {
        "captions": "pipeline.models.caption_mining:caption_mining",
        "openai": "pipeline.models.openai_proposer:openai_proposer",
        "list": "pipeline.models.list_proposer:list_proposer",
        "checklist": "pipeline.models.checklist_proposer:checklist_proposer",
        "union": "pipeline.models.union_proposer:union_proposer",
    },
    "detect": {
        "clip_regions": "pipeline.models.clip_regions:clip_regions",
        "grounding_dino": "pipeline.models.grounding_dino:grounding_dino",
        "owlv2": "pipeline.models.owlv2:owlv2",
        "yolo_world": "pipeline.models.yolo_world:yolo_world",
        "data": "pipeline.models.data_detector:data_detector",
        "yoloe": "pipeline.models.yoloe:yoloe",
    },
    "embed": {
        "model": "pipeline.models.model_encoder:model_encoder",
        "open_clip": "pipeline.models.open_clip_encoder:open_clip_encoder",
        "python": "pipeline.models.python_model:python_encoder",
    },
    "fill": {
        "mean": "pipeline.models.fills:mean",
        "blur": "pipeline.models.fills:blur",
        "inpaint": "pipeline.models.fills:inpaint",
        "patch": "pipeline.models.fills:patch",
    },
    "export": {
        "label-studio": "pipeline.export.label_studio:export_label_studio",
        "csv": "pipeline.export.csv_file:export_csv",
    },
}

FURTHER = ("cache", "ledger", "model", "encoder")


def names(seam: str) -> dict[str, str]:
    """Every known back end of a seam: name to "module:function"; a third party's name may not hide a built-in one."""
    found = {point.name: point.value for point in entry_points(group=f"cuescope.{seam}")}
    return {**found, **BUILT_IN[seam]}


def factory(seam: str, kind: str) -> Callable[..., Any]:
    """The factory of a back end.

    Raises:
        UserError: no such back end (with the nearest name), or its package is not installed.
    """
    known = names(seam)
    if kind not in known:
        raise UserError(f"{seam}: there is no back end '{kind}'. {nearest(kind, known)}")
    module, _, function = known[kind].partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        what = f"{seam}: the back end '{kind}' needs the package '{error.name}'"
        raise UserError(f"{what}: pip install {error.name}") from error


def further(seam: str, kind: str) -> list[str]:
    """What of FURTHER a back end's factory asks for, by the names of its parameters that are no options."""
    parameters = inspect.signature(factory(seam, kind)).parameters.values()
    return [p.name for p in parameters if p.name in FURTHER and p.kind is p.POSITIONAL_OR_KEYWORD]


def check_options(seam: str, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a back end, checked against its factory's signature and completed with its defaults.

    Raises:
        UserError: an unknown option (with the nearest name), a missing one, or one of a wrong type.
    """
    parameters = inspect.signature(factory(seam, kind), eval_str=True).parameters.values()
    keyword = {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    for name in options:
        if name not in keyword:
            hint = nearest(name, keyword) if keyword else "It takes no options."
            raise UserError(f"{seam}: the back end '{kind}' has no option '{name}'. {hint}")
    fields: dict[str, Any] = {
        name: (p.annotation, ... if p.default is inspect.Parameter.empty else p.default) for name, p in keyword.items()
    }
    model = create_model(f"{seam}.{kind}", __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields)
    try:
        return TypeAdapter(model).validate_python(options).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{seam}: option '{where}' of the back end '{kind}': {first['msg'].lower()}.") from None
