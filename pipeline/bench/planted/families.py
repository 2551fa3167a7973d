"""Models of a setting: the tiny CLIP (ResNet), a ViT on its lower half, and a plain classifier, each fine-tuned.

Only the upper part of the image tower learns, on features that the lower part gives once: a setting is made in
seconds. The text side stays frozen, as RaVL has it (arXiv 2411.04097, section 3.2).

The ViT is the hybrid of Dosovitskiy et al. (arXiv 2010.11929, section 3.1): a transformer over the patches of a
convolutional map, here of the tiny CLIP's second stage, distilled from the tiny CLIP: 0.81 zero-shot on fresh scenes
after 20 minutes on one core, its teacher having 0.96. (A ViT over plain patches came to 0.16 in an hour.)
"""

from __future__ import annotations

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

VERSION = 3
SIZE = clip_model.IMAGE_SIZE
EPOCHS = 6
BATCH = 32
RATES = {"resnet": 1e-3, "vit": 6e-4, "classifier": 1e-3}
VIT = {"layers": 4, "width": 160, "heads": 4, "patch": 2}
VIT_PICTURES = 12_000
VIT_EPOCHS = 10
VIT_RATE = 1.5e-3
VIT_SCALE = 30.0
"""What cosines are multiplied by before the softmax that the ViT is taught: softer than the teacher's own 100."""
PROMPT = "a photo of a {}"
WEIGHTS = "open_clip_model.safetensors"
VIT_WEIGHTS = "vit.safetensors"
HEAD = "head.safetensors"


@dataclass(frozen=True)
class Halves:
    """An image tower cut in two: `lower` maps pixels to a map of features, `upper` that to embeddings (n, d)."""

    lower: Callable[[Any], Any]
    upper: Callable[[Any], Any]
    learns: list[Any]  # parameters of the upper part


def lower_half(visual: Any) -> Callable[[Any], Any]:
    """open_clip's ModifiedResNet up to its second stage: pixels (n, 3, s, s) to (n, c, s / 8, s / 8)."""
    return lambda x: visual.layer2(visual.layer1(visual.stem(x)))


def halves(visual: Any, vit: Any = None) -> Halves:
    """Cut open_clip's ModifiedResNet after its second stage; with `vit`, that takes the place of the upper half."""
    if vit is not None:
        return Halves(lower_half(visual), vit, list(vit.parameters()))
    return Halves(
        lower_half(visual),
        lambda h: visual.attnpool(visual.layer4(visual.layer3(h))),
        [p for part in (visual.layer3, visual.layer4, visual.attnpool) for p in part.parameters()],
    )


def build_vit(channels: int, cells: int, embedding: int) -> Any:
    """An untrained transformer over the patches of a map (n, channels, cells, cells), to (n, embedding)."""
    import torch
    from torch import nn

    width, patch = VIT["width"], VIT["patch"]

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(channels, width, patch, stride=patch)
            self.summary = nn.Parameter(torch.randn(1, 1, width) * 0.02)
            self.places = nn.Parameter(torch.randn(1, (cells // patch) ** 2 + 1, width) * 0.02)
            layer = nn.TransformerEncoderLayer(
                width, VIT["heads"], 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.blocks = nn.TransformerEncoder(layer, VIT["layers"], enable_nested_tensor=False)
            self.norm = nn.LayerNorm(width)
            self.project = nn.Linear(width, embedding, bias=False)

        def forward(self, features: Any) -> Any:
            tokens = self.patches(features).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.summary.expand(len(tokens), -1, -1), tokens], dim=1) + self.places
            return self.project(self.norm(self.blocks(tokens)[:, 0]))

    return Transformer()


def pixels(pictures: NDArray[np.uint8]) -> Any:
    """uint8 (n, s, s, 3) to what the towers see, (n, 3, s, s)."""
    return clip_model.normalise(pictures)


def finetune(
    start: Path, out: Path, examples: Sequence[Example], classes: Sequence[str], family: Family, seed: int
) -> None:
    """Fine-tune a tower on labelled scenes and write it into `out`: an open_clip folder, with a head where the family
    isn't read as one.

    start: the folder of the tower to begin from (the tiny CLIP, or what `make_vit` wrote).
    """
    import torch
    from torch.nn import functional as F

    torch.manual_seed(seed)
    model, tokenize = clip_model.load(start)
    vit: Any = load_vit(model.visual, start) if family == "vit" else None
    tower = halves(model.visual, vit)
    pictures = np.stack([render(e.scene, SIZE).image for e in examples])
    target = torch.tensor([list(classes).index(e.label) for e in examples])
    with torch.no_grad():
        # both ways round, so that mirror images cost nothing later
        both = torch.stack([lower_features(tower, pictures), lower_features(tower, pictures[:, :, ::-1])])
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
    for _ in range(EPOCHS):
        order = rng.permutation(len(target))
        for step in range(per_epoch):
            batch = torch.from_numpy(order[step * BATCH : (step + 1) * BATCH])
            turned = torch.from_numpy(rng.integers(0, 2, len(batch)))
            features = tower.upper(both[turned, batch]).float()
            logits = head(features) if family == "classifier" else scale * F.normalize(features, dim=-1) @ text.T
            _step(F.cross_entropy(logits, target[batch]), optimizer, schedule)
    if family == "resnet":
        _write(out, start, {WEIGHTS: model.state_dict()})
    elif family == "vit":
        _write(out, start, {WEIGHTS: model.state_dict(), VIT_WEIGHTS: vit.state_dict(), HEAD: {"text": scale * text}})
    else:
        _write(out, start, {WEIGHTS: model.state_dict(), HEAD: head.state_dict()})


def lower_features(tower: Halves, pictures: NDArray[np.uint8]) -> Any:
    """The lower half's maps of pictures (n, s, s, 3), without gradients."""
    import torch

    with torch.no_grad():
        parts = [pictures[i : i + 128] for i in range(0, len(pictures), 128)]
        return torch.cat([tower.lower(pixels(np.ascontiguousarray(part))) for part in parts])


def _step(loss: Any, optimizer: Any, schedule: Any) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    schedule.step()


def _write(out: Path, start: Path, weights: dict[str, dict[str, Any]]) -> None:
    """Files of weights beside the configuration and tokenizer of `start`; a reader never sees half of it."""
    from safetensors.torch import save_file

    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(start, part, ignore=shutil.ignore_patterns("*.safetensors", "README.md"))
    for name, state in weights.items():
        half = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}
        save_file(half, str(part / name))
    shutil.rmtree(out, ignore_errors=True)
    os.replace(part, out)


def make_vit(clip: Path, out: Path, seed: int = 0) -> None:
    """Distil the upper half of the tiny CLIP's image tower into a transformer, and write it beside a copy of the CLIP.

    The loss is the divergence of the softmax over the cosines with the world's phrases, on rendered pictures of the
    training stream, seen both ways round.
    """
    import torch
    from torch.nn import functional as F

    torch.manual_seed(seed)
    teacher, tokenize = clip_model.load(clip)
    tower = halves(teacher.visual)
    rng = np.random.default_rng([data.TRAINING, 7, seed])
    with torch.no_grad():
        words = F.normalize(teacher.encode_text(tokenize([PROMPT.format(phrase) for phrase in data.PHRASES])), dim=-1)
        maps, wanted = [], []
        for _ in range(0, VIT_PICTURES, 500):
            shots = np.stack([render(data.sample_mixed(rng), SIZE).image for _ in range(min(500, VIT_PICTURES))])
            for turned in (shots, shots[:, :, ::-1]):
                features = lower_features(tower, turned)
                maps.append(features.to(torch.bfloat16))  # 12,000 pictures both ways round: 1.3 GB
                embeddings = torch.cat([tower.upper(part) for part in features.split(128)])
                wanted.append((VIT_SCALE * F.normalize(embeddings, dim=-1) @ words.T).softmax(dim=1))
    seen, target = torch.cat(maps), torch.cat(wanted)
    vit = build_vit(seen.shape[1], seen.shape[2], words.shape[1]).train()
    optimizer = torch.optim.AdamW(vit.parameters(), lr=VIT_RATE, weight_decay=0.05)
    batch = min(128, len(seen) // 2)
    steps = VIT_EPOCHS * (VIT_PICTURES // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, VIT_RATE, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        rows = torch.from_numpy(rng.integers(0, len(seen), batch))
        logits = VIT_SCALE * F.normalize(vit(seen[rows].float()), dim=-1) @ words.T
        _step(F.kl_div(logits.log_softmax(dim=1), target[rows], reduction="batchmean"), optimizer, schedule)
    _write(out, clip, {WEIGHTS: teacher.state_dict(), VIT_WEIGHTS: vit.state_dict()})


def load_vit(visual: Any, folder: Path) -> Any:
    """The transformer of a folder, over the maps of `visual`."""
    import torch
    from safetensors.torch import load_file

    state = {name: value.float() for name, value in load_file(str(folder / VIT_WEIGHTS)).items()}
    with torch.no_grad():
        channels, cells = lower_half(visual)(torch.zeros(1, 3, SIZE, SIZE)).shape[1:3]
    vit = build_vit(channels, cells, state["project.weight"].shape[0])
    vit.load_state_dict(state)
    return vit.eval()


class Tower:
    """An image tower with a head of numbers: what `finetune` wrote for the families "vit" and "classifier"."""

    def __init__(self, folder: Path, n_classes: int) -> None:
        self._folder, self._n_classes = folder, n_classes
        self.fingerprint = fingerprints.of_path(folder, (".safetensors", ".json"))
        self._loaded: Callable[[Any], Any] | None = None

    def logits(self, images: Sequence[RGB]) -> NDArray[np.float32]:
        """(n, classes) of pictures of any size."""
        import cv2
        import torch

        if self._loaded is None:
            self._loaded = self._load()
        parts = []
        with torch.inference_mode():
            for first in range(0, len(images), 64):
                rows = [cv2.resize(i, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for i in images[first : first + 64]]
                parts.append(self._loaded(pixels(np.stack(rows))).float().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, self._n_classes), np.float32)

    def _load(self) -> Callable[[Any], Any]:
        from safetensors.torch import load_file
        from torch.nn import functional as F

        model, _ = clip_model.load(self._folder)
        head = {name: value.float() for name, value in load_file(str(self._folder / HEAD)).items()}
        if "text" in head:
            tower = halves(model.visual, load_vit(model.visual, self._folder))
            return lambda x: F.normalize(tower.upper(tower.lower(x)), dim=-1) @ head["text"].T
        return lambda x: F.linear(model.visual(x), head["weight"], head["bias"])


def tower(classes: tuple[str, ...], device: str, *, folder: str) -> Tower:
    """A factory for `model: {kind: python}`; the head's columns are in the order of the setting's classes."""
    return Tower(Path(folder), len(classes))


def back_end(family: Family, folder: Path) -> dict[str, Any]:
    """The section `model` of an audit of this model."""
    if family == "resnet":
        return {"kind": "open_clip", "name": f"local-dir:{folder}", "templates": [PROMPT]}
    return {
        "kind": "python",
        "factory": "pipeline.bench.planted.families:tower",
        "options": {"folder": str(folder)},
    }
