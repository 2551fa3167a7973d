"""Every back end by seam and name. Adding one is a line here, or an entry point `cuescope.<seam>` in any package.

A line names a factory as "module:function", with what docs/back-ends.md says of it; nothing is imported until the back
end is used. The factory's keyword-only parameters are the options that its section of a configuration may hold;
parameters without a default are required. What the chain itself supplies (classes, device, seed) comes by position;
after that a factory may name what else it needs of the audit: `cache` (the folder of the feature cache), `ledger` (the
log of paid calls), `model`, `encoder`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

from pipeline.errors import UserError, nearest


@dataclass(frozen=True)
class BackEnd:
    """A line of the registry: where a back end is made, and what docs/back-ends.md says that its factory can't tell.

    Args:
        where: "module:function".
        example: the options of an example section, as they stand in a configuration.
        tested: the tests that run it, and `on` what kind of data or model.
        needs: packages that its work is done by, beyond those of every audit; "package for what" where it isn't
            always needed.
    """

    where: str
    example: str
    tested: str
    on: str
    needs: tuple[str, ...] = ()


CLIP, TRANSFORMERS = ("torch", "open_clip_torch"), ("torch", "transformers")
CHAT, YOLO = (*TRANSFORMERS, "num2words for SmolVLM"), (*CLIP, "ultralytics")

RANDOM = "tiny models of the same classes, randomly initialised"
TRAINED = "the project's tiny model, trained on rendered scenes"
BOTH = f"{RANDOM}; {TRAINED} in `tests/test_demo.py`"
FILES, LISTS, CODE, ARRAYS = "small files", "captions and lists", "classes of the test's own", "small arrays"
SERVER = "a server on the same machine that answers as it is told"
AGREE = "; one that leans on planted cues in `tests/test_families_agree.py`"

BUILT_IN: dict[str, dict[str, BackEnd]] = {
    "source": {
        "folder": BackEnd("pipeline.sources.folder:folder", "path: photos", "tests/test_chain.py", FILES),
        "manifest": BackEnd(
            "pipeline.sources.manifest:manifest", "path: photos.csv", "tests/sources/test_manifest.py", FILES
        ),
        "coco": BackEnd(
            "pipeline.sources.coco:coco",
            "path: instances.json",
            "tests/sources/test_coco.py",
            FILES,
            ("pycocotools for run-length masks",),
        ),
        "huggingface": BackEnd(
            "pipeline.sources.huggingface:huggingface",
            "name: org/photos",
            "tests/sources/test_huggingface.py",
            FILES,
            ("datasets",),
        ),
        "webdataset": BackEnd(
            "pipeline.sources.webdataset:webdataset", "path: shards/*.tar", "tests/sources/test_webdataset.py", FILES
        ),
    },
    "model": {
        "open_clip": BackEnd(
            "pipeline.models.open_clip_model:open_clip_classifier",
            "name: ViT-B-32, pretrained: laion2b_s34b_b79k",
            "tests/models/test_open_clip.py",
            BOTH + AGREE,
            CLIP,
        ),
        "transformers_zero_shot": BackEnd(
            "pipeline.models.transformers_zero_shot:transformers_zero_shot",
            "name: google/siglip-base-patch16-224",
            "tests/models/test_transformers_models.py",
            RANDOM,
            TRANSFORMERS,
        ),
        "transformers": BackEnd(
            "pipeline.models.transformers_classifier:transformers_classifier",
            "name: google/vit-base-patch16-224",
            "tests/models/test_transformers_models.py",
            RANDOM,
            TRANSFORMERS,
        ),
        "timm": BackEnd(
            "pipeline.models.timm_model:timm_classifier",
            "name: resnet50.a1_in1k",
            "tests/models/test_timm_torchvision.py",
            RANDOM + AGREE,
            ("torch", "timm"),
        ),
        "torchvision": BackEnd(
            "pipeline.models.torchvision_model:torchvision_classifier",
            "name: resnet50",
            "tests/models/test_timm_torchvision.py",
            RANDOM,
            ("torch", "torchvision"),
        ),
        "onnx": BackEnd(
            "pipeline.models.onnx_model:onnx_classifier",
            "path: model.onnx",
            "tests/models/test_onnx.py",
            RANDOM + AGREE,
            ("onnxruntime",),
        ),
        "predictions": BackEnd(
            "pipeline.models.predictions_file:predictions_file",
            "path: predictions.csv",
            "tests/models/test_predictions_file.py",
            FILES + AGREE,
        ),
        "python": BackEnd(
            "pipeline.models.python_model:python_classifier",
            'factory: "my_module:my_model"',
            "tests/models/test_python_model.py",
            CODE,
        ),
        "openai_vision": BackEnd(
            "pipeline.models.openai_vision:openai_vision",
            "model: gpt-4o-mini",
            "tests/models/test_vision_models.py",
            SERVER + AGREE,
            ("openai",),
        ),
        "transformers_vision": BackEnd(
            "pipeline.models.transformers_vision:transformers_vision",
            "name: HuggingFaceTB/SmolVLM-256M-Instruct",
            "tests/models/test_vision_models.py",
            TRAINED + AGREE,
            CHAT,
        ),
        "answers_file": BackEnd(
            "pipeline.models.answers_file:answers_file",
            "path: answers.csv",
            "tests/models/test_vision_models.py",
            FILES,
        ),
    },
    "caption": {
        "openai": BackEnd(
            "pipeline.models.openai_captioner:openai_captioner",
            "model: gpt-4o-mini",
            "tests/models/test_openai_captioner.py",
            SERVER,
            ("openai",),
        ),
        "transformers": BackEnd(
            "pipeline.models.transformers_captioner:transformers_captioner",
            "name: HuggingFaceTB/SmolVLM-256M-Instruct",
            "tests/models/test_captioner_families.py",
            BOTH,
            CHAT,
        ),
        "data": BackEnd("pipeline.models.data_captioner:data_captioner", "", "tests/stages/test_caption.py", FILES),
    },
    "propose": {
        "captions": BackEnd(
            "pipeline.models.caption_mining:caption_mining", "", "tests/models/test_caption_mining.py", LISTS
        ),
        "openai": BackEnd(
            "pipeline.models.openai_proposer:openai_proposer",
            "model: gpt-4o-mini",
            "tests/models/test_openai_proposer.py",
            SERVER,
            ("openai",),
        ),
        "list": BackEnd(
            "pipeline.models.list_proposer:list_proposer",
            "attributes: [snow, a harbor]",
            "tests/models/test_list_proposer.py",
            LISTS,
        ),
        "checklist": BackEnd(
            "pipeline.models.checklist_proposer:checklist_proposer", "", "tests/models/test_union_proposer.py", LISTS
        ),
        "union": BackEnd(
            "pipeline.models.union_proposer:union_proposer",
            "members: [{kind: captions}, {kind: checklist}]",
            "tests/models/test_union_proposer.py",
            LISTS,
        ),
    },
    "detect": {
        "clip_regions": BackEnd(
            "pipeline.models.clip_regions:clip_regions", "", "tests/models/test_clip_regions.py", RANDOM, CLIP
        ),
        "grounding_dino": BackEnd(
            "pipeline.models.grounding_dino:grounding_dino",
            "name: IDEA-Research/grounding-dino-tiny",
            "tests/models/test_grounding_dino.py",
            RANDOM,
            TRANSFORMERS,
        ),
        "owlv2": BackEnd(
            "pipeline.models.owlv2:owlv2",
            "name: google/owlv2-base-patch16-ensemble",
            "tests/models/test_owlv2.py",
            RANDOM,
            TRANSFORMERS,
        ),
        "yolo_world": BackEnd(
            "pipeline.models.yolo_world:yolo_world",
            "name: yolov8s-worldv2.pt, text_model: ViT-B-32, text_pretrained: openai",
            "tests/models/test_yolo_world.py",
            BOTH,
            YOLO,
        ),
        "data": BackEnd("pipeline.models.data_detector:data_detector", "", "tests/sources/test_manifest.py", FILES),
        "yoloe": BackEnd(
            "pipeline.models.yoloe:yoloe",
            "name: yoloe-11s-seg.pt, text_model: MobileCLIP-B, text_pretrained: datacompdr_lt",
            "tests/models/test_yoloe.py",
            RANDOM,
            YOLO,
        ),
    },
    "embed": {
        "model": BackEnd(
            "pipeline.models.model_encoder:model_encoder", "", "tests/models/test_model_encoder.py", RANDOM
        ),
        "open_clip": BackEnd(
            "pipeline.models.open_clip_encoder:open_clip_encoder",
            "name: ViT-B-32, pretrained: laion2b_s34b_b79k",
            "tests/models/test_encoder.py",
            BOTH,
            CLIP,
        ),
        "python": BackEnd(
            "pipeline.models.python_model:python_encoder",
            'factory: "my_module:my_encoder"',
            "tests/models/test_python_model.py",
            CODE,
        ),
    },
    "fill": {
        "mean": BackEnd("pipeline.models.fills:mean", "", "tests/models/test_fills.py", ARRAYS),
        "blur": BackEnd("pipeline.models.fills:blur", "", "tests/models/test_fills.py", ARRAYS),
        "inpaint": BackEnd("pipeline.models.fills:inpaint", "", "tests/models/test_fills.py", ARRAYS),
        "patch": BackEnd("pipeline.models.fills:patch", "", "tests/models/test_fills.py", ARRAYS),
    },
    "export": {
        "label-studio": BackEnd(
            "pipeline.export.label_studio:export_label_studio", "", "tests/export/test_label_studio.py", FILES
        ),
        "coco": BackEnd("pipeline.export.coco:export_coco", "", "tests/export/test_coco.py", FILES),
        "csv": BackEnd("pipeline.export.csv_file:export_csv", "", "tests/export/test_csv_file.py", FILES),
        "jsonl": BackEnd("pipeline.export.jsonl_file:export_jsonl", "", "tests/export/test_jsonl_file.py", FILES),
        "imagefolder": BackEnd(
            "pipeline.export.imagefolder:export_imagefolder", "", "tests/export/test_imagefolder.py", FILES
        ),
        "groups": BackEnd("pipeline.export.groups:export_groups", "", "tests/export/test_groups.py", FILES),
    },
}

FURTHER = ("cache", "ledger", "model", "encoder")


@functools.lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> Any:
    """What the packages on this path offer: to ask reads a file of each of them."""
    return entry_points()


def names(seam: str) -> dict[str, str]:
    """Every known back end of a seam: name to "module:function"; a third party's name may not hide a built-in one."""
    found = {point.name: point.value for point in _installed(tuple(sys.path)).select(group=f"cuescope.{seam}")}
    return {**found, **{kind: back_end.where for kind, back_end in BUILT_IN[seam].items()}}


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
        made_by = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        what = f"{seam}: the back end '{kind}' needs the package '{error.name}'"
        raise UserError(f"{what}: pip install {error.name}") from error
    except Exception as error:  # another package's own code, whatever it raises
        if kind in BUILT_IN[seam]:
            raise
        raise UserError(f"{_theirs(seam, kind)}, fails at import: {type(error).__name__}: {error}") from error
    if not callable(made_by):
        raise UserError(f"{_theirs(seam, kind)}, can't be made: {module} has no function '{function}'.")
    return made_by


def _theirs(seam: str, kind: str) -> str:
    return f"{seam}: the back end '{kind}', which another package brings as {names(seam)[kind]}"


def further(seam: str, kind: str) -> list[str]:
    """What of FURTHER a back end's factory asks for, by the names of its parameters that are no options."""
    parameters = inspect.signature(factory(seam, kind)).parameters.values()
    return [p.name for p in parameters if p.name in FURTHER and p.kind is p.POSITIONAL_OR_KEYWORD]


def check_options(seam: str, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a back end, checked against its factory's signature and completed with its defaults.

    Raises:
        UserError: an unknown option (with the nearest name), a missing one, or one of a wrong type.
    """
    try:
        parameters = inspect.signature(factory(seam, kind), eval_str=True).parameters.values()
    except NameError as error:  # an annotation whose name is only imported for type checking
        raise UserError(f"{_theirs(seam, kind)}, can't be checked: an option's type isn't known ({error}).") from error
    keyword = {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    for name in options:
        if name not in keyword:
            hint = nearest(name, keyword) if keyword else "It takes no options."
            raise UserError(f"{seam}: the back end '{kind}' has no option '{name}'. {hint}")
    empty = inspect.Parameter.empty
    fields: dict[str, Any] = {
        name: (Any if p.annotation is empty else p.annotation, ... if p.default is empty else p.default)
        for name, p in keyword.items()
    }
    model = create_model(f"{seam}.{kind}", __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields)
    try:
        return TypeAdapter(model).validate_python(options).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{seam}: option '{where}' of the back end '{kind}': {first['msg'].lower()}.") from None
