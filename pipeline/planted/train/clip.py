"""Train the tiny CLIP: an ordinary open_clip model (ModifiedResNet, 512-d) that knows the rendered world.

The objective is CLIP's (arXiv 2103.00020, section 2.3) on whole captions, and three that give each single
word its worth: a sigmoid loss (SigLIP, arXiv 2303.15343, section 3.2) of every picture against a prompt for
every concept, a softmax over names where exactly one is right (objects of single-object pictures,
backgrounds, crops), and the same for RoIAlign features on true boxes (RegionCLIP, arXiv 2112.09106), so that
regions land where words are.

    python -m pipeline.planted.train.clip --out data/models/clip --minutes 97
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.errors import UserError

from . import data, optim
from .clip_model import (
    IMAGE_SIZE,
    build_model,
    export,
    model_config,
    normalise,
    train_tokenizer,
    visual_features,
)
from .data import Pool, Shard


@dataclass(frozen=True)
class Recipe:
    """Every knob of a training; the values are what the shipped model was trained with."""

    width: int = 24
    layers: tuple[int, ...] = (1, 2, 1, 1)
    text_width: int = 128
    text_layers: int = 2
    batch_size: int = 128
    n_crops: int = 24
    n_regions: int = 128
    rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    sigmoid_weight: float = 0.3
    softmax_weight: float = 0.4
    ema: float = 0.998
    n_shards: int = 80
    shard_size: int = data.SHARD_SIZE
    shift: int = 4  # px, of the whole batch
    snapshot_minutes: float = 5.0
    threads: int = 2


@dataclass(frozen=True)
class Batch:
    """What one step sees: images (b, 3, s, s), crops (c, 3, s, s), both scaled; regions (r, 5); labels."""

    images: Tensor
    crops: Tensor
    regions: Tensor
    crop_labels: Tensor
    region_labels: Tensor
    truths: Tensor
    n_objects: Tensor
    captions: list[str]


def assemble(shard: Shard, rng: np.random.Generator, recipe: Recipe) -> Batch:
    """Augment (mirror, shift), draw true boxes for crops and regions, pick a caption for each picture."""
    from torchvision.ops import roi_align

    images, boxes = data.mirrored(shard.images, shard.boxes, shard.mirror & (rng.random(len(shard)) < 0.5))
    dx, dy = rng.integers(-recipe.shift, recipe.shift + 1, 2)
    images, boxes = data.shifted(images, boxes, int(dx), int(dy))
    row, slot = np.nonzero(shard.labels >= 0)
    large = np.minimum(*(boxes[row, slot][:, 2:] - boxes[row, slot][:, :2]).T) > 0.06
    row, slot = row[large], slot[large]
    order = rng.permutation(len(row))
    row, slot = row[order], slot[order]
    named = torch.from_numpy(np.concatenate([row[:, None], boxes[row, slot]], 1).astype(np.float32))
    labels = torch.from_numpy(shard.labels[row, slot].astype(np.int64))
    scaled = normalise(images)
    crop_boxes = named[: recipe.n_crops].clone()
    crop_labels = labels[: recipe.n_crops]
    regions = named[recipe.n_crops : recipe.n_crops + recipe.n_regions]
    # A detector's box is never exact: crops get a margin, as they will in use.
    width, height = crop_boxes[:, 3] - crop_boxes[:, 1], crop_boxes[:, 4] - crop_boxes[:, 2]
    margin = torch.from_numpy(rng.uniform(-0.05, 0.3, (len(crop_boxes), 4)).astype(np.float32))
    crop_boxes[:, 1:] += margin * torch.stack([-width, -height, width, height], 1)
    crop_boxes[:, 1:] = crop_boxes[:, 1:].clamp(0, 1) * images.shape[1]
    crops = roi_align(scaled, crop_boxes, IMAGE_SIZE, sampling_ratio=1, aligned=True)
    return Batch(
        images=scaled,
        crops=crops.contiguous(memory_format=torch.channels_last),
        regions=regions,
        crop_labels=crop_labels,
        region_labels=labels[recipe.n_crops : recipe.n_crops + recipe.n_regions],
        truths=torch.from_numpy(shard.truths),
        n_objects=torch.from_numpy(shard.n_objects.astype(np.int64)),
        captions=[str(row[rng.integers(len(row))]) for row in shard.captions],
    )


def draw_prompts(bank: Tensor, rng: np.random.Generator) -> Tensor:
    """One template at random for each concept: tokens (concepts, length) of (concepts, templates, length)."""
    return bank[torch.arange(len(bank)), torch.from_numpy(rng.integers(bank.shape[1], size=len(bank)))]


def softmax_loss(features: Tensor, concepts: Tensor, labels: Tensor, names: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of unit features (n, d) over the concepts at `names`; other rows don't count.

    `labels` (n,) and `names` (k,) are indices into the concepts (c, d).
    """
    hit = labels[:, None] == names[None]
    known = hit.any(1)
    if not known.any():
        return features.sum() * 0
    logits = scale * features[known] @ concepts[names].T
    return F.cross_entropy(logits, hit[known].int().argmax(1), label_smoothing=0.05)


def loss_terms(
    model: Any, tokenize: Any, batch: Batch, prompts: Tensor, bias: Tensor, *, bf16: bool
) -> dict[str, Tensor]:
    """The terms of the objective (see the module), unweighted.

    prompts: tokens of one prompt for each concept (concepts, length).
    bias:    (2,), log slope and offset of the sigmoid.
    """
    n, n_crops = len(batch.images), len(batch.crops)
    # The flash kernel for the CPU is several times slower than plain attention on rows of 32 tokens.
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16), sdpa_kernel(SDPBackend.MATH):
        pictures = torch.cat([batch.images, batch.crops]).contiguous(memory_format=torch.channels_last)
        whole, regions = visual_features(model.visual, pictures, batch.regions)
        texts = model.encode_text(torch.cat([tokenize(batch.captions), prompts]))
    assert regions is not None
    texts = F.normalize(texts.float(), dim=-1)
    captions, concepts = texts[:n], texts[n:]
    images, crops = whole[:n], whole[n : n + n_crops]
    scale = model.logit_scale.exp()
    logits = scale * images @ captions.T
    target = torch.arange(n)
    objects, grounds = (torch.from_numpy(data.concept_indices(k)) for k in ("object", "background"))
    single = torch.where(
        (batch.n_objects == 1) & batch.truths[:, objects].any(1),
        objects[batch.truths[:, objects].int().argmax(1)],
        -1,
    )
    ground = torch.where(batch.truths[:, grounds].any(1), grounds[batch.truths[:, grounds].int().argmax(1)], -1)
    things = torch.cat([objects, torch.from_numpy(data.concept_indices("overlay"))])
    sigmoid = F.binary_cross_entropy_with_logits(
        bias[0].exp() * images @ concepts.T + bias[1], batch.truths.float(), reduction="none"
    )
    return {
        "caption": (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2,
        "sigmoid": sigmoid.sum(1).mean(),
        "object": softmax_loss(images, concepts, single, objects, scale),
        "background": softmax_loss(images, concepts, ground, grounds, scale),
        "crop": softmax_loss(crops, concepts, batch.crop_labels, things, scale),
        "region": softmax_loss(regions, concepts, batch.region_labels, things, scale),
    }


def total(terms: dict[str, Tensor], recipe: Recipe) -> Tensor:
    """The weighted sum that is minimised."""
    softmax = terms["object"] + terms["background"] + terms["crop"] + terms["region"]
    return terms["caption"] + recipe.sigmoid_weight * terms["sigmoid"] + recipe.softmax_weight * softmax


def train_clip(
    out: Path,
    *,
    minutes: float = 97,
    seed: int = 0,
    resume: bool = True,
    work: Path | None = None,
    recipe: Recipe | None = None,
    max_steps: int | None = None,
) -> dict[str, Any]:
    """Train, with snapshots into `out` (loadable as `local-dir:{out}`) every few minutes.

    out:       folder of the model; made if missing.
    minutes:   wall-clock time of the training proper; the learning rate follows a cosine to its end.
    work:      shards and the checkpoint; by default in the system's temporary folder. With `resume`, a
               training that was cut off goes on from its last checkpoint there.
    max_steps: stop early (tests).
    Returns the steps, seconds and last loss terms. Raises UserError when `minutes` is not positive.
    """
    if minutes <= 0:
        raise UserError(f"Training minutes must be above 0, not {minutes}. Give --minutes 97.")
    from open_clip import get_tokenizer

    recipe = recipe or Recipe()
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    work = work or Path(tempfile.gettempdir()) / f"cuescope-clip-{seed}"
    checkpoint = work / "checkpoint.pt"
    producer = data.start_producer(work, seed, recipe.n_shards, recipe.shard_size)
    pool = Pool(work)
    pool.wait(producer)

    # Kept with the checkpoint: token ids must not move under a training that goes on.
    words = work / "tokenizer"
    if not (resume and checkpoint.exists()):
        every_prompt = [data.prompt(p, t) for p in data.PHRASES for t in data.TEMPLATES]
        captions = [str(c) for c in pool.shards[0].captions.ravel()]
        train_tokenizer(captions + every_prompt, words)
    shutil.copytree(words, out, dirs_exist_ok=True)
    size = len(json.loads((words / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    config = model_config(
        size,
        width=recipe.width,
        layers=recipe.layers,
        text_width=recipe.text_width,
        text_layers=recipe.text_layers,
    )
    model: Any = build_model(config).to(memory_format=torch.channels_last).train()
    bias = nn.Parameter(torch.tensor([math.log(10.0), -3.0]))
    optimizer = optim.adamw(model, recipe.rate, recipe.weight_decay, (0.9, 0.98), extra=(bias,))
    mean = optim.copy_state(model)
    step, spent = 0, 0.0
    if resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        mean, step, spent = state["mean"], state["step"], state["spent"]
        bias.data.copy_(state["bias"])
    export(mean, config, out)
    tokenize: Any = get_tokenizer(f"local-dir:{out}")
    bank = torch.stack([tokenize([data.prompt(p, t) for p in data.PHRASES]) for t in data.TEMPLATES], 1)
    rng = np.random.default_rng([seed, step])
    bf16 = torch.cpu._is_avx512_bf16_supported()
    begun, snapshot = time.monotonic() - spent, spent
    shown: dict[str, float] = {}
    for shard in pool.forever(rng, recipe.batch_size):
        spent = time.monotonic() - begun
        done = min(1.0, spent / (60 * minutes))
        if done >= 1 or (max_steps is not None and step >= max_steps):
            break
        optim.set_rate(optimizer, recipe.rate, step, recipe.warmup_steps, done)
        terms = loss_terms(model, tokenize, assemble(shard, rng, recipe), draw_prompts(bank, rng), bias, bf16=bf16)
        loss = total(terms, recipe)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        step += 1
        optim.average(mean, model, step, recipe.ema)
        if step % 20 == 1:
            shown = {k: round(float(v.detach()), 3) for k, v in terms.items()}
            print(f"{spent:6.0f} s  step {step}  {len(pool)} pictures  {shown}", flush=True)
        if spent - snapshot > 60 * recipe.snapshot_minutes:
            snapshot = spent
            export(mean, config, out)
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "mean": mean}
            part = checkpoint.with_suffix(".part")
            torch.save(state | {"bias": bias.data, "step": step, "spent": spent}, part)
            os.replace(part, checkpoint)
    producer.terminate()
    export(mean, config, out)
    return {"steps": step, "seconds": round(spent, 1), "pictures": len(pool), "loss": shown}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tiny CLIP.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=97)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(train_clip(args.out, minutes=args.minutes, seed=args.seed)))


if __name__ == "__main__":
    main()
