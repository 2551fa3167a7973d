"""Detector: many attributes on many images, against the way SpurLens' code calls the same model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.bench.speed.lines import Line, ratio_of
from pipeline.bench.speed.models import SIDE, THINGS, owlv2_of_size, pictures
from pipeline.models import devices
from pipeline.models.owlv2 import owlv2

CLASSES, FEATURES = 8, 12
"""SpurLens asks a class's features as one list; an image is asked about those of every class that it stands for or
against."""


def bench_detector(quick: bool, models: Path, work: Path, device: str = "cpu") -> Iterator[Line]:
    """Images a second with one list of features, and with those of several classes, at full size on the same model."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor, Owlv2ForObjectDetection

    folder = owlv2_of_size(work)
    images = pictures((4 if quick else 16) * (1 if device == "cpu" else 2), SIDE)
    phrases = [f"{a} {b}" for a in THINGS for b in THINGS if a != b][: CLASSES * FEATURES]
    dtype = devices.dtype(devices.precision("auto", device))
    network = Owlv2ForObjectDetection.from_pretrained(folder, dtype=dtype).eval().to(device)
    processor = AutoProcessor.from_pretrained(folder)

    def theirs(lists: list[list[str]]) -> None:
        with torch.inference_mode():
            for image in images:
                for features in lists:
                    inputs = processor(
                        text=[[f"a photo of a {word}" for word in features]],
                        images=Image.fromarray(image),
                        return_tensors="pt",
                    ).to(device, dtype)
                    outputs = network(**inputs)
                    sizes = [image.shape[:2]]
                    processor.post_process_grounded_object_detection(outputs, threshold=0.05, target_sizes=sizes)

    detector = owlv2(device, work / "detector-cache", name=folder, floor=0.05)

    def ours(asked: list[str]) -> None:
        detector._vectors.clear()  # the texts are encoded in every run, once
        detector.detect(images, asked)

    ours(phrases[:2])
    theirs([phrases[:2]])
    lists = [phrases[n * FEATURES : (n + 1) * FEATURES] for n in range(CLASSES)]
    several, mine, _ = ratio_of(lambda: ours(phrases), lambda: theirs(lists))
    one, _, _ = ratio_of(lambda: ours(lists[0]), lambda: theirs(lists[:1]))
    said = f"{len(images)} images, {FEATURES} features a class"
    yield Line("detector", f"over SpurLens' calls, features of {CLASSES} classes", several, 3.0, setting=said)
    yield Line("detector", "over SpurLens' calls, features of one class", one, setting=said)
    yield Line("detector", f"with {len(phrases)} features", len(images) / mine, unit="images/s")
