"""Train the tiny open-set detector: YOLO-World v2, scale n, prompted by the tiny CLIP's text features.

The architecture and the loss are ultralytics' own (YOLO-World, arXiv 2401.17270; task-aligned assignment,
CIoU and distribution focal loss). The loop is ours, because the words of a batch change: every step draws a
part of the vocabulary and a prompt template for each word, so that any set of words can be asked for later.
Things in the picture whose word was not drawn are background in that step.

    python -m pipeline.planted.train.detector --out data/models/detector --clip data/models/clip --minutes 15
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import UserError

from . import clip_model, data, optim
from .data import Pool

# Read by ultralytics at import: no telemetry, no installing at run time, no downloads.
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")

ARCHITECTURE = "yolov8n-worldv2.yaml"
IMAGE_SIZE = 128  # px seen by the network; pictures of 96 px are scaled up, as `predict(imgsz=128)` does
FILE = "detector.pt"
TEMPLATES = ("a photo of a {}", "a picture with a {} in it", "there is a {}")  # averaged for a prompt in use


@dataclass(frozen=True)
class Recipe:
    """Every knob of a training; the values are what the shipped model was trained with."""

    batch_size: int = 32
    rate: float = 2e-3
    weight_decay: float = 0.02
    warmup_steps: int = 200
    ema: float = 0.998
    sizes: tuple[int, ...] = (96, 128, 128, 128, 128, 160)
    few_words: int = 8
    few_share: float = 0.15  # of the batches ask for 1 to few_words words; the others for more
    n_shards: int = 60
    shard_size: int = data.SHARD_SIZE
    threads: int = 2


@dataclass(frozen=True)
class Targets:
    """What a batch asks for: `words` (k,) indices into PHRASES; boxes as ultralytics' loss wants them.

    `picture` (m,), `word` (m, 1) index into words, `xywh` (m, 4) normalised centre and size.
    """

    words: np.ndarray
    picture: Tensor
    word: Tensor
    xywh: Tensor


def vocabulary() -> np.ndarray:
    """Indices into PHRASES of what has boxes: the trained objects, and the kinds of text overlay."""
    return np.concatenate([data.concept_indices("object"), data.concept_indices("overlay")])


def choose_targets(labels: np.ndarray, boxes: np.ndarray, words: np.ndarray) -> Targets:
    """Of labels (n, slots) and normalised xyxy boxes (n, slots, 4), those whose word is asked for."""
    picture, slot = np.nonzero(np.isin(labels, words))
    order = np.argsort(words)
    word = order[np.searchsorted(words[order], labels[picture, slot])]
    box = boxes[picture, slot]
    xywh = np.concatenate([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], 1)
    return Targets(
        words=words,
        picture=torch.from_numpy(picture.astype(np.float32)),
        word=torch.from_numpy(word.astype(np.float32))[:, None],
        xywh=torch.from_numpy(xywh.astype(np.float32)),
    )


def text_bank(clip: Path, templates: Sequence[str]) -> Tensor:
    """Unit text features of every phrase in every template: (phrases, templates, 512)."""
    model, tokenize = clip_model.load(clip)
    columns = [clip_model.prompt_features(model, tokenize, data.PHRASES, [t]) for t in templates]
    return torch.stack(columns, 1)


def build_model(n_words: int) -> Any:
    """An untrained ultralytics WorldModel with its loss settings."""
    from ultralytics import settings
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import WorldModel

    settings.update(sync=False)
    model: Any = WorldModel(ARCHITECTURE, ch=3, nc=80, verbose=False)
    model.args = get_cfg()
    model.model[-1].nc = n_words
    return model.to(memory_format=torch.channels_last)


def step_loss(model: Any, images: Tensor, targets: Targets, text: Tensor) -> Tensor:
    """Box, class and dfl loss, (3,), of pictures (n, 3, s, s) in [0, 1] under text features (k, 512)."""
    from ultralytics.utils.loss import v8DetectionLoss

    model.model[-1].nc = len(text)
    with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
        predicted = model.predict(images, txt_feats=text[None].expand(len(images), -1, -1))
    predicted = {
        "boxes": predicted["boxes"].float(),
        "scores": predicted["scores"].float(),
        "feats": [f.float() for f in predicted["feats"]],
    }
    batch = {"batch_idx": targets.picture, "cls": targets.word, "bboxes": targets.xywh}
    loss, _ = v8DetectionLoss(model)(predicted, batch)
    return loss / len(images)


def to_pixels(images: np.ndarray, size: int) -> Tensor:
    """uint8 (n, h, w, 3) RGB to float (n, 3, size, size) in [0, 1], channels last in memory."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255)
    if x.shape[-1] != size:
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return x.contiguous(memory_format=torch.channels_last)


def draw_words(rng: np.random.Generator, recipe: Recipe) -> np.ndarray:
    """A random part of the vocabulary, in random order.

    Few words and many, because the network's neck is guided by the words that are asked for together
    (YOLO-World, section 3.3): a score must hold up in either company.
    """
    words = vocabulary()
    few = min(recipe.few_words, len(words))
    n = rng.integers(1, few + 1) if rng.random() < recipe.few_share else rng.integers(len(words) // 2, len(words) + 1)
    return rng.permutation(words)[:n]


def save(mean: dict[str, Tensor], text: Tensor, out: Path) -> None:
    """Write an ultralytics checkpoint of averaged weights in float16, prompted with the whole vocabulary."""
    from ultralytics import __version__

    words = vocabulary()
    twin = build_model(len(words))
    twin.load_state_dict(mean)
    twin.names = {i: data.PHRASES[w] for i, w in enumerate(words)}
    twin.txt_feats = text[words][None].half()
    twin.args = {"task": "detect", "imgsz": IMAGE_SIZE}
    twin.task = "detect"
    for parameter in twin.parameters():
        parameter.requires_grad = False
    checkpoint = {
        "model": twin.half().eval(),
        "train_args": {"task": "detect", "imgsz": IMAGE_SIZE},
        "epoch": -1,
        "version": __version__,
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    out.mkdir(parents=True, exist_ok=True)
    part = out / "detector.part"
    torch.save(checkpoint, part)
    os.replace(part, out / FILE)


def _weights(path: Path) -> dict[str, Tensor]:
    """The state of a detector that :func:`save` wrote, in float32."""
    from ultralytics.nn.tasks import torch_safe_load

    if not path.is_file():
        raise UserError(f"No detector at {path} to go on from. Leave --start out to begin from nothing.")
    state: dict[str, Tensor] = torch_safe_load(str(path), safe_only=True)[0]["model"].float().state_dict()
    return state


def train_detector(
    out: Path,
    clip: Path,
    *,
    minutes: float = 15,
    seed: int = 0,
    start: Path | None = None,
    work: Path | None = None,
    recipe: Recipe | None = None,
    max_steps: int | None = None,
    text: Tensor | None = None,
) -> dict[str, Any]:
    """Train and write `out`/detector.pt, loadable by `ultralytics.YOLOWorld`.

    clip:      folder of the tiny CLIP whose text features prompt the detector.
    minutes:   wall-clock time of the training proper; the learning rate follows a cosine to its end.
    start:     a detector to go on from, as this function wrote it; None: from nothing.
    work:      where rendered shards are kept; by default in the system's temporary folder.
    max_steps: stop early (tests). text: features (phrases, templates, 512) instead of the CLIP's (tests).
    Returns the steps, seconds, pictures and last losses. Raises UserError on a missing CLIP or bad `minutes`.
    """
    if minutes <= 0:
        raise UserError(f"Training minutes must be above 0, not {minutes}. Give --minutes 15.")
    recipe = recipe or Recipe()
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(seed)
    bank = text_bank(clip, data.TEMPLATES) if text is None else text
    work = work or Path(tempfile.gettempdir()) / f"cuescope-scenes-{seed}"
    producer = data.start_producer(work, seed, recipe.n_shards, recipe.shard_size, "world")
    pool = Pool(work)
    pool.wait(producer)

    model = build_model(len(vocabulary())).train()
    if start is not None:
        model.load_state_dict(_weights(start))
    optimizer = optim.adamw(model, recipe.rate, recipe.weight_decay, (0.9, 0.99))
    mean = optim.copy_state(model)
    rng = np.random.default_rng([seed, 7])
    begun, step = time.monotonic(), 0
    shown: list[float] = []
    for shard in pool.forever(rng, recipe.batch_size):
        done = min(1.0, (time.monotonic() - begun) / (60 * minutes))
        if done >= 1 or (max_steps is not None and step >= max_steps):
            break
        optim.set_rate(optimizer, recipe.rate, step, recipe.warmup_steps, done)
        images, boxes = data.mirrored(shard.images, shard.boxes, shard.mirror & (rng.random(len(shard)) < 0.5))
        targets = choose_targets(shard.labels, boxes, draw_words(rng, recipe))
        features = bank[targets.words, rng.integers(bank.shape[1], size=len(targets.words))]
        size = recipe.sizes[rng.integers(len(recipe.sizes))]
        terms = step_loss(model, to_pixels(images, size), targets, features)
        optimizer.zero_grad(set_to_none=True)
        terms.sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        step += 1
        optim.average(mean, model, step, recipe.ema)
        if step % 50 == 1:
            shown = [round(float(t), 3) for t in terms.detach()]
            print(
                f"{60 * minutes * done:6.0f} s  step {step}  {len(pool)} pictures  box, class, dfl {shown}",
                flush=True,
            )
    producer.terminate()
    save(mean, F.normalize(bank.mean(1), dim=-1), out)
    return {
        "steps": step,
        "seconds": round(time.monotonic() - begun, 1),
        "pictures": len(pool),
        "loss": shown,
    }


def load(path: Path, names: Sequence[str], text: Tensor) -> Any:
    """An ultralytics YOLOWorld prompted with unit text features (len(names), 512)."""
    from ultralytics import YOLOWorld, settings

    if not path.is_file():
        raise UserError(f"No detector at {path}. Train one: cuescope planted train detector.")
    settings.update(sync=False)
    detector: Any = YOLOWorld(str(path))
    detector.model.txt_feats = text[None].float()
    detector.model.model[-1].nc = len(names)
    detector.model.names = dict(enumerate(names))
    detector.predictor = None
    return detector


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tiny detector.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--start", type=Path, help="a detector.pt to go on from")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(train_detector(args.out, args.clip, minutes=args.minutes, seed=args.seed, start=args.start)))


if __name__ == "__main__":
    main()
