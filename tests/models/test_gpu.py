"""On a GPU models answer as they do on the processor, in half precision too; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.models.devices import Precision
from pipeline.models.open_clip_encoder import open_clip_encoder
from pipeline.models.open_clip_model import open_clip_classifier
from pipeline.planted import render, sample_scene

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU on this machine")

CLIP = f"local-dir:{Path(__file__).parents[2] / 'data' / 'models' / 'clip'}"
CLASSES = ("boat", "car", "dog", "bicycle")


def scenes(number: int) -> list[np.ndarray]:
    """Pictures of several shapes, some of them of the size that the model takes."""
    rng = np.random.default_rng(0)
    shown = [render(sample_scene(rng), 96 if n % 3 else 128).image for n in range(number)]
    return [image if n % 5 else np.ascontiguousarray(image[: 2 * len(image) // 3]) for n, image in enumerate(shown)]


@pytest.mark.parametrize(("precision", "near"), [("fp32", 0.9999), ("bf16", 0.995), ("fp16", 0.999)])
def test_embeddings_are_those_of_the_processor(precision: Precision, near: float) -> None:
    shown = scenes(150)
    boxes = [np.array([[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.6, 0.9]])[: 1 + n % 2] for n in range(len(shown))]
    here = open_clip_encoder("cpu", name=CLIP)
    there = open_clip_encoder("cuda", name=CLIP, precision=precision)
    assert (here.images(shown) * there.images(shown)).sum(axis=1).min() > near
    pairs = zip(here.regions(shown, boxes), there.regions(shown, boxes), strict=True)
    assert min((a * b).sum(axis=1).min() for a, b in pairs) > near


def test_predictions_are_those_of_the_processor_and_no_matter_of_the_batch() -> None:
    shown = scenes(300)
    here = open_clip_classifier(CLASSES, "cpu", name=CLIP).logits(shown)
    for precision, most in (("fp32", 0.05), ("bf16", 2.0)):
        there = open_clip_classifier(CLASSES, "cuda", name=CLIP, precision=precision).logits(shown)
        assert np.abs(here - there).max() < most, precision
    one, other = (
        open_clip_classifier(CLASSES, "cuda", name=CLIP, precision="fp32", batch=batch).logits(shown)
        for batch in (7, "auto")
    )
    np.testing.assert_allclose(one, other, atol=0.05)
