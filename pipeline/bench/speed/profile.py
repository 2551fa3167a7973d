"""Profile: where the time of the demo's audit goes, stage by stage, and the least that this machine could need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bench.speed.lines import Line, figure, seconds_of
from pipeline.bench.speed.start import demo_audit
from pipeline.config import Audit
from pipeline.context import Context
from pipeline.geometry import as_boxes
from pipeline.images import RGB
from pipeline.models.batching import START
from pipeline.records import SCHEMAS
from pipeline.stages.detect import phrases
from pipeline.stages.embed import CELLS
from pipeline.store import AuditFolder

SAMPLE = 64
"""Pictures whose time in a model stands for all."""
PRODUCT = 2048
"""Rows of the matrices whose product shows what the processor can do."""
COPIED = 1 << 28
"""Bytes whose copying shows what the memory can do."""


def bench_profile(quick: bool, models: Path, work: Path) -> Iterator[Line]:
    """What the machine can do; then each stage's seconds, and in its setting the least it could take."""
    folder = demo_audit(models, work)
    run = folder.run()
    context = Context(Audit.from_dict({**run["audit"], "classes": run["classes"]}), folder)
    rates = Rates()
    yield Line("profile", f"matrix product, float32, {PRODUCT} rows", rates.flops / 1e9, unit="GFLOP/s")
    yield Line("profile", "copying of memory, read and written", rates.bytes / 1e9, unit="GB/s")
    total = sum(run["seconds"].values())
    yield Line("profile", f"the demo's audit: {run['data']['images']} images", total, unit="s")
    least = least_of(context, folder, rates)
    for stage, seconds in sorted(run["seconds"].items(), key=lambda item: -item[1]):
        needed, why = least.get(stage, (tables_of(folder) / rates.bytes, "all tables read once"))
        said = f"{seconds / total:.0%} of the audit; at least {figure(needed)} s: {why}"
        yield Line("profile", stage, seconds, unit="s", setting=said)


class Rates:
    """What this machine does in a second."""

    def __init__(self) -> None:
        import torch

        a = torch.rand(PRODUCT, PRODUCT)
        a @ a
        self.flops = 2 * PRODUCT**3 / seconds_of(lambda: a @ a, 5)
        some = np.zeros(COPIED, np.uint8)
        self.bytes = 2 * COPIED / seconds_of(some.copy, 5)


def least_of(context: Context, folder: AuditFolder, rates: Rates) -> dict[str, tuple[float, str]]:
    """Stage to the least seconds it could take here, and why: the bare models on pictures that are in memory."""
    images = folder.read("images")
    forwards = folder.run()["forwards"]
    pictures: list[RGB] = []

    def decoded() -> None:
        pictures[:] = context.load(images)

    read = seconds_of(decoded, 1)
    n, some = len(pictures), pictures[:SAMPLE]
    share = n / len(some)
    image, flops = _bare(context.audit.model.options["name"])
    assert context.audit.embed is not None
    tower, _ = _bare(context.audit.embed.options["name"], regions=True)
    whole, _ = _bare(context.audit.embed.options["name"])
    doses, tried = forwards.get("dose", 0), forwards.get("measure", 0)
    asked = phrases(context.audit, context.classes, folder.read("attributes"))

    def timed(work: Callable[[], Any]) -> float:
        work()
        return share * seconds_of(work)

    reached = f"{flops / 1e9:.2f} GFLOP a forward at {flops / image / 1e9:.0f} of {rates.flops / 1e9:.0f} GFLOP/s"
    return {
        "ingest": (read, "every file read and decoded"),
        "predict": (n * image, f"{n:,} forwards; {reached}"),
        "caption": (timed(lambda: context.captioner.captions(some)), f"{n:,} captions generated"),
        "detect": (timed(lambda: context.detector.detect(some, asked)), f"{n:,} forwards, {len(asked)} phrases"),
        "embed": (n * tower, f"{n:,} whole images, and their {len(CELLS)} cells by RoIAlign"),
        "ablate": (
            forwards["ablate"] * image + doses * whole,
            f"{forwards['ablate']:,} edited pictures, {doses:,} embedded for the dose; {reached}",
        ),
        "measure": (tried * whole, f"{tried:,} edits of whole pictures embedded"),
    }


def tables_of(folder: AuditFolder) -> int:
    """Bytes of all tables in memory."""
    return sum(folder.read(name).get_total_buffer_size() for name in SCHEMAS if folder.has(name))


def _bare(name: str, regions: bool = False) -> tuple[float, float]:
    """Seconds and floating-point operations of an image in a CLIP's image tower, in batches, on tensors in memory; with
    `regions` also of its cells."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pipeline.models.open_clip_loading import ClipSource
    from pipeline.models.roi import region_features, stages_of

    clip = ClipSource(name, None, "fp32").load("cpu")
    cells = torch.from_numpy(as_boxes(CELLS))
    stages = stages_of(clip.model.visual)
    pixels: Any = torch.rand(START, 3, *clip.size).contiguous(memory_format=torch.channels_last)

    def forward() -> None:
        clip.model.encode_image(pixels)
        if regions:
            region_features(stages, pixels, [cells] * len(pixels))

    with torch.inference_mode():
        forward()
        seconds = seconds_of(forward) / START
        with FlopCounterMode(display=False) as counted:
            forward()
    return seconds, counted.get_total_flops() / START
