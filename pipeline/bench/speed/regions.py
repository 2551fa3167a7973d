"""Regions: RoIAlign on one forward against a forward a crop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bench.speed.images import MORE
from pipeline.bench.speed.lines import Line, figure, ratio_of
from pipeline.bench.speed.models import clip_of_size, pictures
from pipeline.geometry import Boxes
from pipeline.models.open_clip_encoder import open_clip_encoder

R = 16
"""Regions an image."""
LEAST = 8.0


def bench_regions(quick: bool, models: Path, work: Path, device: str = "cpu") -> Iterator[Line]:
    """Regions a second, by RoIAlign and by crops, with the tiny CLIP and with one of ViT-B-32's size."""
    rng = np.random.default_rng(0)
    for name, images, kind in (
        (f"local-dir:{models / 'clip'}", 32 if quick else 128, "tiny CLIP (ResNet)"),
        (clip_of_size("ViT-B-32", work), 4 if quick else 16, "ViT-B-32"),
    ):
        images *= 1 if device == "cpu" else MORE
        shown = pictures(images, 224 if "ViT" in kind else 96)
        boxes = [_boxes(rng) for _ in shown]
        aligned = open_clip_encoder(device, name=name)
        crops = open_clip_encoder(device, name=name, regions="crops")
        aligned.regions(shown[:2], boxes[:2]), crops.regions(shown[:2], boxes[:2])  # the weights are read
        ratio, mine, _ = ratio_of(lambda: aligned.regions(shown, boxes), lambda: crops.regions(shown, boxes))  # noqa: B023
        said, most = f"{images} images, {R} regions each", allowed(name)
        target = LEAST if most >= LEAST else most
        if most < LEAST:
            said += f"; by its operations alone no more than {figure(most)} times: a region costs the last block again"
        yield Line("regions", f"RoIAlign over crops, {kind}", ratio, target, setting=said)
        yield Line("regions", f"RoIAlign, {kind}", images * R / mine, unit="regions/s")


def allowed(name: str) -> float:
    """The operations of R crops over those of one image and its R regions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pipeline.models.open_clip_loading import ClipSource
    from pipeline.models.roi import region_features, stages_of

    clip = ClipSource(name, None, "fp32").load("cpu")
    stages = stages_of(clip.model.visual)
    pixels: Any = torch.rand(1, 3, *clip.size)

    def counted(work: Callable[[], Any]) -> int:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            work()
        return int(counter.get_total_flops())

    boxes = [torch.from_numpy(_boxes(np.random.default_rng(0)))]
    crops = R * counted(lambda: clip.model.encode_image(pixels))
    return crops / counted(lambda: region_features(stages, pixels, boxes))


def _boxes(rng: np.random.Generator) -> Boxes:
    size = rng.uniform(0.2, 0.5, (R, 2))
    corner = rng.uniform(0, 1 - size)
    return np.concatenate([corner, corner + size], axis=1)
