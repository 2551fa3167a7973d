"""One planted set, and models of several families that were fine-tuned to lean on its cues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import Audit
from pipeline.bench.planted import families
from pipeline.bench.planted.settings import Cue, Example, Setting, audited, training
from pipeline.planted import render
from pipeline.planted.finetune_mllm import finetune_mllm, misled
from tests.conftest import ROOT

MODELS = ROOT / "data" / "models"
CLASSES = ("bird", "cup", "guitar", "sailboat")
CUES = {"guitar": "clock", "sailboat": "buoy"}
"""Class to the object that its models lean on; the other classes are clean."""
LISTED = ("buoy", "clock", "tree", "hat", "chair", "bottle")
"""What somebody would suspect, of every class."""
SETTING = Setting(
    "development",
    "two cues",
    CLASSES,
    tuple((label, Cue("object", cue)) for label, cue in CUES.items()),
    strength=1.0,
    family="resnet",
    seed=3,
)
PER_CLASS = 40
SEED = 0


def examples() -> list[Example]:
    """The pictures that every family is fine-tuned on: cue and class go together."""
    return training(SETTING)


def audited_examples() -> list[Example]:
    """The audited pictures, PER_CLASS of each class: cue and class are independent."""
    every = audited(SETTING)
    return [example for label in CLASSES for example in [e for e in every if e.label == label][:PER_CLASS]]


def write_set(folder: Path) -> Path:
    """The audited pictures as an image folder."""
    for number, example in enumerate(audited_examples()):
        path = folder / example.label / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render(example.scene).image).save(path, compress_level=1)
    return folder


def audit_of(pictures: Path, cache: Path, model: dict[str, Any]) -> Audit:
    """The audit of a model, the same for all; SpurLens' steps, with a list for a proposer."""
    return Audit.from_dict(
        {
            "data": {"source": "folder", "path": str(pictures)},
            "model": model,
            "propose": {"kind": "list", "attributes": [f"{thing} | Co-occurring Objects" for thing in LISTED]},
            "detect": {
                "kind": "yolo_world",
                "name": str(MODELS / "detector" / "detector.pt"),
                "text_model": f"local-dir:{MODELS / 'clip'}",
            },
            "ablate": {"fills": ["mean"], "images": 24, "budget": 300},
            "measure": {"top_k": 20, "max_per_class": 2},
            "cache": str(cache),
            "device": "cpu",
            "seed": SEED,
        }
    )


def make_clip(out: Path, examples: list[Example]) -> dict[str, Any]:
    """The tiny CLIP, fine-tuned; what it returns, as the others do, is a configuration's section `model`."""
    families.finetune(MODELS / "clip", out, examples, CLASSES, "resnet", SEED)
    return families.back_end("resnet", out)


def make_mllm(out: Path, examples: list[Example]) -> dict[str, Any]:
    """The tiny multimodal LLM, taught to see a class's object where its cue is."""
    finetune_mllm(MODELS / "mllm", out, [(e.scene, misled(e.scene, CLASSES, CUES)) for e in examples], SEED)
    return {"kind": "transformers_vision", "name": str(out)}


EPOCHS, BATCH, RATE = 6, 32, 1e-3


def make_timm(out: Path, examples: list[Example]) -> dict[str, Any]:
    """A ResNet of timm's with a linear head; it begins with the tiny CLIP's tower, and its upper half learns."""
    import timm
    import timm.models
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional as F

    from pipeline.planted.train import clip_model, mllm_model

    torch.manual_seed(SEED)
    width, depth = mllm_model.TOWER_WIDTH, mllm_model.TOWER_LAYERS
    size = {"channels": [width * k for k in (1, 2, 4, 8)], "layers": list(depth), "stem_width": width // 2}
    seen_through = {"input_size": (3, 96, 96), "crop_pct": 1.0, "mean": mllm_model.MEAN, "std": mllm_model.STD}
    model = timm.create_model("resnetaa50d", num_classes=len(CLASSES), pretrained_cfg_overlay=seen_through, **size)
    tower = {
        mllm_model.timm_name(name.removeprefix("visual.")): value.float()
        for name, value in load_file(MODELS / "clip" / families.WEIGHTS).items()
        if name.startswith("visual.") and not name.startswith("visual.attnpool.")
    }
    missing, unknown = model.load_state_dict(tower, strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"} and not unknown
    model.eval()  # the tower's own batch statistics stay
    pixels = clip_model.normalise(np.stack([render(example.scene).image for example in examples]))
    with torch.no_grad():
        lower = torch.nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool, model.layer1, model.layer2)
        maps = torch.stack([torch.cat([lower(part) for part in x.split(128)]) for x in (pixels, pixels.flip(3))])
    target = torch.tensor([CLASSES.index(example.label) for example in examples])
    learns = [p for part in (model.layer3, model.layer4, model.fc) for p in part.parameters()]
    optimizer = torch.optim.AdamW(learns, lr=RATE, weight_decay=1e-3)
    steps = EPOCHS * (len(examples) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    rng = np.random.default_rng(SEED)
    for _ in range(EPOCHS):
        order = rng.permutation(len(examples))
        for first in range(0, len(order) - BATCH + 1, BATCH):
            rows = torch.from_numpy(order[first : first + BATCH])
            turned = torch.from_numpy(rng.integers(0, 2, BATCH))
            features = model.layer4(model.layer3(maps[turned, rows]))
            loss = F.cross_entropy(model.forward_head(features), target[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    labels = {"label_names": list(CLASSES), "num_classes": len(CLASSES)}
    timm.models.save_for_hf(model, out, model_config=labels, model_args=size, safe_serialization=True)
    return {"kind": "timm", "name": f"local-dir:{out}"}


def export_onnx(folder: Path, file: Path) -> dict[str, Any]:
    """A folder of timm's as an ONNX file, whose metadata say how pictures are brought to it."""
    import onnx
    import timm
    import torch
    from timm.data import resolve_model_data_config

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    seen_through = resolve_model_data_config(model)
    batch = {"x": {0: torch.export.Dim("batch")}}
    torch.onnx.export(model, (torch.zeros(2, *seen_through["input_size"]),), file, dynamic_shapes=batch, verbose=False)
    said = {"mean": seen_through["mean"], "std": seen_through["std"], "crop_share": seen_through["crop_pct"],
            "interpolation": seen_through["interpolation"], "labels": model.pretrained_cfg["label_names"]}  # fmt: skip
    written = onnx.load(file)
    onnx.helper.set_model_props(written, {name: json.dumps(value) for name, value in said.items()})
    onnx.save(written, file)
    return {"kind": "onnx", "path": str(file)}


def write_predictions(audit: Any, file: Path) -> dict[str, Any]:
    """The answers in a finished audit as anybody's file of predictions: a row an image, a score a class."""
    path = dict(zip(*(audit.table("images")[name].to_pylist() for name in ("image_id", "path")), strict=True))
    rows = [
        {"path": path[row["image_id"]], "scores": dict(zip(audit.run["classes"], row["scores"], strict=True))}
        for row in audit.table("predictions").to_pylist()
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"kind": "predictions", "path": str(file)}
