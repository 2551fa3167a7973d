"""Models of a setting: the tiny CLIP (ResNet), a ViT distilled from it, and a plain classifier, each fine-tuned.

Only the upper part of the image tower learns, on features that the lower part gives once: a setting is made in
seconds. The text side stays frozen, as RaVL has it (arXiv 2411.04097, section 3.2).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.planted.settings import Example, Family
from pipeline.images import RGB
from pipeline.models import fingerprints
from pipeline.planted import render
from pipeline.planted.train import clip_model, data

VERSION = 2
SIZE = clip_model.IMAGE_SIZE
EPOCHS = 6
BATCH = 32
RATES = {"resnet": 1e-3, "vit": 6e-4, "classifier": 1e-3}
VIT = {"layers": 5, "width": 192, "head_width": 48, "patch_size": 12, "image_size": SIZE}
VIT_PICTURES = 24_000
VIT_EPOCHS = 6
VIT_RATE = 1e-3
PROMPT = "a photo of a {}"
WEIGHTS = "open_clip_model.safetensors"
HEAD = "head.npz"


@dataclass(frozen=True)
class Halves:
    """An image tower cut in two: `lower` maps pixels to hidden features, `upper` those to embeddings (n, d)."""

    lower: Callable[[Any], Any]
    upper: Callable[[Any], Any]
    learns: list[Any]  # parameters of the upper part


def halves(visual: Any) -> Halves:
    """Cut open_clip's ModifiedResNet after its second stage, its VisionTransformer in the middle."""
    if hasattr(visual, "layer4"):
        return Halves(
            lambda x: visual.layer2(visual.layer1(visual.stem(x))),
            lambda h: visual.attnpool(visual.layer4(visual.layer3(h))),
            [p for part in (visual.layer3, visual.layer4, visual.attnpool) for p in part.parameters()],
        )
    blocks = list(visual.transformer.resblocks)
    cut = len(blocks) // 2

    def lower(x: Any) -> Any:
        hidden = visual._embeds(x)
        for block in blocks[:cut]:
            hidden = block(hidden)
        return hidden

    def upper(hidden: Any) -> Any:
        for block in blocks[cut:]:
            hidden = block(hidden)
        return visual._pool(hidden)[0] @ visual.proj

    learns = [p for block in blocks[cut:] for p in block.parameters()]
    return Halves(lower, upper, [*learns, *visual.ln_post.parameters(), visual.proj])


def pixels(pictures: NDArray[np.uint8]) -> Any:
    """uint8 (n, s, s, 3) to what the towers see, (n, 3, s, s)."""
    return clip_model.normalise(pictures)


def finetune(
    start: Path, out: Path, examples: Sequence[Example], classes: Sequence[str], family: Family, seed: int
) -> None:
    """Fine-tune a tower on labelled scenes and write it into `out`: an open_clip folder, for a classifier with a head.

    start: the folder of the tower to begin from (the tiny CLIP, or its ViT).
    """
    import torch
    from torch.nn import functional as F

    torch.manual_seed(seed)
    model, tokenize = clip_model.load(start)
    tower = halves(model.visual)
    pictures = np.stack([render(e.scene, SIZE).image for e in examples])
    target = torch.tensor([list(classes).index(e.label) for e in examples])
    with torch.no_grad():
        seen = pixels(pictures)
        # both ways round, so that mirror images cost nothing later
        hidden = [
            torch.cat([tower.lower(part) for part in torch.split(x, 128)]) for x in (seen, seen.flip(3).contiguous())
        ]
        text = F.normalize(model.encode_text(tokenize([PROMPT.format(name) for name in classes])), dim=-1)
        scale = model.logit_scale.exp()
    head = torch.nn.Linear(text.shape[1], len(classes))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    learns = [*tower.learns, *(head.parameters() if family == "classifier" else [])]
    for parameter in tower.learns:
        parameter.requires_grad_(True)
    rate, rng = RATES[family], np.random.default_rng([seed, 8])
    optimizer = torch.optim.AdamW(learns, lr=rate, weight_decay=1e-3)
    per_epoch = len(target) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=EPOCHS * per_epoch)
    both = torch.stack(hidden)
    for _ in range(EPOCHS):
        order = rng.permutation(len(target))
        for step in range(per_epoch):
            batch = torch.from_numpy(order[step * BATCH : (step + 1) * BATCH])
            turned = torch.from_numpy(rng.integers(0, 2, len(batch)))
            features = tower.upper(both[turned, batch])
            if family == "classifier":
                logits = head(features.float())
            else:
                logits = scale * F.normalize(features.float(), dim=-1) @ text.T
            loss = F.cross_entropy(logits, target[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    _write(model, start, out)
    if family == "classifier":
        np.savez(out / HEAD, weight=head.weight.detach().numpy(), bias=head.bias.detach().numpy())


def _write(model: Any, start: Path, out: Path) -> None:
    """The model's weights beside the configuration and tokenizer of `start`; a reader never sees half of it."""
    from safetensors.torch import save_file

    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(start, part, ignore=shutil.ignore_patterns("*.safetensors", "README.md", HEAD))
    state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.state_dict().items()}
    save_file(state, str(part / WEIGHTS))
    shutil.rmtree(out, ignore_errors=True)
    os.replace(part, out)


def make_vit(clip: Path, out: Path, seed: int = 0) -> None:
    """Distil the tiny CLIP's image tower into a ViT of its own kind, the text side copied: `local-dir:{out}`.

    The loss is 1 less the cosine of the two embeddings, on rendered pictures of the training stream.
    """
    import torch
    from torch.nn import functional as F

    torch.manual_seed(seed)
    teacher, _ = clip_model.load(clip)
    config = json.loads((clip / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
    config["vision_cfg"] = VIT
    student: Any = clip_model.build_model(config)
    words = {k: v for k, v in teacher.state_dict().items() if not k.startswith("visual.")}
    student.load_state_dict(words, strict=False)
    rng = np.random.default_rng([data.TRAINING, 7, seed])
    scenes = [data.sample_mixed(rng) for _ in range(VIT_PICTURES)]
    pictures = np.stack([render(scene, SIZE).image for scene in scenes])
    with torch.no_grad():
        wanted = torch.cat(
            [
                F.normalize(teacher.encode_image(pixels(pictures[i : i + 256])), dim=-1)
                for i in range(0, len(pictures), 256)
            ]
        )
    optimizer = torch.optim.AdamW(student.visual.parameters(), lr=VIT_RATE, weight_decay=0.05)
    batch = 64
    steps = VIT_EPOCHS * (len(pictures) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, VIT_RATE, total_steps=steps, pct_start=0.1)
    bf16 = torch.cpu._is_avx512_bf16_supported()
    student.visual.train()
    for _ in range(VIT_EPOCHS):
        order = rng.permutation(len(pictures))
        for step in range(len(order) // batch):
            rows = order[step * batch : (step + 1) * batch]
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                features = student.encode_image(pixels(pictures[rows]))
            loss = (1 - F.cosine_similarity(features.float(), wanted[rows])).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.visual.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    student.eval()
    _write(student, clip, out)
    text = json.dumps({"model_cfg": config, "preprocess_cfg": clip_model.PREPROCESS}, indent=2) + "\n"
    (out / "open_clip_config.json").write_text(text, encoding="utf-8")


class PlainClassifier:
    """An image tower with a linear head and no words: what `finetune` wrote for the family "classifier"."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.fingerprint = fingerprints.of_path(folder, (".safetensors", ".json", ".npz"))
        self._loaded: Any = None

    def logits(self, images: Sequence[RGB]) -> NDArray[np.float32]:
        """(n, classes) of pictures of any size."""
        import cv2
        import torch

        if self._loaded is None:
            model, _ = clip_model.load(self._folder)
            head = np.load(self._folder / HEAD)
            self._loaded = model.visual, head["weight"], head["bias"]
        visual, weight, bias = self._loaded
        parts = []
        with torch.inference_mode():
            for first in range(0, len(images), 64):
                rows = [cv2.resize(i, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for i in images[first : first + 64]]
                parts.append(visual(pixels(np.stack(rows))).float().numpy())
        features = np.concatenate(parts) if parts else np.zeros((0, weight.shape[1]), np.float32)
        return np.asarray(features @ weight.T + bias, dtype=np.float32)


def plain_classifier(classes: tuple[str, ...], device: str, *, folder: str) -> PlainClassifier:
    """A factory for `model: {kind: python}`; the head's columns are in the order of the setting's classes."""
    return PlainClassifier(Path(folder))


def back_end(family: Family, folder: Path) -> dict[str, Any]:
    """The section `model` of an audit of this model."""
    if family == "classifier":
        return {
            "kind": "python",
            "factory": "pipeline.bench.planted.families:plain_classifier",
            "options": {"folder": str(folder)},
        }
    return {"kind": "open_clip", "name": f"local-dir:{folder}", "templates": [PROMPT]}
