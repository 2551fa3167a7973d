"""Ablation: edited pictures shown to the model, against plain forwards of as many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bench.speed.lines import Line, ratio_of, seconds_of
from pipeline.bench.speed.models import clip_of_size, pictures
from pipeline.evidence.experiments import MASK
from pipeline.evidence.making import MAKERS, made
from pipeline.evidence.masks import _grabcut
from pipeline.images import RGB
from pipeline.models.open_clip_model import open_clip_classifier

FILLS = ("mean", "blur", "inpaint", "patch")
EACH = 16
"""Edits of a picture: of two cues, each with its placebo, with every fill."""


def bench_edits(quick: bool, models: Path, work: Path, device: str = "cpu") -> Iterator[Line]:
    """Removals with every fill, their placebos and insertions, made and shown, over as many forwards alone."""
    for name, number, side, times, kind in (  # of the second, which takes a second, more turns
        (clip_of_size("ViT-B-32", work), 3 if quick else 12, 256, 3, "ViT-B-32, 256 px"),
        (f"local-dir:{models / 'clip'}", 24 if quick else 96, 96, 7, "tiny CLIP, 96 px"),
    ):
        number *= 1 if device == "cpu" else 2
        model = open_clip_classifier(("boat", "car"), device, name=name)
        shown = pictures(number, side)
        plain = [image for image in shown for _ in range(EACH)]
        asked = [(spec, image, shown[n - 1]) for n, image in enumerate(shown) for spec in _specs(n)]
        model.logits(shown[:2])

        def edited(show: Callable[[Sequence[RGB]], Any] = model.logits) -> None:
            _grabcut.cache_clear()  # each run is a first one
            with made(*zip(*asked, strict=True)) as coming:  # noqa: B023
                show(coming)

        ratio, mine, alone = ratio_of(edited, lambda: model.logits(plain), times)  # noqa: B023
        said = f"{number} pictures, {EACH} edits each"
        yield Line("ablation", f"edited pictures over plain forwards, {kind}", ratio, 0.7, setting=said)
        yield Line("ablation", f"edited pictures, {kind}", len(asked) / mine, unit="images/s")
        if device != "cpu":
            making = seconds_of(lambda: edited(list))
            yield Line("ablation", f"plain forwards, {kind}", len(asked) / alone, unit="images/s")
            said = f"{MAKERS} threads"
            yield Line("ablation", f"made, shown to none, {kind}", len(asked) / making, unit="images/s", setting=said)
            yield Line("ablation", f"edited pictures over the slower of the two, {kind}", max(making, alone) / mine)


def _specs(seed: int) -> Iterator[dict]:
    """The edits of a picture, as an audit asks for them."""
    rng = np.random.default_rng(seed)
    keep = [[0.35, 0.35, 0.75, 0.75]]
    for cue in range(2):
        x, y = rng.uniform(0.02, 0.6, 2).tolist()
        box = [x, y, x + 0.25, y + 0.25]
        places = [[[a, b, a + 0.25, b + 0.25]] for a, b in rng.uniform(0.0, 0.7, (4, 2)).tolist()]
        common = {"keep": keep, "mask": MASK, "seed": seed}
        for fill in FILLS[: 3 if cue else 4]:
            spec = {"op": "fill", "fill": fill, "boxes": [box], **common}
            yield spec
            yield {**spec, "candidates": places}
        if cue:
            spec = {"op": "paste", "donor": "", "from": box, "to": box, "avoid": [], **common}
            yield spec
            yield {**spec, "candidates": [place[0] for place in places]}
