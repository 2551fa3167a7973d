"""Images: a pass of the chain over pictures on disk against its models alone, on tensors already in memory."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import chain
from pipeline.bench.speed.lines import Line
from pipeline.bench.speed.models import clip_of_size, pictures
from pipeline.config import Audit
from pipeline.context import Context
from pipeline.geometry import as_boxes
from pipeline.stages.embed import CELLS

PHOTOGRAPH = (500, 375)
"""Width and height of the pictures for the large model, those of ImageNet's mean."""


def bench_images(quick: bool, models: Path, work: Path) -> Iterator[Line]:
    """Predictions and embeddings (the whole image, and RoIAlign of its cells) of pictures in files."""
    for name, number, size, target, kind in (
        (clip_of_size("ViT-B-32", work), 32 if quick else 128, PHOTOGRAPH, 0.9, "ViT-B-32, JPEG 500 x 375"),
        (f"local-dir:{models / 'clip'}", 256 if quick else 1024, (128, 128), 0.6, "tiny CLIP, JPEG 128 x 128"),
    ):
        folder = written(work / f"pictures-{number}-{size[0]}", number, size)
        whole, bare = [], []
        for _ in range(3):
            whole.append(pass_over(folder, name, work / "audit", number))
            bare.append(bare_loop(name, folder, number))
        share = statistics.median(bare) / statistics.median(whole)
        yield Line("images", f"a pass over bare forwards, {kind}", share, target, setting=f"{number} pictures")
        yield Line("images", f"a pass, {kind}", number / statistics.median(whole), unit="images/s")


def written(folder: Path, number: int, size: tuple[int, int]) -> Path:
    """A folder of JPEGs in two classes."""
    if not folder.is_dir():
        for index, image in enumerate(pictures(number, max(size))):
            place = folder / ("car", "boat")[index % 2] / f"{index:05d}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).resize(size).save(place, quality=90)
    return folder


def pass_over(folder: Path, name: str, out: Path, number: int) -> float:
    """Seconds of predict, caption and what embed does ahead, with nothing in the cache, after ingest."""
    shutil.rmtree(out, ignore_errors=True)
    audit = Audit.from_dict(
        {
            "data": {"source": "folder", "path": str(folder)},
            "model": {"kind": "open_clip", "name": name},
            "embed": {"kind": "open_clip", "name": name},
            "cache": str(out / "cache"),
            "device": "cpu",
            "classes": ["boat", "car"],
        }
    )
    made = chain.prepare(audit, out / "A")
    context = Context(audit, made)
    chain.run_once("ingest", context)
    context.model.logits([np.zeros((64, 64, 3), np.uint8)])  # the weights are read, the prompts embedded
    context.encoder.images([np.zeros((64, 64, 3), np.uint8)])
    began = time.perf_counter()
    for shard in range(len(chain.shards(context))):
        chain.run_pass(("predict", "caption"), ("embed",), context, shard)
    return time.perf_counter() - began


def bare_loop(name: str, folder: Path, number: int) -> float:
    """Seconds of the same forwards on tensors in memory, in batches of as many."""
    import torch

    from pipeline.models.batching import START
    from pipeline.models.open_clip_loading import ClipSource
    from pipeline.models.roi import region_features, stages_of

    clip = ClipSource(name, None, "fp32").load("cpu")
    cells = torch.from_numpy(as_boxes(CELLS))
    stages = stages_of(clip.model.visual)
    pixels: Any = torch.rand(min(number, START), 3, *clip.size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        clip.model.encode_image(pixels[:2])
        began = time.perf_counter()
        for first in range(0, number, START):
            some = pixels[: min(START, number - first)]
            clip.model.encode_image(some)  # predict
            clip.model.encode_image(some)  # embed: the whole image
            region_features(stages, some, [cells] * len(some), 4 * len(some))  # embed: its cells
        return time.perf_counter() - began
