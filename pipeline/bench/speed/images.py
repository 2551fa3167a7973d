"""Images: a pass of the chain over pictures on disk against its models alone, on tensors already in memory."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import chain
from pipeline.bench.speed.lines import Line, seconds_of
from pipeline.bench.speed.models import clip_of_size, pictures
from pipeline.config import Audit
from pipeline.context import Context
from pipeline.geometry import as_boxes
from pipeline.images import DECODERS, load
from pipeline.models import devices
from pipeline.models.batching import START
from pipeline.models.open_clip_loading import ClipSource
from pipeline.stages.embed import CELLS

PHOTOGRAPH = (500, 375)
"""Width and height of the pictures for the large model, those of ImageNet's mean."""


MORE = 8
"""So many times as many on a GPU."""


def bench_images(quick: bool, models: Path, work: Path, device: str = "cpu") -> Iterator[Line]:
    """Predictions and embeddings (the whole image, and RoIAlign of its cells) of pictures in files.

    On a GPU also against the slower of bare forwards and of what the processor has to do: a pass can be no faster.
    """
    for name, number, size, target, kind in (
        (clip_of_size("ViT-B-32", work), 32 if quick else 128, PHOTOGRAPH, 0.9, "ViT-B-32, JPEG 500 x 375"),
        (f"local-dir:{models / 'clip'}", 256 if quick else 1024, (128, 128), 0.6, "tiny CLIP, JPEG 128 x 128"),
    ):
        number *= 1 if device == "cpu" else MORE
        folder = written(work / f"pictures-{number}-{size[0]}", number, size)
        whole, bare = [], []
        for _ in range(3):
            whole.append(pass_over(folder, name, work / "audit", device))
            bare.append(bare_loop(name, number, device))
        mine, alone = statistics.median(whole), statistics.median(bare)
        yield Line("images", f"a pass over bare forwards, {kind}", alone / mine, target, setting=f"{number} pictures")
        yield Line("images", f"a pass, {kind}", number / mine, unit="images/s")
        if device != "cpu":
            ready = made_ready(folder, name, device)
            yield Line("images", f"bare forwards, {kind}", number / alone, unit="images/s")
            said = f"{DECODERS} threads"
            yield Line("images", f"read, decoded and resized, {kind}", number / ready, unit="images/s", setting=said)
            yield Line("images", f"a pass over the slower of the two, {kind}", max(ready, alone) / mine)


def made_ready(folder: Path, name: str, device: str) -> float:
    """Seconds of the processor's work for a pass: pictures read, decoded, and in both shapes that the model takes."""
    clip = ClipSource(name, None, "auto").load(device)

    def whole() -> None:
        with ThreadPoolExecutor(DECODERS) as pool:
            shown = list(pool.map(load, sorted(folder.rglob("*.jpg"))))
        for transform in (clip.preprocess, clip.squash):
            for first in range(0, len(shown), START):
                clip.sized(shown[first : first + START], transform)

    return seconds_of(whole)


def written(folder: Path, number: int, size: tuple[int, int]) -> Path:
    """A folder of JPEGs in two classes."""
    if not folder.is_dir():
        for index, image in enumerate(pictures(number, max(size))):
            place = folder / ("car", "boat")[index % 2] / f"{index:05d}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).resize(size).save(place, quality=90)
    return folder


def pass_over(folder: Path, name: str, out: Path, device: str) -> float:
    """Seconds of predict, caption and what embed does ahead, with nothing in the cache, after ingest."""
    shutil.rmtree(out, ignore_errors=True)
    audit = Audit.from_dict(
        {
            "data": {"source": "folder", "path": str(folder)},
            "model": {"kind": "open_clip", "name": name},
            "embed": {"kind": "open_clip", "name": name},
            "cache": str(out / "cache"),
            "device": device,
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


def bare_loop(name: str, number: int, device: str) -> float:
    """Seconds of the same forwards on tensors in the device's memory, in batches of as many."""
    import torch

    from pipeline.models.roi import region_features, stages_of

    clip = ClipSource(name, None, "auto").load(device)
    cells = torch.from_numpy(as_boxes(CELLS))
    stages = stages_of(clip.model.visual)
    pixels: Any = torch.rand(min(number, START), 3, *clip.size, device=device, dtype=devices.dtype(clip.precision))
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        clip.model.encode_image(pixels[:2])
        began = time.perf_counter()
        for first in range(0, number, START):
            some = pixels[: min(START, number - first)]
            clip.model.encode_image(some)  # predict
            clip.model.encode_image(some)  # embed: the whole image
            region_features(stages, some, [cells] * len(some))  # embed: its cells
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - began
